"""Pure schedules."""

from __future__ import annotations


def linear(start: float, end: float, duration: float, t: float) -> float:
    """Value at time `t`: `start` before 0, a straight line to `end` over `duration`, then flat."""
    if t < 0:
        return start
    if duration <= 0 or t >= duration:
        return end
    return start + (end - start) * t / duration


def exponential(start: float, end: float, duration: float, t: float) -> float:
    """Geometric interpolation from `start` to `end` (both of one sign), then flat.

    BBF (Schwarzer 2023, section 3) anneals n this way.
    """
    if duration <= 0 or t >= duration:
        return end
    return start * (end / start) ** (max(t, 0) / duration)


def discount_schedule(start: float, end: float, duration: float, t: float) -> float:
    """Discount annealed so that the horizon 1 / (1 - gamma) grows geometrically (BBF)."""
    if start >= 1 or end >= 1:
        return linear(start, end, duration, t)
    return 1.0 - exponential(1.0 - start, 1.0 - end, duration, t)
