"""The same agent on PyTorch and on the core, compared; and training that acts on the core."""

import json
import shutil

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate
import train
from evaluation.backends import clear_decisions, paired
from tests.test_command_line import TINY
from training.telemetry import WALL_CLOCK_FIELDS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run that acts on the core, with a checkpoint in the middle of it."""
    folder = tmp_path_factory.mktemp("core") / "run"
    assert train.main(command(folder)) == 0
    return folder


def command(folder):
    return [
        *TINY, "backend=event_core", "backend.every=7", "sequence.games=[catch]",
        "agent.updates_per_step=0.25", "agent.epsilon_start=0.1", "checkpoint.every=48",
        "checkpoint.keep=5", f"run={folder}",
    ]  # fmt: skip


def lines(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in WALL_CLOCK_FIELDS} for row in rows]


def test_training_on_the_core_logs_spikes_and_energy(run):
    last = [line for line in lines(run) if line["kind"] == "train"][-1]
    assert last["core/spikes"] == last["core/spikes/conv1"] + last["core/spikes/conv2"] > 0
    # a table with one price, 26 pJ an operation all in: nothing else may enter
    assert last["core/energy_nj/truenorth"] == pytest.approx(last["core/synaptic_ops"] * 0.026)
    assert last["core/compiled_at_update"] == 7


def test_a_run_on_the_core_resumes_bit_for_bit(run, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(run, again)
    steps = sorted(int(p.name) for p in (again / "checkpoints").iterdir())
    assert steps[1] == 48
    for step in steps[2:]:
        shutil.rmtree(again / "checkpoints" / str(step))
    assert train.main(command(again)) == 0
    assert lines(again) == lines(run)


def test_backends_are_compared_on_the_same_episodes(run, capsys):
    argv = [f"run={run}", "backend=torch,event_core", "episodes=3", "core=loihi1"]
    assert evaluate.main(argv) == 0
    report = json.loads((run / "report" / "backends.json").read_text())
    game = report["games"]["catch"]
    assert report["core"]["name"] == "loihi1"
    for name, other in (("torch", "event_core"), ("event_core", "torch")):
        backend = game["backends"][name]
        assert len(backend["returns"]) == 3
        assert backend["decisions"] == 3 * 8  # eval.max_steps: every decision once, none twice
        assert 0 <= backend["agreement_while_playing"][other] <= 1
        assert 0 <= backend["clear_decisions"] <= backend["decisions"]
        assert set(backend["agreement_on_clear_decisions"]) == {other}
    core = game["core"]
    assert core["synaptic_ops"] == core["events"]["synaptic_op"] > 0
    loihi = core["energy"]["loihi1"]
    assert loihi["grade"] == "simulated"
    assert "frame_event" in loihi["unpriced_events"]
    assert core["energy"]["loihi2"]["nanojoule"] is None
    assert (run / "report" / "raster_catch.png").stat().st_size > 3000
    assert "agreement" in capsys.readouterr().out
    board = EventAccumulator(str(run / "backends")).Reload()
    assert "backends/energy_nj/catch/loihi1" in board.Tags()["scalars"]
    assert "backends/raster/catch" in board.Tags()["images"]


def test_an_agent_agrees_with_itself(run):
    """Control: the core against a second core would be 1; here torch against torch."""
    from agents.backend import BackendConfig
    from evaluation.backends import Contest
    from evaluation.evaluator import Evaluator
    from training.loading import load_run

    loaded = load_run(run)
    contest = Contest(loaded.agent, ["torch", "event_core"], BackendConfig("event_core"))
    contest.networks = {"torch": contest.networks["torch"], "again": contest.networks["torch"]}
    evaluator = Evaluator(**loaded.evaluator_settings(episodes=2))
    contest.play("torch", evaluator, ["catch"])
    evaluator.close()
    note = contest.notes["torch", "catch"]
    assert note.agreed["again"] == note.decisions == 16
    assert note.clear_agreed["again"] == note.clear


def test_a_decision_is_clear_where_the_best_leads_by_a_share_of_itself():
    values = np.array([[1.0, 0.995, 0.0], [1.0, 0.98, 0.0], [-1.0, -2.0, -1.005], [0.0, 0.0, -1.0]])
    assert clear_decisions(values).tolist() == [False, True, False, False]
    assert clear_decisions(values[:, :1]).all()


def test_paired_statistics():
    ours, theirs = np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])
    out = paired(theirs, ours)
    assert out["difference"][0] == 2.0
    np.testing.assert_allclose(out["ratio"], [2.0, 2.0, 2.0])
    assert paired(np.array([-1.0, 1.0, 1.0]), ours)["ratio"] is None
    assert paired(ours, ours)["equal_episodes"] == 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["backend=torch"], "needs run="),
        (["run={run}", "backend=brain"], "backend=brain: use"),
        (["run={run}", "backend=torch,torch"], "names one twice"),
        (["run={run}", "backend=torch", "games=pong"], "this run knows catch"),
        (["run={run}", "backend=torch", "episodes=0"], "episodes=0 is no whole number"),
        (["run={run}", "backend=torch", "speed=1"], "'speed' is no key"),
        (["run={run}", "backend=event_core", "core=x"], "core=x is not known"),
        (["run={run}", "backend=torch", "step=7"], "no checkpoint of step 7"),
        (["episodes=3"], "nothing to compare"),
        (["run"], "not of the form key=value"),
    ],
)
def test_bad_input_is_one_line(run, capsys, argv, said):
    assert evaluate.main([word.format(run=run) for word in argv]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("wrong", ["encoder=conv", "encoder.size=impala", "encoder.k_wta=0.1"])
def test_what_cannot_run_on_the_core_is_refused_at_once(tmp_path, capsys, wrong):
    assert train.main([*command(tmp_path / "x"), wrong]) == 2
    assert "backend=event_core runs plain spiking layers" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
