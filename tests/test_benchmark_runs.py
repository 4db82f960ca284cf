"""Benchmarks start runs, wait for them, and take them along when they are stopped."""

import os
import signal
import threading
import time

import pytest

from benchmarks import runs

TRAIN = """
import signal, sys, time
from pathlib import Path
words = dict(w.split("=", 1) for w in sys.argv[1:])
folder = Path(words["run"])
folder.mkdir(parents=True)
def save(*_):
    (folder / "saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("seed", words["seed"], flush=True)
(folder / "begun").touch()
time.sleep(float(words["seconds"]))
(folder / "done").touch()
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(TRAIN)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    return tmp_path


def three(root, seconds):
    return [(root / f"x-s{k}", [f"seed={k}", f"seconds={seconds}"]) for k in range(3)]


def test_all_runs_end_and_leave_their_logs(root, capsys):
    runs.train_all(three(root, 0), at_once=2)
    assert sorted(p.parent.name for p in root.glob("*/done")) == ["x-s0", "x-s1", "x-s2"]
    assert (root / "x-s2.log").read_text() == "seed 2\n"
    assert capsys.readouterr().out.count("exit 0") == 3


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_what_runs_and_starts_nothing_more(root, capsys, signum):
    def stop():
        while len(list(root.glob("*/begun"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signum)

    before = signal.getsignal(signum)
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(SystemExit) as caught:
        runs.train_all(three(root, 60), at_once=2)
    assert caught.value.code == 128 + signum
    assert sorted(p.parent.name for p in root.glob("*/saved")) == ["x-s0", "x-s1"]
    assert not (root / "x-s2").exists()
    assert capsys.readouterr().out.count("exit 143") == 2
    assert signal.getsignal(signum) is before


def test_a_run_is_whole_when_it_is_judged_at_its_end():
    end = {"kind": "task", "event": "end", "step": 300}
    judged = [{"kind": "eval", "step": step} for step in (0, 300)]
    assert runs.whole([*judged, end], 300)
    assert not runs.whole([*judged, end])  # of another length
    assert not runs.whole(judged, 300)  # on its way
    assert not runs.whole([judged[0], end], 300)  # stopped before it was judged
