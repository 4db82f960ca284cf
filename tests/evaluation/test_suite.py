"""Aggregates over agents that were trained on single games."""

import json

import numpy as np
import pytest
from synthetic_run import write_run

import evaluate
from errors import UserError
from evaluation.methods import find
from evaluation.statistics import aggregate, probability_of_improvement
from evaluation.suite import judge

GAMES = ("boxing", "krull", "road_runner")


def make(path, game, seed, batch=32, steps=10_000, longest=None, more=""):
    write_run(path, games=(game,), cycles=1, seed=seed, steps_per_task=steps)
    judged = f"eval:\n  max_steps: {longest}\n" if longest else ""
    (path / "config.yaml").write_text(
        f"run: {path}\ntitle: t\nseed: {seed}\nagent:\n  batch_size: {batch}\n"
        f"sequence:\n  games: [{game}]\n  cycles: 1\n  steps_per_task: {steps}\n{judged}{more}"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    for game in GAMES:
        for seed in (0, 1):
            make(folder / f"a-{game}-s{seed}", game, seed)
            make(folder / f"b-{game}-s{seed}", game, seed + 4, batch=64)
    return folder


def last(folder, key):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = [line for line in map(json.loads, lines) if line["kind"] == "eval"]
    return np.mean(found[-1][key])


def test_figures_are_those_of_rliable_over_the_last_evaluations(folder):
    result = judge(find(str(folder), "suite"))
    assert result.games == GAMES
    first, second = result.scores
    assert (first, second) == ("agent.batch_size=32", "agent.batch_size=64")
    for name, letter in ((first, "a"), (second, "b")):
        folders = [[folder / f"{letter}-{g}-s{s}" for g in GAMES] for s in (0, 1)]
        scores = [[last(f, "hns") for f in row] for row in folders]
        np.testing.assert_allclose(result.scores[name], scores)
        np.testing.assert_allclose(
            result.raw[name], [[last(f, "returns") for f in row] for row in folders]
        )
        np.testing.assert_allclose(
            np.array(result.aggregates[name]),
            np.array(aggregate({"x": np.array(scores)})["x"]),
        )
    np.testing.assert_allclose(
        result.better[second],
        probability_of_improvement(result.scores[second], result.scores[first]),
    )


def test_the_command_writes_tables_and_data(folder, tmp_path, capsys):
    words = [f"suite=ours={folder}/a-*,theirs={folder}/b-*", "baseline=theirs"]
    assert evaluate.main([*words, f"out={tmp_path}/out"]) == 0
    out = capsys.readouterr().out
    assert "P(better than theirs)" in out
    assert "3 games" in out
    assert (tmp_path / "out" / "table.md").read_text() in out
    data = json.loads((tmp_path / "out" / "suite.json").read_text())
    assert list(data["methods"]) == ["theirs", "ours"]
    low, high = data["methods"]["ours"]["mean"]["interval"]
    assert low < data["methods"]["ours"]["mean"]["point"] < high


def test_games_and_seeds_that_some_lack_are_left_out_and_said(folder, tmp_path):
    make(tmp_path / "c-boxing-s0", "boxing", 0, batch=8)
    result = judge(find(f"{folder}/a-*,{tmp_path}/*", "suite"))
    assert result.games == ("boxing",)
    assert any("krull, road_runner left out" in note for note in result.notes)
    one = judge(find(f"{folder}/a-*-s0,{folder}/a-boxing-s1", "suite"))
    assert one.seeds == {"agent": 1}
    assert any("the first 1 of up to 2 seeds" in note for note in one.notes)


def test_unequal_budgets_and_evaluations_are_said(folder, tmp_path):
    make(tmp_path / "a-boxing-s1", "boxing", 1, steps=4_000)
    make(tmp_path / "b-boxing-s4", "boxing", 4, batch=64, longest=100)
    words = f"{folder}/a-boxing-s0,{tmp_path}/a-boxing-s1,{tmp_path}/b-boxing-s4"
    notes = judge(find(words, "suite")).notes
    one, two = "agent.batch_size=32", "agent.batch_size=64"
    assert f"{one}: its runs had different agent steps: 4,000 and 10,000" in notes
    assert f"not the same agent steps: {one} 4,000 and 10,000; {two} 10,000" in notes
    longest = "agent steps an evaluated episode"
    assert f"not the same {longest}: {one} unknown; {two} 100" in notes
    assert judge(find(str(folder), "suite")).notes == []


def test_runs_of_before_a_key_are_the_same_method(folder, tmp_path):
    """Where they all went by its default."""
    make(tmp_path / "a-boxing-s1", "boxing", 1, more="start_from: null\n")
    assert judge(find(f"{folder}/a-boxing-s0,{tmp_path}/*", "suite")).seeds == {"agent": 2}
    make(tmp_path / "a-boxing-s1", "boxing", 1, more="start_from: runs/x\n")
    assert len(judge(find(f"{folder}/a-boxing-s0,{tmp_path}/*", "suite")).seeds) == 2


def test_what_is_no_suite_is_one_line(folder, tmp_path):
    write_run(tmp_path / "both-s0", cycles=1)
    (tmp_path / "both-s0" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="has 3 games: compare= judges sequences"):
        judge(find(str(tmp_path), "suite"))
    with pytest.raises(UserError, match="choose from agent"):
        judge(find(f"{folder}/a-*", "suite"), baseline="nobody")
    make(tmp_path / "again" / "x-s0", "boxing", 0)
    with pytest.raises(UserError, match="a second run of agent on boxing with seed 0"):
        judge(find(f"{folder}/a-boxing-s0,{tmp_path}/again/*", "suite"))
    assert evaluate.main([f"suite={folder}", "scale=human"]) == 2
