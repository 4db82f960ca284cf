"""Single games as a suite: aggregate scores of agents trained on each game by itself.

The protocol of Agarwal et al. (2021): R runs on each of G games, human-normalised, IQM, mean,
median and optimality gap with 95 % stratified bootstrap intervals, and how often a method's run
beats one of the first method. Sequences of games are `evaluation/compare.py`'s matter.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from errors import require
from evaluation.methods import (
    PLAYED,
    Run,
    agent_of,
    baseline_first,
    descriptions,
    find,
    only_finished,
    read,
)
from evaluation.page import markdown, write_whole
from evaluation.statistics import Aggregates, Interval, aggregate, probability_of_improvement
from evaluation.style import two_digits

KEYS = ("suite", "baseline", "out")
FIGURES = ("iqm", "mean", "median", "optimality_gap")


@dataclass(frozen=True)
class Suite:
    """Scores of several methods, the baseline first."""

    games: tuple[str, ...]
    seeds: dict[str, int]  # method -> R, runs a game
    scores: dict[str, np.ndarray]  # method -> human-normalised [R, G] at the end of training
    raw: dict[str, np.ndarray]  # method -> mean returns [R, G]
    aggregates: dict[str, Aggregates]
    better: dict[str, Interval]  # method -> P(improvement) over the first; not of the first
    notes: list[str] = field(default_factory=list)


def main(options: Mapping[str, str]) -> None:
    """Write suite.json and table.md to `out`; print the tables."""
    unknown = [k for k in options if k not in KEYS]
    require(not unknown, f"suite= does not take {unknown[:1]}: it takes {', '.join(KEYS)}")
    out = Path(options.get("out", "suite"))
    require(not out.is_file(), f"out={out} is a file: name a folder")
    result = judge(find(options["suite"], "suite"), options.get("baseline"))
    publish(result, out, shlex.join(["python", "evaluate.py", *sys.argv[1:]]))


def publish(result: Suite, out: Path, command: str) -> None:
    """Write suite.json and table.md to `out`; print the tables and what has to be known with
    them."""
    out.mkdir(parents=True, exist_ok=True)
    text = f"{aggregate_table(result)}\n{games_table(result)}"
    write_whole(out / "table.md", text)
    write_whole(out / "suite.json", json.dumps(as_data(result, command), indent=1) + "\n")
    print(text, end="")
    print("".join(f"note: {note}\n" for note in result.notes), end="")
    print(f"data: {out / 'suite.json'}")


def judge(runs: Sequence[tuple[str | None, str]], baseline: str | None = None) -> Suite:
    """Judge runs, given as (name or None, folder), each on one game.

    Raises:
        UserError: a run on several games, two of one method on the same game and seed, no game
            that all methods were trained on, or a method that is not there.
    """
    notes: list[str] = []
    loaded = [read(path, name) for name, path in runs]
    for run in loaded:
        require(
            len(run.log.games) == 1,
            f"{run.path} has {len(run.log.games)} games: compare= judges sequences",
        )
    methods = _methods(only_finished(loaded, notes), notes)
    require(bool(methods), "none of the runs is finished on a game with a human-normalised score")
    methods = baseline_first(methods, baseline)
    games = [g for g in next(iter(methods.values())) if all(g in m for m in methods.values())]
    require(bool(games), "no game was played by all methods: give runs on the same games")
    for name, by_game in methods.items():
        if others := [g for g in by_game if g not in games]:
            notes.append(f"{name}: {', '.join(others)} left out, which not all methods played")
    seeds, tables = {}, {}
    for name, by_game in methods.items():
        counts = [len(by_game[g]) for g in games]
        seeds[name] = min(counts)
        if max(counts) > min(counts):
            notes.append(f"{name}: the first {min(counts)} of up to {max(counts)} seeds a game")
        rows = [[by_game[g][s] for s in sorted(by_game[g])[: min(counts)]] for g in games]
        tables[name] = np.array(rows).transpose(2, 1, 0)  # [2, R, G]: normalised, raw
    scores = {name: table[0] for name, table in tables.items()}
    first, *others = scores
    return Suite(
        tuple(games),
        seeds,
        scores,
        {name: table[1] for name, table in tables.items()},
        aggregate(scores),
        {name: probability_of_improvement(scores[name], scores[first]) for name in others},
        notes,
    )


def _methods(
    runs: Sequence[Run], notes: list[str]
) -> dict[str, dict[str, dict[int, tuple[float, float]]]]:
    """Method -> game -> seed -> (human-normalised score, mean return) of the last evaluation.
    Runs that differ in nothing but game and seed are one method, unless names are given."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.name or agent_of(run), []).append(run)
    configs = [
        {k: v for k, v in rows[0].config.items() if k not in PLAYED} for rows in groups.values()
    ]
    said = descriptions(configs) if len(groups) > 1 else ["agent"]
    names = [rows[0].name or text for rows, text in zip(groups.values(), said)]
    require(len(set(names)) == len(names), "two methods get one name: give suite=name=path,...")
    notes += _unequal(dict(zip(names, groups.values())))
    methods: dict[str, dict[str, dict[int, tuple[float, float]]]] = {}
    for name, rows in zip(names, groups.values()):
        for run in rows:
            ((game, curve),) = run.log.curves().items()
            if not curve.steps.size:
                notes.append(f"{run.folder} is left out: {game} has no published human score")
                continue
            by_seed = methods.setdefault(name, {}).setdefault(game, {})
            require(
                run.seed not in by_seed,
                f"{run.path}: a second run of {name} on {game} with seed {run.seed}, leave one out",
            )
            raw = run.log.raw_curves()[game].scores[-1]
            by_seed[run.seed] = float(curve.scores[-1]), float(raw)
    return methods


def _unequal(methods: Mapping[str, Sequence[Run]]) -> list[str]:
    """What in training and evaluation makes scores less comparable than a table looks."""
    notes = []
    for what, of in (("agent steps", _budget), ("agent steps an evaluated episode", _longest)):
        all_of = {name: sorted({of(run) for run in runs} - {0}) for name, runs in methods.items()}
        for name, values in all_of.items():
            if len(values) > 1:
                notes.append(f"{name}: its runs had different {what}: {_listed(values)}")
        if len({tuple(values) for values in all_of.values()}) > 1:
            each = "; ".join(f"{name} {_listed(values)}" for name, values in all_of.items())
            notes.append(f"not the same {what}: {each}")
    return notes


def _budget(run: Run) -> int:
    return run.budget or 0


def _longest(run: Run) -> int:
    """Agent steps after which an evaluated episode is cut; 0 where the folder does not say."""
    judged = run.config.get("eval")
    return judged.get("max_steps", 0) if isinstance(judged, dict) else 0


def _listed(values: Sequence[int]) -> str:
    return " and ".join(f"{v:,}" for v in values) or "unknown"


# -- tables ---------------------------------------------------------------------------------------
def _shown(value: Interval, several: bool) -> str:
    text = two_digits(value.point)
    return f"{text} [{two_digits(value.low)}, {two_digits(value.high)}]" if several else text


def aggregate_table(result: Suite) -> str:
    """A row a method, as Markdown."""
    first = next(iter(result.scores))
    head = ["method", "seeds a game", "IQM", "mean", "median", "optimality gap"]
    rows = [[*head, f"P(better than {first})"]]
    for name, figures in result.aggregates.items():
        several = result.seeds[name] > 1
        row = [name, str(result.seeds[name]), *(_shown(figure, several) for figure in figures)]
        better = result.better.get(name)
        both = several and result.seeds[first] > 1
        rows.append([*row, "-" if better is None else _shown(better, both)])
    if len(result.scores) == 1:
        rows = [row[:-1] for row in rows]
    count = f"{len(result.games)} game{'s' * (len(result.games) > 1)}"
    return markdown(rows) + (
        f"\nHuman-normalised scores (0 = random, 1 = human) at the end of training; {count}. "
        "In brackets: 95 % stratified bootstrap over seeds, where there are two or more. "
        "Optimality gap: how far below human on average, less is better.\n"
    )


def games_table(result: Suite) -> str:
    """Mean returns of each game, and in brackets normalised, as Markdown."""
    rows = [["game", *result.raw]]
    for i, game in enumerate(result.games):
        cells = (
            f"{result.raw[name][:, i].mean():,.1f} ({two_digits(result.scores[name][:, i].mean())})"
            for name in result.raw
        )
        rows.append([game, *cells])
    return markdown(rows)


def as_data(result: Suite, command: str) -> dict:
    """All of it as plain data; intervals are null for a single seed."""

    def plain(figure: Interval, several: bool) -> dict:
        return {"point": figure.point, "interval": [figure.low, figure.high] if several else None}

    first = next(iter(result.scores))
    return {
        "command": command,
        "what": "human-normalised scores at the end of training; scores and returns: a row a seed",
        "games": list(result.games),
        "methods": {
            name: {
                "seeds": result.seeds[name],
                "scores": result.scores[name].tolist(),
                "returns": result.raw[name].tolist(),
                **{
                    key: plain(figure, result.seeds[name] > 1)
                    for key, figure in zip(FIGURES, result.aggregates[name])
                },
                "better_than_first": plain(
                    result.better[name], min(result.seeds[name], result.seeds[first]) > 1
                )
                if name in result.better
                else None,
            }
            for name in result.scores
        },
        "notes": result.notes,
    }
