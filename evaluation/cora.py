"""CORA's two figures (Powers et al., 2022): isolated forgetting and zero-shot forward transfer.

They stand beside ours only for comparison with CORA's tables. CORA divides by the maximum of the
run being judged, so a method that never learned a game has its noise blown up to full range, and
figures of two methods are not on one scale.

    F(i, j) = 10 [p_i(just before j) - p_i(end of j)] / S_i      i trained before j
    Z(i, j) = 10 [p_i(end of j) - p_i(just before j)] / S_i      i not trained yet

Both in the first cycle; S_i is the maximum over the run of the 20-point moving average of p_i.
Shape legend: N games visited, in the order of their first visits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from evaluation.metrics import Curve, Visit

SMOOTHING = 20  # points of the moving average


@dataclass(frozen=True)
class CoraMetrics:
    """Rows are the games judged, columns the games trained; nan where a figure is not defined."""

    games: tuple[str, ...]  # [N]
    scale: np.ndarray  # [N] S_i; nan where the maximum is not positive
    forgetting: np.ndarray  # [N, N] F(i, j), above the diagonal
    zero_shot: np.ndarray  # [N, N] Z(i, j), below the diagonal
    mean_forgetting: float | None
    mean_zero_shot: float | None


def cora_metrics(curves: Mapping[str, Curve], visits: Sequence[Visit]) -> CoraMetrics:
    """CORA's figures from curves of raw returns.

    A run with fewer than 20 evaluations is averaged whole. A first visit that still runs has no
    column yet. Where S_i is not positive (Pong, a game of penalties) the quotient means nothing and
    the row is nan.
    """
    first = {}
    for v in visits:
        first.setdefault(v.game, v)
    games = tuple(first)
    scale = np.array([_scale(curves[g].scores) for g in games])
    change = np.full((len(games), len(games)), np.nan)  # 10 [p_i(end of j) - p_i(before j)] / S_i
    for i, game in enumerate(games):
        for j, visit in enumerate(first.values()):
            before, after = _at(curves[game], visit.start), _at(curves[game], visit.end)
            change[i, j] = 10 * (after - before) / scale[i]
    lower = np.tri(len(games), k=-1, dtype=bool)
    forgetting = np.where(lower.T, -change, np.nan)
    zero_shot = np.where(lower, change, np.nan)
    return CoraMetrics(games, scale, forgetting, zero_shot, _mean(forgetting), _mean(zero_shot))


def _scale(scores: np.ndarray) -> float:
    if not scores.size:
        return np.nan
    points = min(SMOOTHING, scores.size)
    peak = np.convolve(scores, np.ones(points) / points, mode="valid").max()
    return float(peak) if peak > 0 else np.nan


def _at(curve: Curve, step: int | None) -> float:
    """The last evaluation at or before `step`; nan where there is none."""
    if step is None:
        return np.nan
    index = int(np.searchsorted(curve.steps, step, side="right")) - 1
    return float(curve.scores[index]) if index >= 0 else np.nan


def _mean(matrix: np.ndarray) -> float | None:
    known = matrix[np.isfinite(matrix)]
    return float(known.mean()) if known.size else None
