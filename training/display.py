"""What a person sees while a run goes on: a live table on a terminal, plain lines elsewhere.

The loop calls in from its own thread, thousands of times a second; a picture is made at most
`REFRESH_HZ` times a second, and nothing else costs more than a comparison. Leaving the context
restores the terminal, whatever ended the run.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

REFRESH_HZ = 2.0  # pictures a second; one costs about 5 ms
LINE_SECONDS = 30.0  # between two plain progress lines


class Display:
    """Keeps the latest numbers; `_refresh` shows them. This one shows nothing.

    Args:
        sequence: the run's `TaskSequence`.
        interval: seconds between two refreshes.
    """

    def __init__(self, sequence: Any, interval: float = float("inf")) -> None:
        self.games = tuple(sequence.games)
        self.sequence, self.total = sequence, sequence.total_steps
        self.interval = interval
        self.step, self.visit = 0, 0
        self.training: dict[str, float] = {}  # last episode's return while training
        self.returns: dict[str, float] = {}  # last evaluation, raw
        self.hns: dict[str, float] = {}
        self.best: dict[str, float] = {}  # best evaluation, raw
        self.numbers: dict[str, float | None] = {}  # continual metrics
        self.losses: dict[str, float] = {}
        self.steps_per_s: float | None = None
        self.message = ""
        self._next = 0.0
        self._start: tuple[float, int] | None = None  # time and step of the first update

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    # -- what the loop says ---------------------------------------------------------------------
    def update(self, step: int, visit: int) -> None:
        """Called at every vector step: agent steps done, index of the visit."""
        now = time.monotonic()
        if self._start is None:
            self._start = (now, step)
        self.step, self.visit, self.message = step, visit, ""
        if now >= self._next:
            self._next = now + self.interval
            self._refresh()

    def episode(self, game: str, score: float) -> None:
        self.training[game] = score

    def eval(self, game: str, score: float, hns: float) -> None:
        """An evaluation: mean raw return, human-normalised score."""
        self.returns[game], self.hns[game] = score, hns
        self.best[game] = max(score, self.best.get(game, score))

    def continual(self, metrics: Any) -> None:
        """A mapping of metrics, or an object with as_dict(). Follows the games' evaluations."""
        self.numbers = metrics.as_dict() if hasattr(metrics, "as_dict") else dict(metrics)
        self._evaluated()

    def rate(self, steps_per_s: float, numbers: Mapping[str, float]) -> None:
        """Throughput, and the training diagnostics, of which the losses are shown."""
        self.steps_per_s = steps_per_s
        self.losses = {
            k.removeprefix("loss/"): v for k, v in numbers.items() if k.startswith("loss/")
        }

    def note(self, text: str) -> None:
        """What is being done beside training: shown until the next update."""
        self.message = text

    @property
    def game(self) -> str:
        """The game of the present visit."""
        return self.sequence[min(self.visit, len(self.sequence) - 1)].name

    # -- what is derived ------------------------------------------------------------------------
    def seconds_left(self) -> float | None:
        """From the pace since this process began to train, evaluations included."""
        if self._start is None or self.step <= self._start[1]:
            return None
        pace = (time.monotonic() - self._start[0]) / (self.step - self._start[1])
        return pace * max(self.total - self.step, 0)

    def progress(self) -> str:
        left = self.seconds_left()
        parts = [
            f"{self.step:,} of {self.total:,} steps",
            f"task {min(self.visit + 1, len(self.sequence))}/{len(self.sequence)} {self.game}",
        ]
        if self.steps_per_s is not None:
            parts.append(f"{self.steps_per_s:,.0f} steps/s")
        if left is not None:
            parts.append(f"{clock(left)} left")
        return ", ".join(parts)

    # -- shown by the kinds of display ----------------------------------------------------------
    def _refresh(self) -> None:
        pass

    def _evaluated(self) -> None:
        pass


class PlainDisplay(Display):
    """Lines at intervals and after each evaluation: for log files and pipes."""

    def __init__(
        self, sequence: Any, interval: float = LINE_SECONDS, stream: TextIO | None = None
    ) -> None:
        super().__init__(sequence, interval)
        self.stream = stream if stream is not None else sys.stdout
        self._shown_visit = -1

    def update(self, step: int, visit: int) -> None:
        if visit != self._shown_visit:
            self._shown_visit, self._next = visit, 0.0
        super().update(step, visit)

    def note(self, text: str) -> None:
        super().note(text)
        if not text.startswith("evaluating"):  # its result follows in a line of its own
            self._line(text)

    def _refresh(self) -> None:
        losses = "".join(f", {name} {value:.3g}" for name, value in self.losses.items())
        last = self.training.get(self.game)
        score = "" if last is None else f", last return {last:,.6g}"
        self._line(self.progress() + score + losses)

    def _evaluated(self) -> None:
        scores = ", ".join(f"{g} {self.returns[g]:,.6g}" for g in self.games if g in self.returns)
        lost = self.numbers.get("forgetting")
        end = "" if lost is None else f"; forgetting {lost:+.2f}"
        self._line(f"evaluation: {scores}{end}")

    def _line(self, text: str) -> None:
        try:
            print(text, file=self.stream, flush=True)
        except BrokenPipeError:  # whoever read along has gone; the run goes on
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())


class LiveDisplay(Display):
    """A table on a terminal, redrawn in place."""

    def __init__(
        self, sequence: Any, interval: float = 1 / REFRESH_HZ, console: Any = None
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(sequence, interval)
        self._live = Live(console=console or Console(), auto_refresh=False, transient=True)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        super().note(text)
        self._refresh()

    def _refresh(self) -> None:
        self._live.update(self.render(), refresh=True)

    def _evaluated(self) -> None:
        self._refresh()

    def render(self) -> Any:
        """The picture as a rich renderable."""
        from rich.console import Group
        from rich.padding import Padding
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="dim")
        for k, header in enumerate(("game", "training", "evaluation", "best", "HNS", "forgetting")):
            table.add_column(header, justify="left" if k == 0 else "right", min_width=9 * (k > 0))
        current = self.game
        for game in self.games:
            lost = self.numbers.get(f"forgetting/{game}")
            table.add_row(
                f"{'>' if game == current else ' '} {game}",
                *(_number(x.get(game)) for x in (self.training, self.returns, self.best)),
                _number(self.hns.get(game), ".2f"),
                Text(_number(lost, "+.2f"), style="red" if lost and lost > 0.1 else ""),
                style="bold" if game == current else None,
            )
        losses = "  ".join(f"{name} {value:.3g}" for name, value in self.losses.items())
        foot = Text(self.message or (f"losses: {losses}" if losses else ""), style="dim")
        bar = ProgressBar(total=self.total, completed=min(self.step, self.total))
        bar = Padding(bar, (0, 0, 1, 0))  # a bar alone does not end its line
        return Panel(Group(Text(self.progress()), bar, table, foot), title="engram", width=78)


def make_display(mode: str, sequence: Any, console: Any = None) -> Display:
    """The display for `display=`: auto (live on a terminal, else plain), plain, or off."""
    if mode == "off":
        return Display(sequence)
    if mode == "plain":
        return PlainDisplay(sequence)
    if mode != "auto":
        raise ValueError(f"display mode {mode!r}: auto, plain or off")
    from rich.console import Console

    console = console or Console()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(sequence, console=console)
    return PlainDisplay(sequence)


def clock(seconds: float) -> str:
    """75 -> 1:15, 7265 -> 2:01:05, two days and more -> 2 d 3 h."""
    seconds = round(seconds)
    if seconds >= 172_800:
        return f"{seconds // 86_400} d {seconds % 86_400 // 3_600} h"
    hours, rest = divmod(seconds, 3_600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _number(value: float | None, form: str = ",.6g") -> str:
    return "-" if value is None else f"{value:{form}}"
