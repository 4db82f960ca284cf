"""How well does a trained agent play? Many episodes of each of its games.

    python evaluate.py run=runs/x score=true [episodes=100] [game=krull] [seed=1] [max_steps=27000]
        [step=24000]

Played as the run's own evaluations are: by `Agent.eval_policy`, memory and planner included, with
the random actions of `agent.eval_epsilon`. Without `seed=` the first episodes are those of these
evaluations, so that the last one's returns come again; with it they are others. Written into the
run's folder: report/score_<step>.json, or score_<step>_<game>.json of one game alone.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.scores import hns, references, rom_of
from evaluation import lockstep
from evaluation.evaluator import EvalResult, Evaluator
from evaluation.page import markdown, write_whole
from evaluation.style import two_digits

EPISODES = 100
HEAD = ("game", "episodes", "mean", "median", "lowest", "highest", "random", "human", "HNS")


def main(run: Any, options: Mapping[str, str]) -> dict:
    """Play, print the table and write it as data."""
    own, most = run.evaluator_settings(), run.config.protocol.max_steps
    usual = {"episodes": EPISODES, "seed": own["seed"], "max_steps": own["max_steps"] or most}
    games, given = lockstep.asked(run, options, "score", usual)
    given["max_steps"] = min(given["max_steps"], most)
    evaluator = Evaluator(**(own | given))
    try:
        results = evaluator.evaluate_all(
            lambda obs, game: run.agent.eval_policy(obs, game.index), games
        )
    finally:
        evaluator.close()
    report = {
        "command": shlex.join(["python", "evaluate.py", *(f"{k}={v}" for k, v in options.items())]),
        "run": str(run.path),
        "step": run.step,
        **given,
        "games": {game: row(game, result) for game, result in results.items()},
    }
    print(f"{run.path} at agent step {run.step:,}\n\n{table(report)}", end="")
    cut = [f"{game} {r['capped']}" for game, r in report["games"].items() if r["capped"]]
    if cut:
        print(f"Episodes cut off at max_steps={given['max_steps']}: {', '.join(cut)}.")
    of = f"_{options['game']}" if "game" in options else ""
    path = run.path / "report" / f"score_{run.step}{of}.json"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps(report, indent=1, allow_nan=False) + "\n")
    print(f"data: {path}")
    return report


def row(game: str, result: EvalResult) -> dict:
    """A game's episodes as plain data; `standard_error` is of the mean, over episodes alone."""
    returns, known = result.returns, references().get(rom_of(game))
    mean, several = float(returns.mean()), len(returns) > 1
    return {
        "returns": returns.tolist(),
        "lengths": result.lengths.tolist(),
        "capped": int(result.capped.sum()),
        "mean": mean,
        "standard_error": float(returns.std(ddof=1) / len(returns) ** 0.5) if several else None,
        "median": float(np.median(returns)),
        "random": known.random if known else None,
        "human": known.human if known else None,
        "hns": hns(game, mean) if known else None,
    }


def table(report: Mapping) -> str:
    """One line a game, in Markdown."""
    lines: list[tuple[str, ...]] = [HEAD]
    for game, r in report["games"].items():
        error = "" if r["standard_error"] is None else f" ± {two_digits(r['standard_error'])}"
        cells = (r["median"], min(r["returns"]), max(r["returns"]), r["random"], r["human"])
        lines.append(
            (
                game,
                str(len(r["returns"])),
                two_digits(r["mean"]) + error,
                *(two_digits(x) for x in cells),
                "-" if r["hns"] is None else f"{r['hns']:.2f}",
            )
        )
    return markdown(lines)
