"""The same agent on PyTorch and on the core, compared; and training that acts on the core."""

import json
import shutil
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate
import train
from evaluation import backends
from evaluation.backends import clear_decisions, paired
from evaluation.backends_table import backends_table
from tests.test_command_line import TINY
from training.telemetry import WALL_CLOCK_FIELDS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run that acts on the core, with a checkpoint in the middle of it."""
    folder = tmp_path_factory.mktemp("core") / "run"
    assert train.main(command(folder)) == 0
    return folder


@pytest.fixture(scope="module")
def conv(tmp_path_factory):
    """A run of the encoder's ReLU twin, in PyTorch."""
    folder = tmp_path_factory.mktemp("conv") / "run"
    assert train.main([*TINY, "sequence.games=[catch]", "encoder=conv", f"run={folder}"]) == 0
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


def test_an_episode_of_a_few_decisions_is_enough(run, capsys):
    assert evaluate.main([f"run={run}", "backend=event_core", "episodes=1"]) == 0
    assert json.loads((run / "report" / "backends.json").read_text())["left_out"] == []
    assert "without" not in capsys.readouterr().out.splitlines()[2]


def test_a_library_that_is_missing_is_noticed_before_anything_is_played(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "neurobench", None)
    monkeypatch.setattr(backends, "compare_backends", lambda *_: pytest.fail("episodes played"))
    assert evaluate.main([f"run={run}", "backend=event_core", "neurobench=true"]) == 2
    assert "pip install" in capsys.readouterr().err


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
    assert {"frame_event", "readout_event"} <= set(loihi["unpriced_events"])
    assert core["energy"]["loihi2"]["nanojoule"] is None
    assert (run / "report" / "raster_catch.png").stat().st_size > 3000
    out = capsys.readouterr().out
    assert "agreement" in out
    assert core["overflows"] == 0
    assert "overflows" not in out  # nothing to say ...
    core["overflows"] = 1234
    assert "catch: 1,234 overflows on the core" in backends_table(report)  # ... until there is
    assert report["core"]["synapses"] == 1  # loihi1 takes pixels as bit planes
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


def test_weights_get_at_most_the_synapses_that_the_core_can_do():
    """The default of the configuration runs on every core."""
    from agents.backend import BackendConfig
    from evaluation.backends import backend_config

    for core, most in (("loihi1", 1), ("loihi2", 2), ("ideal", 2)):
        assert BackendConfig("event_core", core).quant_config().synapses == most
        assert backend_config(BackendConfig(), {"core": core}).quant_config().synapses == most
    assert BackendConfig("event_core", synapses=1).quant_config().synapses == 1


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
        (["run={run}", "backend=event_core", "core=x"], "error: core=x is not known"),
        (
            ["run={run}", "backend=event_core", "chips=2", "core=ideal"],
            "error: chips=2: core=ideal",
        ),
        (["run={run}", "backend=event_core", "weight_bits=9"], "error: weight_bits=9: set it"),
        (["run={run}", "backend=event_core", "synapses=3"], "error: synapses=3: a weight has"),
        (["run={run}", "backend=event_core", "core=loihi1", "synapses=2"], "can do synapses=1"),
        (["run={conv}", "backend=torch,event_core"], "the event core needs encoder.kind=spiking"),
        (["run={run}", "backend=torch", "step=7"], "no checkpoint of step 7"),
        (["episodes=3"], "nothing to compare"),
        (["run"], "not of the form key=value"),
    ],
)
def test_bad_input_is_one_line(run, conv, capsys, argv, said):
    assert evaluate.main([word.format(run=run, conv=conv) for word in argv]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("wrong", ["encoder=conv", "encoder.size=impala", "encoder.k_wta=0.1"])
def test_what_cannot_run_on_the_core_is_refused_at_once(tmp_path, capsys, wrong):
    assert train.main([*command(tmp_path / "x"), wrong]) == 2
    assert "backend=event_core runs plain spiking layers" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
