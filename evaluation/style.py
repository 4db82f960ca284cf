"""How figures look: one palette, one set of axes, no global matplotlib settings.

Figures are made without pyplot, so that nothing here opens a window or keeps a figure alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
WIDTH = 9.0  # inches: about 1000 pixels, the width of a README
INK, FAINT, GRID = "#222222", "#777777", "#e4e4e4"

# Okabe and Ito's colours that stand out on white; told apart under all common colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B4B8A")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))  # beyond seven games the dash tells them apart


def look(index: int) -> dict:
    """Colour and dash of the game with this index."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": DASHES[index // len(PALETTE) % len(DASHES)],
    }


def new_figure(height: float, width: float = WIDTH) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")


def dress(axes: Axes, title: str = "", ylabel: str = "", xlabel: str = "") -> None:
    """Quiet axes: two spines, a faint grid behind the data, a title on the left."""
    axes.set_axisbelow(True)
    axes.grid(True, axis="y", color=GRID, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#aaaaaa")
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.set_ylabel(ylabel, fontsize=10, color=INK)
    axes.set_xlabel(xlabel, fontsize=10, color=INK)


def step_axis(axes: Axes, last: float) -> None:
    """Agent steps along x: 20k rather than 20000."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(0, max(last, 1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))


def short(number: float) -> str:
    """1500 -> 1.5k, 20000 -> 20k, 2000000 -> 2M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def two_digits(value: float | None, signed: bool = False) -> str:
    """A score for a table or a cell: two decimals, one from 10 on; a dash where there is none."""
    if value is None or value != value:
        return "-"
    digits = 2 if abs(value) < 9.995 else 1
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-0.00", "0.00").replace("+0.00", "0.00")


def smooth(values: Sequence[float], points: int):
    """Trailing mean over up to `points` values."""
    import numpy as np

    values = np.asarray(values, float)
    total = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - points, 0)
    return (total[ends] - total[starts]) / (ends - starts)
