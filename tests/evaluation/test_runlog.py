"""Reading metrics.jsonl: records, unfinished and damaged lines."""

import json

import pytest

from errors import UserError
from evaluation.runlog import FILE_NAME, read_run_log
from evaluation.summary import summarise, summary_table, summary_text
from training import telemetry

EVAL = {"step": 0, "kind": "eval", "task": 0, "game": "pong", "returns": [-21.0, -20.0]}
LINES = [
    {**EVAL, "hns": (-20.5 + 20.7) / 35.3},
    {
        "step": 0,
        "kind": "task",
        "task": 0,
        "game": "pong",
        "event": "begin",
        "steps": 9,
        "cycle": 0,
    },
    {"step": 4, "kind": "train", "task": 0, "game": "pong", "loss/td": 0.5, "spikes/rate/c": None},
    {"step": 5, "kind": "episode", "task": 0, "game": "pong", "return": -19.0, "length": 3},
    {"step": 6, "kind": "continual", "average": 0.1},
    {"step": 7, "kind": "something newer"},
    {"step": 8, "kind": "train", "task": 0, "game": "pong", "loss/td": 0.25, "spikes/rate/c": 0.1},
    {**EVAL, "step": 9, "returns": [14.6], "hns": 1.0},
    {"step": 9, "kind": "task", "task": 0, "game": "pong", "event": "end", "steps": 9, "cycle": 0},
]


def write(folder, lines, end="\n"):
    text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    (folder / FILE_NAME).write_text(text + end)
    return folder


def test_records(tmp_path):
    log = read_run_log(write(tmp_path, LINES))
    assert log.games == ("pong",)
    assert [e.step for e in log.evaluations["pong"]] == [0, 9]
    assert log.visits == [("pong", 0, 9)]
    assert log.cycles == [0]
    assert log.episodes[0].score == -19.0
    assert log.last_step == 9
    curve = log.scalars("loss/")["td"]
    assert (curve.steps.tolist(), curve.scores.tolist()) == ([4, 8], [0.5, 0.25])
    assert log.scalars("spikes/rate/")["c"].steps.tolist() == [8]  # null is no point
    assert log.curves()["pong"].scores[-1] == 1.0
    assert log.raw_curves()["pong"].scores.tolist() == [-20.5, 14.6]


def test_file_name_is_the_one_that_is_written():
    assert FILE_NAME == telemetry.FILE_NAME


@pytest.mark.parametrize("cut", ['{"step": 10, "kind": "ev', '{"step": 10', "{"])
def test_an_unfinished_last_line_is_tolerated(tmp_path, cut):
    log = read_run_log(write(tmp_path, [*LINES, cut], end=""))
    assert log.last_step == 9


@pytest.mark.parametrize(
    "damaged",
    [
        "{oops",
        "",
        "[1, 2]",
        '{"kind": "train"}',
        '{"step": 1.5, "kind": "train"}',
        '{"step": 1}',
        '{"step": 1, "kind": "eval", "task": 0, "game": "pong", "hns": 1}',
        '{"step": 1, "kind": "episode", "task": 0, "game": "pong", "return": null, "length": 1}',
    ],
)
def test_other_damage_names_the_line(tmp_path, damaged):
    folder = write(tmp_path, [LINES[0], damaged, *LINES[1:]])
    with pytest.raises(UserError, match=r"metrics\.jsonl line 2") as caught:
        read_run_log(folder)
    assert "\n" not in str(caught.value)


def test_evaluations_out_of_order_name_the_line(tmp_path):
    told = '{"step": %d, "kind": "eval", "task": 0, "game": "pong", "returns": [1.0], "hns": 0.1}'
    with pytest.raises(UserError, match=r"line 2 .*evaluation at 5 after one at 9"):
        read_run_log(write(tmp_path, [told % 9, told % 5]))


def test_an_end_without_a_beginning_is_damage(tmp_path):
    with pytest.raises(UserError, match="line 1 "):
        read_run_log(write(tmp_path, LINES[-1:]))


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_run_log(tmp_path / "none")


def test_end_table(tmp_path):
    (row,) = summarise(read_run_log(write(tmp_path, LINES)))
    assert row.game == "pong"
    assert row.random == pytest.approx(-20.7)
    assert (row.start, row.best, row.end, row.hns) == (-20.5, 14.6, 14.6, 1.0)
    assert row.forgetting == 0.0


def test_end_table_without_normalised_scores(tmp_path):
    lines = [{**line, "hns": None} if line["kind"] == "eval" else line for line in LINES]
    log = read_run_log(write(tmp_path, lines))
    (row,) = summarise(log)
    assert (row.random, row.end, row.forgetting) == (-20.7, 14.6, None)
    text = summary_text(log).splitlines()
    assert text[1].split() == ["pong", "-20.7", "-20.5", "14.6", "14.6", "-", "-"]
    assert summary_table(log).row_count == 1
