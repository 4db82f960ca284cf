"""Continual-learning metrics of one run: pure functions of evaluation curves and a schedule.

Shape legend: G games, V visits (stretches of training on one game), E evaluations.

Everything but the areas is read off one table, the task-by-time matrix `level [G, V]`: how good the
agent is at game g at the end of visit v. A level is the mean of the last `window` evaluations, but
of none before the last fifth of the visit other than its last one: where there are few, their mean
would mix in what the agent could do before it had learned.

p_i(T) below is the last column, p_i(t_i^end) the column of a visit to game i. Scores are
human-normalised with fixed constants (0 = random, 1 = human) and never clipped.

Conventions that the literature leaves open:
  - Several cycles. Forgetting of a game counts from its latest visit. `visit_forgetting` gives
    every visit its own figure: from its end until the game is visited again (or until now).
    Forward transfer, intransigence and CORA's figures are about a game's first visit.
  - A visit that still runs counts as the last one, as far as it was evaluated.
  - Nothing to compute a figure from (no such visit yet, no single-task reference, too few
    evaluations) makes it None, never 0. Means are taken over the games that have the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from evaluation.cora import CoraMetrics, cora_metrics

WINDOW = 5  # evaluations averaged at the end of a visit, as Continual World does
TAIL = 0.2  # share of a visit, at its end, that they lie in
COVERAGE = 0.95  # share of a visit that a single-task reference must reach to be its equal


class Curve(NamedTuple):
    """Evaluations of one game over a whole run."""

    steps: np.ndarray  # [E] agent steps, rising
    scores: np.ndarray  # [E]


class Visit(NamedTuple):
    """A stretch of training on one game: agent steps in (start, end]; end None while it runs."""

    game: str
    start: int
    end: int | None


@dataclass(frozen=True)
class VisitForgetting:
    """What was lost of a game between the end of a visit and its next one (or now)."""

    visit: int  # index in the schedule
    game: str
    value: float | None  # None: nothing came in between


@dataclass(frozen=True)
class ContinualMetrics:
    """Figures of one run; in units of the scores handed in. See the module for conventions."""

    games: tuple[str, ...]  # [G] in the order of their first visit
    visits: tuple[Visit, ...]  # [V] those that were evaluated at least once
    level: np.ndarray  # [G, V] task-by-time matrix; nan where a game was not evaluated
    now: dict[str, float]  # p_i(T)
    average: float | None  # mean_i p_i(T), over all games, visited or not
    forgetting: float | None  # mean over the games trained so far; positive = lost
    forgetting_by_game: dict[str, float | None]
    visit_forgetting: tuple[VisitForgetting, ...]
    backward_transfer: float | None  # -mean of forgetting over all games but the last
    forward_transfer: float | None
    forward_transfer_by_game: dict[str, float | None]
    intransigence: float | None
    intransigence_by_game: dict[str, float | None]
    cora: CoraMetrics

    def as_dict(self) -> dict[str, float | None]:
        """Flat numbers for logs: means by their name, games as 'name/game'."""
        out = {
            "average": self.average,
            "forgetting": self.forgetting,
            "backward_transfer": self.backward_transfer,
            "forward_transfer": self.forward_transfer,
            "intransigence": self.intransigence,
            "cora_forgetting": self.cora.mean_forgetting,
            "cora_zero_shot": self.cora.mean_zero_shot,
        }
        for name in ("forgetting", "forward_transfer", "intransigence"):
            by_game = getattr(self, f"{name}_by_game")
            out |= {f"{name}/{game}": x for game, x in by_game.items() if x is not None}
        return out


def continual_metrics(
    scores: Mapping[str, object],
    schedule: Sequence[Sequence],
    single: Mapping[str, object] | None = None,
    *,
    raw: Mapping[str, object] | None = None,
    window: int = WINDOW,
) -> ContinualMetrics:
    """All figures of a run, or of a run so far.

    Args:
        scores: game -> curve of human-normalised scores: a `Curve`, a tuple (steps [E],
            scores [E]), or rows [[step, score], ...].
        schedule: rows (game, start step, end step or None) in order; cycles are just more rows.
        single: game -> curve of the same agent trained on that game alone, from its step 0, with
            the same budget. Games without one get no forward transfer and no intransigence.
        raw: game -> curve of raw returns, for CORA's figures, which scale raw returns by the run's
            own maximum. Without it they are computed from `scores`.
        window: evaluations averaged at the end of a visit, all in its last fifth.

    Formulas:
        average            mean_i p_i(T)
        forgetting         F_i = p_i(t_i^end) - p_i(T), signed (Continual World, 2021)
        backward transfer  -mean F_i over all games but that of the last visit
        forward transfer   FT_i = A_i - A_i^single, A = area under the curve over the first visit,
                           divided by its length. This is the difference form: Continual World's
                           (A - A^single) / (1 - A^single) needs scores in [0, 1].
        intransigence      I_i = p_i^single(end) - p_i(t_i^end), at the end of the first visit

    Raises:
        ValueError: curves or a schedule that are no curves or no schedule.
    """
    curves = {game: as_curve(game, rows) for game, rows in scores.items()}
    visits = as_visits(schedule)
    games = _order(curves, visits)
    seen = [v for v in visits if any(_inside(curves[g], v).scores.size for g in games)]
    level = np.array([[_level(curves[g], v, window) for v in seen] for g in games])
    level = level.reshape(len(games), len(seen))
    row = {game: i for i, game in enumerate(games)}
    now = {g: _now(curves[g], level[row[g]]) for g in games}

    last = {v.game: k for k, v in enumerate(seen)}  # column of each game's latest visit
    forgetting = {
        g: _number(level[row[g], last[g]] - level[row[g], -1]) if g in last else None for g in games
    }
    others = {g: x for g, x in forgetting.items() if seen and g != seen[-1].game}
    references = {g: as_curve(g, rows) for g, rows in (single or {}).items()}
    transfer, intransigence = {}, {}
    for g in games:
        first = next((v for v in seen if v.game == g and v.end is not None), None)
        reference = references.get(g)
        transfer[g] = _forward_transfer(curves[g], reference, first)
        intransigence[g] = _intransigence(curves[g], reference, first, window)
    cora_curves = {g: as_curve(g, rows) for g, rows in raw.items()} if raw else curves
    return ContinualMetrics(
        games=games,
        visits=tuple(seen),
        level=level,
        now=now,
        average=_mean(now.values()),
        forgetting=_mean(forgetting.values()),
        forgetting_by_game=forgetting,
        visit_forgetting=_per_visit(level, row, seen),
        backward_transfer=_negative(_mean(others.values())),
        forward_transfer=_mean(transfer.values()),
        forward_transfer_by_game=transfer,
        intransigence=_mean(intransigence.values()),
        intransigence_by_game=intransigence,
        cora=cora_metrics(cora_curves, visits),
    )


def as_curve(game: str, rows: object) -> Curve:
    """A `Curve` from a curve, a tuple (steps, scores), or rows [[step, score], ...].

    Scores that are not finite are left out: a game without published constants has no
    normalised score.
    """
    if isinstance(rows, tuple) and len(rows) == 2:  # a Curve is such a tuple
        steps, scores = (np.asarray(x, float) for x in rows)
    else:
        table = np.asarray(rows, float).reshape(-1, 2)
        steps, scores = table[:, 0], table[:, 1]
    if steps.ndim != 1 or steps.shape != scores.shape:
        raise ValueError(f"curve of {game}: steps {steps.shape} and scores {scores.shape} differ")
    if (np.diff(steps) < 0).any():
        raise ValueError(f"curve of {game}: steps go back")
    finite = np.isfinite(scores)
    return Curve(steps[finite], scores[finite])


def as_visits(schedule: Sequence[Sequence]) -> tuple[Visit, ...]:
    """Visits from rows (game, start, end or None). Only the last may be without an end."""
    visits = tuple(Visit(str(g), int(a), None if b is None else int(b)) for g, a, b in schedule)
    for k, v in enumerate(visits):
        if v.end is None and k + 1 < len(visits):
            raise ValueError(f"visit {k} ({v.game}) has no end but is not the last")
        if (v.end is not None and v.end < v.start) or (k and v.start < visits[k - 1].end):
            raise ValueError(f"visit {k} ({v.game}, {v.start} to {v.end}) goes back in time")
    return visits


def _order(curves: Mapping[str, Curve], visits: Sequence[Visit]) -> tuple[str, ...]:
    visited = dict.fromkeys(v.game for v in visits)
    missing = [g for g in visited if g not in curves]
    if missing:
        raise ValueError(f"no curve for {missing}, which the schedule visits")
    return (*visited, *(g for g in curves if g not in visited))


def _inside(curve: Curve, visit: Visit) -> Curve:
    """The evaluations in (start, end]: the one at `start` belongs to what came before."""
    end = np.inf if visit.end is None else visit.end
    inside = (curve.steps > visit.start) & (curve.steps <= end)
    return Curve(curve.steps[inside], curve.scores[inside])


def _level(curve: Curve, visit: Visit, window: int) -> float:
    steps, scores = _inside(curve, visit)
    if not scores.size:
        return np.nan
    end = steps[-1] if visit.end is None else visit.end
    late = scores[steps > end - TAIL * (end - visit.start)]
    return float(late[-window:].mean() if late.size else scores[-1])


def _now(curve: Curve, levels: np.ndarray) -> float:
    if levels.size and np.isfinite(levels[-1]):
        return float(levels[-1])
    return float(curve.scores[-1]) if curve.scores.size else np.nan


def _per_visit(level: np.ndarray, row: dict, seen: Sequence[Visit]) -> tuple[VisitForgetting, ...]:
    out = []
    for k, v in enumerate(seen):
        again = next((n for n in range(k + 1, len(seen)) if seen[n].game == v.game), len(seen))
        lost = level[row[v.game], k] - level[row[v.game], again - 1] if again - 1 > k else None
        out.append(VisitForgetting(k, v.game, _number(lost)))
    return tuple(out)


def _forward_transfer(curve: Curve, reference: Curve | None, visit: Visit | None) -> float | None:
    if reference is None or visit is None:
        return None
    ours = _area(curve, visit.start, visit.end)
    theirs = _area(reference, 0, visit.end - visit.start)
    return None if ours is None or theirs is None else ours - theirs


def _intransigence(
    curve: Curve, reference: Curve | None, visit: Visit | None, window: int
) -> float | None:
    if reference is None or visit is None:
        return None
    length = visit.end - visit.start
    if not reference.steps.size or reference.steps[-1] < COVERAGE * length:
        return None
    alone = _level(reference, Visit(visit.game, 0, length), window)
    return _number(alone - _level(curve, visit, window))


def _area(curve: Curve, start: float, end: float) -> float | None:
    """Mean height of the piecewise linear curve over [start, end]; None where it does not reach."""
    slack = (1 - COVERAGE) * (end - start)
    inside = (curve.steps > start) & (curve.steps < end)
    if (
        end <= start
        or curve.steps.size < 2
        or curve.steps[0] > start + slack
        or curve.steps[-1] < end - slack
    ):
        return None
    steps = np.concatenate([[start], curve.steps[inside], [end]])
    return float(np.trapezoid(np.interp(steps, curve.steps, curve.scores), steps) / (end - start))


def _mean(values) -> float | None:
    known = [v for v in values if v is not None and np.isfinite(v)]
    return float(np.mean(known)) if known else None


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
