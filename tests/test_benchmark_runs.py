"""Benchmarks start runs as a sweep does, and know those that are whole."""

import os
import signal
import threading
import time

import pytest

from benchmarks import runs
from training import sweep

TRAIN = """
import os, signal, sys, time
from pathlib import Path
words = dict(w.split("=", 1) for w in sys.argv[1:])
folder = Path(words["run"])
folder.mkdir(parents=True)
def save(*_):
    (folder / "saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("seed", words["seed"], os.environ["OMP_NUM_THREADS"], flush=True)
(folder / "begun").touch()
time.sleep(float(words["agent.hidden"]))
(folder / "done").touch()
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(TRAIN)
    monkeypatch.setattr(sweep, "TRAIN", tmp_path / "train.py")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    return tmp_path


def three(root, seconds):
    return [(root / f"x-s{k}", [f"seed={k}", f"agent.hidden={seconds}"]) for k in range(3)]


def test_all_runs_end_and_leave_their_logs(root):
    runs.train_all(three(root, 1), at_once=3)
    assert sorted(p.parent.name for p in root.glob("*/done")) == ["x-s0", "x-s1", "x-s2"]
    assert (root / "x-s2.log").read_text() == "seed 2 1\n"


def test_a_mistake_is_named_before_anything_starts(root):
    for word, said in (
        ("agent.hiden=1", "no key 'agent.hiden'"),
        ("sequence.games=[pogn]", "pong"),
    ):
        with pytest.raises(SystemExit, match=f"^error: .*{said}"):
            runs.train_all([*three(root, 1), (root / "y", [word])])
    assert not list(root.glob("*/begun"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_what_runs_and_starts_nothing_more(root, signum):
    def stop():
        while len(list(root.glob("*/begun"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signum)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(SystemExit) as caught:
        runs.train_all(three(root, 60), at_once=2)
    assert caught.value.code == 128 + signum
    assert sorted(p.parent.name for p in root.glob("*/saved")) == ["x-s0", "x-s1"]
    assert not (root / "x-s2").exists()


def test_a_run_is_whole_when_it_is_judged_at_its_end():
    end = {"kind": "task", "event": "end", "step": 300}
    judged = [{"kind": "eval", "step": step} for step in (0, 300)]
    assert runs.whole([*judged, end], 300)
    assert not runs.whole([*judged, end])  # of another length
    assert not runs.whole(judged, 300)  # on its way
    assert not runs.whole([judged[0], end], 300)  # stopped before it was judged
