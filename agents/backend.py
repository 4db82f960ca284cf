"""Where the acting encoder runs: in PyTorch, or on the simulated spike-event core.

With backend=event_core the agent learns in PyTorch and acts on the core: at a fixed period in
optimiser updates the encoder's weights are rounded to the core's integers and loaded into the
program, whose placement stays. The head stays in PyTorch and reads the core's spike counts, or the
sums of what its spikes carried.

Shapes: B batch, T time steps, L latent.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.encoders import Encoder, Encoding
from agents.network import QNetwork
from errors import UserError, require
from neuromorphic import (
    TABLES,
    CoreProgram,
    CoreSpec,
    EventCore,
    QuantConfig,
    compile_encoder,
    recompile,
)
from neuromorphic.kernels import STATISTICS
from neuromorphic.quantise import PAYLOAD_UNIT

BACKENDS = ("torch", "event_core")


@dataclass(frozen=True)
class BackendConfig:
    """What the acting encoder runs on; all but `name` concern event_core alone."""

    name: str = "torch"  # torch | event_core
    core: str = "loihi2"  # loihi1, loihi2, ideal: limits that the program must keep
    chips: int = 1  # chips that the program may fill
    weight_bits: int = 8  # with the sign, of a synapse
    # Of a weight, at most: a coarse and a fine one, at twice the memory and operations of one
    # alone. With one a fifth of the decisions differ from the float agent's, with two one in 200.
    # [measured] A core that takes one only (loihi1: its input is not graded) gets one.
    synapses: int = 2
    # Optimiser updates between two compilations of the acting encoder. Ours: the target network
    # moves by 0.5 % an update, and compiling costs a quarter of an update. [measured]
    every: int = 20

    def __post_init__(self) -> None:
        require(
            self.name in BACKENDS, f"backend.name={self.name}: use one of {', '.join(BACKENDS)}"
        )
        require(self.chips >= 1, f"backend.chips={self.chips} must be at least 1")
        require(self.every >= 1, f"backend.every={self.every} must be at least 1")
        require(
            2 <= self.weight_bits <= 8,
            f"backend.weight_bits={self.weight_bits}: set it to a value from 2 to 8",
        )
        require(
            self.synapses in (1, 2),
            f"backend.synapses={self.synapses}: a weight has 1 or 2 of them",
        )
        self.core_spec()

    def core_spec(self) -> CoreSpec:
        try:
            return CoreSpec.named(self.core, self.chips)
        except UserError as error:
            raise UserError(f"backend.{error}") from None

    def quant_config(self) -> QuantConfig:
        return QuantConfig(
            self.weight_bits, synapses=min(self.synapses, self.core_spec().max_synapses)
        )


class CoreEncoder(Encoder):
    """The encoder on the core: `forward(obs uint8 [B, 4, 84, 84]) -> Encoding`, no gradients.

    Counts what happens until `reset_counts()`.
    """

    def __init__(self, encoder: Encoder, program: CoreProgram) -> None:
        super().__init__()
        self.latent_dim = encoder.latent_dim
        self.layer_names, self.layer_neurons = encoder.layer_names, encoder.layer_neurons
        self.full_rate = np.array([program.network.spec.time_steps * n for n in self.layer_neurons])
        self.load(program)
        self.reset_counts()

    def load(self, program: CoreProgram) -> None:
        self.core = EventCore(program)
        self.unit = PAYLOAD_UNIT if program.network.spec.graded else 1.0

    def forward(self, obs: Tensor) -> Encoding:
        result = self.core.run(obs.cpu().numpy())
        self.statistics += result.statistics
        self.neuron_spikes += result.neuron_spikes
        self.decisions += result.decisions
        spikes = result.spikes.mean(0)  # [layers]
        rates = torch.from_numpy(spikes / self.full_rate).float()
        return Encoding(
            torch.from_numpy(result.latent).to(obs.device, torch.float32) * self.unit,
            rates.to(obs.device),
            torch.from_numpy(spikes).to(obs.device, torch.float32),
        )

    def reset_counts(self) -> None:
        layout = self.core.program.flat
        self.statistics = np.zeros((len(layout.layout), STATISTICS), np.int64)
        self.neuron_spikes = np.zeros(layout.neurons, np.int64)
        self.decisions = 0

    def ledger(self):
        """Every event since the counts were reset."""
        return self.core.program.ledger(self.statistics, self.neuron_spikes, self.decisions)


def on_core(network: QNetwork, encoder: CoreEncoder) -> QNetwork:
    """`network` with its encoder on the core; everything else is shared, not copied."""
    twin = copy.copy(network)
    twin._modules = {**network._modules, "encoder": encoder}
    return twin


class EventBackend:
    """Keeps a program for the acting network, and numbers of what it did.

    Args:
        config: values of the backend.
        network: the acting network; its weights may move, its shapes may not.

    Raises:
        UserError, CompileError: the encoder cannot run on that core.
    """

    def __init__(self, config: BackendConfig, network: QNetwork) -> None:
        self.config, self.source = config, network
        # The program is a function of this copy of the weights, which is what a checkpoint keeps.
        self.compiled = copy.deepcopy(network.encoder).to("cpu").requires_grad_(False)
        self.compiled_at = 0  # updates
        program = compile_encoder(self.compiled, config.core_spec(), config.quant_config())
        self.encoder = CoreEncoder(network.encoder, program)
        self.network = on_core(network, self.encoder)
        self._judge: tuple[int, QNetwork] | None = None
        self._remembers: QNetwork | None = None  # of the program of now
        self._seen: np.ndarray | None = None  # [4, 84, 84], for the raster

    def acting(self, updates: int) -> QNetwork:
        """The network that acts in training after this many updates."""
        if updates - self.compiled_at >= self.config.every:
            self.compiled.load_state_dict(self.source.encoder.state_dict())
            self.compiled_at = updates
            self.encoder.load(recompile(self.encoder.core.program, self.compiled))
            self._remembers = None
        return self.network

    def judging(self, updates: int) -> QNetwork:
        """The network with the weights of now, on a core of its own: changes no state."""
        if self._judge is None or self._judge[0] != updates:
            encoder = copy.deepcopy(self.compiled)
            encoder.load_state_dict(self.source.encoder.state_dict())
            program = recompile(self.encoder.core.program, encoder)
            self._judge = (updates, on_core(self.source, CoreEncoder(encoder, program)))
        return self._judge[1]

    def remembering(self) -> QNetwork:
        """The network that acted last, on a core of its own: leaves no trace in the counts."""
        if self._remembers is None:
            encoder = CoreEncoder(self.compiled, self.encoder.core.program)
            self._remembers = on_core(self.source, encoder)
        return self._remembers

    def moved(self) -> None:
        """The weights were changed by something other than an update: the next decision compiles
        them, so that encoder and head act as one network."""
        self._judge = None
        self.compiled_at -= self.config.every

    def see(self, obs: np.ndarray) -> None:
        """Remember an observation for the raster picture."""
        self._seen = obs[0].copy()

    def diagnostics(self) -> dict[str, float]:
        """Numbers a decision since the last call; none where nothing was decided."""
        if not self.encoder.decisions:
            return {}
        ledger = self.encoder.ledger()
        numbers = ledger_numbers(ledger, self.encoder.layer_names)
        numbers["core/compiled_at_update"] = float(self.compiled_at)
        self.encoder.reset_counts()
        return numbers

    def figures(self) -> dict[str, Any]:
        """The spikes of the last decision seen, as a picture."""
        if self._seen is None:
            return {}
        from neuromorphic.report import draw_raster

        result = EventCore(self.encoder.core.program).run(self._seen, record=True)
        return {"core/raster": draw_raster(result, self._seen, self.encoder.layer_names)}

    def state_dict(self) -> dict:
        encoder = self.encoder
        return {
            "compiled": self.compiled.state_dict(),
            "compiled_at": self.compiled_at,
            "statistics": encoder.statistics,
            "neuron_spikes": encoder.neuron_spikes,
            "decisions": encoder.decisions,
        }

    def load_state_dict(self, state: dict) -> None:
        self.compiled.load_state_dict(state["compiled"])
        self.compiled_at = state["compiled_at"]
        encoder = self.encoder
        encoder.load(recompile(encoder.core.program, self.compiled))
        encoder.statistics = np.array(state["statistics"])
        encoder.neuron_spikes = np.array(state["neuron_spikes"])
        encoder.decisions = state["decisions"]
        self._judge = self._remembers = None


def ledger_numbers(ledger, layer_names: tuple[str, ...]) -> dict[str, float]:
    """A ledger as TensorBoard scalars, per decision; energy of every table with a price, in nJ."""
    decisions = max(1, ledger.decisions)
    numbers = {
        f"core/spikes/{name}": layer["spike"] / decisions
        for name, layer in zip(layer_names, ledger.layers)
    }
    numbers["core/spikes"] = ledger["spike"] / decisions
    numbers["core/synaptic_ops"] = ledger["synaptic_op"] / decisions
    numbers["core/overflows"] = float(ledger.overflows)
    for name in TABLES:
        bill = ledger.bill(name)
        if bill.lines:
            numbers[f"core/energy_nj/{name}"] = bill.picojoule_per_decision / 1e3
    return numbers
