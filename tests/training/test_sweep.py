"""A sweep is Hydra's product of values, one folder a run; it stops as one and goes on."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import train
from errors import UserError
from training import sweep
from training.config import load_config
from training.sweep import Executor, Job, Sweep, is_sweep, plan_sweep

TINY = ["sequence.games=[catch,krull]", "sequence.steps_per_task=100", "sequence.cycles=2"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["experiment=ablation"], True),
        (["experiment=ablation", "jobs=2", "part=1/2", "seed=3,4"], True),
        (["-m", "seed=0,1"], True),
        (["experiment=ablation", "hydra.mode=RUN"], False),  # how a sweep starts its runs
        (["experiment=quickstart"], False),
        (["seed=3"], False),
    ],
)
def test_hydra_says_what_is_a_sweep(argv, expected):
    assert is_sweep(argv) is expected


def test_ablation_is_methods_by_seeds_and_each_game_alone(tmp_path):
    plan = plan_sweep(
        ["experiment=ablation", "method=finetune,no_memory", "seed=4,5", *TINY, "jobs=3",
         f"run={tmp_path}/x"]
    )  # fmt: skip
    assert plan.parallel == 3
    assert [job.folder.name for job in plan.jobs] == [
        *("single.catch-s4", "single.krull-s4", "finetune-s4", "no_memory-s4"),
        *("single.catch-s5", "single.krull-s5", "finetune-s5", "no_memory-s5"),
    ]
    alone = plan.jobs[5]
    assert alone.reference
    assert alone.config.sequence.games == ["krull"]
    assert alone.config.sequence.steps_per_task == 200
    assert alone.config.agent.name == "reactive"
    for job in plan.jobs:  # a run's own command line gives exactly what was checked
        assert Path(load_config(job.overrides).run) == job.folder
        assert not is_sweep(job.overrides)
    for job in (plan.jobs[0], plan.jobs[7]):
        assert load_config([*job.overrides, "run=null"]) == job.config


def test_every_method_may_have_its_games_alone(tmp_path):
    plan = plan_sweep(
        ["experiment=ablation", "method=finetune,engram", "seed=4", *TINY, "references=all",
         f"run={tmp_path}/x"]
    )  # fmt: skip
    assert [job.folder.name for job in plan.jobs] == [
        *("single.catch-s4", "single.krull-s4"),
        *("single.catch.engram-s4", "single.krull.engram-s4", "finetune-s4", "engram-s4"),
    ]
    own, game = plan.jobs[5].config, plan.jobs[3].config
    assert own.agent == game.agent
    assert own.memory == game.memory
    assert load_config([*plan.jobs[3].overrides, "run=null"]) == game


def test_a_game_that_comes_twice_is_alone_for_both_its_visits(tmp_path):
    plan = plan_sweep(
        ["--multirun", "sequence.games=[krull,pong,krull]", "sequence.cycles=2", "seed=4",
         "sequence.steps_per_task=100", f"run={tmp_path}/x"]
    )  # fmt: skip
    alone = {j.folder.name: j.config.sequence for j in plan.jobs if j.reference}
    assert {name: s.steps_per_task for name, s in alone.items()} == {
        "single.krull-s4": 400,
        "single.pong-s4": 200,
    }


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("no_memory", lambda c: c.memory.controller == "none" and c.replay.clone_policy > 0),
        ("no_cloning", lambda c: c.replay.clone_policy == 0 and c.replay.kind != "fifo"),
        ("fifo_replay", lambda c: c.replay.kind == "fifo" and c.memory.controller == "mix"),
        ("no_labels", lambda c: c.task_labels == "none" and c.memory.controller == "mix"),
        ("conv", lambda c: c.encoder.kind == "conv" and c.memory.controller == "mix"),
        ("online_ewc", lambda c: c.consolidation == ["online_ewc"]),
        ("beam", lambda c: c.world_model.enabled and c.planner.name == "beam"),
    ],
)
def test_a_method_changes_one_part_whatever_the_experiment(method, expected):
    config = load_config(["experiment=quickstart", f"method={method}"])
    assert config.agent.name == "engram"
    assert expected(config)


def test_any_key_may_be_swept_and_names_its_folder(tmp_path):
    plan = plan_sweep(
        ["-m", "replay=fifo,cloning", "consolidation=[],[si]", f"run={tmp_path}/x",
         "references=false"]
    )  # fmt: skip
    assert [job.folder.name for job in plan.jobs] == [
        "replay-fifo_consolidation-s0",
        "replay-fifo_consolidation-si-s0",
        "replay-cloning_consolidation-s0",
        "replay-cloning_consolidation-si-s0",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=engram,nothing"], "method/nothing"),
        (["agent.hiden=3"], "agent.hidden"),
        (["sequence.games=[pogn]"], "pong"),
        (["jobs=0"], "jobs=0"),
        (["references=perhaps"], "references=perhaps: use true, false or all"),
        (["part=0/2"], "part=0/2: write part=k/n"),
        (["part=3/2"], "part=3/2: write part=k/n"),
        (["part=2"], "part=2: write part=k/n"),
        (["seed=0,0"], "share"),
        (["seed=range(2,2)"], "no values"),
        (["hydra.sweeper.params.seed=0,1"], "such as seed=0,1"),
        (["run=.."], "run=.. is no name"),
        (["run=a/.."], "run=a/.. is no name"),
        (["run=a${seed}"], "cannot hold"),
    ],
)
def test_mistakes_are_named_before_anything_starts(tmp_path, words, message):
    with pytest.raises(UserError, match=message) as caught:
        plan_sweep(["experiment=ablation", "method=engram", f"run={tmp_path}/x", *words])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_references_that_no_report_could_tell_apart_are_refused(tmp_path, capsys):
    """A report takes runs on one game that differ in sequence or evaluation alone for one agent."""
    words = ["-m", "experiment=toy", "sequence.games=[catch,krull]", f"run={tmp_path}/x"]
    for swept in ("sequence.cycles=1,2", "eval.episodes=4,8"):
        assert train.main([*words, swept, "references=all"]) == 2
        assert "would be the same agent on catch alone" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    train.check_references([j for j in plan_sweep([*words, swept]).jobs if j.reference])


def test_a_folder_of_another_configuration_is_refused(tmp_path):
    words = ["-m", "experiment=toy", "seed=0,1", f"run={tmp_path}/x"]
    folder = plan_sweep(words).jobs[0].folder
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 9\n")
    with pytest.raises(UserError, match="another configuration"):
        plan_sweep(words)


def test_a_sweep_does_not_move_into_a_run(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="x is the folder of a run: choose another"):
        plan_sweep(["-m", "experiment=toy", "seed=0,1", f"run={tmp_path}/x"])


def test_methods_that_come_to_the_same_are_refused(tmp_path):
    words = ["experiment=ablation", "method=finetune,engram", "seed=0", f"run={tmp_path}/x", *TINY]
    with pytest.raises(UserError, match=r"finetune-s0 and .*engram-s0 would be the same run twice"):
        plan_sweep([*words, "agent=reactive"])
    assert len(plan_sweep([*words, "encoder=conv"]).jobs) == 4


# A run that counts to 20 in its folder, saves where it was when told to stop, and goes on.
COUNTER = """
import pathlib, signal, sys, time
folder = pathlib.Path(next(w for w in sys.argv if w.startswith("run=")).partition("=")[2])
folder.mkdir(parents=True, exist_ok=True)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
count = folder / "count"
at = int(count.read_text()) if count.exists() else 0
(folder / "starts").open("a").write("x")
if "fail=yes" in sys.argv:
    sys.exit(3)
while at < 20 and not stop:
    time.sleep(0.02)
    at += 1
count.write_text(str(at))
sys.exit(128 + signal.SIGTERM if stop else 0)
"""


@pytest.fixture
def counters(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(COUNTER)
    monkeypatch.setattr(sweep, "TRAIN", tmp_path / "train.py")
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0.01)

    def make(parallel, *extra):
        names = [f"m{i}" for i in range(4)]
        jobs = [
            Job(n, tmp_path / n, (f"run={tmp_path / n}", *extra[i : i + 1]), None)
            for i, n in enumerate(names)
        ]
        done = lambda f: (f / "count").exists() and (f / "count").read_text() == "20"  # noqa: E731
        return Executor(Sweep(tmp_path, tuple(jobs), parallel, tuple(jobs)), done)

    return make


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_signal_stops_all_and_the_same_sweep_goes_on(counters, tmp_path, capfd, parallel):
    first = counters(parallel)
    threading.Thread(
        target=lambda: (_wait(tmp_path / "m0" / "starts"), os.kill(os.getpid(), signal.SIGINT))
    ).start()
    first.run()
    assert first.stopped == signal.SIGINT
    assert not first.failed
    assert int((tmp_path / "m0" / "count").read_text()) < 20
    assert not (tmp_path / "m3").exists()  # nothing new was started
    second = counters(parallel)
    second.run()
    assert second.stopped is None
    assert [(tmp_path / f"m{i}" / "count").read_text() for i in range(4)] == ["20"] * 4
    assert (tmp_path / "m0" / "starts").read_text() == "xx"
    counters(parallel).run()
    assert (tmp_path / "m0" / "starts").read_text() == "xx"  # finished: left out
    assert capfd.readouterr().out.count("finished already") == 4


def _wait(path):
    while not path.exists():
        time.sleep(0.01)
    time.sleep(0.1)


def test_no_run_goes_on_when_the_sweep_breaks(counters, tmp_path):
    (tmp_path / "m1.log").mkdir()  # its log cannot be opened
    with pytest.raises(IsADirectoryError):
        counters(2).run()
    stopped = (tmp_path / "m0" / "count").exists()  # the sweep has waited until it had saved
    assert stopped or not (tmp_path / "m0" / "starts").exists()  # or it had not begun to listen
    time.sleep(0.6)
    assert (tmp_path / "m0" / "count").exists() == stopped


def test_a_reader_that_goes_away_does_not_end_the_sweep(counters, tmp_path, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as gone:
        monkeypatch.setattr(sweep.sys, "stdout", gone)
        executor = counters(2)
        executor.run()
    assert not executor.failed
    assert [(tmp_path / f"m{i}" / "count").read_text() for i in range(4)] == ["20"] * 4


def test_a_run_that_fails_does_not_hold_up_the_others(counters, tmp_path, capfd):
    executor = counters(2, "ok=yes", "fail=yes")
    executor.run()
    assert [job.method for job in executor.failed] == ["m1"]
    assert (tmp_path / "m3" / "count").read_text() == "20"
    assert "failed with status 3, see" in capfd.readouterr().out


def test_a_sweep_trains_compares_and_is_then_finished(tmp_path, capfd):
    argv = [
        "--multirun", "experiment=toy", "seed=0", f"run={tmp_path}/x", "sequence.steps_per_task=80",
        "eval.every=100000", "eval.episodes=2", "eval.final_episodes=2", "eval.num_envs=2",
        "checkpoint.every=100000", "agent.learn_start=40", "agent.hidden=16", "device=cpu",
    ]  # fmt: skip
    assert train.main(argv) == 0
    assert "finished after" in capfd.readouterr().out
    data = json.loads((tmp_path / "x" / "comparison" / "comparison.json").read_text())
    assert data["games"] == ["catch"]
    assert data["methods"][0]["runs"] == ["run-s0"]
    assert (tmp_path / "x" / "run-s0" / "report" / "report.html").exists()
    assert train.main(argv) == 0
    assert "finished already" in capfd.readouterr().out


def test_parts_share_the_runs_and_the_last_one_to_end_reports(tmp_path, capfd):
    argv = [
        "--multirun", "experiment=toy", "seed=0,1,2", f"run={tmp_path}/x", "eval.every=100000",
        "sequence.steps_per_task=40", "eval.episodes=2", "eval.final_episodes=2",
        "eval.num_envs=2", "checkpoint.every=100000", "agent.learn_start=40", "agent.hidden=16",
        "device=cpu",
    ]  # fmt: skip
    parts = [plan_sweep([*argv, f"part={k}/2"]) for k in (1, 2)]
    assert parts[0].jobs == parts[1].jobs == plan_sweep(argv).mine
    assert [[job.folder.name for job in p.mine] for p in parts] == [
        ["run-s0", "run-s2"],
        ["run-s1"],
    ]
    assert train.main([*argv, "part=2/2"]) == 0
    assert (
        "2 runs are not finished; the part that ends last writes the report"
        in capfd.readouterr().out
    )
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["run-s1"]
    assert train.main([*argv, "part=1/2"]) == 0
    data = json.loads((tmp_path / "x" / "comparison" / "comparison.json").read_text())
    assert data["methods"][0]["runs"] == ["run-s0", "run-s1", "run-s2"]
    # Asked for more, the runs of another part are not finished because they once were.
    (tmp_path / "x" / "comparison" / "comparison.json").unlink()
    assert train.main([*argv, "part=2/2", "sequence.cycles=2"]) == 0
    assert "2 runs are not finished" in capfd.readouterr().out
    assert not (tmp_path / "x" / "comparison" / "comparison.json").exists()


def test_parts_need_a_folder_that_they_share():
    with pytest.raises(UserError, match="part=1/2: name the folder that all parts share with run="):
        plan_sweep(["experiment=ablation", "part=1/2"])


def test_a_sweep_that_is_asked_for_more_cycles_goes_on(tmp_path, capfd):
    argv = [
        "--multirun", "experiment=toy", "seed=0,1", f"run={tmp_path}/x", "sequence.cycles=1",
        "sequence.steps_per_task=40", "eval.every=100000", "eval.episodes=2",
        "eval.final_episodes=2", "eval.num_envs=2", "checkpoint.every=100000",
        "agent.learn_start=40", "agent.hidden=16", "device=cpu",
    ]  # fmt: skip
    assert train.main(argv) == 0
    capfd.readouterr()
    argv[4] = "sequence.cycles=2"
    for said in ("finished after", "finished already"):
        assert train.main(argv) == 0
        assert capfd.readouterr().out.count(f"-s1: {said}") == 1
    for seed in (0, 1):
        lines = (tmp_path / "x" / f"run-s{seed}" / "metrics.jsonl").read_text().splitlines()
        assert max(json.loads(line)["step"] for line in lines) == 80


def test_what_a_sweep_is_to_start_from_is_looked_at_before_anything_starts(tmp_path):
    words = ["experiment=ablation", "method=engram", "seed=0", *TINY, f"run={tmp_path}/x"]
    with pytest.raises(UserError, match="engram-s0: start_from=nowhere: no run there"):
        plan_sweep([*words, "start_from=nowhere"])
    source = tmp_path / "source"
    source.mkdir()
    start = [*words, f"start_from={source}"]
    rest = "sequence: {games: [catch, krull]}\nprotocol: {}\neval: {}\n"
    (source / "config.yaml").write_text("agent: {hidden: 17}\n" + rest)
    with pytest.raises(UserError, match=r"agent\.hidden=256 .folder: 17."):
        plan_sweep([*start, "references=false"])
    (source / "config.yaml").write_text("agent: {}\n" + rest)
    with pytest.raises(UserError, match="has no checkpoint"):
        plan_sweep([*start, "references=false"])
    (tmp_path / "x" / "engram-s0" / "checkpoints").mkdir(parents=True)  # it has begun
    with pytest.raises(UserError, match="actions=full; references=false trains no game alone"):
        plan_sweep(start)
    assert len(plan_sweep([*start, "references=false"]).jobs) == 1


def test_runs_on_other_games_are_compared_by_themselves(tmp_path, monkeypatch):
    compared, published = [], []
    monkeypatch.setattr(sweep.Executor, "run", lambda self: None)
    monkeypatch.setattr("evaluation.methods.is_finished", lambda folder: True)
    monkeypatch.setattr("evaluation.compare.compare", lambda *runs: compared.append(runs))
    monkeypatch.setattr(
        "evaluation.compare_report.publish", lambda result, out, command: published.append(out)
    )
    monkeypatch.setattr("evaluation.suite.judge", lambda runs: compared.append((runs, ())))
    monkeypatch.setattr(
        "evaluation.suite.publish", lambda result, out, command: published.append(out)
    )
    argv = ["--multirun", "sequence.games=[krull],[pong]", "seed=0,1", f"run={tmp_path}/x"]
    assert train.main(argv) == 0
    assert len(compared.pop()[0]) == 4  # all games together, as a suite
    assert published.pop() == tmp_path / "x" / "suite"
    assert [len(runs) for runs, _ in compared] == [2, 2]
    assert published == [tmp_path / "x" / f"comparison_{game}" for game in ("1_krull", "2_pong")]


@pytest.mark.parametrize("games", ["sequence.games=[catch],[pong]", "sequence=toy,one"])
def test_what_cannot_be_compared_holds_up_nothing(tmp_path, monkeypatch, capsys, games):
    """And games are no part of an agent's name, however they are swept."""
    judged, published = [], []

    def compare(runs, references):
        if "catch" in runs[0][1] or "toy" in runs[0][1]:
            raise UserError("catch has no scores")
        return runs

    def judge(runs):
        judged.append(runs)
        raise UserError("no game was played by all methods")

    monkeypatch.setattr(sweep.Executor, "run", lambda self: None)
    monkeypatch.setattr("evaluation.methods.is_finished", lambda folder: True)
    monkeypatch.setattr("evaluation.compare.compare", compare)
    monkeypatch.setattr(
        "evaluation.compare_report.publish", lambda result, out, command: published.append(result)
    )
    monkeypatch.setattr("evaluation.suite.judge", judge)
    argv = ["--multirun", "experiment=toy", games, "replay=fifo,cloning", f"run={tmp_path}/x"]
    assert train.main(argv) == 0
    out = capsys.readouterr().out
    assert "note: no comparison on catch: catch has no scores" in out
    assert "note: no table over the games: no game was played by all methods" in out
    assert len(published) == 1
    assert sorted(method for method, _ in judged[0]) == 2 * ["replay-cloning"] + 2 * ["replay-fifo"]
