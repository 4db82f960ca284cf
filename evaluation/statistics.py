"""Figures over several seeds and games with stratified bootstrap intervals (Agarwal et al., 2021).

Thin, seeded wraps of rliable. rliable takes a `random_state` but resamples from NumPy's global
generator all the same; here the global generator is seeded for the call and put back afterwards,
so that the same seed gives the same interval and nobody else's numbers change.

Shape legend: R runs (seeds), G games. Scores are human-normalised, [R, G].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

REPETITIONS = 2000  # bootstrap resamplings; more change the third digit of an interval
CONFIDENCE = 0.95


class Interval(NamedTuple):
    point: float
    low: float
    high: float


class Aggregates(NamedTuple):
    """Aggregate scores of one method. Optimality gap: how far below human (1) it is on average."""

    iqm: Interval  # mean of the middle half of all [R, G] scores
    mean: Interval
    median: Interval  # median over games of the means over runs
    optimality_gap: Interval


class Profile(NamedTuple):
    """Share of the [R, G] scores above each threshold."""

    thresholds: np.ndarray  # [T]
    share: np.ndarray  # [T]
    low: np.ndarray  # [T]
    high: np.ndarray  # [T]


def aggregate(
    scores: Mapping[str, np.ndarray],
    seed: int = 0,
    repetitions: int = REPETITIONS,
    confidence: float = CONFIDENCE,
) -> dict[str, Aggregates]:
    """IQM, mean, median and optimality gap of each method, with bootstrap intervals.

    Args:
        scores: method -> [R, G]; runs are resampled within each game (stratified).
        seed: seed of the resampling; a method's interval does not depend on the other methods.

    Raises:
        ValueError: a score that is not finite, or an array that is not [R, G].
    """
    from rliable import library, metrics

    def figures(x: np.ndarray) -> np.ndarray:  # [R, G] -> [4]
        return np.array(
            [
                metrics.aggregate_iqm(x),
                metrics.aggregate_mean(x),
                metrics.aggregate_median(x),
                metrics.aggregate_optimality_gap(x),
            ]
        )

    out = {}
    for method, table in scores.items():
        with _seeded(seed):
            point, interval = library.get_interval_estimates(
                {method: _checked(method, table)},
                figures,
                reps=repetitions,
                confidence_interval_size=confidence,
            )
        low, high = interval[method]
        values = zip(point[method], low, high)
        out[method] = Aggregates(*(Interval(*map(float, v)) for v in values))
    return out


def interquartile_mean(
    scores: np.ndarray,
    seed: int = 0,
    repetitions: int = REPETITIONS,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The IQM of [R, G] alone, with its stratified bootstrap interval: the same as `aggregate`'s,
    in a fraction of the time."""
    from rliable import library

    table = _checked("scores", scores)
    with _seeded(seed):
        point, interval = library.get_interval_estimates(
            {"scores": table},
            lambda x: np.array([_middle_half(x)]),
            reps=repetitions,
            confidence_interval_size=confidence,
        )
    low, high = np.ravel(interval["scores"])
    return Interval(float(point["scores"][0]), float(low), float(high))


def iqm_difference(
    ours: np.ndarray,
    theirs: np.ndarray,
    seed: int = 0,
    repetitions: int = REPETITIONS,
    confidence: float = CONFIDENCE,
) -> Interval:
    """IQM of ours minus IQM of theirs, both [R, G], where run r of a game is the same in both (the
    same episode's seed): such pairs are resampled together, within each game."""
    ours, theirs = _checked("ours", ours), _checked("theirs", theirs)
    if ours.shape != theirs.shape:
        raise ValueError(f"pairs are needed: ours is {ours.shape}, theirs {theirs.shape}")
    rng, games = np.random.default_rng(seed), np.arange(ours.shape[1])
    differences = np.empty(repetitions)
    for i in range(repetitions):
        drawn = rng.integers(len(ours), size=ours.shape)
        differences[i] = _middle_half(ours[drawn, games]) - _middle_half(theirs[drawn, games])
    outside = 50 * (1 - confidence)
    low, high = np.percentile(differences, [outside, 100 - outside])
    return Interval(_middle_half(ours) - _middle_half(theirs), float(low), float(high))


def mean_band(
    curves: np.ndarray,
    seed: int = 0,
    repetitions: int = REPETITIONS,
    confidence: float = CONFIDENCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise percentile bootstrap of the mean over runs: [R, E] -> low [E], high [E]."""
    curves = np.asarray(curves, float)
    runs = curves.shape[0]
    picks = np.random.default_rng(seed).integers(0, runs, (repetitions, runs))
    share = np.stack([(picks == r).mean(1) for r in range(runs)], 1)  # [repetitions, R]
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(share @ curves, [tail, 100 - tail], axis=0)
    return low, high


def probability_of_improvement(
    ours: np.ndarray,
    theirs: np.ndarray,
    seed: int = 0,
    repetitions: int = REPETITIONS,
    confidence: float = CONFIDENCE,
) -> Interval:
    """P(a run of ours beats a run of theirs), averaged over games; ties count half. Both [R, G]."""
    from rliable import library, metrics

    ours, theirs = _checked("ours", ours), _checked("theirs", theirs)
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(f"ours has {ours.shape[1]} games, theirs {theirs.shape[1]}")
    with _seeded(seed):
        point, interval = library.get_interval_estimates(
            {"pair": (ours, theirs)},
            metrics.probability_of_improvement,
            reps=repetitions,
            confidence_interval_size=confidence,
        )
    low, high = np.ravel(interval["pair"])
    return Interval(float(np.ravel(point["pair"])[0]), float(low), float(high))


def performance_profile(
    scores: np.ndarray,
    thresholds: np.ndarray,
    seed: int = 0,
    repetitions: int = REPETITIONS,
    confidence: float = CONFIDENCE,
) -> Profile:
    """Share of the scores [R, G] above each threshold [T], with pointwise intervals."""
    from rliable import library

    thresholds = np.asarray(thresholds, float)
    with _seeded(seed):
        share, interval = library.create_performance_profile(
            {"scores": _checked("scores", scores)},
            thresholds,
            reps=repetitions,
            confidence_interval_size=confidence,
        )
    low, high = interval["scores"]
    return Profile(thresholds, np.asarray(share["scores"]), np.asarray(low), np.asarray(high))


def _middle_half(table: np.ndarray) -> float:
    """rliable's `aggregate_iqm` in plain arithmetic: a tenth of the time of scipy's trim_mean."""
    values = np.sort(table, axis=None)
    cut = values.size // 4
    return float(values[cut : values.size - cut].mean())


def _checked(name: str, table: np.ndarray) -> np.ndarray:
    table = np.asarray(table, float)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"scores of {name} must be [runs, games], not {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError(f"scores of {name} are not all finite")
    return table


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator for a block, then put its state back."""
    state = np.random.get_state()  # noqa: NPY002 - the point is that rliable reads it
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
