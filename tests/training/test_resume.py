"""A real run, killed at random moments, ends with the numbers of an uninterrupted one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from errors import UserError
from training.config import load_config, read_config, to_yaml
from training.folder import RunFolder, other_settings
from training.telemetry import WALL_CLOCK_FIELDS

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "sequence.games=[catch,krull]",
    "sequence.steps_per_task=400",
    "sequence.cycles=2",
    "eval.every=400",
    "eval.episodes=2",
    "eval.num_envs=2",
    "eval.max_steps=60",
    "checkpoint.every=100",
    "log_every=100",
    "agent.learn_start=100",
    "agent.updates_per_step=0.25",
    "agent.hidden=32",
    "agent.epsilon_decay=200",
    "agent.replay_capacity=1500",
    "device=cpu",
    "display=off",
]


def start(folder: Path, *extra: str) -> subprocess.Popen:
    return started(*SMALL, f"run={folder}", *extra)


def started(*words: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train.py"), *words]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen) -> str:
    out, _ = process.communicate(timeout=240)
    return out


def metrics(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in WALL_CLOCK_FIELDS} for line in lines
    ]


def size(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def wait_for_progress(process: subprocess.Popen, folder: Path, at: int) -> None:
    """Until metrics.jsonl has `at` bytes, then a little longer; or until the run is over."""
    while process.poll() is None and size(folder) < at:
        time.sleep(0.01)
    time.sleep(random.Random(at).uniform(0, 0.3))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = start(folder)
    out = finish(process)
    assert process.returncode == 0, out
    return folder


@pytest.mark.parametrize("seed", [1])
def test_killed_run_ends_with_the_same_numbers(uninterrupted, tmp_path, seed):
    folder = tmp_path / "run"
    total = size(uninterrupted)
    rng = random.Random(seed)
    kills = sorted(rng.randrange(total // 10, total) for _ in range(3))
    for at in kills:
        process = start(folder)
        wait_for_progress(process, folder, at)
        process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        finish(process)
    process = start(folder)
    out = finish(process)
    assert process.returncode == 0, out
    assert metrics(folder) == metrics(uninterrupted)


def test_killed_run_with_consolidation_and_old_replay_ends_with_the_same_numbers(tmp_path):
    extra = [
        "sequence.steps_per_task=240",
        "sequence.cycles=1",
        "consolidation=[online_ewc,si]",
        "stiffness.samples=16",
        "replay=cloning",
        "plasticity=continual_backprop",
        "plasticity.maturity=5",
        "plasticity.look=2",
        "plasticity.rate=0.01",
    ]
    small = [a for a in SMALL if a.partition("=")[0] not in {e.partition("=")[0] for e in extra}]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, str(ROOT / "train.py"), *small, *extra]

    def run(folder: Path) -> subprocess.Popen:
        return subprocess.Popen([*command, f"run={folder}"], cwd=ROOT, stdout=subprocess.PIPE)

    first = run(whole)
    first.communicate(timeout=240)
    assert first.returncode == 0
    process = run(killed)  # killed in the second game, whose first checkpoint is that of step 300
    while (
        process.poll() is None and not (killed / "checkpoints" / "300" / "manifest.json").exists()
    ):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    again = run(killed)
    again.communicate(timeout=240)
    assert again.returncode == 0
    assert any(line.get("loss/consolidation", 0) > 0 for line in metrics(whole))
    assert any(line.get("plasticity/reset_units", 0) > 0 for line in metrics(whole))
    assert metrics(killed) == metrics(whole)


def test_killed_run_without_labels_notices_the_change_at_the_same_step(tmp_path, monkeypatch):
    """In one process, since three would import for half a minute; it dies between two steps."""
    import evaluation.figures
    import evaluation.report
    import train
    from training.runner import Runner

    monkeypatch.setattr(evaluation.report, "write_report", lambda folder: folder)
    monkeypatch.setattr(evaluation.figures, "board_figures", lambda curves, schedule: {})
    extra = [
        "agent=engram",
        "task_labels=none",
        "change.warm_up=20",
        "consolidation=[online_ewc]",
        "stiffness.samples=16",
        "memory.capacity=600",
        "sequence.steps_per_task=160",
        "sequence.cycles=1",
        "checkpoint.every=60",
        "eval.every=1000",
        "eval.max_steps=10",
    ]
    small = [a for a in SMALL if a.partition("=")[0] not in {e.partition("=")[0] for e in extra}]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train.main([*small, *extra, f"run={whole}"]) == 0
    step = Runner._step

    def dies(runner: Runner) -> None:
        if runner.progress.step == 176:  # changed, not noticed, no checkpoint since the change
            raise RuntimeError("killed")
        step(runner)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            train.main([*small, *extra, f"run={killed}"])
    assert train.main([*small, *extra, f"run={killed}"]) == 0
    (change,) = (line for line in metrics(whole) if line["kind"] == "change")
    assert 160 < change["step"] < 200
    assert metrics(killed) == metrics(whole)


def test_evaluations_are_abandoned_at_once_and_leave_no_trace(tmp_path, monkeypatch, capsys):
    """Every evaluation of a run is interrupted once, that of step 200 by a hasty second Ctrl-C; so
    are those at the end of a visit, where the agent must not hear of the end again."""
    import evaluation.figures
    import evaluation.report
    import train
    from agents.agent import Agent
    from training.runner import Runner

    monkeypatch.setattr(evaluation.report, "write_report", lambda folder: folder)
    monkeypatch.setattr(evaluation.figures, "board_figures", lambda curves, schedule: {})
    extra = [
        "consolidation=[online_ewc]",
        "stiffness.samples=16",
        "sequence.steps_per_task=160",
        "sequence.cycles=1",
        "checkpoint.every=60",
        "eval.every=100",
        "eval.max_steps=10",
    ]
    small = [a for a in SMALL if a.partition("=")[0] not in {e.partition("=")[0] for e in extra}]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train.main([*small, *extra, f"run={whole}"]) == 0
    steps = sorted({line["step"] for line in metrics(whole) if line["kind"] == "eval"})
    assert steps == [0, 100, 160, 200, 300, 320]

    todo, evaluating = list(steps), []
    evaluate, policy = Runner._evaluate, Agent.eval_policy

    def evaluates(runner):
        evaluating[:] = [runner.progress.step]
        evaluate(runner)

    def interrupts(agent, obs, game):
        if todo and evaluating == todo[:1]:
            del todo[0]
            for _ in range(2 if evaluating == [200] else 1):
                os.kill(os.getpid(), signal.SIGINT)
        return policy(agent, obs, game)

    monkeypatch.setattr(Runner, "_evaluate", evaluates)
    monkeypatch.setattr(Agent, "eval_policy", interrupts)
    for step in steps:
        assert train.main([*small, *extra, f"run={stopped}"]) == 128 + signal.SIGINT
        said = capsys.readouterr()
        if step == 200:
            assert said.err.startswith("interrupted: ")
        else:
            assert f"SIGINT: saved at step {step}; go on with: run={stopped}" in said.out
        logged = metrics(stopped) if size(stopped) else []
        assert all(line["step"] < step for line in logged if line["kind"] == "eval")
    assert train.main([*small, *extra, f"run={stopped}"]) == 0
    assert todo == []
    assert metrics(stopped) == metrics(whole)


def test_a_finished_run_that_is_lengthened_ends_with_the_same_numbers(uninterrupted, tmp_path):
    folder = tmp_path / "longer"
    assert "report:" in finish(start(folder, "sequence.cycles=1"))
    short = metrics(folder)
    assert "report:" in finish(started(f"run={folder}", "sequence.cycles=2"))
    assert metrics(folder) == metrics(uninterrupted) != short
    assert read_config(folder / "config.yaml").sequence.cycles == 2
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["budget_agent_steps"] == 1600
    assert "sequence.cycles=1" in manifest["command"]
    assert "sequence.cycles=2" in manifest["later_starts"][-1]["command"]


def test_a_run_is_not_shortened_nor_lengthened_where_contexts_are_by_visit(uninterrupted, tmp_path):
    config = load_config([*SMALL, f"run={uninterrupted}", "sequence.cycles=1"])
    assert other_settings(config, uninterrupted, ()) == ["sequence.cycles=1 (folder: 2)"]
    words = [*SMALL, "task_labels=boundaries", f"run={tmp_path / 'told'}"]
    RunFolder(load_config(words))
    (tmp_path / "told" / "metrics.jsonl").touch()
    longer = load_config([*words, "sequence.cycles=3"])
    assert other_settings(longer, tmp_path / "told", ()) == ["sequence.cycles=3 (folder: 2)"]


def test_a_length_that_was_not_reached_can_be_taken_back(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    kept = (folder / "config.yaml").read_text()
    for state in (folder / "checkpoints").rglob("state.pt"):
        state.write_bytes(state.read_bytes()[:-9])
    process = started(f"run={folder}", "sequence.cycles=30")
    out = finish(process)
    assert process.returncode == 2, out
    assert "state.pt" in out
    assert (folder / "config.yaml").read_text() == kept  # it does not go on: nothing is settled
    (folder / "config.yaml").write_text(kept.replace("cycles: 2", "cycles: 30"))  # it went on a bit
    back = load_config([*SMALL, f"run={folder}", "sequence.cycles=3"])
    assert other_settings(back, folder, ()) == []
    RunFolder(back).settle(back)
    assert read_config(folder / "config.yaml").sequence.cycles == 3
    short = load_config([*SMALL, f"run={folder}", "sequence.cycles=1"])
    assert other_settings(short, folder, ()) == ["sequence.cycles=1 (folder: 3)"]


def test_same_seed_same_numbers_and_other_seed_others(uninterrupted, tmp_path):
    same, other = tmp_path / "same", tmp_path / "other"
    short = "sequence.cycles=1"
    for folder, seed in ((same, 0), (other, 1)):
        process = start(folder, short, f"seed={seed}")
        assert finish(process) is not None
        assert process.returncode == 0
    begin = [line for line in metrics(uninterrupted) if line["step"] < 800]
    assert [line for line in metrics(same) if line["step"] < 800] == begin
    assert [line for line in metrics(other) if line["step"] < 800] != begin


def test_sigterm_saves_and_says_how_to_go_on(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for_progress(process, folder, 1500)
    process.send_signal(signal.SIGTERM)
    out = finish(process)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"go on with: run={folder}" in out
    process = started(f"run={folder}", "display=plain")  # those words alone
    out = finish(process)
    assert process.returncode == 0, out
    before, _, _ = out.partition("resumed at step")
    assert "evaluation: catch" in before  # what was found until then is shown again
    assert metrics(folder) == metrics(uninterrupted)


def test_other_configuration_is_refused_and_nothing_is_touched(uninterrupted):
    before = {p: os.stat(p).st_mtime_ns for p in uninterrupted.rglob("*") if p.name != ".lock"}
    process = start(uninterrupted, "agent.learning_rate=0.5")
    out = finish(process)
    assert process.returncode == 2
    assert out.count("\n") == 1
    assert "agent.learning_rate" in out
    after = {p: os.stat(p).st_mtime_ns for p in uninterrupted.rglob("*") if p.name != ".lock"}
    assert before == after


def test_damaged_checkpoint_is_named(uninterrupted, tmp_path):
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(uninterrupted, folder)
    newest = max((folder / "checkpoints").iterdir(), key=lambda p: int(p.name))
    state = newest / "state.pt"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 0xFF
    state.write_bytes(data)
    process = start(folder)
    out = finish(process)
    assert process.returncode == 2, out
    assert str(state) in out
    assert "goes on from step" in out


def test_a_start_that_was_cut_short_is_no_other_run(tmp_path):
    """A full disk or a kill in the very first write leaves these two."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", ".config.yaml.tmp"):
        (folder / name).touch()
    config = load_config([f"run={folder}"])
    RunFolder(config)
    assert (folder / "config.yaml").is_file()
    assert not (folder / ".config.yaml.tmp").exists()


def test_a_start_that_was_cut_short_at_its_manifest_is_no_other_run(tmp_path):
    folder = tmp_path / "run"
    first = load_config([f"run={folder}"])
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(first))
    for name in (".lock", ".manifest.json.tmp"):
        (folder / name).touch()
    RunFolder(load_config([f"run={folder}", "agent.hidden=8"]))
    assert {p.name for p in folder.iterdir()} == {".lock", "config.yaml"}


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(tmp_path):
    folder = tmp_path / "run"
    out = finish(start(folder))
    before = (folder / "metrics.jsonl").read_bytes()
    shutil.rmtree(folder / "checkpoints")
    process = start(folder)
    out = finish(process)
    assert process.returncode == 2, out
    assert "holds no checkpoint to go on from: put it back" in out
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_start_that_failed_leaves_a_folder_for_the_mended_command(tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "agent=episodic", "memory.capacity=1")
    out = finish(process)
    assert process.returncode == 2
    assert out.splitlines()[-1].startswith("error: memory.capacity=1 must be at least 2")
    mended = load_config([*SMALL, f"run={folder}", "agent=episodic", "memory.capacity=500"])
    assert other_settings(mended, folder, ()) == []  # nor does a sweep refuse it
    RunFolder(mended)
    assert "capacity: 500\n" in (folder / "config.yaml").read_text()


def test_a_configuration_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "config.yaml").write_text("colour: red\n")
    with pytest.raises(UserError, match="colour"):
        RunFolder(load_config([*SMALL, f"run={tmp_path}"]))
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]
    assert (tmp_path / "config.yaml").read_text() == "colour: red\n"
