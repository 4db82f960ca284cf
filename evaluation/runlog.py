"""Reads a run's metrics.jsonl into typed records. Every analysis starts here and reads no more.

Each line is a JSON object with "step" (agent steps so far, all tasks) and "kind"; kinds and fields
that are not known are skipped, so that older readers read newer runs. The last line may be
unfinished (a run is being written); any other damage is an error that names the line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from errors import UserError
from evaluation.metrics import ContinualMetrics, Curve, Visit, as_curve, continual_metrics

FILE_NAME = "metrics.jsonl"
_NOT_NUMBERS = {"step", "kind", "task", "game"}


class Evaluation(NamedTuple):
    step: int
    task: int  # index of the visit that was being trained
    game: str
    returns: tuple[float, ...]  # raw, one an episode
    hns: float | None  # human-normalised mean; None where it was not finite
    capped: int = 0  # episodes cut off at the step cap of evaluations instead of over

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns)) if self.returns else np.nan


class Episode(NamedTuple):
    step: int
    task: int
    game: str
    score: float  # true raw return
    length: int  # agent steps


class TrainLine(NamedTuple):
    step: int
    task: int
    game: str
    numbers: dict[str, float | None]  # loss/..., spikes/..., agent_steps_per_s, ...


@dataclass
class RunLog:
    """What happened in a run. Games in the order of the first evaluation (the sequence's order)."""

    evaluations: dict[str, list[Evaluation]] = field(default_factory=dict)
    episodes: list[Episode] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    cycles: list[int] = field(default_factory=list)  # of each visit
    train: list[TrainLine] = field(default_factory=list)
    last_step: int = 0

    @property
    def games(self) -> tuple[str, ...]:
        return tuple(self.evaluations)

    def curves(self) -> dict[str, Curve]:
        """Human-normalised evaluation curves; evaluations without a finite score are left out."""
        return {g: _curve([(e.step, e.hns) for e in es]) for g, es in self.evaluations.items()}

    def raw_curves(self) -> dict[str, Curve]:
        """Curves of mean raw returns."""
        return {g: _curve([(e.step, e.mean) for e in es]) for g, es in self.evaluations.items()}

    def metrics(self, single: dict[str, Curve] | None = None) -> ContinualMetrics:
        return continual_metrics(self.curves(), self.visits, single, raw=self.raw_curves())

    def scalars(self, prefix: str) -> dict[str, Curve]:
        """Training numbers whose name starts with `prefix`, without it: name -> curve."""
        rows: dict[str, list] = {}
        for line in self.train:
            for key, value in line.numbers.items():
                if key.startswith(prefix) and value is not None:
                    rows.setdefault(key.removeprefix(prefix), []).append((line.step, value))
        return {name: _curve(pairs) for name, pairs in rows.items()}


def read_run_log(run_folder: Path | str) -> RunLog:
    """The log of `runs/<name>` (a folder, or the metrics.jsonl itself).

    Raises:
        UserError: there is no such file, or a line other than an unfinished last one is damaged.
    """
    path = Path(run_folder)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.exists():
        raise UserError(f"{path} does not exist: give the folder of a run that was started")
    log = RunLog()
    for number, line in _lines(path):
        try:
            _add(log, line)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"{path} line {number} is no record of kind {line.get('kind')!r} ({what}): "
                "restore the file from a copy"
            ) from error
    return log


def _lines(path: Path) -> Iterator[tuple[int, dict]]:
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = json.loads(raw)
                if not isinstance(line, dict) or not isinstance(line.get("step"), int):
                    raise ValueError("no object with an integer step")
            except ValueError as error:
                if not raw.endswith(b"\n"):
                    return  # the last line, not finished yet
                raise UserError(
                    f"{path} line {number} is damaged ({str(error)[:80]}): remove the line or "
                    "restore the file from a copy"
                ) from error
            yield number, line


def _add(log: RunLog, line: dict) -> None:
    kind, step = line["kind"], line["step"]
    if kind == "eval":
        returns = tuple(np.nan if r is None else float(r) for r in line["returns"])
        hns = None if line["hns"] is None else float(line["hns"])
        capped = int(line.get("capped", 0))
        record = Evaluation(step, int(line["task"]), str(line["game"]), returns, hns, capped)
        before = log.evaluations.setdefault(record.game, [])
        if before and step < before[-1].step:
            raise ValueError(f"an evaluation at {step} after one at {before[-1].step}")
        before.append(record)
    elif kind == "episode":
        score, length = float(line["return"]), int(line["length"])
        log.episodes.append(Episode(step, int(line["task"]), str(line["game"]), score, length))
    elif kind == "train":
        numbers = {k: v for k, v in line.items() if k not in _NOT_NUMBERS}
        log.train.append(TrainLine(step, int(line["task"]), str(line["game"]), numbers))
    elif kind == "task" and line["event"] == "begin":
        log.visits.append(Visit(str(line["game"]), step, None))
        log.cycles.append(int(line["cycle"]))
    elif kind == "task" and line["event"] == "end":
        log.visits[-1] = log.visits[-1]._replace(end=step)
    log.last_step = max(log.last_step, step)


def _curve(pairs: list) -> Curve:
    return as_curve("", [p for p in pairs if p[1] is not None])
