"""The runs that a benchmark is made of: each its own `train.py`, some at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POLL_SECONDS = 0.2
ATARI_100K = 100_000  # agent steps


def train_all(runs: Iterable[tuple[Path, Sequence[str]]], at_once: int = 1) -> None:
    """Train every run to its end; what each says goes into `<folder>.log`.

    SIGTERM and Ctrl-C are passed on: runs that are on their way save their state and end, no other
    is started, and the same benchmark goes on with them.

    Args:
        runs: folder, as run= is to be given, and further overrides of train.py.
        at_once: runs at a time.
    """
    todo = list(runs)
    running: dict[subprocess.Popen, tuple[Path, float]] = {}
    stopped: list[int] = []

    def stop(signum: int, _frame: object) -> None:
        stopped.append(signum)
        for process in running:
            process.terminate()

    old = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        while running or (todo and not stopped):
            while todo and not stopped and len(running) < at_once:
                folder, overrides = todo.pop(0)
                running[_start(folder, overrides)] = (folder, time.time())
            time.sleep(POLL_SECONDS)
            for process in [p for p in running if p.poll() is not None]:
                folder, begin = running.pop(process)
                seconds = time.time() - begin
                print(f"{folder.name}: exit {process.returncode}, {seconds:.0f} s", flush=True)
    finally:
        for process in running:
            process.terminate()
        for signum, handler in old.items():
            signal.signal(signum, handler)
    if stopped:
        sys.exit(128 + stopped[0])


def whole(lines: Sequence[dict], steps: int = ATARI_100K) -> bool:
    """Whether a run's metrics are those of one game, trained and judged after so many steps."""
    ends = [x["step"] for x in lines if x["kind"] == "task" and x["event"] == "end"]
    judged = [x["step"] for x in lines if x["kind"] == "eval"]
    return ends == [steps] and bool(judged) and judged[-1] == steps


def _start(folder: Path, overrides: Sequence[str]) -> subprocess.Popen:
    place = ROOT / folder
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{place}.log", "a") as log:
        return subprocess.Popen(
            [sys.executable, "train.py", *overrides, f"run={folder}"],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C reaches it once, through `stop`
        )
