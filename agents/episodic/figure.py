"""The picture of a recall: the present frame beside the moments it was compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from memory.episodic import Moments


class Recall(NamedTuple):
    """One observation, the action taken, and the k entries that spoke for it, nearest first."""

    frame: np.ndarray  # uint8 [84,84]
    action: int
    q: float  # what the agent went by
    slow: float  # learned value
    fast: float  # remembered value
    confidence: float
    frames: list[np.ndarray | None]  # k, uint8 [84,84]; None where replay no longer has it
    known: Moments  # [k]
    weights: np.ndarray  # [k]
    distances: np.ndarray  # [k] squared


def draw_recall(
    recalls: list[Recall],
    names: list[str],
    columns: int = 5,
    actions: Sequence[str] | None = None,
) -> Any:
    """A matplotlib figure, one row a recall. `names`: of the tasks, for the captions; `actions`: of
    the actions, None for their numbers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.9 * (columns + 1), 2.5 * len(recalls)), layout="constrained")
    axes = figure.subplots(len(recalls), columns + 1, squeeze=False)
    for row, recall in zip(axes, recalls):
        _show(row[0], recall.frame, now_caption(recall, actions))
        for i, axis in enumerate(row[1:]):
            if i < len(recall.frames):
                _show(axis, recall.frames[i], caption(recall, i, names))
            else:
                axis.axis("off")
    return figure


def now_caption(recall: Recall, actions: Sequence[str] | None = None) -> str:
    taken = actions[recall.action] if actions else f"action {recall.action}"
    return (
        f"now, {taken}: q {recall.q:.2f}\nlearned {recall.slow:.2f}, "
        f"remembered {recall.fast:.2f}\nconfidence {recall.confidence:.2f}"
    )


def caption(recall: Recall, i: int, names: list[str]) -> str:
    """Game, value, weight, distance and age of the i-th neighbour."""
    known, task = recall.known, int(recall.known.tasks[i])
    return (
        f"{names[task]}: {known.values[i]:.2f}\nweight {recall.weights[i]:.2f}, "
        f"d² {recall.distances[i]:.3g}\nage {int(known.ages[i])}"
    )


def _show(axis: Any, frame: np.ndarray | None, text: str) -> None:
    axis.set_title(text, fontsize=7)
    axis.axis("off")
    if frame is None:
        axis.text(0.5, 0.5, "frames no longer\nin replay", ha="center", va="center", fontsize=7)
    else:
        axis.imshow(frame, cmap="gray", vmin=0, vmax=255)
