"""metrics.jsonl and TensorBoard: what is written, and what a resumed run leaves."""

import json
import shutil

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from errors import UserError
from evaluation.figures import board_figures
from tests.evaluation.synthetic_run import calls, play
from training.telemetry import (
    BOUNDARIES,
    FILE_NAME,
    WALL_CLOCK_FIELDS,
    Telemetry,
    custom_layout,
)

GAMES = ("road_runner", "krull", "boxing")
SETTINGS = {"games": GAMES, "steps_per_task": 2_000, "cycles": 1}


@pytest.fixture(autouse=True)
def names_in_order(monkeypatch):
    """TensorBoard reads the files of a folder by name: second, process, then a counter without
    leading zeros. Two runs of one process within one second would be read as 10 before 9."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(1_000))


def lines(folder):
    return [json.loads(line) for line in (folder / FILE_NAME).read_text().splitlines()]


def comparable(folder):
    return [{k: v for k, v in x.items() if k not in WALL_CLOCK_FIELDS} for x in lines(folder)]


def board(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    return events.Reload()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    telemetry = Telemetry(folder, GAMES, figures=board_figures)
    play(telemetry, calls(**SETTINGS))
    telemetry.close()
    return folder


def test_every_line_has_step_and_kind(whole):
    written = lines(whole)
    assert all(isinstance(x["step"], int) and isinstance(x["kind"], str) for x in written)
    assert {x["kind"] for x in written} == {"train", "episode", "eval", "continual", "task"}
    assert len(written) == sum(name != "checkpoint" for name, _ in calls(**SETTINGS))
    train = next(x for x in written if x["kind"] == "train")
    assert train.keys() >= WALL_CLOCK_FIELDS
    assert train.keys() >= {"loss/td", "spikes/rate/conv1", "agent/epsilon"}


@pytest.mark.parametrize("kill_after", [0, 1, 3, 17, 40, 1_000])
def test_resume_leaves_the_lines_of_an_uninterrupted_run(whole, tmp_path, kill_after):
    what = calls(**SETTINGS)
    marks = [k for k, (name, _) in enumerate(what) if name == "checkpoint"]
    mark = marks[len(marks) // 2]
    first = Telemetry(tmp_path, GAMES)
    play(first, what[:mark])
    state = first.state_dict()
    play(first, what[mark : mark + kill_after])  # lost with the process: no close()
    with open(tmp_path / FILE_NAME, "ab") as file:
        file.write(b'{"step": 99, "kind": "tr')  # killed while writing
    state = save_and_load(state, tmp_path)
    second = Telemetry(tmp_path, GAMES)
    second.load_state_dict(state)
    play(second, what[mark:])
    second.close()
    first.close()
    assert comparable(tmp_path) == comparable(whole)
    assert (second.curves, second.schedule) == (first_of(whole).curves, first_of(whole).schedule)


def first_of(folder):
    """A telemetry that has read a whole run back."""
    telemetry = Telemetry(folder, GAMES)
    size = (folder / FILE_NAME).stat().st_size
    telemetry.load_state_dict({"position": size, "step": 0, "seconds": 0.0})
    return telemetry


def save_and_load(state, tmp_path):
    torch.save(state, tmp_path / "state.pt")
    return torch.load(tmp_path / "state.pt", weights_only=True)


def test_tensorboard_forgets_what_the_checkpoint_does_not_know(whole, tmp_path):
    what = calls(**SETTINGS)
    mark = next(k for k, x in enumerate(what) if x == ("checkpoint", 3_000))
    first = Telemetry(tmp_path, GAMES)
    play(first, what[:mark])
    state = first.state_dict()
    first.eval(3_500, 1, "krull", [1e6], 99.0)
    first.eval(9_000, 1, "krull", [1e6], 99.0)
    first.close()
    second = Telemetry(tmp_path, GAMES)
    second.load_state_dict(state)
    play(second, what[mark:])
    second.close()
    ours, theirs = (
        [(e.step, e.value) for e in board(f).Scalars("eval/hns/krull")] for f in (tmp_path, whole)
    )
    assert ours == theirs
    ours, theirs = (
        [(e.step, e.value) for e in board(f / "games" / "krull").Scalars("games/hns")]
        for f in (tmp_path, whole)
    )
    assert ours == theirs


def test_tensorboard_has_every_tag_and_the_figures(whole):
    events = board(whole)
    scalars = set(events.Tags()["scalars"])
    for game in GAMES:
        assert {
            f"eval/return/{game}",
            f"eval/hns/{game}",
            f"continual/forgetting/{game}",
        } <= scalars
    assert {"continual/average", "loss/td", "spikes/rate/linear", "task/index"} <= scalars
    assert "perf/agent_steps_per_s" in scalars
    assert set(events.Tags()["images"]) == {"figures/forgetting", "figures/task_by_time"}
    steps = [e.step for e in events.Images("figures/forgetting")]
    assert steps[-1] == 6_000
    assert {2_000, 4_000} <= set(steps)  # at the end of every visit
    assert steps == sorted(steps)
    assert len(steps) < 7  # but not at every evaluation
    assert [e.value for e in events.Scalars("task/index")] == [0, 0, 1, 1, 2, 2]


def test_each_game_is_a_run_of_its_own_so_that_a_chart_shows_all_in_their_colours(whole):
    assert {p.name for p in (whole / "games").iterdir()} == {*GAMES, BOUNDARIES}
    for game in GAMES:
        events = board(whole / "games" / game)
        for ours, theirs in (("games/hns", "eval/hns/"), ("games/return", "eval/return/")):
            points = [(e.step, e.value) for e in events.Scalars(ours)]
            assert points == [(e.step, e.value) for e in board(whole).Scalars(theirs + game)]
            assert len(points) > 3
        assert "games/forgetting" in events.Tags()["scalars"]
    layout = custom_layout()["forgetting curves"]
    assert [tags for _, tags in layout.values()] == [["games/hns$"], ["games/return$"]]


def test_boundaries_rise_to_the_highest_score_where_a_task_ends(whole):
    points = [(e.step, e.value) for e in board(whole / "games" / BOUNDARIES).Scalars("games/hns")]
    assert points[0] == (0, 0)
    assert points[-1] == (6_000, 0)
    ends = (2_000, 4_000, 6_000)
    up = [[x for x in points if end - 20 < x[0] <= end and x[1]] for end in ends]
    assert sum(map(len, up)) == sum(value != 0 for _, value in points)
    tops = [(end, rising[0][1]) for end, rising in zip(ends, up)]
    scores = [(x["step"], x["hns"]) for x in lines(whole) if x["kind"] == "eval"]
    for end, top in tops:
        # An evaluation at the boundary itself may come before or after it.
        until = [max(h for s, h in scores if s < end), max(h for s, h in scores if s <= end)]
        assert np.isclose(top, until, rtol=1e-6).any()


def test_layout_is_written(whole):
    assert "custom_scalars__config__" in board(whole).Tags()["tensors"]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    telemetry = Telemetry(tmp_path, GAMES)
    numbers = {"loss/td": float("nan"), "loss/x": torch.tensor(np.inf), "n": np.int64(3)}
    telemetry.train(5, 0, "krull", numbers, 10.0)
    telemetry.eval(6, 0, "krull", [np.float32(1.5)], np.nan)
    telemetry.close()
    train, evaluation = lines(tmp_path)
    assert (train["loss/td"], train["loss/x"], train["n"]) == (None, None, 3)
    assert (evaluation["returns"], evaluation["hns"]) == ([1.5], None)
    assert telemetry.curves["krull"] == []
    assert "loss/td" not in board(tmp_path).Tags()["scalars"]


def test_a_line_is_on_its_way_as_soon_as_it_is_written(tmp_path):
    telemetry = Telemetry(tmp_path, GAMES)
    telemetry.episode(1, 0, "krull", 10.0, 5)
    assert lines(tmp_path)[0]["return"] == 10.0
    telemetry.close()


def test_nothing_is_touched_before_the_first_number(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    before = {p.name: p.stat().st_size for p in folder.iterdir()}
    first_of(folder).close()
    assert {p.name: p.stat().st_size for p in folder.iterdir()} == before


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(tmp_path):
    for value in (1.0, 2.0):
        telemetry = Telemetry(tmp_path, GAMES)
        telemetry.eval(0, 0, "krull", [value], value)
        telemetry.close()
    assert [x["hns"] for x in lines(tmp_path)] == [2.0]
    assert "1.0" in (tmp_path / "metrics.old.jsonl").read_text()
    assert [e.value for e in board(tmp_path).Scalars("eval/hns/krull")] == [2.0]


def test_a_file_that_lost_lines_is_refused(whole, tmp_path):
    size = (whole / FILE_NAME).stat().st_size
    state = {"position": size, "step": 0, "seconds": 0.0}
    text = (whole / FILE_NAME).read_text()
    (tmp_path / FILE_NAME).write_text(text[:-10])
    with pytest.raises(UserError, match="put the whole file back"):
        Telemetry(tmp_path, GAMES).load_state_dict(state)
    (tmp_path / FILE_NAME).write_text("x" + text[1:])
    with pytest.raises(UserError, match="line 1 is damaged"):
        Telemetry(tmp_path, GAMES).load_state_dict(state)
    with pytest.raises(UserError, match="has 0 bytes"):
        Telemetry(tmp_path / "none", GAMES).load_state_dict(state)


def test_state_cannot_come_after_numbers(tmp_path):
    telemetry = Telemetry(tmp_path, GAMES)
    telemetry.episode(1, 0, "krull", 10.0, 5)
    with pytest.raises(ValueError, match="before the first"):
        telemetry.load_state_dict(telemetry.state_dict())
    telemetry.close()
