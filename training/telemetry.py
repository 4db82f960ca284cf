"""Where a run's numbers go: metrics.jsonl, from which every analysis starts, and TensorBoard.

metrics.jsonl has one JSON object a line, each with "step" (agent steps so far, all tasks) and
"kind"; a line is handed to the operating system as soon as it is written, so that a killed process
loses none. A number that is not finite is written as null and left out of TensorBoard.

TensorBoard gives a colour to each run, so each game is also one, in `games/<game>` of the run's
folder: charts of one tag (games/hns, games/return, games/forgetting) show all of them, and the
tasks' boundaries, which are a run as well.

A checkpoint remembers how long metrics.jsonl was; loading it cuts off what came later, and tells
TensorBoard to forget the same steps. So a resumed run leaves the lines of an uninterrupted one, up
to `WALL_CLOCK_FIELDS`.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from errors import UserError

FILE_NAME = "metrics.jsonl"
# Fields that depend on the machine's speed and load: two equal runs differ in these alone.
WALL_CLOCK_FIELDS = frozenset({"agent_steps_per_s", "seconds", "peak_memory_mb"})
BOUNDARIES = "task boundaries"  # a line at 0 that rises where a task ends

Figures = Callable[[dict[str, list], list], Mapping[str, Any]]


class Telemetry:
    """Writes a run's numbers. Nothing on disk is touched before the first number.

    Args:
        run_folder: an existing folder.
        games: the sequence's games, in order.
        figures: (curves, schedule) -> {tag: matplotlib Figure}, drawn for TensorBoard at the end of
            each visit and at every `figure_every`-th evaluation. Handed in, since drawing is
            evaluation's business. None: no figures.
        figure_every: evaluations between two drawings.

    `curves` is {game: [[step, hns], ...]}, `returns` {game: [mean return, ...]} of the same
    evaluations, `schedule` [[game, start, end or None], ...].
    """

    def __init__(
        self,
        run_folder: Path | str,
        games: Sequence[str],
        figures: Figures | None = None,
        figure_every: int = 5,
    ) -> None:
        self.folder, self.games = Path(run_folder), tuple(games)
        self.figures, self.figure_every = figures, figure_every
        self.path = self.folder / FILE_NAME
        self.curves: dict[str, list] = {game: [] for game in self.games}
        self.returns: dict[str, list] = {game: [] for game in self.games}
        self.schedule: list[list] = []
        self._position, self._step = 0, 0
        self._purge_step: int | None = None
        self._file: Any = None
        self._board: Any = None
        self._game_boards: dict[str, Any] = {}  # by game, and of BOUNDARIES
        self._drawn: tuple[int, int] | None = None  # evaluations, ended visits
        self._start, self._seconds_before = time.monotonic(), 0.0

    # -- what is logged -------------------------------------------------------------------------
    def train(
        self, step: int, task: int, game: str, numbers: Mapping, agent_steps_per_s: float
    ) -> None:
        """Training diagnostics; keys are TensorBoard tags (loss/td, spikes/rate/conv1, ...)."""
        own = {
            "agent_steps_per_s": agent_steps_per_s,
            "seconds": round(self._seconds(), 3),
            "peak_memory_mb": _peak_memory_mb(),
        }
        line = self._write(step, "train", task=task, game=game, **numbers, **own)
        for key in numbers:
            self._scalar(key if "/" in key else f"train/{key}", line[key], step)
        for key in ("agent_steps_per_s", "peak_memory_mb"):
            self._scalar(f"perf/{key}", line[key], step)

    def episode(self, step: int, task: int, game: str, score: float, length: int) -> None:
        """A finished training episode: true raw return, length in agent steps."""
        self._write(step, "episode", task=task, game=game, **{"return": score, "length": length})
        self._scalar(f"episode/return/{game}", score, step)

    def eval(
        self,
        step: int,
        task: int,
        game: str,
        returns: Sequence[float],
        hns: float,
        capped: int = 0,
    ) -> None:
        """An evaluation of `game`; task is the index of the visit being trained; capped: episodes
        that were cut off instead of over."""
        fields = {"task": task, "game": game, "returns": [float(r) for r in returns], "hns": hns}
        if capped:
            fields["capped"] = capped
        line = self._write(step, "eval", **fields)
        self._note(line)
        for key, value in (("return", _mean(line["returns"])), ("hns", line["hns"])):
            self._scalar(f"eval/{key}/{game}", value, step)
            self._scalar(f"games/{key}", value, step, board=game)

    def continual(self, step: int, metrics: Any) -> None:
        """Continual metrics so far: name -> number or None, or an object with as_dict()."""
        numbers = metrics.as_dict() if hasattr(metrics, "as_dict") else dict(metrics)
        line = self._write(step, "continual", **numbers)
        for key in numbers:
            self._scalar(f"continual/{key}", line[key], step)
            name, _, game = key.partition("/")
            if game:  # forgetting/<game>
                self._scalar(f"games/{name}", line[key], step, board=game)
        self._draw(step)

    def task(self, step: int, task: int, game: str, event: str, steps: int, cycle: int) -> None:
        """A visit begins or ends (event "begin" or "end"); steps is its budget in agent steps."""
        fields = {"task": task, "game": game, "event": event, "steps": steps, "cycle": cycle}
        self._note(self._write(step, "task", **fields))
        self._scalar("task/index", task, step)
        self._scalar("task/game", self.games.index(game), step)
        if event == "end":
            self._boundary(step)
        elif step == 0:
            for key in ("hns", "return"):
                self._scalar(f"games/{key}", 0.0, 0, board=BOUNDARIES)

    def change(
        self, step: int, task: int, game: str, context: int, left: int, score: float
    ) -> None:
        """The agent took what it sees for another game: it leaves one of its contexts and enters
        another, or a new one. task and game are the truth."""
        fields = {"context": context, "left": left, "score": score}
        self._write(step, "change", task=task, game=game, **fields)
        self._scalar("change/alarm", context, step)

    def raw_curves(self) -> dict[str, list]:
        """{game: [[step, mean return], ...]} of the evaluations in `curves`."""
        return {
            game: [[step, mean] for (step, _), mean in zip(curve, self.returns[game])]
            for game, curve in self.curves.items()
        }

    # -- state ----------------------------------------------------------------------------------
    def state_dict(self) -> dict:
        """The length of metrics.jsonl, after everything so far reached the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            for board in (self._board, *self._game_boards.values()):
                board.flush()
        return {"position": self._position, "step": self._step, "seconds": self._seconds()}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from a checkpoint: cut off the lines written after it.

        Raises:
            UserError: metrics.jsonl is shorter than it was at the checkpoint.
        """
        if self._file is not None:
            raise ValueError("load_state_dict comes before the first number is written")
        self._position, self._step = int(state["position"]), int(state["step"])
        self._seconds_before, self._start = float(state["seconds"]), time.monotonic()
        self._purge_step = self._step + 1  # the numbers at the checkpoint's own step are kept
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._position:
            raise UserError(
                f"{self.path} has {size} bytes, the checkpoint knows {self._position}: put the "
                "whole file back, or start again with another run="
            )
        if self._position == 0:
            return
        with open(self.path, "rb+") as file:
            file.truncate(self._position)
            for number, line in enumerate(file, 1):
                try:
                    self._note(json.loads(line))
                except (ValueError, KeyError, IndexError, TypeError) as error:
                    raise UserError(
                        f"{self.path} line {number} is damaged ({error}): put the whole file back, "
                        "or start again with another run="
                    ) from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            for board in (self._board, *self._game_boards.values()):
                board.close()
            self._file = self._board = None

    # -- inside ---------------------------------------------------------------------------------
    def _open(self) -> None:
        from torch.utils.tensorboard import SummaryWriter  # costs a second: not at import

        old = self._position == 0 and self.path.exists() and self.path.stat().st_size > 0
        if old:  # a run that died before its first checkpoint: kept aside, its steps come again
            self.path.replace(self.path.with_suffix(".old.jsonl"))
        if self._purge_step is None and any(self.folder.glob("events.out.tfevents.*")):
            self._purge_step = 0
        self._file = open(self.path, "ab")  # noqa: SIM115 - held for the whole run

        def board(folder: Path) -> Any:
            return SummaryWriter(
                str(folder), purge_step=self._purge_step, max_queue=100, flush_secs=10
            )

        self._board = board(self.folder)
        for name in (*self.games, BOUNDARIES):
            self._game_boards[name] = board(self.folder / "games" / name)
        self._board.add_custom_scalars(custom_layout())

    def _write(self, step: int, kind: str, **fields: Any) -> dict:
        line = {"step": int(step), "kind": kind} | {k: _plain(v) for k, v in fields.items()}
        if self._file is None:
            self._open()
        data = json.dumps(line, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        self._file.write(data)
        self._file.flush()
        self._position += len(data)
        self._step = max(self._step, int(step))
        return line

    def _scalar(self, tag: str, value: Any, step: int, board: str | None = None) -> None:
        if isinstance(value, int | float):
            (self._game_boards[board] if board else self._board).add_scalar(tag, value, step)

    def _boundary(self, step: int) -> None:
        """A line up to the highest score so far. Several points up and down, so that it stays one
        when TensorBoard smooths it; before `step`, since what comes later a resume would purge."""
        shape = (0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0)
        scores = {
            "hns": [hns for curve in self.curves.values() for _, hns in curve],
            "return": [score for known in self.returns.values() for score in known],
        }
        for key, known in scores.items():
            top = max([0.0, *known])
            for place, up in enumerate(shape, step - len(shape) + 1):
                self._scalar(f"games/{key}", up * top, max(place, 0), board=BOUNDARIES)

    def _note(self, line: Mapping) -> None:
        """Keep what the figures need: curves and schedule."""
        kind = line["kind"]
        if kind == "eval" and line["hns"] is not None:
            curve = self.curves.setdefault(line["game"], [])
            if curve and line["step"] < curve[-1][0]:
                raise ValueError(f"an evaluation at {line['step']} after one at {curve[-1][0]}")
            curve.append([line["step"], line["hns"]])
            self.returns.setdefault(line["game"], []).append(_mean(line["returns"]))
        elif kind == "task" and line["event"] == "begin":
            self.schedule.append([line["game"], line["step"], None])
        elif kind == "task":
            self.schedule[-1][2] = line["step"]

    def _draw(self, step: int) -> None:
        evaluations = max(map(len, self.curves.values()), default=0)
        ended = sum(end is not None for _, _, end in self.schedule)
        due = evaluations % self.figure_every == 0 or (self._drawn or (0, 0))[1] != ended
        if self.figures is None or not due or self._drawn == (evaluations, ended):
            return
        self._drawn = (evaluations, ended)
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        for tag, figure in self.figures(self.curves, self.schedule).items():
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # [H, W, 3]
            self._board.add_image(tag, pixels, step, dataformats="HWC")

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._start


def custom_layout() -> dict:
    """TensorBoard's custom-scalars tab: the curves of all games in one chart.

    Tags are regular expressions that are matched from their beginning, hence the `$`.
    """
    return {
        "forgetting curves": {
            "human-normalised score": ["Multiline", ["games/hns$"]],
            "return": ["Multiline", ["games/return$"]],
        },
        "continual": {
            "average and forgetting": [
                "Multiline",
                ["continual/average$", "continual/forgetting$", "continual/backward_transfer$"],
            ],
            "forgetting by game": ["Multiline", ["games/forgetting$"]],
            "task": ["Multiline", ["task/index$"]],
        },
        "changes of game": {
            "score of the detector (its largest since the last line)": [
                "Multiline",
                ["change/highest$", "change/score$"],
            ],
            "context, alarms": ["Multiline", ["change/context$", "change/alarms$", "task/game$"]],
        },
        "memory": {
            "entries by game (index)": ["Multiline", [r"memory/size/\d+$"]],
            "moments of an old game that are still stored": ["Multiline", [r"memory/kept/\d+$"]],
            "error of what they are worth": ["Multiline", [r"memory/error/\d+$"]],
            "confidence and weight": ["Multiline", ["memory/confidence_taken$", "memory/weight$"]],
        },
        "plasticity": {
            "share of dormant units by layer": ["Multiline", [r"plasticity/dormant_share/\w+$"]],
            "effective rank of the latent": ["Multiline", ["plasticity/effective_rank$"]],
            "distance of the weights": [
                "Multiline",
                ["plasticity/weight_distance$", "plasticity/weight_distance_in_game$"],
            ],
        },
        "world model": {
            f"error of {part}, {ahead} ahead, by game (index)": [
                "Multiline",
                [rf"model/{part}_error_{number}/game\d+$"],
            ]
            for part in ("value", "reward")
            for ahead, number in (("1", "1"), ("most steps", r"(?:[2-9]|\d\d+)"))
        },
    }


def _mean(returns: Sequence[float | None]) -> float | None:
    return None if None in returns else sum(returns) / len(returns)


def _plain(value: Any) -> Any:
    """JSON's own types; what is not finite becomes None."""
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):  # numpy scalar, tensor
        value = value.item()
        return _plain(value) if not isinstance(value, float) else _finite(value)
    return _finite(float(value))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MB (Linux counts KiB, macOS bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)
