"""One optimiser step: a batch in, the loss down, the target network along.

Shapes: B batch, n reward window, A actions, Z atoms.
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from agents import losses, schedules
from agents.config import AgentConfig
from agents.network import QNetwork
from agents.world_model import Unroll, WorldModel
from errors import UserError


class LearnerInputs(NamedTuple):
    """A batch as tensors on the learner's device; every shape is fixed for a whole run."""

    obs_tm1: Tensor  # [B, 4, 84, 84] uint8
    action_tm1: Tensor  # [B] int64
    rewards: Tensor  # [B, n] float32, raw
    steps: Tensor  # [B] int64
    terminated: Tensor  # [B] bool
    obs_t: Tensor  # [B, 4, 84, 84] uint8
    mask_t: Tensor  # [B, A] bool, actions of that transition's game
    weights: Tensor  # [B] float32
    gamma: Tensor  # [] float32
    task: Tensor | None = None  # [B] int64, only where something asks for it
    unroll: Unroll | None = None  # the steps that follow, where a world model learns
    foreign: Tensor | None = None  # [B] bool, rows of other games, where those are cloned


class LearnerOutputs(NamedTuple):
    """Detached results of an update; scalars are 0-d tensors, so that nothing waits for a GPU."""

    priority: Tensor  # [B] absolute TD error, or cross entropy for a distributional head
    scalars: dict[str, Tensor]
    latent_t: Tensor | None = None  # [B, L] of the target network, of obs_t


class Learner:
    """Owns optimiser and target network of a `QNetwork`.

    `update(inputs)` makes one AdamW step on the n-step (distributional) double-Q loss plus the
    spike-rate penalty, and moves the target network. Inputs with an `unroll` also teach the world
    model, and the network through it.
    """

    def __init__(
        self,
        network: QNetwork,
        target: QNetwork,
        config: AgentConfig,
        target_rate: float,
        cuda_graph: bool = False,
        model: WorldModel | None = None,
    ) -> None:
        self.network, self.target, self.config, self.model = network, target, config, model
        self.target_rate = target_rate
        self.updates = 0
        self.consolidation = None  # memory.consolidation.Consolidation, where there is one
        # (output, inputs, fixed shapes) -> loss or None, where old games are cloned
        self.clone = None
        # (latent_t, q, task) -> (rows, actions): where a search chooses the bootstrap action
        self.reanalyse = None
        self.anneal_from = 0  # update at which the schedules of n and gamma last began
        target.load_state_dict(network.state_dict())
        target.requires_grad_(False)
        self.params = [p for p in network.parameters() if p.requires_grad]
        self.model_params = list(model.parameters()) if model is not None else []
        self._capturable = self.params[0].device.type == "cuda"
        self.optimiser = self._make_optimiser(self.params)
        self.model_optimiser = self._make_optimiser(self.model_params) if model else None
        self._pairs = (list(target.parameters()), list(network.parameters()))
        self._graphs = None  # of updates without and with the world model
        if cuda_graph:
            self._graphs = {with_model: _GraphedStep(self._step) for with_model in (False, True)}

    def _make_optimiser(self, params: list[nn.Parameter]) -> torch.optim.AdamW:
        c = self.config
        return torch.optim.AdamW(
            [
                # Gains, biases, leaks and thresholds are not weights to be shrunk.
                {"params": [p for p in params if p.ndim > 1]},
                {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=c.learning_rate,
            eps=c.adam_eps,
            weight_decay=c.weight_decay,
            fused=True,
            capturable=self._capturable,
        )

    def n_step(self) -> int:
        """Length of the n-step return at the present update."""
        c = self.config
        n = schedules.exponential(c.n_step_start, c.n_step_end, c.anneal_updates, self.annealed())
        return round(n)

    def gamma(self) -> float:
        c = self.config
        return schedules.discount_schedule(
            c.gamma_start, c.gamma_end, c.anneal_updates, self.annealed()
        )

    def target_tau(self) -> float:
        """Share of the online weights that the target network takes at the present update."""
        c = self.config
        slows = c.target_tau_end > 0 and c.target_tau < 1
        if not slows or self.annealed() <= c.anneal_updates:
            return c.target_tau
        return max(c.target_tau_end, c.target_tau * c.anneal_updates / self.annealed())

    def annealed(self) -> int:
        """Updates since the schedules last began."""
        return self.updates - self.anneal_from

    def update(self, inputs: LearnerInputs) -> LearnerOutputs:
        step = self._step if self._graphs is None else self._graphs[inputs.unroll is not None]
        outputs = step(inputs)
        self.updates += 1
        if self.updates % self.config.target_period == 0:
            with torch.no_grad():  # or the target would carry a graph that grows with every update
                torch._foreach_lerp_(*self._pairs, self.target_tau())
        return outputs

    def _step(self, inputs: LearnerInputs) -> LearnerOutputs:
        loss, outputs = self.loss(inputs)
        optimisers, params = [self.optimiser], self.params
        if inputs.unroll is not None:
            optimisers, params = [self.optimiser, self.model_optimiser], params + self.model_params
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=self._graphs is None)
        loss.backward()
        if self.consolidation is not None:
            self.consolidation.after_backward(outputs.scalars["td"])
        if self.config.max_grad_norm > 0:
            norm = torch.nn.utils.clip_grad_norm_(params, self.config.max_grad_norm, foreach=True)
            outputs.scalars["grad_norm"] = norm
        for optimiser in optimisers:
            optimiser.step()
        return outputs

    def loss(self, inputs: LearnerInputs) -> tuple[Tensor, LearnerOutputs]:
        """Total loss (scalar, differentiable) and the detached numbers worth logging."""
        config = self.config
        r = inputs.rewards
        if config.reward_transform == "clip":
            r = r.clamp(-1.0, 1.0)
        r_t, discount_t = losses.n_step_return(r, inputs.steps, inputs.terminated, inputs.gamma)
        with torch.no_grad():
            online = config.bootstrap == "online"
            next_target = (self.network if online else self.target)(inputs.obs_t)
            selects = config.double and not online  # or one pass serves both
            select = self.network(inputs.obs_t) if selects else next_target
            q_select = select.q
            if self.reanalyse is not None:
                found, planned = self.reanalyse(select.encoding.latent, q_select, inputs.task)
                q_select = q_select.clone()
                q_select[found, planned] = torch.inf  # what is selected, not what it is worth
        out = self.network(inputs.obs_tm1)
        rows = torch.arange(len(r), device=r.device)
        chosen = out.logits[rows, inputs.action_tm1]  # [B, Z]
        if config.atoms == 1:
            target = losses.double_q_targets(
                next_target.q, q_select, inputs.mask_t, r_t, discount_t
            )
            error = target - chosen[:, 0]
            td, priority = losses.huber(error), error.abs()
        else:
            a_t = losses.masked_argmax(q_select, inputs.mask_t)
            probs = torch.softmax(next_target.logits[rows, a_t], 1)  # [B, Z]
            target = losses.categorical_projection(probs, r_t, discount_t, self.network.support)
            td = losses.categorical_cross_entropy(chosen, target)
            priority = td
        td_loss = (inputs.weights * td).mean()
        total = td_loss
        scalars = {"td": td_loss.detach(), "q": out.q.detach().mean()}
        if out.encoding.rates.requires_grad and config.spike_rate_weight > 0:
            penalty = losses.spike_rate_penalty(out.encoding.rates, self.target_rate)
            total = total + config.spike_rate_weight * penalty
            scalars["spike_rate"] = penalty.detach()
        if self.clone is not None and inputs.foreign is not None:
            cloned = self.clone(out, inputs, self._graphs is not None)
            if cloned is not None:
                total = total + cloned
                scalars["clone"] = cloned.detach()
        if inputs.unroll is not None:
            parts = self.model.loss(
                self.network,
                self.target,
                out.encoding.latent,
                inputs.unroll,
                inputs.mask_t,
                inputs.gamma,
            )
            total = total + sum(parts.values())
            scalars |= {name: loss.detach() for name, loss in parts.items()}
        scalars["total"] = total.detach()
        scalars["rates"] = out.encoding.rates.detach()
        scalars["spikes"] = out.encoding.spikes.detach()
        return total, LearnerOutputs(priority.detach(), scalars, next_target.encoding.latent)

    def check_finite(self, outputs: LearnerOutputs) -> None:
        """Raise `UserError` when the loss is no longer a number."""
        for name in ("total", "total_with_model"):
            loss = outputs.scalars.get(name)
            if loss is not None and not torch.isfinite(loss):
                self._broken(f"loss/{name} became {loss.item()}")

    def check_weights(self) -> None:
        """Raise `UserError` when the weights are no longer numbers."""
        modules = [m for m in (self.network, self.target, self.model) if m is not None]
        if not all(torch.isfinite(p).all() for m in modules for p in m.parameters()):
            self._broken("weights are no longer numbers")

    def _broken(self, what: str) -> NoReturn:
        raise UserError(
            f"{what} at update {self.updates}: lower agent.learning_rate or set "
            "agent.max_grad_norm; the last checkpoint of the run is from before it and was kept"
        )

    def state_dict(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "updates": self.updates,
            "anneal_from": self.anneal_from,
            "model": self.model.state_dict() if self.model is not None else None,
            "model_optimiser": self.model_optimiser.state_dict() if self.model_optimiser else None,
        }

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.target.load_state_dict(state["target"])
        self._load_optimiser(self.optimiser, state["optimiser"])
        self.updates, self.anneal_from = state["updates"], state["anneal_from"]
        if self.model is not None:
            self.model.load_state_dict(state["model"])
            self._load_optimiser(self.model_optimiser, state["model_optimiser"])

    def begin_with(self, state: dict) -> None:
        """Take the networks of another learner's state and nothing else of it; its world model
        where both have one."""
        try:
            self.network.load_state_dict(state["network"])
            self.target.load_state_dict(state["target"])
            if self.model is not None and state["model"] is not None:
                self.model.load_state_dict(state["model"])
        except (KeyError, RuntimeError) as error:
            raise UserError(
                f"start_from= names networks that do not fit this program ({error}): use the "
                "version that trained them"
            ) from error

    def _load_optimiser(self, optimiser: torch.optim.AdamW, state: dict) -> None:
        """What a CUDA graph needs goes by the device of now, not by that of the checkpoint."""
        optimiser.load_state_dict(state)
        for group in optimiser.param_groups:
            group["capturable"] = self._capturable


class _GraphedStep:
    """The whole update as one CUDA graph: launch overhead is most of the cost of small networks.

    Inputs are copied into fixed tensors, outputs are overwritten by the next call. The first calls
    run eagerly, as warm-up that PyTorch requires before a capture.
    """

    WARM_UP = 3

    def __init__(self, step) -> None:
        self.step = step
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: LearnerInputs) -> LearnerOutputs:
        if self.graph is None:
            self.calls += 1
            if self.calls <= self.WARM_UP:
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    outputs = self.step(inputs)
                torch.cuda.current_stream().wait_stream(stream)
                return outputs
            self.inputs = tree_map(lambda t: None if t is None else t.clone(), inputs)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.outputs = self.step(self.inputs)
        for fixed, new in zip(tree_leaves(self.inputs), tree_leaves(inputs)):
            if fixed is not None:
                fixed.copy_(new, non_blocking=True)
        self.graph.replay()
        return self.outputs
