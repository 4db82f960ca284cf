"""`python evaluate.py compare=runs/a,runs/b [single=runs/c] [baseline=a] [scale=human|single]
[out=comparison]`: one report over many runs.

`compare` takes folders of runs, wildcards, folders that hold runs, and name=path. Runs whose
configurations differ in nothing but the seed are one method. `single` names runs on one game each:
the references of intransigence and forward transfer; runs on one game among runs on several are
taken as such by themselves. A method is judged by the references of its own agent; without any, by
those given where they are all of one agent. `baseline` is the method that the others are compared
with (else the first). `scale=single` divides each game's score by what the first method's agent, or
the one in its place, reaches on that game alone.

R runs (seeds) of a method, G games.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from errors import require
from evaluation.methods import (
    Run,
    agent_of,
    baseline_first,
    differences,
    find,
    group,
    only_finished,
    read,
)
from evaluation.metrics import ContinualMetrics, Curve, continual_metrics
from evaluation.statistics import Interval, interquartile_mean, probability_of_improvement

FIGURES = ("average", "forgetting", "forward_transfer", "intransigence")
LOWER_IS_BETTER = ("forgetting", "intransigence")
KEYS = ("compare", "single", "baseline", "scale", "out")
Alone = Mapping[str, Mapping[int, Curve]]  # game -> seed -> curve of a run on this game alone


class Figure(NamedTuple):
    """One figure of one method over its runs and games."""

    iqm: float  # mean of the middle half of the [R, G] values
    interval: tuple[float, float] | None  # 95 %, stratified over seeds; None for a single seed
    mean: float
    by_game: dict[str, float]  # means over seeds; the games that every run has the figure of
    by_run: tuple[float, ...]  # [R] means over those games


@dataclass(frozen=True)
class Method:
    """The runs of one configuration, judged."""

    name: str
    runs: tuple[Run, ...]
    curves: tuple[dict[str, Curve], ...]  # of each run, scaled
    metrics: tuple[ContinualMetrics, ...]
    figures: dict[str, Figure | None]  # of FIGURES
    costs: dict[str, float | None]  # means of Run.costs
    alone: dict[str, float]  # game -> last score of the single-task runs it is judged by, scaled
    improvement: Interval | None = None  # P(better than the baseline); None for itself
    improvement_known: bool = False  # whether its interval says anything: two seeds on both sides

    @property
    def scores(self) -> np.ndarray:
        """Scores at the end, [R, G], games by name."""
        return _scores(self.metrics)


@dataclass(frozen=True)
class Comparison:
    games: tuple[str, ...]
    scale: str  # human: 0 = random, 1 = human; single: 0 = random, 1 = the game trained alone
    methods: tuple[Method, ...]  # the baseline first
    alone: dict[str, float]  # that of the first method
    references: tuple[str, ...]  # folders of the single-task runs
    notes: list[str] = field(default_factory=list)  # what a reader has to know


def main(options: Mapping[str, str]) -> None:
    """Write report.html, *.png, comparison.json and table.md to `out`; print the table."""
    from evaluation.compare_report import publish

    unknown = [k for k in options if k not in KEYS]
    require(not unknown, f"compare= does not take {unknown[:1]}: it takes {', '.join(KEYS)}")
    out = Path(options.get("out", "comparison"))
    require(not out.is_file(), f"out={out} is a file: name a folder")
    result = compare(
        find(options["compare"], "compare"),
        find(options["single"], "single") if "single" in options else (),
        options.get("baseline"),
        options.get("scale", "human"),
    )
    publish(result, out, shlex.join(["python", "evaluate.py", *sys.argv[1:]]))


def compare(
    runs: Sequence[tuple[str | None, str]],
    single: Sequence[tuple[str | None, str]] = (),
    baseline: str | None = None,
    scale: str = "human",
) -> Comparison:
    """Judge runs, given as (name or None, folder).

    Raises:
        UserError: nothing finished, runs of different games, a method that is not there, or two
            single-task runs of which either could be meant.
    """
    require(scale in ("human", "single"), f"scale={scale}: use human or single")
    notes: list[str] = []
    loaded = [read(path, name) for name, path in runs]
    references = [read(path) for _, path in single]
    for run in references:
        games = run.log.games
        require(len(games) == 1, f"single={run.path} has {len(games)} games; give runs on one")
    if any(len(run.log.games) > 1 for run in loaded):
        references += [run for run in loaded if len(run.log.games) == 1]
        references = list({Path(run.path).resolve(): run for run in references}.values())
        loaded = [run for run in loaded if len(run.log.games) != 1]
    loaded, references = only_finished(loaded, notes), only_finished(references, notes)
    require(bool(loaded), "none of the runs is finished: let one run to its end")
    games = loaded[0].log.games
    for run in loaded:
        require(
            run.log.games == games,
            f"{run.path} has games {', '.join(run.log.games)}; {loaded[0].path} has "
            f"{', '.join(games)}: compare runs of one sequence, or single games by suite=",
        )
    groups = baseline_first(group(loaded), baseline)
    judged_by = _judged_by(groups, _references(references, games, notes), notes)
    notes += _other_budgets(groups, judged_by)
    alone = _last_scores(judged_by[next(iter(groups))])
    bare = [g for g in games if any(not run.log.curves()[g].steps.size for run in loaded)]
    if bare:
        notes.append(f"left out, without published random and human scores: {', '.join(bare)}")
    scored = [g for g in games if g not in bare]
    require(bool(scored), f"{', '.join(bare)}: no game has published random and human scores")
    divisors = dict.fromkeys(scored, 1.0)
    if scale == "single":
        missing = [g for g in scored if g not in alone]
        require(
            not missing,
            f"scale=single needs a finished run on {', '.join(missing)} alone: give single=",
        )
        divisors = {g: alone[g] for g in scored if alone[g] > 0}
        for game in (g for g in scored if g not in divisors):
            notes.append(f"{game} is left out: trained alone it does not get above random")
        require(bool(divisors), "no game is above random when trained alone: use scale=human")
    methods = _against(
        [_method(name, rows, divisors, judged_by[name], notes) for name, rows in groups.items()]
    )
    _remark(methods, notes)
    return Comparison(
        tuple(divisors),
        scale,
        tuple(methods),
        methods[0].alone,
        tuple(run.path for run in references),
        notes,
    )


def _references(runs: Sequence[Run], games: Sequence[str], notes: list[str]) -> dict[str, Alone]:
    """The single-task runs of each agent (`agent_of`)."""
    found: dict[str, dict[str, dict[int, Curve]]] = {}
    paths: dict[tuple[str, str, int], str] = {}
    for run in runs:
        ((game, curve),) = run.log.curves().items()
        if game not in games:
            notes.append(f"{run.folder} is left out: {game} is none of the sequence's games")
        if game not in games or not curve.steps.size:
            continue
        key = (agent_of(run), game, run.seed)
        require(
            key not in paths,
            f"{paths.get(key)} and {run.path} are both the same agent on {game} alone with seed "
            f"{run.seed}: leave one out",
        )
        paths[key] = run.path
        found.setdefault(key[0], {}).setdefault(game, {})[run.seed] = curve
    return found


def _judged_by(
    groups: Mapping[str, Sequence[Run]], references: Mapping[str, Alone], notes: list[str]
) -> dict[str, Alone]:
    """Name of the method -> the single-task runs that it is judged by."""
    agents = {name: agent_of(rows[0]) for name, rows in groups.items()}
    without = [name for name, agent in agents.items() if agent not in references]
    games = set().union(*references.values())
    for name in (n for n in agents if n not in without):
        missing = sorted(games - set(references[agents[name]]))
        if missing:
            notes.append(f"{name} has no run of its own on {', '.join(missing)} alone")
    common: Alone = {}
    if without and len(references) == 1:
        ((agent, common),) = references.items()
        owners = [name for name in agents if agents[name] == agent]
        whose = f"those of {owners[0]}" if owners else "another agent's"
        notes.append(
            f"no single-task runs of its own, judged by {whose} (intransigence, forward transfer, "
            f"average / alone): {', '.join(without)}"
        )
    elif without and references:
        notes.append(
            "no single-task runs of its own, and those given are of several agents, so no "
            f"intransigence and no forward transfer: {', '.join(without)}"
        )
    return {name: references.get(agent, common) for name, agent in agents.items()}


def _other_budgets(
    groups: Mapping[str, Sequence[Run]], judged_by: Mapping[str, Alone]
) -> list[str]:
    """Games that a method had for more or fewer agent steps than the single-task runs it is judged
    by."""
    found: dict[str, list[str]] = {}  # what was found -> methods
    for name, alone in judged_by.items():
        visits = groups[name][0].log.visits
        for game, by_seed in alone.items():
            whole = sum(v.end - v.start for v in visits if v.game == game and v.end is not None)
            lengths = sorted({int(curve.steps[-1]) for curve in by_seed.values()} - {whole})
            if lengths:
                had = " and ".join(f"{n:,}" for n in lengths)
                said = f"had {whole:,} agent steps of {game}, the runs on it alone {had}"
                found.setdefault(said, []).append(name)
    return [
        f"{', '.join(names)} {said}: average / alone does not compare equals"
        for said, names in found.items()
    ]


def _last_scores(alone: Alone) -> dict[str, float]:
    """game -> last score on this game alone, mean over seeds."""
    return {g: float(np.mean([c.scores[-1] for c in x.values()])) for g, x in alone.items()}


def _method(
    name: str,
    runs: Sequence[Run],
    divisors: Mapping[str, float],
    alone: Alone,
    notes: list[str],
) -> Method:
    def scaled(game: str, curve: Curve) -> Curve:
        return Curve(curve.steps, curve.scores / divisors.get(game, 1.0))

    curves, metrics = [], []
    for run in runs:
        own = {g: scaled(g, c) for g, c in run.log.curves().items()}
        single = {g: scaled(g, _of_seed(x, run.seed)) for g, x in alone.items()}
        whole = continual_metrics(own, run.log.visits, single or None, raw=run.log.raw_curves())
        curves.append({g: c for g, c in own.items() if g in divisors})
        metrics.append(_of_games(whole, divisors))
    if any(m.visits != metrics[0].visits for m in metrics):
        notes.append(f"{name}: its seeds had different budgets")
    costs = [run.costs() for run in runs]
    return Method(
        name,
        tuple(runs),
        tuple(curves),
        tuple(metrics),
        {f: _figure(f, metrics) for f in FIGURES},
        {key: _mean([c[key] for c in costs]) for key in costs[0]},
        {g: score / divisors[g] for g, score in _last_scores(alone).items() if g in divisors},
    )


def _of_games(metrics: ContinualMetrics, games: Container[str]) -> ContinualMetrics:
    """What concerns some of a sequence's games. All visits stay: what the training of another
    game did to these is part of it. Means over games are those of `_figure`."""
    parts = ("now", "forgetting_by_game", "forward_transfer_by_game", "intransigence_by_game")
    rows = [i for i, game in enumerate(metrics.games) if game in games]
    return replace(
        metrics,
        games=tuple(metrics.games[i] for i in rows),
        level=metrics.level[rows],
        **{p: {g: x for g, x in getattr(metrics, p).items() if g in games} for p in parts},
    )


def _of_seed(curves: Mapping[int, Curve], seed: int) -> Curve:
    """The reference of the same seed; without one, the mean over the seeds there are."""
    if seed in curves:
        return curves[seed]
    first, *rest = curves.values()
    rows = [first.scores, *(np.interp(first.steps, *curve) for curve in rest)]
    return Curve(first.steps, np.mean(rows, axis=0))


def _figure(name: str, metrics: Sequence[ContinualMetrics]) -> Figure | None:
    rows = [m.now if name == "average" else getattr(m, f"{name}_by_game") for m in metrics]
    games = [g for g in rows[0] if all(row.get(g) is not None for row in rows)]
    if not games:
        return None
    table = np.array([[row[g] for g in games] for row in rows])  # [R, G]
    iqm = interquartile_mean(table, repetitions=2000 if len(rows) > 1 else 1)
    return Figure(
        iqm.point,
        (iqm.low, iqm.high) if len(rows) > 1 else None,
        float(table.mean()),
        dict(zip(games, table.mean(0).tolist())),
        tuple(table.mean(1).tolist()),
    )


def _scores(metrics: Sequence[ContinualMetrics]) -> np.ndarray:
    return np.array([[m.now[g] for g in sorted(m.now)] for m in metrics])


def _against(methods: Sequence[Method]) -> list[Method]:
    """Every method but the first with its probability of improvement over the first."""
    first, *others = methods
    out = [first]
    for m in others:
        known = len(m.runs) > 1 and len(first.runs) > 1
        better = probability_of_improvement(m.scores, first.scores, repetitions=500 if known else 1)
        values = {**vars(m), "improvement": better, "improvement_known": known}
        out.append(Method(**values))
    return out


def _remark(methods: Sequence[Method], notes: list[str]) -> None:
    """What makes methods less comparable than a table looks."""
    few = [m.name for m in methods if len(m.runs) == 1]
    if len(few) == len(methods):
        notes.append("one seed a method: no intervals, and differences may be chance")
    elif few:
        notes.append(f"one seed, so no interval: {', '.join(few)}")
    first = methods[0]
    other = [m.name for m in methods if m.metrics[0].visits != first.metrics[0].visits]
    if other:
        notes.append(f"trained on other budgets than {first.name}: {', '.join(other)}")
    for m in methods:
        mixed = differences([run.config for run in m.runs])
        if mixed:
            notes.append(f"{m.name}: its runs differ in {', '.join(list(mixed)[:4])}")
    commits = {str(run.manifest.get("commit")) for m in methods for run in m.runs}
    if len(commits) > 1:
        notes.append(f"the runs are of {len(commits)} commits of the program (see the folders)")
    sizes = {m.name: m.costs["bytes"] for m in methods if m.costs["bytes"]}
    if sizes and max(sizes.values()) > 1.02 * min(sizes.values()):
        most, least = max(sizes, key=sizes.get), min(sizes, key=sizes.get)
        notes.append(
            f"not the same bytes: {most} holds {sizes[most] / 1e6:.1f} MB, "
            f"{least} {sizes[least] / 1e6:.1f} MB"
        )
    if all(m.figures["intransigence"] is None for m in methods):
        notes.append(
            "no intransigence: the runs of each game alone are shorter than a visit"
            if any(m.alone for m in methods)
            else "intransigence and forward transfer need runs of each game alone: "
            "single=runs/c,runs/d"
        )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
