"""The agent: acts, remembers, learns.

    agent.begin_task(game)
    actions = agent.act(obs)            # while the emulators run, agent.learn()
    agent.observe(transition)
    agent.end_task(obs)

Shapes: N environments, A actions, B batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from agents import schedules
from agents.backend import BackendConfig, EventBackend
from agents.change import ChangeConfig
from agents.config import AgentConfig
from agents.continual import Continual, ContinualConfig, make_replay
from agents.encoders import EncoderConfig, make_encoder
from agents.exploration import Exploration
from agents.imagination import Imagination
from agents.labels import Contexts
from agents.learner import Learner, LearnerInputs, LearnerOutputs
from agents.losses import masked_argmax
from agents.network import QNetwork
from agents.planners import PlannerConfig
from agents.plasticity import Plasticity, PlasticityConfig
from agents.world_model import Unroll, WorldModel, WorldModelConfig
from memory import Batch


class Transition(NamedTuple):
    """One vector step, N environments."""

    obs_tm1: np.ndarray  # [N, 4, 84, 84] uint8
    action: np.ndarray  # [N] int64
    reward: np.ndarray  # [N] float32, raw
    terminated: np.ndarray  # [N] bool
    truncated: np.ndarray  # [N] bool
    first: np.ndarray  # [N] bool: obs_tm1 opens an episode
    final_obs: np.ndarray | None  # [N, 4, 84, 84] uint8, rows valid where truncated


class Agent:
    """Reactive value learner on a sequence of games.

    Args:
        config: values of the agent.
        encoder: values of the encoder.
        masks: bool [G, A], the actions that each game of the sequence has; A outputs are shared.
            Without labels, a row for each context that there can be.
        total_steps: agent steps of the whole run; the importance exponent is annealed over it.
        seed: integer, split into named generators; no global generator is read.
        device: torch device.
        cuda_graph: capture the update as one CUDA graph (CUDA only).
        backend: what the acting encoder runs on; None for PyTorch.
        continual: what is done against forgetting; None for nothing.
        world_model: values of the world model; None for none.
        planner: how it searches the world model before it acts; None: it reacts.
        task_labels: what it is told of the games (agents/labels.py).
        change: how it numbers contexts and notices changes where it is not told.
        plasticity: what keeps it able to learn; None for nothing.
        networks: state of a learner whose networks it begins with; None: with fresh ones.
    """

    def __init__(
        self,
        config: AgentConfig,
        encoder: EncoderConfig,
        masks: np.ndarray,
        total_steps: int,
        seed: int,
        device: torch.device | str = "cpu",
        cuda_graph: bool = False,
        backend: BackendConfig | None = None,
        continual: ContinualConfig | None = None,
        world_model: WorldModelConfig | None = None,
        planner: PlannerConfig | None = None,
        task_labels: str = "oracle",
        change: ChangeConfig | None = None,
        plasticity: PlasticityConfig | None = None,
        networks: dict | None = None,
    ) -> None:
        self.config, self.total_steps = config, total_steps
        self.device = torch.device(device)
        seeds = np.random.SeedSequence(seed).spawn(8)
        self.exploration = Exploration(config, seeds[0])
        self.sample_rng = np.random.default_rng(seeds[1])
        names = ("init", "noise", "keys", "continual", "model", "plasticity")
        self.seeds = {n: int(s.generate_state(1)[0]) for n, s in zip(names, seeds[2:])}
        self.model: WorldModel | None = None  # agents that build their own network have none
        self.imagination = Imagination(
            world_model or WorldModelConfig(), planner or PlannerConfig(), self, self.seeds["model"]
        )
        self.build(encoder, masks.shape[1], cuda_graph)
        self.noise = torch.Generator(self.device).manual_seed(self.seeds["noise"])
        continual = continual or ContinualConfig()
        self.replay = make_replay(config, continual.replay, self.seeds["continual"])
        self.masks = torch.as_tensor(masks, device=self.device)
        self.allowed = [np.flatnonzero(mask) for mask in masks]
        self.game = 0
        self.steps = 0  # agent steps of the run
        self.game_steps = [0] * len(masks)  # agent steps in each game
        self.last: LearnerOutputs | None = None
        self.plasticity: Plasticity | None = None
        if isinstance(self.network, QNetwork):
            self.plasticity = Plasticity(
                plasticity or PlasticityConfig(),
                self,
                lambda seed: self._make_network(encoder, masks.shape[1], seed),
                self.seeds["plasticity"],
            )
        # Plasticity goes back to the fresh weights; what protects weights, and the core that they
        # are compiled for, begin with these.
        if networks is not None:
            self.learner.begin_with(networks)
        self.continual = Continual(continual, self, self.seeds["continual"])
        self.contexts: Contexts | None = None
        if task_labels != "oracle":
            self.contexts = Contexts(task_labels, change or ChangeConfig(), self)
        self.backend: EventBackend | None = None
        if backend is not None and backend.name == "event_core":
            self.backend = EventBackend(backend, self.acting_network)

    def build(self, encoder: EncoderConfig, actions: int, cuda_graph: bool) -> None:
        """Make `network` and `learner`; agents that learn otherwise put theirs here."""
        network = self._make_network(encoder, actions, self.seeds["init"])
        self.network = network.to(self.device)
        target = copy.deepcopy(self.network)
        self.model = self.imagination.make_model(actions)
        self.learner = Learner(
            self.network, target, self.config, encoder.target_rate, cuda_graph, self.model
        )
        if self.imagination.reanalyses:
            self.learner.reanalyse = self.imagination.reanalyse

    def _make_network(self, encoder: EncoderConfig, actions: int, seed: int) -> QNetwork:
        rng = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):  # layers' own initialisers know no generator
            torch.random.default_generator.manual_seed(seed)
            return QNetwork(make_encoder(encoder, rng), actions, self.config)

    # -- tasks ----------------------------------------------------------------------------------
    def begin_task(self, game: int) -> None:
        """The game with this index starts now; agents without labels do not look at it."""
        if self.contexts is not None:
            self.contexts.begin_task()
        else:
            self.enter(game)

    def end_task(self, obs: np.ndarray) -> None:
        """The task stops at obs [N, 4, 84, 84]."""
        self.cut(obs)
        if self.contexts is not None:
            self.contexts.end_task()
        else:
            self.leave()

    def enter(self, game: int) -> None:
        """What comes belongs to this game or context."""
        self.game = game
        if self.config.anneal_restart and self.game_steps[game] == 0:
            self.learner.anneal_from = self.learner.updates
        if self.plasticity is not None:
            self.plasticity.begin_task()

    def cut(self, obs: np.ndarray) -> None:
        """All episodes stop at obs [N, 4, 84, 84]; they bootstrap from there."""
        self.replay.cut(obs)

    def leave(self) -> None:
        """The present game or context ends: what is done against forgetting it."""
        self.continual.end_task()

    def share(self, contexts: int) -> None:
        """So many contexts share what the agent has; the plain agent divides nothing."""

    # -- acting ---------------------------------------------------------------------------------
    @property
    def acting_network(self) -> QNetwork:
        """The network that is judged, saved as the agent's policy and acts, in training too unless
        `explore_online`: the target network where the configuration says so."""
        return self.learner.target if self.config.act_with_target else self.network

    @property
    def exploring_network(self) -> QNetwork:
        """The network that chooses actions in training."""
        return self.network if self.config.explore_online else self.acting_network

    def deciding_network(self) -> QNetwork:
        """The same with its encoder where it decides: on the core, if there is one."""
        if self.backend is None:
            return self.exploring_network
        return self.backend.acting(self.learner.updates)

    def judging_network(self) -> QNetwork:
        """The acting network likewise, with the weights of now and without a trace in the core's
        counts."""
        if self.backend is None:
            return self.acting_network
        return self.backend.judging(self.learner.updates)

    def remembering_network(self) -> QNetwork:
        """As it acted last, likewise without a trace: what keys are made by between decisions."""
        return self.acting_network if self.backend is None else self.backend.remembering()

    def epsilon(self) -> np.ndarray:
        """Probability [N] of a random action in each emulator."""
        return self.exploration.epsilon(self.game_steps[self.game])

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Epsilon-greedy actions [N] for obs [N, 4, 84, 84]."""
        self.latent = None
        random, actions = self.exploration.draw(self.allowed[self.game], self.game_steps[self.game])
        if self.steps < self.config.learn_start or random.all():
            return actions  # nothing learned yet, or nothing to ask the network for
        if self.config.noisy:
            self.exploring_network.resample_noise(self.noise)
        if self.backend is not None:
            self.backend.see(obs)
        greedy = self.greedy(obs, self.game, self.deciding_network(), explore=True)
        return np.where(random, actions, greedy)

    @torch.no_grad()
    def greedy(
        self, obs: np.ndarray, game: int, network: QNetwork, explore: bool = False
    ) -> np.ndarray:
        """Greedy actions [N] of `network` in the game with this index; `explore`: they are taken
        in order to learn, so that a planner may add its own noise."""
        q = self.q_values(obs, game, network)
        if self.imagination.plans:
            return self.imagination.plan(q, game, explore, network).action.cpu().numpy()
        return masked_argmax(q, self.masks[game].expand_as(q)).cpu().numpy()

    def q_values(self, obs: np.ndarray, game: int, network: QNetwork) -> torch.Tensor:
        """Values [N, A] that the agent goes by, on its device, for obs [N, 4, 84, 84]."""
        out = network(torch.from_numpy(obs).to(self.device))
        self.latent = out.encoding.latent
        return out.q

    def label(self, obs: np.ndarray, game: int) -> int:
        """What the agent calls the game with this index when an evaluation shows it all of obs
        [N, ...]: itself, or without labels its own context."""
        return game if self.contexts is None else self.contexts.of_all(obs)

    def labels(self, obs: np.ndarray, game: int) -> np.ndarray:
        """The same [N] of each row by itself: what the others show, some of them perhaps still
        black or long over, must not reach its decision."""
        if self.contexts is None:
            return np.full(len(obs), game)
        return self.contexts.of_each(obs)

    @torch.no_grad()
    def eval_values(self, obs: np.ndarray, game: int) -> torch.Tensor:
        """`q_values` as an evaluation sees them, each row by its own label: leaves no trace in the
        agent but `latent`."""
        labels = self.labels(obs, game)
        first, *others = np.unique(labels).tolist()
        q = self.label_values(obs, first)
        for label in others:  # all rows are asked each time: shapes stay the same
            of_label = torch.as_tensor(labels == label, device=q.device)[:, None]
            q = torch.where(of_label, self.label_values(obs, label), q)
        return q

    @torch.no_grad()
    def label_values(self, obs: np.ndarray, label: int) -> torch.Tensor:
        """`eval_values` in what the agent calls `label`."""
        return self.q_values(obs, label, self.judging_network())

    @torch.no_grad()
    def values(
        self,
        latent: torch.Tensor,
        game: int,
        memory: bool = True,
        network: QNetwork | None = None,
    ) -> torch.Tensor:
        """Values [M, A] that the agent gives to latents [M, L], real or imagined; -inf for actions
        that the game does not have. `memory`: with the episodic memory, where there is one;
        `network`: by its head, None for that of the acting network."""
        network = network or self.acting_network
        q = network.q_values(network.head(latent))
        return q.masked_fill(~self.masks[game], -torch.inf)

    def eval_policy(self, obs: np.ndarray, game: int) -> np.ndarray:
        """The policy that evaluations judge: greedy, without noise; changes no state."""
        network, labels = self.judging_network(), self.labels(obs, game)
        noise = {k: v.clone() for k, v in network.named_buffers() if "noise_" in k}
        if noise:
            network.quiet()
        try:
            chosen = np.zeros(len(obs), np.int64)
            for label in np.unique(labels):  # all rows are asked each time: shapes stay the same
                actions = self.greedy(obs, int(label), network)
                chosen = np.where(labels == label, actions, chosen)
            return chosen
        finally:
            for name, buffer in network.named_buffers():
                if name in noise:
                    buffer.copy_(noise[name])

    # -- learning -------------------------------------------------------------------------------
    def observe(self, transition: Transition) -> None:
        if self.contexts is not None:
            self.contexts.see(transition.obs_tm1, transition.first)
        self.replay.add(
            transition.obs_tm1,
            transition.action,
            transition.reward,
            transition.terminated,
            transition.truncated,
            transition.first,
            self.game,
            final_obs=transition.final_obs,
        )
        count = len(transition.action)
        self.steps += count
        self.game_steps[self.game] += count

    def updates_due(self) -> int:
        """Optimiser updates that the fixed update ratio still owes at the present step."""
        if self.steps < self.config.learn_start:
            return 0
        owed = int((self.steps - self.config.learn_start) * self.config.updates_per_step)
        return max(0, owed - self.learner.updates)

    def learn(self) -> None:
        """Make the updates that are due."""
        for _ in range(self.updates_due()):
            if not len(self.replay):  # no window is complete yet
                return
            self._update()

    def _update(self) -> None:
        c, learner = self.config, self.learner
        beta = schedules.linear(c.priority_beta, 1.0, self.total_steps, self.steps)
        n, unroll = learner.n_step(), None
        if self.imagination.learns():
            batch, unroll = self.imagination.sample(n, self.sample_rng)
        else:
            batch = self.replay.sample(c.batch_size, n, self.sample_rng, beta=beta, shift=c.shift)
        if c.noisy:
            self.network.resample_noise(self.noise)
            learner.target.resample_noise(self.noise)
        last = learner.update(self._to_device(batch, learner.gamma(), unroll))
        if self.imagination.taught and self.last is not None:  # its losses are not of every update
            scalars = self.last.scalars | last.scalars
            if unroll is not None and self.imagination.config.every > 1:  # nor are sums with them
                for name in [n for n in ("total", "grad_norm") if n in last.scalars]:
                    scalars[f"{name}_with_model"] = last.scalars[name]
                    scalars[name] = self.last.scalars[name]
            last = last._replace(scalars=scalars)
        self.last = last
        if self.device.type == "cpu" or c.prioritised:  # elsewhere looking means waiting
            learner.check_finite(self.last)
        if c.prioritised:
            self.replay.update_priorities(batch.indices, self.last.priority.cpu().numpy())
        self.learned(batch)
        if self.plasticity is not None:
            self.plasticity.after_update()

    def learned(self, batch: Batch) -> None:
        """An update was made from this batch; `last` holds its results."""

    def _to_device(
        self, batch: Batch, gamma: float, unroll: tuple[np.ndarray, ...] | None = None
    ) -> LearnerInputs:
        # The window is padded to its longest length, so that shapes never change in a run.
        rewards = np.zeros((len(batch.steps), self.config.n_step_max), np.float32)
        rewards[:, : batch.rewards.shape[1]] = batch.rewards

        foreign = self.continual.foreign(batch.task)

        def put(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(self.device, non_blocking=True)

        return LearnerInputs(
            put(batch.obs_tm1),
            put(batch.action_tm1),
            put(rewards),
            put(batch.steps),
            put(batch.terminated),
            put(batch.obs_t),
            self.masks[put(batch.task)],
            put(batch.weights),
            torch.tensor(gamma, dtype=torch.float32).to(self.device),
            put(batch.task),
            None if unroll is None else Unroll(*map(put, unroll)),
            None if foreign is None else put(foreign),
        )

    def diagnostics(self) -> dict[str, float]:
        """Numbers of the last update and of the schedules, for the log."""
        epsilon = 1.0 if self.steps < self.config.learn_start else self.epsilon().mean()
        out = {"agent/epsilon": epsilon, "agent/replay": float(len(self.replay))}
        out |= self.continual.diagnostics()
        if self.contexts is not None:
            out |= self.contexts.scalars()
        if self.backend is not None:
            out |= self.backend.diagnostics()
        if self.last is None:
            return out
        self.learner.check_finite(self.last)  # or what follows would be of a broken network
        if self.plasticity is not None:
            out |= self.plasticity.diagnostics()
        if self.imagination.taught:  # the errors of a model that has stopped say nothing
            out |= self.imagination.diagnostics()
        out |= {"agent/n_step": float(self.learner.n_step()), "agent/gamma": self.learner.gamma()}
        for name, value in self.last.scalars.items():
            if name in ("rates", "spikes"):
                for layer, v in zip(self.network.encoder.layer_names, value.tolist()):
                    out[f"spikes/{name[:-1]}/{layer}"] = v
            else:
                out[f"loss/{name}"] = value.item()
        return out

    def task_names(self, games: Sequence[str]) -> list[str]:
        """What the agent's tasks are called in a sequence of these games: like them, or, where it
        is not told which it plays, by the numbers of its contexts."""
        if self.contexts is None:
            return list(games)
        return [f"context {i}" for i in range(len(self.masks))]

    def figures(self, games: Sequence[str]) -> dict[str, Any]:
        """Pictures for TensorBoard by tag; games: of the sequence, by index."""
        return self.backend.figures() if self.backend is not None else {}

    # -- state ----------------------------------------------------------------------------------
    def state_dict(self) -> dict:
        if self.last is not None:
            # Or a broken one might push out the last good checkpoint: the loss is of the weights
            # before the update.
            self.learner.check_finite(self.last)
            self.learner.check_weights()
        backend = {"backend": self.backend.state_dict()} if self.backend is not None else {}
        if self.model is not None:
            backend["model_rng"] = self.imagination.rng.bit_generator.state
        if self.contexts is not None:
            backend["contexts"] = self.contexts.state_dict()
        if self.plasticity is not None:
            backend["plasticity"] = self.plasticity.state_dict()
        return backend | {
            "learner": self.learner.state_dict(),
            "continual": self.continual.state_dict(),
            "game": self.game,
            "steps": self.steps,
            "game_steps": list(self.game_steps),
            "explore_rng": self.exploration.state_dict(),
            "sample_rng": self.sample_rng.bit_generator.state,
            "noise": self.noise.get_state(),
            "last": {k: v.cpu() for k, v in self.last.scalars.items()} if self.last else None,
        }

    def load_state_dict(self, state: dict) -> None:
        self.learner.load_state_dict(state["learner"])
        if "continual" in state:  # runs of earlier versions have none
            self.continual.load_state_dict(state["continual"])
        self.game, self.steps = state["game"], state["steps"]
        if self.contexts is not None:
            self.contexts.load_state_dict(state["contexts"])
        if self.plasticity is not None and "plasticity" in state:
            self.plasticity.load_state_dict(state["plasticity"])
        self.game_steps = list(state["game_steps"])
        self.exploration.load_state_dict(state["explore_rng"])
        self.sample_rng.bit_generator.state = state["sample_rng"]
        if len(state["noise"]) == len(self.noise.get_state()):  # else it was another device's
            self.noise.set_state(state["noise"])
        if self.model is not None:
            self.imagination.rng.bit_generator.state = state["model_rng"]
        if self.backend is not None:
            self.backend.load_state_dict(state["backend"])
        if state["last"] is not None:  # the next line of the log may come before the next update
            self.last = LearnerOutputs(torch.zeros(0), dict(state["last"]))

    def memory_state(self) -> dict | None:
        """State of the episodic memory, which a checkpoint keeps apart; this agent has none."""
        return None

    def load_memory_state(self, state: dict | None) -> None:
        """The inverse; called after `load_state_dict`."""
