"""What only a GPU can show: a captured update is the update, and a run on a GPU is a run."""

import json

import numpy as np
import pytest
import torch

import train
from agents.agent import Agent, Transition
from training.build import build_agent
from training.config import load_config

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="this machine has no CUDA device"
)
N = 4
SMALL = (
    "sequence.games=[krull,road_runner]", "agent.learn_start=32", "agent.replay_capacity=800",
    "agent.num_envs=4", "protocol.actions=full",
)  # fmt: skip
AGENTS = {
    "spiking": ("agent=reactive",),
    "conv": ("agent=reactive", "encoder=conv"),
    "impala": ("agent=reactive", "encoder=conv", "encoder.size=impala", "encoder.width=0.25"),
    "noisy, prioritised, distributional": ("agent=der", "encoder=conv"),
    "changes": ("agent=reactive", "encoder.changes=true"),
    "graded": ("agent=reactive", "encoder.graded=true"),
    "world model": ("agent=reactive", "world_model=latent", "world_model.every=2"),
    "cloning": ("agent=engram",),
    "consolidation": ("agent=reactive", "consolidation=[online_ewc,si]"),
}


def make(words: tuple[str, ...], graph: bool) -> Agent:
    config = load_config([*SMALL, *words, f"device.cuda_graph={str(graph).lower()}"])
    return build_agent(config, torch.device("cuda"))


def fill(agent: Agent, game: int) -> np.ndarray:
    """Random play; returns the observations after it."""
    rng = np.random.default_rng(game)
    frames = rng.integers(0, 256, (N, 44, 84, 84), dtype=np.uint8)
    agent.begin_task(game)
    for t in range(40):
        obs = frames[:, t : t + 4]
        flags = np.zeros(N, bool)
        action = rng.integers(0, 18, N)
        reward = rng.normal(size=N).astype(np.float32)
        agent.act(obs)
        agent.observe(Transition(obs, action, reward, flags, flags, flags | (t == 0), None))
    return frames[:, 40:]


@pytest.mark.parametrize("words", AGENTS.values(), ids=AGENTS)
def test_a_captured_update_is_the_update(words, monkeypatch):
    """The losses of every update are those of the same weights and batch without a graph, and the
    weights move as far as without one."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    moved = []
    for graph in (False, True):
        agent = make(words, graph)
        learner, update = agent.learner, agent.learner.update
        assert (learner._graphs is not None) == graph

        def checked(inputs, learner=learner, update=update):
            eager = {k: v.clone() for k, v in learner.loss(inputs)[1].scalars.items()}
            outputs = update(inputs)
            for name, wanted in eager.items():
                found = outputs.scalars[name]
                torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5, msg=name)
            return outputs

        learner.update = checked
        before = [p.detach().clone() for p in learner.params]
        last = fill(agent, 0)
        for _ in range(12):
            agent._update()
        moved.append([(p - b).norm().item() for p, b in zip(learner.params, before)])
        agent.end_task(last)
        fill(agent, 1)
        for _ in range(12):
            agent._update()
        if agent.continual.old is not None:
            assert agent.last.scalars["clone"] > 0
        if graph:
            assert learner._graphs[False].graph is not None
            assert (learner._graphs[True].graph is not None) == (agent.model is not None)
    assert moved[1] == pytest.approx(moved[0], rel=0.1)


def test_weights_of_a_gpu_play_the_same_on_the_cpu():
    agent = make(AGENTS["world model"], True)
    fill(agent, 0)
    for _ in range(12):
        agent._update()
    state = agent.state_dict()
    config = load_config([*SMALL, *AGENTS["world model"], "device=cpu"])
    other = build_agent(config, torch.device("cpu"))
    other.load_state_dict(state)
    fill(other, 0)
    obs = np.random.default_rng(5).integers(0, 256, (16, 4, 84, 84), dtype=np.uint8)
    q, q_cpu = agent.eval_values(obs, 0), other.eval_values(obs, 0)
    # a spike that just fails on the other device moves a value a little
    assert (q.cpu() - q_cpu).abs().median() < 1e-3
    other._update()


@pytest.mark.parametrize(
    "words", [("encoder=spiking",), ("encoder=conv",)], ids=["spiking", "conv"]
)
def test_catch_is_solved_on_a_gpu(words, tmp_path):
    folder = tmp_path / "run"
    argv = ["experiment=toy", *words, f"run={folder}", "device=cuda", "display=off"]
    assert train.main(argv) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curve = [np.mean(line["returns"]) for line in lines if line["kind"] == "eval"]
    assert curve[0] < 0.2
    # as in test_learning.py; 0.7, 0.7 and 1 have a mean of 0.8 but for rounding
    assert np.mean(curve[-3:]) >= 0.8 - 1e-9


def test_a_run_goes_on_from_a_gpus_checkpoint(tmp_path):
    folder = tmp_path / "run"
    argv = [
        "agent=engram", "sequence.games=[catch,krull]", "sequence.steps_per_task=400",
        "eval.every=400", "eval.episodes=2", "eval.num_envs=2", "eval.max_steps=60",
        "checkpoint.every=100", "log_every=100", "agent.learn_start=100", "agent.hidden=32",
        "agent.replay_capacity=1500", "memory.capacity=1000", "device=cuda", "display=off",
        f"run={folder}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        learn = Agent.learn

        def stop_once(self: Agent) -> None:
            if self.steps > 500:
                raise KeyboardInterrupt
            learn(self)

        patch.setattr(Agent, "learn", stop_once)
        assert train.main(argv) != 0
    assert train.main(argv) == 0
    assert (folder / "report" / "report.html").exists()
