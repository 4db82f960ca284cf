"""The display: what it says, how little it costs, and that it puts the terminal back."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from envs import Task, TaskSequence
from training.display import Display, LiveDisplay, PlainDisplay, clock, make_display

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


def sequence():
    return TaskSequence(tuple(Task(game, 1_000) for game in ("road_runner", "krull")), cycles=2)


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def tell(display):
    display.update(0, 0)
    display.note("evaluating krull")
    display.eval("krull", 2_000.0, 0.38)
    display.eval("krull", 1_800.0, 0.19)
    display.continual({"forgetting": 0.25, "forgetting/krull": 0.5})
    display.episode("krull", 1_234.5)
    display.rate(212.3, {"loss/td": 0.0123, "agent/epsilon": 0.5})
    display.update(1_500, 1)


def test_live_table_shows_the_run():
    console = terminal()
    display = LiveDisplay(sequence(), console=console)
    tell(display)
    with console.capture() as captured:
        console.print(display.render())
    text = captured.get()
    for word in ("1,500 of 4,000 steps", "task 2/4 krull", "212 steps/s", "left", "td 0.0123"):
        assert word in text
    for word in ("1,234.5", "1,800", "2,000", "0.19", "+0.50", "> krull", "HNS"):
        assert word in text


def test_plain_lines():
    stream = io.StringIO()
    with PlainDisplay(sequence(), stream=stream) as display:
        tell(display)
        display.update(1_600, 1)  # too soon after the last line
        display.note("resumed at step 7")
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("0 of 4,000 steps, task 1/4 road_runner")
    assert lines[1] == "evaluation: krull 1,800; forgetting +0.25"
    assert lines[2].startswith("1,500 of 4,000 steps, task 2/4 krull, 212 steps/s, ")
    assert lines[2].endswith("last return 1,234.5, td 0.0123")
    assert lines[3:] == ["resumed at step 7"]


def test_metrics_may_be_an_object():
    display = Display(sequence())
    display.continual(SimpleNamespace(as_dict=lambda: {"forgetting": 1.0}))
    assert display.numbers == {"forgetting": 1.0}


def test_kind_follows_the_terminal():
    assert type(make_display("auto", sequence(), terminal())) is LiveDisplay
    assert type(make_display("auto", sequence(), Console(file=io.StringIO()))) is PlainDisplay
    assert type(make_display("plain", sequence())) is PlainDisplay
    assert type(make_display("off", sequence())) is Display
    with pytest.raises(ValueError, match="auto, plain or off"):
        make_display("loud", sequence())


def test_off_says_nothing(capsys):
    with make_display("off", sequence()) as display:
        tell(display)
    assert capsys.readouterr().out == ""


def test_pictures_are_made_at_most_four_times_a_second():
    display = LiveDisplay(sequence(), console=terminal())
    made = []
    display._refresh = lambda: made.append(time.monotonic())
    start = time.monotonic()
    while time.monotonic() < start + 0.6:
        display.update(len(made), 0)
    assert 1 <= len(made) <= 3
    assert display.interval >= 0.25


def test_an_update_between_pictures_costs_almost_nothing():
    display = LiveDisplay(sequence(), console=terminal())
    display._next = float("inf")
    start = time.perf_counter()
    for step in range(10_000):
        display.update(step, 0)
    assert (time.perf_counter() - start) / 10_000 < 20e-6  # a training step costs milliseconds


def test_time_left_follows_the_pace():
    display = Display(sequence())
    assert display.seconds_left() is None
    display.update(1_000, 1)
    display._start = (time.monotonic() - 10, 0)
    display.update(1_000, 1)
    assert display.seconds_left() == pytest.approx(30, rel=0.05)  # 3,000 steps at 100 a second
    display.update(4_000, 4)  # after the last visit
    assert display.seconds_left() == 0
    assert "task 4/4" in display.progress()


def test_clock():
    assert [clock(s) for s in (5, 75, 7_265, 200_000)] == ["0:05", "1:15", "2:01:05", "2 d 7 h"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_terminal_is_put_back_whatever_happens(error):
    console = terminal()

    def train():
        with LiveDisplay(sequence(), console=console) as display:
            display.update(1, 0)
            raise error

    with pytest.raises(error):
        train()
    written = console.file.getvalue()
    assert written.count(HIDE_CURSOR) == written.count(SHOW_CURSOR) == 1
    assert written.index(HIDE_CURSOR) < written.rindex(SHOW_CURSOR)


def test_terminal_is_put_back_on_sigint():
    code = (
        "import signal, sys, time; sys.path[:0] = ['.', 'tests/training']\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a parent may ignore it
        "from rich.console import Console\n"
        "from test_display import sequence\n"
        "from training.display import make_display\n"
        "with make_display('auto', sequence(), Console(force_terminal=True)) as d:\n"
        "    d.update(1, 0); print('ready', file=sys.__stderr__, flush=True)\n"
        # a signal just before a long sleep begins would be seen when that ends
        "    for _ in range(300): time.sleep(0.1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TERM": "xterm"},
        text=True,
    )
    assert process.stderr.readline().strip() == "ready"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert HIDE_CURSOR in out
    assert out.rindex(SHOW_CURSOR) > out.rindex(HIDE_CURSOR)


def test_plain_lines_that_nobody_reads_do_not_end_the_run():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        display = PlainDisplay(sequence(), stream=stream)
        display.note("a line")  # the pipe breaks
        display._line("another")
