"""`python evaluate.py compare=runs/a,runs/b [single=runs/c,runs/d] [out=comparison]`

One report over many runs. Runs whose configurations differ in nothing but the seed are one method.
`single` names runs on one game each with the same budget: the references of intransigence and
forward transfer.

R runs (seeds) of a method, G games.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from errors import UserError, require
from evaluation.metrics import Curve
from evaluation.runlog import RunLog, read_run_log
from evaluation.statistics import Interval, aggregate
from evaluation.style import dress, look, new_figure, step_axis, two_digits

OWN = ("run", "seed", "title", "display")  # keys in which the seeds of one method may differ
FIGURES = ("average", "forgetting", "forward_transfer", "intransigence")


@dataclass(frozen=True)
class Method:
    """The runs of one configuration."""

    name: str  # folder of its first run
    runs: tuple[str, ...]
    logs: tuple[RunLog, ...]
    figures: dict[str, tuple[float | None, ...]]  # of FIGURES: one value a run
    iqm: Interval  # of the last human-normalised scores [R, G]


def main(options: Mapping[str, str]) -> None:
    """Write report.html, curves.png, comparison.json and table.md to `out`; print the table."""
    known = {"compare", "single", "out"}
    require(set(options) <= known, f"compare= takes {', '.join(sorted(known))} and no other key")
    methods = compare(
        options["compare"].split(","), [s for s in options.get("single", "").split(",") if s]
    )
    out = Path(options.get("out", "comparison"))
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(methods)
    (out / "table.md").write_text(table)
    (out / "comparison.json").write_text(json.dumps(as_data(methods), indent=1) + "\n")
    curves(methods).savefig(out / "curves.png")
    (out / "report.html").write_text(
        "<!doctype html><meta charset=utf-8><title>Comparison of runs</title>"
        f"<pre>{html.escape(table)}</pre><img src=curves.png alt='forgetting curves'>\n"
    )
    print(table, end="")
    print(f"report: {out / 'report.html'}")


def compare(runs: Sequence[str], single: Sequence[str] = ()) -> list[Method]:
    """The methods among `runs`, in the order of their first run.

    Raises:
        UserError: a run that is not there, named twice, or of other games than the first.
    """
    require(len(set(runs)) == len(runs), "compare= names a run twice")
    references: dict[str, Curve] = {}
    for path in single:
        curves_of = read_run_log(path).curves()
        require(len(curves_of) == 1, f"single={path} has {len(curves_of)} games; give runs on one")
        references |= curves_of
    groups: dict[str, list[tuple[str, RunLog]]] = {}
    games = None
    for path in runs:
        log = read_run_log(path)
        games = games or log.games
        require(log.games == games, f"{path} has games {log.games}, {runs[0]} has {games}")
        groups.setdefault(_identity(Path(path)), []).append((path, log))
    return [_method(group, references) for group in groups.values()]


def _identity(path: Path) -> str:
    """The configuration without what belongs to one run."""
    from omegaconf import OmegaConf

    file = path / "config.yaml"
    if not file.is_file():
        raise UserError(f"{path}: {file} is missing; give the folder of a run")
    config = OmegaConf.to_container(OmegaConf.load(file))
    return json.dumps({k: v for k, v in config.items() if k not in OWN}, sort_keys=True)


def _method(group: list[tuple[str, RunLog]], references: dict[str, Curve]) -> Method:
    rows = [log.metrics(references or None) for _, log in group]
    last = np.array([[m.now.get(g, np.nan) for g in group[0][1].games] for m in rows])  # [R, G]
    if not np.isfinite(last).all():
        raise UserError(f"{group[0][0]}: a game has no finite evaluation yet; let the run go on")
    return Method(
        Path(group[0][0]).name,
        tuple(path for path, _ in group),
        tuple(log for _, log in group),
        {name: tuple(getattr(m, name) for m in rows) for name in FIGURES},
        aggregate({"scores": last})["scores"].iqm,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def markdown(methods: Sequence[Method]) -> str:
    """One row a method; HNS: 0 = random, 1 = human."""
    head = [
        "method",
        "seeds",
        "IQM of HNS at the end [95 %]",
        *(f.replace("_", " ") for f in FIGURES),
    ]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for m in methods:
        iqm = f"{m.iqm.point:.3f} [{m.iqm.low:.3f}, {m.iqm.high:.3f}]"
        means = [two_digits(_mean(m.figures[f]), signed=f != "average") for f in FIGURES]
        lines.append(" | ".join([m.name, str(len(m.runs)), iqm, *means]))
    return "".join(f"| {line} |\n" for line in lines)


def as_data(methods: Sequence[Method]) -> list[dict]:
    return [
        {"method": m.name, "runs": list(m.runs), "iqm": m.iqm._asdict(), **m.figures}
        for m in methods
    ]


def curves(methods: Sequence[Method]):
    """Forgetting curves: a panel a game, a line a method (mean of its seeds, band min to max)."""
    games = methods[0].logs[0].games
    figure = new_figure(2.4 * len(games))
    panels = figure.subplots(len(games), 1, squeeze=False, sharex=True)[:, 0]
    last = max(log.last_step for m in methods for log in m.logs)
    for axes, game in zip(panels, games):
        for i, m in enumerate(methods):
            seeds = [log.curves()[game] for log in m.logs]
            steps = seeds[0].steps
            scores = np.array([np.interp(steps, c.steps, c.scores) for c in seeds])  # [R, E]
            axes.plot(steps, scores.mean(0), label=m.name, **look(i))
            axes.fill_between(
                steps, scores.min(0), scores.max(0), color=look(i)["color"], alpha=0.15
            )
        for visit in methods[0].logs[0].visits:
            if visit.game == game:
                axes.axvspan(visit.start, visit.end or last, color="#eeeeee", zorder=0)
        dress(axes, game, "HNS")
        step_axis(axes, last)
    panels[-1].set_xlabel("agent steps (shaded: the game is being trained)")
    panels[0].legend(fontsize=8, frameon=False)
    return figure
