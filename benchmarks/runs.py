"""The runs that a benchmark is made of: each its own `train.py`, some at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ATARI_100K = 100_000  # agent steps


def train_all(runs: Iterable[tuple[Path, Sequence[str]]], at_once: int = 1) -> None:
    """Train every run to its end, as a sweep does: all configurations are checked first, signals
    are passed on, and the same benchmark goes on with what they stopped.

    Args:
        runs: folder, as run= is to be given, and further overrides of train.py.
        at_once: runs at a time; where these are several, each has its own `<folder>.log`.
    """
    from errors import UserError
    from training.config import load_config
    from training.sweep import Executor, Job, Sweep

    jobs = []
    for folder, words in runs:
        try:
            config = load_config(words)
            config.sequence.tasks()  # unknown games are named, too
        except UserError as error:
            sys.exit(f"error: {error}")
        jobs.append(Job(folder.name, folder, (*words, f"run={folder}"), config))
    os.environ["OMP_NUM_THREADS"] = "1"  # of the runs
    executor = Executor(
        Sweep(Path(), tuple(jobs), at_once, tuple(jobs)), finished=lambda folder: False
    )
    executor.run()
    if executor.stopped is not None:
        sys.exit(128 + executor.stopped)
    if executor.failed:
        sys.exit(1)


def whole(lines: Sequence[dict], steps: int = ATARI_100K) -> bool:
    """Whether a run's metrics are those of one game, trained and judged after so many steps."""
    ends = [x["step"] for x in lines if x["kind"] == "task" and x["event"] == "end"]
    judged = [x["step"] for x in lines if x["kind"] == "eval"]
    return ends == [steps] and bool(judged) and judged[-1] == steps
