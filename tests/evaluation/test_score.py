"""Many episodes of a trained agent: those of its own evaluations first, and bad words."""

import json

import numpy as np
import pytest

import evaluate
import train
from evaluation.evaluator import EvalResult
from evaluation.score import row, table
from tests.test_command_line import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run whose evaluations are half random."""
    folder = tmp_path_factory.mktemp("score") / "run"
    words = ["sequence.games=[catch,krull]", "agent.updates_per_step=0.25", "agent.eval_epsilon=.5"]
    words += ["eval.final_episodes=3", "eval.max_steps=12"]  # longer than Catch, not than Krull
    assert train.main([*TINY, *words, f"run={folder}"]) == 0
    return folder


def judged(folder):
    """Returns of the run's last evaluation by game."""
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    evals = [x for x in lines if x["kind"] == "eval"]
    return {x["game"]: x["returns"] for x in evals if x["step"] == evals[-1]["step"]}


def test_the_returns_of_the_last_evaluation_come_again_and_others_after_them(run, capsys):
    assert evaluate.main([f"run={run}", "score=true", "episodes=4"]) == 0
    (path,) = (run / "report").glob("score_*.json")
    report = json.loads(path.read_text())
    own = judged(run)
    for game in ("catch", "krull"):
        assert report["games"][game]["returns"][:3] == own[game]
        assert len(report["games"][game]["returns"]) == 4
    out = capsys.readouterr().out
    assert "| krull | 4 | " in out
    assert "cut off at max_steps=12: krull 4." in out
    assert str(path) in out


def test_a_seed_gives_other_episodes_and_a_game_one_line(run, capsys):
    words = [f"run={run}", "score=true", "game=catch", "episodes=30"]
    returns = []
    for more in ([], ["seed=0"], ["seed=0"]):
        assert evaluate.main([*words, *more]) == 0
        (path,) = (run / "report").glob("score_*_catch.json")  # beside that of all games
        report = json.loads(path.read_text())
        assert list(report["games"]) == ["catch"]
        returns.append(report["games"]["catch"]["returns"])
    assert returns[1] == returns[2]
    assert returns[0] != returns[1]
    assert "krull" not in capsys.readouterr().out


def test_numbers_by_hand():
    returns = np.array([1000.0, 3000.0, 2000.0])
    r = row("krull", EvalResult(returns, np.array([5, 6, 7]), np.array([False, True, False])))
    assert r["mean"] == 2000
    assert r["standard_error"] == pytest.approx(1000 / 3**0.5)
    assert r["hns"] == pytest.approx((2000 - 1598) / (2665.5 - 1598))
    assert r["capped"] == 1
    text = table({"games": {"krull": r}})
    line = "| krull | 3 | 2000.0 ± 577.4 | 2000.0 | 1000.0 | 3000.0 | 1598.0 | 2665.5 | 0.38 |"
    assert text.splitlines()[-1] == line


def test_a_game_without_published_scores_has_no_normalised_one():
    r = row("trondead", EvalResult(np.ones(1), np.ones(1, int), np.zeros(1, bool)))
    assert table({"games": {"trondead": r}}).splitlines()[-1] == (
        "| trondead | 1 | 1.00 | 1.00 | 1.00 | 1.00 | - | - | - |"
    )


@pytest.mark.parametrize(
    ("word", "said"),
    [("games=krull", "'games' is no key"), ("game=pong", "pong"), ("episodes=0", "episodes=0")],
)
def test_bad_words_are_one_line(run, capsys, word, said):
    assert evaluate.main([f"run={run}", "score=true", word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
