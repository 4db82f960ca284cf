"""The figures of a run: forgetting curves, the task-by-time matrix, spikes, losses, returns.

Each function makes one matplotlib Figure from records and touches no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from evaluation.metrics import ContinualMetrics, Curve, Visit, as_curve, as_visits
from evaluation.metrics import continual_metrics as judge
from evaluation.runlog import RunLog
from evaluation.style import FAINT, INK, dress, look, new_figure, short, smooth, step_axis
from evaluation.style import two_digits as digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPARSE = 0.15  # share of active neurons below which an encoder counts as sparse


def board_figures(curves: Mapping[str, object], schedule: Sequence) -> dict[str, Figure]:
    """The two figures that TensorBoard gets while a run goes on: tag -> Figure."""
    known = {game: as_curve(game, rows) for game, rows in curves.items()}
    if not any(curve.steps.size for curve in known.values()):
        return {}
    metrics = judge(known, schedule)
    figures = {"figures/forgetting": forgetting_curves(known, as_visits(schedule))}
    if metrics.visits:
        figures["figures/task_by_time"] = task_by_time(metrics, known)
    return figures


def forgetting_curves(curves: Mapping[str, Curve], visits: Sequence[Visit]) -> Figure:
    """All games in one chart; above it, which game was trained when."""
    figure = new_figure(4.4)
    strip, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 14))
    last = _last_step(curves, visits)
    order = {game: k for k, game in enumerate(curves)}
    _strip(strip, visits, order, last)
    dress(axes, ylabel="human-normalised score", xlabel="agent steps")
    for game, curve in curves.items():
        axes.plot(*curve, **look(order[game]), linewidth=1.1, alpha=0.75)
        for visit in (v for v in visits if v.game == game):
            part = _part(curve, visit, last)
            axes.plot(*part, **look(order[game]), linewidth=3.2, solid_capstyle="round")
        axes.plot([], [], **look(order[game]), linewidth=3, label=game)
    _boundaries(axes, visits)
    _references(axes, curves.values())
    step_axis(axes, last)
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1.06, 0.5),
        frameon=False,
        fontsize=9,
        title="thick: in training",
        title_fontsize=8,
    )
    strip.set_title(
        "Forgetting curves: every game, evaluated all the time",
        loc="left",
        fontsize=11,
        fontweight="bold",
        color=INK,
    )
    return figure


def small_multiples(
    curves: Mapping[str, Curve], visits: Sequence[Visit], metrics: ContinualMetrics | None = None
) -> Figure:
    """One panel a game, each on its own scale, its training stretches shaded."""
    columns = {1: 1, 2: 2, 4: 2}.get(len(curves), 3)
    rows = -(-len(curves) // columns)
    figure = new_figure(0.5 + 2.2 * rows)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    last = _last_step(curves, visits)
    for k, (game, curve) in enumerate(curves.items()):
        axes, style = panels.flat[k], look(k)
        lost = metrics.forgetting_by_game.get(game) if metrics else None
        dress(axes, title=game)
        if lost is not None:
            note = f"lost {digits(lost)}" if lost >= 0 else f"gained {digits(-lost)}"
            axes.set_title(note, loc="right", fontsize=9, color=FAINT)
        for visit in visits:
            if visit.game == game:
                end = last if visit.end is None else visit.end
                axes.axvspan(visit.start, end, color=style["color"], alpha=0.14, linewidth=0)
        marker = "o" if curve.steps.size <= 40 else None
        axes.plot(*curve, color=style["color"], linewidth=1.8, marker=marker, markersize=3)
        _boundaries(axes, visits)
        _references(axes, [curve])
        step_axis(axes, last)
    for axes in panels.flat[len(curves) :]:
        axes.set_visible(False)
    for k, axes in enumerate(panels.flat[: len(curves)]):
        if k + columns >= len(curves):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("agent steps", fontsize=10, color=INK)
    figure.supylabel("human-normalised score", fontsize=10, color=INK)
    return figure


def task_by_time(metrics: ContinualMetrics, curves: Mapping[str, Curve]) -> Figure:
    """Games by ends of visits, with numbers; a column for the start before any training.

    Colour says how much of its own best a game has in that column, so that a game with a low score
    is as readable as one with a high score; the number is the human-normalised score.
    """
    from matplotlib.patches import Rectangle

    start = [_first_score(curves[g], metrics.visits) for g in metrics.games]
    table = np.column_stack([start, metrics.level])  # [G, 1 + V]
    height, width = table.shape
    figure = new_figure(1.5 + 0.45 * height)
    axes = figure.subplots()
    image = axes.imshow(_share_of_best(table), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(height, width):
        value, shade = table[row, column], _share_of_best(table)[row, column]
        dark = np.isfinite(shade) and shade < 0.55
        size = 10 if width <= 12 else 7
        text = digits(value)
        colour = "white" if dark else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    for column, visit in enumerate(metrics.visits, 1):
        corner = (column - 0.5, metrics.games.index(visit.game) - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=2.4))
    axes.set_xticks(range(width), ["start", *_visit_names(metrics.visits)], fontsize=9)
    if width > 7:
        axes.tick_params(axis="x", rotation=35)
    axes.set_yticks(range(height), metrics.games, fontsize=9)
    axes.tick_params(length=0, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(
        "Score of every game at the end of each visit (human = 1; outlined: just trained)",
        loc="left",
        fontsize=11,
        fontweight="bold",
        color=INK,
    )
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0", "half", "best"], fontsize=8)
    bar.outline.set_visible(False)
    return figure


def spikes_per_layer(log: RunLog) -> Figure | None:
    """Firing rate of every layer over the run; None where the run logged none."""
    rates = log.scalars("spikes/rate/") or log.scalars("spikes/")
    if not rates:
        return None
    figure = new_figure(3.2)
    axes = figure.subplots()
    dress(axes, "Spikes per neuron and time step", "rate", "agent steps")
    for k, (layer, curve) in enumerate(rates.items()):
        axes.plot(*curve, **look(k), linewidth=0.7, alpha=0.35)
        points = max(1, curve.steps.size // 40)
        smoothed = smooth(curve.scores, points)
        axes.plot(curve.steps, smoothed, **look(k), linewidth=2.2, label=layer)
    top = max(float(c.scores.max()) for c in rates.values())
    axes.set_ylim(0, max(1.1 * top, 1e-3))
    if top > 0.5 * SPARSE:
        axes.set_ylim(0, max(1.1 * top, 1.15 * SPARSE))
        axes.axhline(SPARSE, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        _side_note(axes, SPARSE, f"sparse: < {SPARSE:.0%}")
    _boundaries(axes, log.visits)
    step_axis(axes, log.last_step)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.4), frameon=False, fontsize=9)
    return figure


def losses(log: RunLog) -> Figure | None:
    """One panel a loss; logarithmic where a loss spans more than a decade."""
    return _panels(log, log.scalars("loss/"), "loss/")


def training_returns(log: RunLog) -> Figure | None:
    """Returns of the training episodes, which explore: one panel a game."""
    rows: dict[str, list] = {}
    for e in log.episodes:
        rows.setdefault(e.game, []).append((e.step, e.score))
    series = {game: as_curve(game, pairs) for game, pairs in rows.items()}
    return _panels(log, series, "training return, ", dots=True)


def _panels(log: RunLog, series: dict[str, Curve], prefix: str, dots: bool = False):
    if not series:
        return None
    columns = min(len(series), 3)
    rows = -(-len(series) // columns)
    figure = new_figure(0.4 + 2.1 * rows)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for k, (name, curve) in enumerate(series.items()):
        axes, style = panels.flat[k], look(k)
        dress(axes, title=f"{prefix}{name}")
        if dots:
            axes.plot(*curve, ".", color=style["color"], alpha=0.35, markersize=3)
        else:
            axes.plot(*curve, color=style["color"], linewidth=0.7, alpha=0.35)
        for part in _stretches(curve, log.visits if dots else []):
            smoothed = smooth(part.scores, max(1, part.steps.size // (8 if dots else 40)))
            axes.plot(part.steps, smoothed, color=style["color"], linewidth=2)
        low, high = curve.scores.min(), curve.scores.max()
        if not dots and low > 0 and high > 10 * low:
            axes.set_yscale("log")
        _boundaries(axes, log.visits)
        step_axis(axes, log.last_step)
        axes.tick_params(labelbottom=k + columns >= len(series))
    for axes in panels.flat[len(series) :]:
        axes.set_visible(False)
    figure.supxlabel("agent steps", fontsize=10, color=INK)
    return figure


def _strip(axes: Axes, visits: Sequence[Visit], order: Mapping[str, int], last: float) -> None:
    """A band of the games in training, in their colours, with names where they fit."""
    axes.set_ylim(0, 1)
    axes.axis("off")
    for visit in visits:
        end = last if visit.end is None else visit.end
        colour = look(order[visit.game])["color"]
        axes.axvspan(visit.start, end, color=colour, alpha=0.85, linewidth=0)
        if last and 90 * (end - visit.start) / last > 1.1 * len(visit.game):
            axes.text(
                (visit.start + end) / 2,
                0.46,
                visit.game,
                ha="center",
                va="center",
                fontsize=8,
                color="white",
                clip_on=True,
            )


def _boundaries(axes: Axes, visits: Sequence[Visit]) -> None:
    for visit in visits[1:]:
        axes.axvline(visit.start, color="#999999", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)


def _references(axes: Axes, curves) -> None:
    """Lines at random = 0 and human = 1 where the curves come near them."""
    scores = np.concatenate([c.scores for c in curves])
    if not scores.size:
        return
    low, high = min(scores.min(), 0.0), scores.max()
    margin = 0.06 * max(high - low, 0.05)
    axes.set_ylim(low - margin, high + margin)
    for value, name in ((0.0, "random"), (1.0, "human")):
        if low - margin <= value <= high + margin:
            axes.axhline(value, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            _side_note(axes, value, name)


def _side_note(axes: Axes, value: float, text: str) -> None:
    """A word at the right end of a reference line, outside of the data."""
    axes.annotate(
        text,
        (1.0, value),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=FAINT,
    )


def _last_step(curves: Mapping[str, Curve], visits: Sequence[Visit]) -> float:
    ends = [c.steps[-1] for c in curves.values() if c.steps.size]
    return float(max([*ends, *(v.end or v.start for v in visits)], default=1))


def _part(curve: Curve, visit: Visit, last: float) -> Curve:
    """The stretch of a curve inside a visit, from the evaluation at its start."""
    end = last if visit.end is None else visit.end
    inside = (curve.steps >= visit.start) & (curve.steps <= end)
    return Curve(curve.steps[inside], curve.scores[inside])


def _stretches(curve: Curve, visits: Sequence[Visit]) -> list[Curve]:
    """A curve cut where other games were trained in between."""
    if not visits:
        return [curve]
    bounds = [v.start for v in visits] + [np.inf]
    parts = []
    for start, end in pairwise(bounds):
        inside = (curve.steps > start) & (curve.steps <= end)
        if inside.any():
            parts.append(Curve(curve.steps[inside], curve.scores[inside]))
    return parts


def _first_score(curve: Curve, visits: Sequence[Visit]) -> float:
    if curve.steps.size and curve.steps[0] <= visits[0].start:
        return float(curve.scores[0])
    return np.nan


def _share_of_best(table: np.ndarray) -> np.ndarray:
    """[G, V] in [0, 1]: 0 = random or worse, 1 = the row's best; a row never above random is 0."""
    best = np.nanmax(np.where(np.isfinite(table), table, -np.inf), axis=1, keepdims=True)
    return np.clip(table / np.where(best > 0, best, np.inf), 0, 1)


def _visit_names(visits: Sequence[Visit]) -> list[str]:
    return [f"{v.game}\n{short(v.end)}" if v.end else f"{v.game}\nrunning" for v in visits]
