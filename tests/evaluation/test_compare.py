"""Runs that differ only in their seed are one method; what does not go together is refused."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic_run
from synthetic_run import write_run

from errors import UserError
from evaluation.compare import _figure, compare, main
from evaluation.compare_report import _figure as shown
from evaluation.compare_report import games_table, markdown, publish
from evaluation.methods import descriptions, find, is_finished, read
from evaluation.statistics import aggregate, interquartile_mean, mean_band

GAMES = ("road_runner", "krull", "boxing")


def make(path, seed=0, batch=32, **settings):
    write_run(path, seed=seed, **({"cycles": 1} | settings))
    text = f"run: {path}\ntitle: t\nseed: {seed}\nagent:\n  batch_size: {batch}\n"
    (path / "config.yaml").write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, seed, batch in (("a-s0", 0, 32), ("a-s1", 1, 32), ("b-s0", 0, 64)):
        make(folder / name, seed, batch)
    (folder / "notes").mkdir()  # no run
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    return [make(folder / f"{game}-s0", games=(game,)) for game in GAMES]


def named(*paths):
    return [(None, str(p)) for p in paths]


def test_seeds_are_grouped_and_figures_are_those_of_the_runs(folder):
    result = compare(find(str(folder), "compare"))
    first, second = result.methods
    assert (first.name, second.name) == ("a", "b")
    assert [run.seed for run in first.runs] == [0, 1]
    expected = [run.log.metrics().forgetting for run in first.runs]
    np.testing.assert_allclose(first.figures["forgetting"].by_run, expected)
    average = first.figures["average"]
    assert average.interval[0] < average.iqm < average.interval[1]
    assert average.mean == pytest.approx(first.scores.mean())
    alone = second.figures["average"]
    assert alone.interval is None  # one seed says nothing about others
    assert any("one seed" in note for note in result.notes)


def test_probability_of_improvement_counts_pairs(folder, tmp_path):
    from itertools import product

    a, b = compare(named(folder / "a-s0", folder / "a-s1", make(tmp_path / "b-s2", 2, 64))).methods
    wins = [
        np.mean([0.5 if x == y else x > y for x, y in product(b.scores[:, g], a.scores[:, g])])
        for g in range(3)
    ]
    assert b.improvement.point == pytest.approx(np.mean(wins))
    assert a.improvement is None
    assert not b.improvement_known


def test_one_page_holds_everything(folder, single, tmp_path, capsys):
    out = tmp_path / "out"
    main({"compare": f"{folder}/*", "single": ",".join(single), "baseline": "b", "out": str(out)})
    data = json.loads((out / "comparison.json").read_text())
    assert [m["method"] for m in data["methods"]] == ["b", "a"]
    assert [len(m["runs"]) for m in data["methods"]] == [1, 2]
    assert data["methods"][1]["intransigence"]["by_game"].keys() == set(GAMES)
    assert str(folder) not in json.dumps({**data, "command": ""})
    html = (out / "report.html").read_text()
    for name in ("curves", "figures", "matrices", "profiles", "costs"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f'alt="{name}" src="data:image/png;base64,' in html
    printed = capsys.readouterr().out
    assert "| a | 2 |" in printed
    assert (out / "table.md").read_text() in printed


def test_single_task_references(folder, single, tmp_path):
    (without,) = compare(named(folder / "a-s0")).methods
    assert without.figures["intransigence"] is None
    (given,) = compare(named(folder / "a-s0"), named(*single)).methods
    (found,) = compare(named(folder / "a-s0", *single)).methods  # among the others
    assert found.figures == given.figures
    assert given.figures["intransigence"].by_game.keys() == set(GAMES)
    scaled = compare(named(folder / "a-s0", *single), scale="single")
    ratio = scaled.methods[0].figures["average"].by_game["krull"]
    whole = given.figures["average"].by_game["krull"]
    last = compare(named(folder / "a-s0", *single)).alone["krull"]
    assert ratio == pytest.approx(whole / last)
    assert scaled.alone == dict.fromkeys(GAMES, 1.0)
    other = make(tmp_path / "freeway-s0", games=("freeway-m1",))
    notes = compare(named(folder / "a-s0", other), named(*single)).notes
    assert "freeway-s0 is left out: freeway-m1 is none of the sequence's games" in notes
    twice = compare(named(folder / "a-s0", *single), named(*single))
    assert twice.methods[0].figures == given.figures


def test_references_of_another_budget_are_said(folder, single, tmp_path):
    runs = named(folder / "a-s0")
    assert not any("alone" in n for n in compare(runs, named(*single)).notes)
    short = make(tmp_path / "krull-s0", games=("krull",), steps_per_task=2_000)
    notes = compare(runs, named(short)).notes
    had = "a had 10,000 agent steps of krull, the runs on it alone 2,000"
    assert any(note.startswith(had) for note in notes)
    assert any("shorter than a visit" in note for note in notes)
    assert not any("single=" in note for note in notes)


def test_runs_of_before_a_key_are_the_same_agent(folder, single, tmp_path):
    """Where they all went by its default."""
    later = make(tmp_path / "a-s7", seed=7)
    with open(Path(later) / "config.yaml", "a") as file:
        file.write("start_from: null\nplanner: {depth: 1}\n")
    before = make(tmp_path / "a-s8", seed=8)
    with open(Path(before) / "config.yaml", "a") as file:
        file.write("planner: {depth: 1, margin: 0.0}\n")
    (method,) = compare(named(later, before)).methods
    assert method.name == "a"
    result = compare(named(folder / "a-s0"), named(*single))
    assert not any("of its own" in note for note in result.notes)


def test_a_game_without_a_scale_is_still_part_of_the_sequence(
    folder, single, tmp_path, monkeypatch
):
    """What its training did to the others is theirs, though it is not reported itself."""
    runs, alone = named(folder / "a-s0"), [s for s in single if "boxing" not in s]
    whole = compare(runs, named(*single), scale="single").methods[0]
    monkeypatch.setitem(synthetic_run.GAMES, "boxing", (0.1, 12.1, -0.3))
    low = make(tmp_path / "boxing-s0", games=("boxing",))
    result = compare(runs, named(*alone, low), scale="single")
    (left,) = result.methods
    assert result.games == ("road_runner", "krull")
    assert left.metrics[0].visits == whole.metrics[0].visits
    for figure in ("average", "forgetting", "intransigence"):
        kept = {g: x for g, x in whole.figures[figure].by_game.items() if g != "boxing"}
        assert left.figures[figure].by_game == pytest.approx(kept)
    publish(result, tmp_path / "out", "")
    assert (tmp_path / "out" / "report.html").exists()


def test_seeds_of_different_lengths_are_drawn(folder, tmp_path):
    longer = make(tmp_path / "a-s7", seed=7, cycles=2)
    for first, second in [("a-s0", longer), (longer, "a-s0")]:
        result = compare([("a", str(folder / first)), ("a", str(folder / second))])
        assert any("different budgets" in note for note in result.notes)
        publish(result, tmp_path / "out", "")


def test_finished_is_what_was_trained_saved_and_reported(folder, tmp_path):
    path = Path(make(tmp_path / "r-s0"))
    assert read(str(path)).finished
    assert not is_finished(path)
    (path / "report").mkdir()
    (path / "report" / "report.html").write_text("")
    assert is_finished(path)
    (path / "manifest.json").unlink()
    with open(path / "config.yaml", "a") as file:
        file.write("sequence:\n  games: [a, b, c]\n  cycles: 9\n  steps_per_task: 1000000\n")
    assert not is_finished(path)


def test_a_method_is_judged_by_its_own_agent_alone(folder, single, tmp_path):
    def alone(batch, seed=0, games=GAMES):
        paths = [tmp_path / f"{g}-{batch}-s{seed}" for g in games]
        return [
            make(p, seed, batch, games=(g,), steps_per_task=20_000) for p, g in zip(paths, games)
        ]

    def intransigence(result):
        return [m.figures["intransigence"] for m in result.methods]

    own = alone(64)
    runs = named(folder / "a-s0", folder / "b-s0")
    both = compare(runs, named(*single, *own))
    ours, theirs = compare(runs, named(*single)), compare(runs, named(*own))
    assert None not in intransigence(both)
    assert intransigence(both) == [intransigence(ours)[0], intransigence(theirs)[1]]
    assert intransigence(ours)[1] != intransigence(theirs)[1]
    assert both.methods[0].alone == ours.alone == both.alone
    assert both.methods[1].alone == theirs.alone
    assert not any("single-task" in note for note in both.notes)
    lines = [row[0] for row in games_table(both)]
    assert lines[1:3] == ["a alone", "b alone"]
    assert [row[0] for row in games_table(ours)][1:3] == ["alone", "a"]
    assert compare(runs, named(*single, *own), "b").alone == theirs.alone
    # who has none is judged by the others', and the report says whose
    (note,) = (n for n in ours.notes if "single-task" in n)
    assert "judged by those of a (" in note
    assert note.endswith("): b")
    assert "judged by another agent's" in " ".join(
        compare(named(folder / "a-s0"), named(*own)).notes
    )
    # of two others' neither is his
    third = make(tmp_path / "c-s0", 0, 16)
    several = compare([*runs, (None, third)], named(*single, *own))
    assert intransigence(several) == [*intransigence(both), None]
    assert any("of several agents" in n and n.endswith(": c") for n in several.notes)
    assert "| c | 1 |" in markdown(several)
    # what is missing of the own is not taken from others
    (krull,) = (p for p in own if "krull" in p)
    partly = compare(runs, named(*single, krull))
    assert partly.methods[1].figures["intransigence"].by_game.keys() == {"krull"}
    assert "b has no run of its own on boxing, road_runner alone" in partly.notes


def test_two_references_of_which_either_could_be_meant_are_refused(folder, single, tmp_path):
    again = make(tmp_path / "again", games=("krull",))
    with pytest.raises(UserError, match="the same agent on krull alone with seed 0: leave one"):
        compare(named(folder / "a-s0"), named(*single, again))


def test_a_run_that_is_not_finished_is_left_out_and_said_so(folder, tmp_path):
    half = tmp_path / "half-s0"
    make(half, batch=8)
    lines = (half / "metrics.jsonl").read_text().splitlines(keepends=True)
    (half / "metrics.jsonl").write_text("".join(lines[: len(lines) // 2]))
    (half / "manifest.json").write_text(json.dumps({"budget_agent_steps": 30_000}))
    result = compare(named(folder / "a-s0", half))
    assert [m.name for m in result.methods] == ["a"]
    assert "half-s0 is left out" in result.notes[0]
    assert "30k agent steps" in result.notes[0]
    with pytest.raises(UserError, match="finished"):
        compare(named(half))


def test_names(folder, tmp_path):
    given = compare(find(f"x={folder}/a-s*,y={folder}/b-s0", "compare"))
    assert [(m.name, len(m.runs)) for m in given.methods] == [("x", 2), ("y", 1)]
    mixed = compare(find(f"z={folder}/a-s1,z={folder}/b-s0", "compare"))
    assert "z: its runs differ in agent.batch_size" in mixed.notes
    stamped = [
        make(tmp_path / f"t-20260101-00000{i}-s0", batch=batch) for i, batch in enumerate((32, 64))
    ]
    names = [m.name for m in compare(named(*stamped)).methods]
    assert names == ["agent.batch_size=32", "agent.batch_size=64"]


def test_descriptions_use_the_words_of_the_command_line():
    plain = {"replay": {"kind": "fifo", "clone_policy": 0.0, "clone_value": 0.0}, "seed": 0}
    cloning = {"replay": {"kind": "fifo_and_reservoir", "clone_policy": 0.1, "clone_value": 0.1}}
    assert descriptions([plain, cloning]) == ["replay=fifo", "replay=cloning"]
    ewc = {**plain, "consolidation": ["online_ewc"]}
    said = descriptions([{**plain, "consolidation": []}, ewc])
    assert said == ["consolidation=[]", "consolidation=[online_ewc]"]
    three = [{**plain, "consolidation": []}, {**cloning, "consolidation": []}, ewc]
    assert descriptions(three) == [
        "replay=fifo",
        "replay=cloning",
        "consolidation=[online_ewc] replay=fifo",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{f}/nothing", "no run there"),
        ("{f}/*-s9", "no run there"),
        ("{f}/a-s0,{f}/../{n}/a-s0", "twice"),
        ("={f}/a-s0", "name before = is empty"),
        (",", "empty"),
    ],
)
def test_folders_that_are_no_runs_are_refused(folder, words, message):
    with pytest.raises(UserError, match=message):
        find(words.format(f=folder, n=folder.name), "compare")


def test_what_does_not_go_together_is_refused(folder, tmp_path):
    other = make(tmp_path / "other", games=("krull", "boxing"))
    with pytest.raises(UserError, match="has games"):
        compare(named(folder / "a-s0", other))
    with pytest.raises(UserError, match="seed 0"):
        compare(named(folder / "a-s0", make(tmp_path / "again-s0")))
    with pytest.raises(UserError, match="choose from a, b"):
        compare(find(str(folder), "compare"), baseline="c")
    with pytest.raises(UserError, match="road_runner, krull, boxing alone"):
        compare(named(folder / "a-s0"), scale="single")
    with pytest.raises(UserError, match="does not take"):
        main({"compare": str(folder), "step": "3"})


def test_intervals_are_those_of_rliable_and_of_plain_arithmetic():
    for shape in ((3, 4), (1, 3), (2, 5)):
        table = np.random.default_rng(0).normal(1, 0.5, shape)
        expected = aggregate({"x": table}, repetitions=50)["x"].iqm  # the same resamples
        np.testing.assert_allclose(interquartile_mean(table, repetitions=50), expected)
    low, high = mean_band(np.array([[0.0, 5.0], [1.0, 5.0]]))
    np.testing.assert_allclose(low, [0, 5])  # a quarter of the resamples holds one run twice
    np.testing.assert_allclose(high, [1, 5])


def test_a_game_that_is_lost_among_others_shows_in_the_mean():
    """The IQM over games leaves it out."""
    games = [f"game{i}" for i in range(4)]
    lost = SimpleNamespace(forgetting_by_game=dict(zip(games, [1.0, 0.0, 0.0, 0.0])))
    assert shown("forgetting", _figure("forgetting", [lost])) == "0.00; mean +0.25"


@pytest.mark.parametrize("bare", [["krull"], list(GAMES)])
def test_games_without_published_scores_are_left_out(tmp_path, bare):
    path = tmp_path / "a-s0"
    make(path)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "eval" and line["game"] in bare:
            line["hns"] = None
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text)
    if len(bare) == len(GAMES):
        with pytest.raises(UserError, match="no game has published random and human scores"):
            compare(named(path))
        return
    result = compare(named(path))
    assert result.games == ("road_runner", "boxing")
    assert any(note.endswith("human scores: krull") for note in result.notes)
    publish(result, tmp_path / "out", "x")


def test_a_configuration_that_is_no_text_is_one_line(folder, tmp_path):
    path = tmp_path / "run-s0"
    shutil.copytree(folder / "a-s0", path)
    (path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"config\.yaml is no YAML: restore it from a copy"):
        compare(named(path))


def test_bare_names_are_looked_for_among_the_runs(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "runs" / "swept")
    assert len(find("swept", "compare")) == 3


def test_table_has_a_row_a_method(folder):
    lines = markdown(compare(find(str(folder), "compare"))).splitlines()
    assert sum(line.startswith("|") for line in lines) == 4
