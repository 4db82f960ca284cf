"""The placement and a decision for people: a table, a mesh, a raster of spikes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .compile import CoreProgram
from .core import CoreResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def placement_rows(program: CoreProgram) -> list[dict]:
    """One dict a core: what sits there, what it takes, how far its spikes go."""
    hops = program.placement.hops()
    return [
        {
            "core": number,
            "layer": tile.layer,
            "router": tuple(int(n) for n in router),
            "y": tile.y,
            "x": tile.x,
            "channels": tile.channels,
            "neurons": tile.neurons,
            "synapse_bytes": tile.synapse_bytes,
            "input_axons": tile.input_axons,
            "output_axons": tile.output_axons,
            "fan_in": tile.fan_in,
            "hops": float(hop),
        }
        for number, (tile, router, hop) in enumerate(
            zip(program.placement.tiles, program.placement.routers, hops)
        )
    ]


def placement_table(program: CoreProgram) -> str:
    """The placement as text, one line a core and a line of limits and totals."""
    head = (
        f"{'core':>5} {'router':>7} {'layer':>5} {'rows':>7} {'columns':>7} {'channels':>9} "
        f"{'neurons':>8} {'synapse B':>10} {'in axons':>9} {'out axons':>9} {'hops':>5}"
    )
    lines = [head]
    rows = placement_rows(program)
    for row in rows:
        span = {name: f"{row[name][0]}-{row[name][1] - 1}" for name in ("y", "x", "channels")}
        router = f"{row['router'][0]},{row['router'][1]}"
        lines.append(
            f"{row['core']:5d} {router:>7} {row['layer']:5d} {span['y']:>7} {span['x']:>7} "
            f"{span['channels']:>9} {row['neurons']:8,d} {row['synapse_bytes']:10,d} "
            f"{row['input_axons']:9,d} {row['output_axons']:9,d} {row['hops']:5.2f}"
        )
    core = program.core
    total = {
        name: sum(row[name] for row in rows)
        for name in ("neurons", "synapse_bytes", "input_axons", "output_axons")
    }
    lines.append(
        f"{core.name}: {len(rows)} of {core.cores_in_all} cores, {total['neurons']:,} neurons, "
        f"{total['synapse_bytes']:,} synapse bytes, {total['input_axons']:,} input axons, "
        f"{total['output_axons']:,} output axons; weights of "
        f"{program.network.config.weight_bits} bits"
        + (", two synapses each" if program.network.config.synapses == 2 else "")
    )
    if core.neurons < 1 << 60:
        lines.append(
            f"limits of a core: {core.neurons:,} neurons, {core.synapse_bytes:,} synapse bytes, "
            f"{core.input_axons:,} input axons, {core.output_axons:,} output axons, "
            f"fan-in {core.fan_in:,}"
        )
    return "\n".join(lines)


def draw_placement(program: CoreProgram, path: Path | str) -> Figure:
    """A picture of the mesh: one square a core, colour by layer, fill by the fullest resource.

    Of several chips those are drawn that hold a tile.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    core, rows = program.core, placement_rows(program)
    chips = 1 + max(row["router"][0] for row in rows) // core.tiles[0]
    columns, lines = core.tiles[0] * chips, core.tiles[1]
    side = int(np.ceil(np.sqrt(min(core.cores_per_tile, max(4, len(rows))))))
    # wide enough for the title over a mesh of one router
    width = max(4.5, 2 + 0.8 * columns)
    figure = Figure(figsize=(width, 1.8 + 0.8 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"]
    filled: dict[tuple[int, int], int] = {}
    for column in range(columns):
        for line in range(lines):
            axes.add_patch(Rectangle((column, line), 0.94, 0.94, fill=False, edgecolor="#bbbbbb"))
    limits = ("neurons", "synapse_bytes", "input_axons", "output_axons")
    for row in rows:
        column, line = row["router"]
        place = filled.setdefault((column, line), 0)
        filled[(column, line)] += 1
        load = max(row[name] / getattr(core, name) for name in limits)
        cell = 0.94 / side
        x, y = column + cell * (place % side), line + cell * (place // side)
        colour = colours[(row["layer"] - 1) % len(colours)]
        axes.add_patch(
            Rectangle(
                (x, y),
                cell,
                cell,
                facecolor=colour,
                edgecolor="white",
                linewidth=0.8,
                alpha=0.25 + 0.75 * min(1.0, load),
            )
        )
        axes.text(x + cell / 2, y + cell / 2, str(row["core"]), ha="center", va="center", size=6)
    for layer in sorted({row["layer"] for row in rows}):
        axes.plot([], [], "s", color=colours[(layer - 1) % len(colours)], label=f"layer {layer}")
    axes.set(xlim=(-0.1, columns), ylim=(lines, -0.1), aspect="equal", xticks=[], yticks=[])
    axes.set_title(f"{core.name}: {len(rows)} cores, shade = fullest resource", size=9)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)
    return figure


def draw_raster(
    result: CoreResult, frames: np.ndarray, names: Sequence[str], path: Path | str | None = None
) -> Figure:
    """One decision: frames uint8 [T, H, W] above, below them each layer's spikes in each step.

    result: of `core.run(frames, record=True)`. A layer's rows are its channels; within a time step
    its positions lie side by side, row of the image by row. Saved to `path` where one is given.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = len(frames)
    # [T, C, H, W]: whether a spike is there, not what it carries
    rasters = [(result.layer_raster(i)[0] > 0).astype(np.uint8) for i in range(len(names))]
    figure = Figure(figsize=(1.8 * steps + 1, 2.2 + 2.2 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1 + len(names), steps, height_ratios=[1.4] + [1.6] * len(names))
    for t, frame in enumerate(frames):
        axes = figure.add_subplot(grid[0, t])
        axes.imshow(frame, cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"frame {t + 1}", size=8)
    for number, (name, raster) in enumerate(zip(names, rasters), 1):
        axes = figure.add_subplot(grid[number, :])
        channels = raster.shape[1]
        lines = raster.reshape(steps, channels, -1).transpose(1, 0, 2).reshape(channels, -1)
        axes.imshow(
            lines, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="antialiased",
            extent=(0, steps, channels, 0),
        )  # fmt: skip
        axes.set_xticks(range(steps + 1))
        share = raster.mean()
        axes.set_title(f"{name}: {raster.sum():,} spikes, {share:.1%} of neurons a step", size=8)
        axes.set_ylabel("channel", size=8)
        axes.tick_params(labelsize=7)
        for t in range(1, steps):
            axes.axvline(t, color="#888888", linewidth=0.8)
    axes.set_xlabel("time step", size=8)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
