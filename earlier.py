"""Keys in which the config.yaml of earlier versions' runs differs from today's, where that says
nothing about what was done. Plain data, for those who go on with a run and those who compare some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Dotted keys that earlier versions wrote, with the value that changed nothing.
RETIRED = {"planner.margin": 0.0}
# Dotted keys that earlier versions did not know, with the value that they all went by, or the
# usual one where it is of something that they had not.
ADDED = {"start_from": None, "plasticity.until": 120_000}


def in_todays_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """A plain configuration without what is retired and with what was added, so that equal runs
    have equal configurations. A retired key with a value that did change something stays."""
    out: dict[str, Any] = dict(config)
    for key, without_effect in RETIRED.items():
        group, _, name = key.rpartition(".")
        within = out.get(group)
        if isinstance(within, dict) and within.get(name, ...) == without_effect:
            out[group] = {k: v for k, v in within.items() if k != name}
    for key, value in ADDED.items():
        group, _, name = key.rpartition(".")
        if not group:
            out.setdefault(name, value)
        elif isinstance(out.get(group), dict):
            out[group] = {name: value} | out[group]
    return out
