"""The figures of a comparison. Each function makes one matplotlib Figure and touches no file.

R runs (seeds) of a method, G games, V visits, E evaluations. A method keeps its colour everywhere.
"""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from evaluation.compare import FIGURES, LOWER_IS_BETTER, Comparison, Method
from evaluation.methods import PARTS
from evaluation.metrics import Curve
from evaluation.statistics import mean_band, performance_profile
from evaluation.style import FAINT, INK, dress, look, new_figure, short, step_axis, two_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORES = {"human": "human-normalised score", "single": "share of the game trained alone"}
PART_COLOURS = ("#9fb8cc", "#5B4B8A", "#E69F00", "#009E73")


def all_figures(result: Comparison) -> dict[str, Figure]:
    """name -> Figure, in the order of the page."""
    made = {
        "curves": curves(result),
        "figures": intervals(result),
        "matrices": matrices(result),
        "profiles": profiles(result),
        "costs": costs(result),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def curves(result: Comparison) -> Figure:
    """Forgetting curves: a panel a game and one for their mean; a line a method (mean over its
    seeds, band: 95 % bootstrap of that mean)."""
    games = result.games
    names = [*games, "mean over games"] if len(games) > 1 else list(games)
    figure = new_figure(0.7 + 2.05 * len(names))
    panels = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
    last = max(run.log.last_step for m in result.methods for run in m.runs)
    visits = result.methods[0].metrics[0].visits
    for axes, name in zip(panels, names):
        for visit in visits:
            if visit.game == name:
                axes.axvspan(visit.start, visit.end, color="#eeeeee", linewidth=0, zorder=0)
            elif visit.start:
                axes.axvline(visit.start, color=FAINT, linewidth=0.6, linestyle=(0, (2, 3)))
        for i, method in enumerate(result.methods):
            _line(axes, method, games if name not in games else (name,), i)
        level = [result.alone[g] for g in (games if name not in games else (name,))
                 if g in result.alone]  # fmt: skip
        if level and (name in games or len(level) == len(games)):
            axes.axhline(float(np.mean(level)), color=INK, linewidth=0.9, linestyle=(0, (6, 3)))
            axes.annotate(
                "alone", (1, np.mean(level)), (4, 0), ("axes fraction", "data"), "offset points",
                va="center", fontsize=8, color=FAINT,
            )  # fmt: skip
        axes.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
        axes.margins(y=0.09)
        low, high = axes.get_ylim()
        if high - low < 0.02:  # flat: rounding would fill the panel
            axes.set_ylim((low + high) / 2 - 0.05, (low + high) / 2 + 0.05)
        dress(axes, name)
        step_axis(axes, last)
    panels[-1].set_xlabel("agent steps (shaded: the game is being trained)", fontsize=10)
    figure.supylabel(SCORES[result.scale], fontsize=10, color=INK)
    _legend(figure, result)
    return figure


def _line(axes: Axes, method: Method, games: tuple[str, ...], index: int) -> None:
    steps = method.curves[0][games[0]].steps
    rows = [[_at(steps, c[g]) for g in games] for c in method.curves]
    scores = np.mean(rows, axis=1)  # [R, E]
    marker = "o" if steps.size <= 40 else None
    axes.plot(steps, scores.mean(0), **look(index), linewidth=1.8, marker=marker, markersize=3)
    if len(scores) > 1:
        axes.fill_between(steps, *mean_band(scores), color=look(index)["color"], alpha=0.16, lw=0)


def _at(steps: np.ndarray, curve: Curve) -> np.ndarray:
    return np.interp(steps, curve.steps, curve.scores)


def _legend(figure: Figure, result: Comparison) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], **look(i), linewidth=2.2, label=_labelled(m))
        for i, m in enumerate(result.methods)
    ]
    widest = max(len(h.get_label()) for h in handles)
    columns = max(1, min(len(handles), 128 // (widest + 8)))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=9
    )


def _labelled(method: Method) -> str:
    seeds = len(method.runs)
    return f"{method.name} ({seeds} seed{'s' if seeds > 1 else ''})"


def intervals(result: Comparison) -> Figure | None:
    """One panel a figure, a row a method: IQM and its interval."""
    shown = [f for f in FIGURES if any(m.figures[f] for m in result.methods)]
    better = len(result.methods) > 1
    figure = new_figure(0.9 + 0.34 * len(result.methods))
    panels = figure.subplots(1, len(shown) + better, sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, shown):
        for i, method in enumerate(result.methods):
            found = method.figures[name]
            if found:
                _whisker(axes, i, found.iqm, found.interval)
                axes.plot([found.mean], [i], "|", color=FAINT, markersize=11, markeredgewidth=1.6)
        side = "lower" if name in LOWER_IS_BETTER else "higher"
        _rows(axes, name.replace("_", " "), f"{side} is better")
        axes.axvline(0, color=FAINT, linewidth=0.9)
    if better:
        axes = panels[-1]
        for i, method in enumerate(result.methods[1:], 1):
            p = method.improvement
            _whisker(axes, i, p.point, (p.low, p.high) if method.improvement_known else None)
        first = result.methods[0].name
        _rows(axes, "P(improvement)", f"over {first if len(first) < 16 else 'the first'}")
        axes.axvline(0.5, color=FAINT, linewidth=0.9)
        axes.set_xlim(-0.05, 1.05)
    _name_rows(panels[0], result)
    return figure


def _whisker(axes: Axes, row: int, point: float, interval: tuple[float, float] | None) -> None:
    colour = look(row)["color"]
    if interval:
        axes.plot(
            interval, (row, row), color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt"
        )
    axes.plot([point], [row], "D", color=colour, markersize=6)


def _name_rows(axes: Axes, result: Comparison) -> None:
    names = [fill(m.name, 26, break_long_words=False) for m in result.methods]
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _rows(axes: Axes, title: str, xlabel: str) -> None:
    dress(axes, title, xlabel=xlabel)
    axes.title.set_fontsize(10)
    axes.margins(x=0.12)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x", color="#e4e4e4", linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.label.set_fontsize(8.5)
    axes.xaxis.label.set_color(FAINT)
    axes.locator_params(axis="x", nbins=3)


def matrices(result: Comparison) -> Figure:
    """Task-by-time matrices, one a method (mean over seeds): games by ends of visits.

    Colour: share of the best that any method reached on that game, so that panels compare.
    """
    from matplotlib.patches import Rectangle

    tables = [_matrix(m, result.games) for m in result.methods]  # [G, 1 + V]
    best = np.nanmax([np.nanmax(t, axis=1) for t in tables], axis=0)[:, None]
    wide = max(t.shape[1] for t in tables) > 9
    columns = 1 if wide or len(tables) == 1 else 2
    rows = -(-len(tables) // columns)
    figure = new_figure(0.5 + rows * (0.55 + 0.3 * len(result.games)))
    panels = figure.subplots(rows, columns, squeeze=False)
    for k, (method, table) in enumerate(zip(result.methods, tables)):
        axes, visits = panels.flat[k], method.metrics[0].visits[: table.shape[1] - 1]
        shade = np.clip(table / np.where(best > 0, best, np.inf), 0, 1)
        image = axes.imshow(shade, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        if table.shape[1] <= 16:
            for row, column in np.ndindex(table.shape):
                dark = np.isfinite(shade[row, column]) and shade[row, column] < 0.55
                axes.text(column, row, two_digits(table[row, column]), ha="center", va="center",
                          fontsize=8, color="white" if dark else "black")  # fmt: skip
        for column, visit in enumerate(visits, 1):
            if visit.game not in result.games:  # left out
                continue
            corner = (column - 0.5, result.games.index(visit.game) - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.8))
        ends = ["start", *(short(v.end) for v in visits)]
        axes.set_xticks(range(table.shape[1]), ends, fontsize=8)
        named = result.games if k % columns == 0 else []
        axes.set_yticks(range(len(named)), named, fontsize=8)
        axes.tick_params(length=0, colors=INK)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.set_title(method.name, loc="left", fontsize=10, fontweight="bold", color=INK)
    for axes in panels.flat[len(tables) :]:
        axes.set_visible(False)
    figure.supxlabel("agent steps at the end of each visit", fontsize=9, color=FAINT)
    bar = figure.colorbar(image, ax=panels, fraction=0.02, pad=0.01, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0", "half", "best of all"], fontsize=8)
    bar.outline.set_visible(False)
    return figure


def _matrix(method: Method, games: tuple[str, ...]) -> np.ndarray:
    """[G, 1 + V], mean over the seeds; the first column: before any training."""
    rows = []
    for own, metrics in zip(method.curves, method.metrics):
        start = [own[g].scores[0] if own[g].steps[0] == 0 else np.nan for g in games]
        order = [metrics.games.index(g) for g in games]
        rows.append(np.column_stack([start, metrics.level[order]]))
    width = min(row.shape[1] for row in rows)
    return np.mean([row[:, :width] for row in rows], axis=0)


def profiles(result: Comparison) -> Figure:
    """Score distributions (Agarwal et al., 2021): the share of scores at the end, over games and
    seeds, above each threshold."""
    scores = np.concatenate([m.scores.ravel() for m in result.methods])
    low, high = min(scores.min(), 0.0), max(scores.max(), 0.05)
    thresholds = np.linspace(low - 0.02 * (high - low), high + 0.05 * (high - low), 401)
    figure = new_figure(3.6)
    axes = figure.subplots()
    for i, method in enumerate(result.methods):
        known = len(method.runs) > 1
        profile = performance_profile(method.scores, thresholds, repetitions=300 if known else 1)
        axes.plot(thresholds, profile.share, **look(i), linewidth=1.9)
        if known:
            axes.fill_between(
                thresholds, profile.low, profile.high, color=look(i)["color"], alpha=0.13, lw=0
            )
    dress(axes, "Score profile at the end", "share of games and seeds above",
          SCORES[result.scale])  # fmt: skip
    axes.set_xlim(thresholds[0], thresholds[-1])
    axes.set_ylim(-0.02, 1.04)
    _legend(figure, result)
    return figure


def costs(result: Comparison) -> Figure | None:
    """What a method takes: minutes of the run, agent steps/s of training, bytes by part."""
    methods = result.methods
    bars = {
        "seconds": ("Whole run", "minutes", 60, "{:.1f}"),
        "agent_steps_per_s": ("Training", "agent steps/s", 1, "{:.0f}"),
    }
    shown = [key for key in (*bars, "bytes") if any(m.costs[key] for m in methods)]
    if not shown:
        return None
    figure = new_figure(1.0 + 0.34 * len(methods))
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, shown):
        for i, m in enumerate(methods):
            if key == "bytes":
                _value(axes, i, _stack(axes, m, i), "{:.1f}")
            else:
                value = (m.costs[key] or 0) / bars[key][2]
                axes.barh(i, value, color=look(i)["color"], height=0.62)
                _value(axes, i, value, bars[key][3])
        title, unit = bars[key][:2] if key in bars else ("Remembered with", "MB")
        _rows(axes, title, unit)
        axes.set_xlim(0, 1.22 * axes.dataLim.x1)
    if shown[-1] == "bytes":
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
    _name_rows(panels[0], result)
    return figure


def _stack(axes: Axes, method: Method, row: int) -> float:
    """Bytes by part, one after the other; returns their sum in MB."""
    left = 0.0
    for part, shade in zip(PARTS, PART_COLOURS):
        size = (method.costs[f"bytes/{part}"] or 0) / 1e6
        axes.barh(row, size, left=left, color=shade, height=0.62, label=None if row else part)
        left += size
    return left


def _value(axes: Axes, row: int, value: float, text: str) -> None:
    if value:
        axes.annotate(
            text.format(value), (value, row), (3, 0), textcoords="offset points",
            va="center", fontsize=8, color=INK,
        )  # fmt: skip
