"""Runs that differ only in their seed are one method; what does not go together is refused."""

import json

import pytest
from synthetic_run import write_run

from errors import UserError
from evaluation.compare import compare, main, markdown


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    out = []
    for name, seed, batch in (("a-0", 0, 32), ("a-1", 1, 32), ("b-0", 0, 64)):
        path = write_run(folder / name, seed=seed, cycles=1)
        text = f"run: {path}\ntitle: t\nseed: {seed}\nagent:\n  batch_size: {batch}\n"
        (path / "config.yaml").write_text(text)
        out.append(str(path))
    return out


def test_seeds_are_grouped_and_figures_are_those_of_the_runs(runs):
    first, second = compare(runs)
    assert first.runs == tuple(runs[:2])
    assert second.runs == tuple(runs[2:])
    expected = first.logs[1].metrics().forgetting
    assert first.figures["forgetting"][1] == expected
    assert second.figures["forgetting"][0] == first.figures["forgetting"][0]  # the same numbers
    assert first.iqm.low <= first.iqm.point <= first.iqm.high
    assert first.iqm.low < first.iqm.high
    assert markdown([first, second]).count("\n") == 4


def test_report_is_written(runs, tmp_path, capsys):
    main({"compare": ",".join(runs), "out": str(tmp_path / "out")})
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [len(m["runs"]) for m in data] == [2, 1]
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "| a-0 | 2 |" in capsys.readouterr().out


def test_single_task_references_give_intransigence(runs, tmp_path):
    names = ("road_runner", "krull", "boxing")
    single = [str(write_run(tmp_path / g, games=(g,), cycles=1)) for g in names]
    assert compare(runs[:1])[0].figures["intransigence"] == (None,)
    assert compare(runs[:1], single)[0].figures["intransigence"][0] is not None


def test_other_games_and_runs_named_twice_are_refused(runs, tmp_path):
    other = str(write_run(tmp_path / "other", games=("krull", "boxing"), cycles=1))
    with pytest.raises(UserError, match="has games"):
        compare([runs[0], other])
    with pytest.raises(UserError, match="twice"):
        compare([runs[0], runs[0]])
