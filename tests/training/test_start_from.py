"""A new run that begins with the networks of a trained one."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from errors import UserError
from training.build import build_agent
from training.config import load_config
from training.loading import load_run, networks_of

SMALL = [
    "experiment=toy",
    "sequence.steps_per_task=400",
    "eval.every=400",
    "checkpoint.every=400",
    "log_every=200",
    "agent.learn_start=100",
    "agent.updates_per_step=0.25",
    "agent.hidden=32",
    "agent.replay_capacity=1500",
    "world_model=latent",
    "device=cpu",
    "display=off",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train.main([*SMALL, f"run={folder}"]) == 0
    return folder


def begun(*words: str):
    config = load_config([*SMALL, *words])
    networks, step = networks_of(config)
    return build_agent(config, torch.device("cpu"), networks), step


def test_it_decides_as_the_trained_one_and_has_learned_nothing_else(trained):
    agent, step = begun(f"start_from={trained}", "seed=7")
    source = load_run(trained).agent
    for name in ("network", "target", "model"):
        ours = getattr(agent.learner, name).state_dict()
        theirs = getattr(source.learner, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    obs = np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84), dtype=np.uint8)
    torch.testing.assert_close(agent.eval_values(obs, 0), source.eval_values(obs, 0))
    assert step == 400
    assert agent.learner.updates == agent.steps == len(agent.replay) == 0


def test_a_run_begins_with_them_once_and_goes_on_without_the_other(trained, tmp_path, capsys):
    source, folder = tmp_path / "source", tmp_path / "run"
    shutil.copytree(trained, source)
    words = [*SMALL, f"start_from={source}", f"run={folder}"]
    assert train.main(words) == 0
    assert "begins with the networks of" in capsys.readouterr().out
    before = load_run(folder).agent.learner.network.state_dict()
    shutil.rmtree(source)
    assert train.main(words) == 0  # it is finished
    assert "begins with" not in capsys.readouterr().out
    after = load_run(folder).agent.learner.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_without_a_world_model_the_other_networks_come_alone(trained):
    agent, _ = begun(f"start_from={trained}", "world_model=none")
    source = load_run(trained).agent.network.state_dict()
    assert all(torch.equal(v, source[k]) for k, v in agent.network.state_dict().items())


def test_what_is_made_of_the_weights_is_made_of_these(trained):
    agent, _ = begun(
        f"start_from={trained}", "consolidation=[si]", "backend=event_core", "replay=cloning"
    )
    path = agent.continual.consolidation.methods["si"]
    for p, start, before in zip(agent.network.parameters(), path.start, path.before):
        assert torch.equal(start, p)
        assert torch.equal(before, p)
    for copied, own in (
        (agent.backend.compiled, agent.acting_network.encoder),
        (agent.continual.old, agent.learner.target),
    ):
        weights = copied.state_dict()
        assert all(torch.equal(v, weights[k]) for k, v in own.state_dict().items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["agent.hidden=64"], "agent.hidden=64 .folder: 32."),
        (["encoder=conv"], "encoder.kind='conv'"),
        (["world_model.hidden=17"], "world_model.hidden=17"),
        (["encoder.k_wta=0.1"], "encoder.k_wta=0.1"),
        (["sequence.games=[pong]"], "chooses among NOOP RIGHT LEFT, .*actions=full"),
        # as many actions, and others
        (["sequence.games=[freeway]"], "this run among NOOP UP DOWN: .*actions=full"),
        (["agent=mfec", "world_model=none", "agent.shift=0"], "mfec has no network"),
        (["agent=nec", "world_model=none", "agent.shift=0"], "memory.controller='nec'"),
    ],
)
def test_other_networks_are_refused(trained, words, message):
    with pytest.raises(UserError, match=message):
        begun(f"start_from={trained}", *words)


def test_networks_of_another_program_are_refused_in_one_line(trained, tmp_path):
    """As an earlier version might have named their parts."""
    config = load_config([*SMALL, f"start_from={trained}"])
    networks, _ = networks_of(config)
    for part in ("network", "target"):
        networks[part]["head.old.weight"] = networks[part].pop("head.hidden.weight")
    for state in (networks, {key: networks[key] for key in ("network", "target")}):
        with pytest.raises(UserError, match="start_from= names networks that do not fit") as caught:
            build_agent(config, torch.device("cpu"), state)
        assert "\n" not in str(caught.value)


def test_a_run_that_is_not_there_is_named(tmp_path, capsys):
    assert train.main([*SMALL, "start_from=nowhere", f"run={tmp_path / 'run'}"]) == 2
    assert "start_from=nowhere: no run there" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
