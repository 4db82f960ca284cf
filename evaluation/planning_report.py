"""The comparison of planners as a table, figures and TensorBoard scalars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.planners import Tree
from evaluation.lockstep import action_names, play_settings
from evaluation.report import planning_rows
from evaluation.style import PALETTE, dress, new_figure, short

THOUGHTS = 3  # moments of a game whose search is drawn
REMINDED = 3  # steps ahead for which the stored moment is shown that it reminds of
SHOWN = 4  # children of a node that are drawn, best first


def planning_table(report: Mapping) -> None:
    """Print the comparison."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(150, Console().width))
    head, *rows = planning_rows(report)
    table = Table(title=f"planning against reacting: {report['episodes']} paired episodes")
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i else "left")
    last = rows[0][0].split(", ")[0]
    for row in rows:
        group = row[0].split(", ")[0]
        if group != last:
            table.add_section()
        last = group
        table.add_row(*row)
    console.print(table)
    for game, row in report["games"].items():
        errors = row["model_errors"]
        if errors:
            own, wrong = errors["learned"], errors["shuffled"]
            console.print(
                f"{game}: reward error 1, 5 steps ahead {own['reward'][0]:.3f}, "
                f"{own['reward'][-1]:.3f} (shuffled {wrong['reward'][0]:.3f}, "
                f"{wrong['reward'][-1]:.3f}; constant {errors['constant_reward'][0]:.3f}); value "
                f"{own['value'][0]:.3f}, {own['value'][-1]:.3f} (shuffled {wrong['value'][0]:.3f}, "
                f"{wrong['value'][-1]:.3f}; present value {errors['present_value'][0]:.3f}, "
                f"{errors['present_value'][-1]:.3f})"
            )


def write_figures(
    run: Any,
    report: Mapping,
    courses: Mapping[str, Sequence],
    contest: Any,
    chosen: Sequence,
    folder: Path,
) -> dict[str, Any]:
    """planning.png, and thought_<game>.png of one search: the first beam that looks further than a
    step ahead, without one the Gumbel search with most simulations. name -> Figure."""
    figures = {"planning": draw_differences(report)}
    if any(row["model_errors"] for row in report["games"].values()):
        figures["model_errors"] = draw_errors(report)
    searches = [v for v in chosen if v.model == "learned"]
    beams = [v for v in searches if v.planner.name == "beam" and v.planner.depth > 1]
    gumbels = [v for v in searches if v.planner.name == "gumbel" and v.planner.simulations > 0]
    shown = beams[:1] or sorted(gumbels, key=lambda v: v.planner.simulations)[-1:]
    for variant in shown:
        for game, course in courses.items():
            index = run.sequence.games.index(game)
            names = action_names(play_settings(run, game))
            figures[f"thought_{game}"] = draw_thoughts(contest, variant, game, index, course, names)
    drawn = [
        p for kind in ("planning", "model_errors", "thought_*") for p in folder.glob(f"{kind}.png")
    ]
    for path in drawn:  # of an earlier comparison: other games, other searches
        path.unlink()
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")
    return figures


def draw_differences(report: Mapping):
    """A panel a game: mean return of each variant; the whiskers are those of the paired difference
    to reactive."""
    games = report["games"]
    figure = new_figure(0.9 + 0.32 * max(len(r["variants"]) for r in games.values()))
    panels = figure.subplots(1, len(games), squeeze=False)[0]
    for axes, (game, row) in zip(panels, games.items()):
        names = list(row["variants"])
        base = row["variants"]["reactive"]["mean"]
        for i, name in enumerate(names):
            v = row["variants"][name]
            colour = PALETTE[0] if name == "reactive" else PALETTE[2]
            if name.startswith(("shuffled", "oracle")):
                colour = "#999999"
            axes.barh(i, v["mean"], color=colour, height=0.65)
            if "against_reactive" in v:
                apart, low, high = v["against_reactive"]["difference"]
                axes.plot([v["mean"] - apart + low, v["mean"] - apart + high], [i, i],
                          color="#222222", linewidth=1.2)  # fmt: skip
        axes.axvline(base, color=PALETTE[0], linewidth=1, linestyle=":")
        axes.set_yticks(range(len(names)), names if axes is panels[0] else [""] * len(names))
        axes.invert_yaxis()
        dress(axes, game, xlabel="return")
        axes.grid(True, axis="x", color="#e4e4e4", linewidth=0.8)
        axes.xaxis.set_major_formatter(lambda x, _: short(x))
    return figure


def draw_errors(report: Mapping):
    """Errors of value and reward by steps ahead: model, shuffled model, and doing without."""
    games = {g: r["model_errors"] for g, r in report["games"].items() if r["model_errors"]}
    figure = new_figure(4.6)
    panels = figure.subplots(2, len(games), squeeze=False, sharex=True)
    for column, (game, errors) in enumerate(games.items()):
        without = {"reward": "constant_reward", "value": "present_value"}
        for axes, part in zip(panels[:, column], ("reward", "value")):
            k = np.arange(1, len(errors["learned"][part]) + 1)
            axes.plot(k, errors["learned"][part], color=PALETTE[2], label="model")
            axes.plot(k, errors["shuffled"][part], color="#999999", label="shuffled actions")
            axes.plot(k, errors[without[part]], color=PALETTE[1], linestyle=":",
                      label="mean reward" if part == "reward" else "present value")  # fmt: skip
            axes.set_ylim(bottom=0)
            title = game if part == "reward" else ""
            dress(axes, title, f"error of {part}" if column == 0 else "",
                  "steps ahead" if part == "value" else "")  # fmt: skip
            if column == 0:
                axes.legend(frameon=False, fontsize=8)
    return figure


def draw_thoughts(
    contest: Any, variant: Any, game: str, index: int, course: Sequence, names: Sequence[str]
):
    """Some moments with the tree that was searched there, values at the nodes; with an episodic
    memory, below, the stored moments that the way that looks best reminds it of."""
    moments = [m for episode in course for m in episode]
    picked = np.linspace(0, len(moments) - 1, THOUGHTS + 2).astype(int)[1:-1]
    figure = new_figure(2.9 * THOUGHTS)
    grid = figure.add_gridspec(THOUGHTS, 2, width_ratios=[1, 4])
    for row, at in enumerate(picked):
        obs = moments[at].obs
        q, found = contest.decide(variant, obs[None], index)
        label = contest.agent.label(obs[None], index)
        left, right = figure.add_subplot(grid[row, 0]), figure.add_subplot(grid[row, 1])
        left.imshow(obs[-1], cmap="gray", vmin=0, vmax=255)
        left.set_axis_off()
        own = int(q[0].masked_fill(~contest.agent.masks[label], -np.inf).argmax())
        left.set_title(f"reacts {names[own]}, plans {names[int(found.action[0])]}", fontsize=8)
        best = draw_tree(right, found.tree, names)
        if hasattr(contest.agent, "reminded"):
            frames = contest.agent.reminded(found.tree.latent[0, best[:REMINDED]], label)
            bottom, top = right.get_ylim()
            right.set_ylim(bottom + 0.5 * (bottom - top), top)  # room below the tree
            for i, frame in enumerate(frames):
                inset = right.inset_axes((0.3 + 0.2 * i, -0.02, 0.18, 0.26))
                inset.set_axis_off()
                inset.set_title(f"reminded of, {i + 1} ahead", fontsize=6)
                if frame is not None:
                    inset.imshow(frame, cmap="gray", vmin=0, vmax=255)
        if row == 0:
            right.set_title(
                f"{game}: {variant.name}; action: value of the way (reward)", fontsize=9
            )
    return figure


def draw_tree(axes: Any, tree: Tree, names: Sequence[str], row: int = 0) -> list[int]:
    """The best children of each node, from left to right; thick: the way that looks best, whose
    nodes are returned."""
    parent, q = tree.parent[row].numpy(), tree.q[row].numpy()
    action, reward = tree.action[row].numpy(), tree.reward[row].numpy()

    def children(node: int) -> list[int]:
        below = [i for i in np.flatnonzero(parent == node) if np.isfinite(q[i])]
        return sorted(below, key=lambda i: -q[i])[:SHOWN]

    def has_children(node: int) -> bool:
        return bool((parent == node).any())

    place: dict[int, tuple[float, float]] = {}
    leaves = [0.0]

    def put(node: int, depth: int) -> float:
        below = children(node)
        if not below:
            y, leaves[0] = leaves[0], leaves[0] + 1
        else:
            y = float(np.mean([put(child, depth + 1) for child in below]))
        place[node] = (float(depth), y)
        return y

    put(-1, 0)
    best, node = [], -1
    while has_children(node):
        node = children(node)[0]
        best.append(node)
    for node, (x, y) in place.items():
        if node >= 0:
            x0, y0 = place[int(parent[node])]
            on = node in best
            axes.plot([x0, x], [y0, y], color=PALETTE[2] if on else "#bbbbbb",
                      linewidth=2.2 if on else 0.9, zorder=1)  # fmt: skip
            text = f"{names[action[node]]}: {q[node]:.2f}"
            if abs(reward[node]) > 0.05:
                text += f" ({reward[node]:+.1f})"
            axes.text(x, y, text, fontsize=7, ha="center", va="center", zorder=2,
                      bbox={"facecolor": "white", "edgecolor": "#cccccc", "pad": 1.5})  # fmt: skip
    axes.plot(*place[-1], "o", color=PALETTE[0])
    axes.set_xlim(-0.1, max(x for x, _ in place.values()) + 0.3)
    axes.invert_yaxis()
    axes.set_axis_off()
    return best


def board(run: Any, report: Mapping, figures: Mapping[str, Any]) -> None:
    """TensorBoard scalars and figures, in a folder of their own beside the training's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.path / "planning")) as writer:
        for game, row in report["games"].items():
            for name, v in row["variants"].items():
                writer.add_scalar(f"planning/return/{game}/{name}", v["mean"], run.step)
                writer.add_scalar(f"planning/override/{game}/{name}", v["override"], run.step)
                ms = v["ms_per_decision"]
                writer.add_scalar(f"planning/ms_per_decision/{game}/{name}", ms, run.step)
            for part in ("reward", "value"):
                for k, error in enumerate(row["model_errors"].get("learned", {}).get(part, []), 1):
                    tag = f"planning/{part}_error/{game}"
                    writer.add_scalar(tag, error, k)  # steps ahead along the axis
        for name, v in report["overall"].items():
            writer.add_scalar(f"planning/iqm/{name}", v["iqm"][0], run.step)
        for name, figure in figures.items():
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            pixels = np.asarray(canvas.buffer_rgba())[..., :3]
            writer.add_image(f"planning/{name}", pixels, run.step, dataformats="HWC")
