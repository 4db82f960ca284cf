"""The command line as users meet it: presets, published sequences, mistakes."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import evaluate
import train
from agents.agent import Agent
from evaluation.runlog import read_run_log
from training.config import load_config, to_yaml
from training.folder import RunFolder, command_line, configured
from training.runner import Runner

ROOT = Path(__file__).resolve().parents[1]
TINY = [
    "sequence.steps_per_task=80",
    "sequence.cycles=1",
    "eval.every=100000",
    "eval.episodes=1",
    "eval.num_envs=1",
    "eval.max_steps=8",
    "checkpoint.every=100000",
    "log_every=40",
    "agent.learn_start=40",
    "agent.batch_size=8",
    "agent.replay_capacity=1000",
    "device=cpu",
    "display=off",
]


def run(tmp_path, *argv):
    folder = tmp_path / "run"
    code = train.main([*TINY, *argv, f"run={folder}"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return code, lines


@pytest.mark.parametrize("agent", ["reactive", "augmented", "drq", "der", "dqn", "engram"])
def test_every_agent_preset_makes_a_gradient_step(tmp_path, agent):
    code, lines = run(
        tmp_path, f"agent={agent}", "sequence.games=[pong]", "agent.updates_per_step=0.25"
    )
    assert code == 0
    last = [line for line in lines if line["kind"] == "train"][-1]
    assert last["loss/total"] > 0
    assert last["loss/grad_norm"] > 0 if "loss/grad_norm" in last else agent == "dqn"


@pytest.mark.parametrize("agent", ["episodic", "nec", "mfec"])
def test_episodic_agents_run_and_explain_themselves(tmp_path, capsys, agent):
    import evaluate

    code, lines = run(
        tmp_path, f"agent={agent}", "sequence.games=[catch]", "agent.updates_per_step=0.25"
    )
    assert code == 0
    last = [line for line in lines if line["kind"] == "train"][-1]
    assert last["memory/size"] > 0
    assert ("loss/total" in last) == (agent != "mfec")
    options = [f"run={tmp_path / 'run'}", "explain=true", "moments=2", "max_steps=4"]
    assert evaluate.main(options) == 0
    assert "data:image/png" in (tmp_path / "run" / "report" / "explain.html").read_text()
    assert evaluate.main([f"run={tmp_path / 'run'}", "watch=true", "max_steps=4"]) == 0
    assert (tmp_path / "run" / "report" / "watch_catch.gif").exists()
    assert evaluate.main([*options, "game=pong"]) == 2
    assert "game=pong" in capsys.readouterr().err
    if agent != "episodic":  # no Q-network: nothing that another backend could act with
        assert evaluate.main([f"run={tmp_path / 'run'}", "backend=torch,event_core"]) == 2
        assert f"agent={agent} acts by its memory" in capsys.readouterr().err


def test_the_key_that_was_said_comes_first_in_a_refusal(tmp_path, capsys):
    run(tmp_path, "sequence.games=[catch]")
    assert train.main([f"run={tmp_path / 'run'}", "seed=3"]) == 2
    assert "of another configuration (seed=3 (folder: 0)): " in capsys.readouterr().err
    words = ["experiment=toy", "seed=3"]  # an experiment says more than its name
    assert train.main([f"run={tmp_path / 'run'}", *words]) == 2
    assert "of another configuration (seed=3 (folder: 0); " in capsys.readouterr().err


def test_a_run_goes_on_where_the_keys_named_are_as_they_were(tmp_path):
    run(tmp_path, "sequence.games=[catch]", "seed=3")
    words = [f"run={tmp_path / 'run'}", "seed=3", "agent.batch_size=8", "checkpoint.keep=3"]
    assert train.main(words) == 0


def test_a_run_that_is_not_there_is_no_wish_for_a_new_one(tmp_path, monkeypatch, capsys):
    """Its name may be misspelt, and the default takes hours."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    for words in (["run=mien"], ["run=mien", "sequence.cycles=2", "display=off"]):
        assert train.main(words) == 2
        err = capsys.readouterr().err
        assert "run=mien: no run there to go on with (did you mean mine?)" in err
        assert err.count("\n") == 1
    assert os.listdir("runs") == ["mine"]
    assert configured(["run=mien", "sequence=three"]).run == "mien"


def test_episodes_that_were_cut_off_are_said(tmp_path, capsys):
    """Their returns are not those of whole games."""
    _, lines = run(tmp_path, "sequence.games=[catch,pong]", "eval.max_steps=30")
    capped = {x["game"]: x.get("capped", 0) for x in lines if x["kind"] == "eval"}
    assert capped == {"catch": 0, "pong": 1}
    said = "Episodes cut off at eval.max_steps at the end: pong 1 of 1."
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in (tmp_path / "run" / "report" / "report.html").read_text()


def test_losses_with_and_without_the_model_are_two_curves(tmp_path):
    _, lines = run(tmp_path, "sequence.games=[catch]", "world_model=latent", "log_every=4")
    both = [x for x in lines if "loss/total_with_model" in x]
    assert len(both) > 3
    # Where the last update was one of those with the model, total is of the one before.
    rest = [x["loss/total"] - x["loss/td"] - x["loss/spike_rate"] for x in both]
    assert sum(abs(x) < 1e-4 for x in rest) > len(both) / 2
    _, lines = run(tmp_path / "every", "sequence.games=[catch]", "world_model=latent",
                   "world_model.every=1", "log_every=4")  # fmt: skip
    assert not any("loss/total_with_model" in x for x in lines)


def test_a_run_too_short_to_learn_says_so(tmp_path, capsys):
    _, lines = run(tmp_path, "sequence.games=[catch]", "agent.learn_start=80")
    assert "note: nothing is learned before agent.learn_start=80" in capsys.readouterr().out
    assert not any("loss/total" in line for line in lines)


@pytest.mark.parametrize("experiment", ["quickstart", "toy"])
@pytest.mark.parametrize("agent", ["dqn", "drq", "der", "reactive", "nec"])
def test_epsilon_falls_within_a_short_experiment(experiment, agent):
    words = [f"experiment={experiment}", f"agent={agent}"]
    words += ["agent.shift=0"] if agent == "nec" else []
    config = load_config(words)
    least = config.agent.learn_start + config.agent.epsilon_hold + config.agent.epsilon_decay
    assert least <= config.sequence.steps_per_task


def test_steps_a_second_are_of_training_alone(tmp_path, monkeypatch):
    """What a visit's end takes is none of the next one's training."""
    monkeypatch.setattr(Agent, "end_task", lambda self, obs: time.sleep(2))
    _, lines = run(
        tmp_path, "sequence.games=[catch]", "sequence.cycles=2", "agent.learn_start=100000",
        "agent.anneal_updates=1", "log_every=8",
    )  # fmt: skip
    rates = [(x["task"], x["agent_steps_per_s"]) for x in lines if x["kind"] == "train"]
    assert next(rate for task, rate in rates if task == 1) > 20


@pytest.mark.parametrize("encoder", ["encoder.size=nature", "encoder.size=impala"])
@pytest.mark.parametrize("kind", ["spiking", "conv"])
def test_every_encoder_size_makes_a_gradient_step(tmp_path, encoder, kind):
    code, lines = run(
        tmp_path,
        f"encoder={kind}",
        encoder,
        "sequence.games=[krull]",
        "agent.updates_per_step=0.05",
        "agent.hidden=16",
    )
    assert code == 0
    assert [line for line in lines if line["kind"] == "train"][-1]["loss/grad_norm"] > 0


@pytest.mark.parametrize(
    ("sequence", "count"),
    [
        ("cora", 6),
        ("progress_and_compress", 6),
        ("ewc10", 10),
        ("modes_space_invaders", 10),
        ("modes_freeway", 8),
    ],
)
def test_published_sequences_run(tmp_path, sequence, count):
    code, lines = run(
        tmp_path, f"sequence={sequence}", "sequence.steps_per_task=24", "agent.hidden=16"
    )
    assert code == 0
    assert sum(line["kind"] == "task" and line["event"] == "end" for line in lines) == count
    steps = [line["step"] for line in lines if line["kind"] == "eval"]
    assert steps == [24 * visit for visit in range(count + 1) for _ in range(count)]


def test_machado_protocol_and_difficulty(tmp_path):
    code, lines = run(
        tmp_path, "protocol=machado2018", "sequence.games=[freeway-m2-d1,pong]", "agent.hidden=16"
    )
    assert code == 0
    assert {line["game"] for line in lines if line["kind"] == "eval"} == {"freeway-m2-d1", "pong"}


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["sequence.games=[pogn]"], "pong"),
        (["sequence.games=[pong-m77]"], "mode 77"),
        (["agent.lerning_rate=1"], "agent.learning_rate"),
        (["agent.batch_size=0"], "agent.batch_size"),
        (["device=cuda"], "device=cpu"),
        (["run=pyproject.toml/x"], "pyproject.toml"),
    ],
)
def test_mistakes_give_one_line_and_status_two(tmp_path, monkeypatch, capsys, argv, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    if argv == ["device=cuda"]:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert train.main([*argv, "display=off"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert word in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"seed: ["),
        ("config.yaml", b"seed: ${oops"),
        ("config.yaml", b""),
        ("config.yaml", b"- seed"),
        ("config.yaml", b"\xff\xfe"),
        ("manifest.json", b'{"command": "python tr'),
        ("manifest.json", b"[]"),
        ("manifest.json", b"\xff\xfe"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(tmp_path, capsys, name, content):
    folder = tmp_path / "x-s0"
    folder.mkdir()
    argv = ["experiment=toy", "device=cpu", "display=off"]
    (folder / "config.yaml").write_text(to_yaml(load_config(argv)))
    (folder / name).write_bytes(content)
    starts = [[*argv, f"run={folder}"]]
    if name == "config.yaml":  # a sweep looks at it before it starts anything
        folder.rename(tmp_path / "run-s0")
        folder = tmp_path / "run-s0"
        starts = [[*argv, f"run={folder}"], ["-m", *argv, "seed=0", f"run={tmp_path}"]]
    for words in starts:
        assert train.main(words) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {folder / name} is damaged (")
        assert err.count("\n") == 1
        assert "restore it from a copy, or" in err
        assert (folder / name).read_bytes() == content


@pytest.mark.parametrize("left", [0, 300])
def test_what_is_left_of_a_configuration_is_no_run_to_evaluate(tmp_path, capsys, left):
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(load_config(["experiment=toy"]))[:left])
    assert evaluate.main([f"run={tmp_path}", "score=true"]) == 2
    err = capsys.readouterr().err
    assert f"{config}: it is damaged (it lacks " in err
    assert "agent" in err


def test_an_older_run_goes_on_once_its_missing_key_is_said(tmp_path, capsys):
    argv = ["experiment=toy", "device=cpu", "display=off", f"run={tmp_path}"]
    config = tmp_path / "config.yaml"
    config.write_text(re.sub(r"  normalise: \w+\n", "", to_yaml(load_config(argv)), count=1))
    old = config.read_text()
    (tmp_path / "metrics.jsonl").touch()  # it ran
    (tmp_path / "manifest.json").write_text("[]")  # where the run stops that was let through
    assert train.main(argv) == 2
    assert "agent.normalise is newer than the run" in capsys.readouterr().err
    assert config.read_text() == old
    assert train.main([f"run={tmp_path}"]) == 2
    assert "agent.normalise is newer than the run" in capsys.readouterr().err
    assert train.main([f"run={tmp_path}", "agent.normalise=false", "agent.gamma_end=0.9"]) == 2
    assert "holds a run of another configuration" in capsys.readouterr().err
    for words in (argv, [f"run={tmp_path}"]):
        config.write_text(old)
        assert train.main([*words, "agent.normalise=false"]) == 2
        assert "manifest.json" in capsys.readouterr().err
        assert config.read_text() == to_yaml(load_config([*argv, "agent.normalise=false"]))


# Ctrl-C comes when a package is looked for; by then nothing has been set up that could catch it.
INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(name, *_):
        if name == {package!r}:
            sys.meta_path.remove(Finder)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may ignore it
import train
sys.exit(train.main(["experiment=toy", "device=cpu", "display=off", "run={run}"]))
"""


@pytest.mark.parametrize("package", ["omegaconf", "torch", "training.runner"])
def test_ctrl_c_while_packages_load_is_one_line(tmp_path, package):
    code = INTERRUPTED.format(package=package, run=tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 130
    assert done.stderr.startswith("interrupted: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted: "),
        (OSError(errno.ENOSPC, "No space left on device", "x/planning.json"), 2, "error: x/plann"),
    ],
)
def test_an_evaluation_that_is_stopped_says_so_in_one_line(
    monkeypatch, capsys, error, code, message
):
    import evaluate

    def stopped(options):
        raise error

    monkeypatch.setitem(evaluate.BRANCHES, "run", stopped)
    assert evaluate.main(["run=x"]) == code
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_nan_in_the_loss_keeps_what_was_there(tmp_path, capsys):
    folder = tmp_path / "run"
    argv = [*TINY, "sequence.games=[catch]", "agent.learning_rate=1e38", "agent.max_grad_norm=0"]
    assert train.main([*argv, "agent.updates_per_step=1", f"run={folder}"]) == 2
    assert "agent.learning_rate" in capsys.readouterr().err
    assert (folder / "checkpoints" / "0" / "manifest.json").exists()


def test_what_is_logged_is_what_the_report_says(tmp_path):
    folder = tmp_path / "run"
    code, lines = run(tmp_path, "sequence.games=[krull,pong]", "agent.hidden=16")
    assert code == 0
    last = [line for line in lines if line["kind"] == "continual"][-1]
    said = read_run_log(folder).metrics().as_dict()
    assert {k: last[k] for k in said} == json.loads(json.dumps(said))


def test_a_visit_is_judged_last_as_its_end_has_left_the_agent(tmp_path, monkeypatch):
    calls, end, evaluate = [], Agent.end_task, Runner._evaluate
    monkeypatch.setattr(Agent, "end_task", lambda *a: (calls.append("end"), end(*a)))
    monkeypatch.setattr(Runner, "_evaluate", lambda *a: (calls.append("judged"), evaluate(*a)))
    code, _ = run(tmp_path, "sequence.games=[catch]", "sequence.cycles=2", "eval.every=40")
    assert code == 0
    assert calls == ["judged"] + 2 * ["judged", "end", "judged"]  # the first before any step


def test_a_run_keeps_what_it_was_started_under(tmp_path, monkeypatch):
    folder, argv = tmp_path / "run", ["experiment=toy", "device=cpu", "display=off"]
    config = load_config([*argv, f"run={folder}"])
    for commit in ("first", "second", "second"):
        monkeypatch.setattr("training.folder._commit", lambda commit=commit: commit)
        opened = RunFolder(config)
        (folder / "metrics.jsonl").touch()  # it ran
        opened.write_manifest(config, torch.device("cpu"), ("catch",))
        opened._lock.close()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["commit"], manifest["starts"]) == ("first", 3)
    assert [start["commit"] for start in manifest["later_starts"]] == ["second", "second"]
    assert set(manifest["later_starts"][0]) == {"started", "commit"}


def test_a_file_that_may_not_be_read_is_one_line(tmp_path, monkeypatch, capsys):
    def refused(argv):
        raise PermissionError(13, "Permission denied", "runs/x/metrics.jsonl")

    monkeypatch.setattr(train, "train", refused)
    assert train.main([]) == 2
    assert capsys.readouterr().err == "error: runs/x/metrics.jsonl: Permission denied\n"


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_without_a_name_is_one_line(monkeypatch, capsys, number):
    def failed(argv):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(train, "train", failed)
    assert train.main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "the run's folder" in said
    assert said.count("\n") == 1
    assert ("the disk is full" in said) == (number == errno.EDQUOT)


def test_a_configuration_that_is_no_text_is_named(tmp_path, capsys):
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe")
    assert train.main([f"run={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'config.yaml'}: ")


def test_help_lists_groups_and_keys(capsys):
    assert train.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "quickstart" in out
    assert "sequence.steps_per_task=" in out


def test_a_recorded_command_names_no_place(monkeypatch):
    """A sweep and a benchmark start train.py by its path."""
    monkeypatch.setattr(sys, "argv", ["/some/where/train.py", "run=a b"])
    assert command_line() == "python train.py 'run=a b'"
