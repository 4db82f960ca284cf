"""The table at the end of a run: what every game was worth at first, at its best, and at last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from envs.scores import references, rom_of
from evaluation.metrics import continual_metrics
from evaluation.runlog import RunLog, read_run_log
from evaluation.style import two_digits

if TYPE_CHECKING:
    from rich.table import Table

HEADERS = ("game", "random", "start", "best", "end", "HNS at end", "forgetting")
NOTE = (
    "Raw returns; HNS: 0 = random, 1 = human; forgetting: HNS lost since the game's latest visit "
    "(negative: gained)."
)


class SummaryRow(NamedTuple):
    """One game; None where a run holds no such number."""

    game: str
    random: float | None  # return of random play, as tabled
    start: float | None  # first evaluation, raw mean
    best: float | None  # best evaluation, raw mean
    end: float | None  # level at the end, raw (see evaluation.metrics)
    hns: float | None  # the same, human-normalised
    forgetting: float | None  # human-normalised


def summarise(log: RunLog) -> list[SummaryRow]:
    """Rows in the order of the sequence."""
    metrics = log.metrics()
    raw = log.raw_curves()
    ends = continual_metrics(raw, log.visits).now
    rows = []
    for game in log.games:
        scores = raw[game].scores
        reference = references().get(rom_of(game))
        some = bool(scores.size)
        rows.append(
            SummaryRow(
                game,
                None if reference is None else reference.random,
                float(scores[0]) if some else None,
                float(scores.max()) if some else None,
                ends[game] if some else None,
                metrics.now[game],
                metrics.forgetting_by_game[game],
            )
        )
    return rows


def cells(row: SummaryRow) -> tuple[str, ...]:
    """A row as text."""
    raws = (row.random, row.start, row.best, row.end)
    signed = "-" if row.forgetting is None else two_digits(row.forgetting, signed=True)
    return (row.game, *map(_raw, raws), two_digits(row.hns), signed)


def note(log: RunLog) -> str:
    """What the table's numbers are; whose last episodes were cut off, whose returns are then not
    those of whole games."""
    cut = [
        f"{game} {es[-1].capped} of {len(es[-1].returns)}"
        for game, es in log.evaluations.items()
        if es and es[-1].capped
    ]
    end = f" Episodes cut off at eval.max_steps at the end: {', '.join(cut)}." if cut else ""
    return NOTE + end


def summary_table(log: RunLog) -> Table:
    """The table for a terminal."""
    from rich.table import Table

    table = Table(caption=note(log), caption_justify="left", header_style="bold")
    for k, header in enumerate(HEADERS):
        table.add_column(header, justify="left" if k == 0 else "right", no_wrap=True)
    for row in summarise(log):
        style = "green" if row.hns is not None and row.hns >= 1 else None
        table.add_row(*cells(row), style=style)
    return table


def summary_text(log: RunLog) -> str:
    """The same as plain text in columns."""
    lines = [HEADERS, *(cells(row) for row in summarise(log))]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEADERS))]
    out = []
    for line in lines:
        first, *rest = (
            c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths))
        )
        out.append("  ".join([first, *rest]).rstrip())
    return "\n".join([*out, note(log)])


def print_summary(run_folder: Path | str) -> None:
    """Print the table of `runs/<name>`: with lines on a terminal, as plain columns elsewhere.

    Raises:
        UserError: the run's metrics.jsonl is missing or damaged.
    """
    from rich.console import Console

    log = read_run_log(run_folder)
    console = Console()
    if console.is_terminal:
        console.print(summary_table(log))
    else:
        print(summary_text(log))


def _raw(value: float | None) -> str:
    """A raw return: whole from 100 on."""
    if value is None or value != value:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
