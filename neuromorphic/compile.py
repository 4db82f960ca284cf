"""From an encoder to a program for the core: quantise, lay out, cut, place.

    program = compile_encoder(encoder, CoreSpec.loihi1())

`encoder` is anything with a method `layers_spec()` (see `spec.network_from_layers`), a NetworkSpec,
a QuantNetwork or a quantised twin. Spikes do not depend on the core: a core only limits what
fits, and how.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from errors import UserError

from .kernels import (
    DRIVEN_UPDATES,
    IDLE_UPDATES,
    INPUT_EVENTS,
    SATURATIONS,
    SPIKES,
    SYNAPTIC_OPS,
    WRAPS,
)
from .ledger import Ledger
from .limits import CoreSpec
from .placement import Placement, place
from .program import CHANNELS, NEURONS, POSITIONS, FlatProgram, flatten
from .quantise import QuantConfig, QuantNetwork, quantise
from .spec import CompileError, NetworkSpec, network_from_layers
from .tiling import BIT_PLANES, LayerCut, cut_layer
from .weights import EXPONENT_MAX, EXPONENT_MIN

_COLUMNS = {
    "input_event": INPUT_EVENTS,
    "synaptic_op": SYNAPTIC_OPS,
    "neuron_update_driven": DRIVEN_UPDATES,
    "neuron_update_idle": IDLE_UPDATES,
    "spike": SPIKES,
    "current_wrap": WRAPS,
    "membrane_saturation": SATURATIONS,
}


@dataclass(frozen=True, eq=False)
class CoreProgram:
    """A network that fits a core: its integers, its layout for the kernels, its place."""

    network: QuantNetwork
    flat: FlatProgram
    placement: Placement
    core: CoreSpec

    def latent_index(self) -> np.ndarray:
        """int32 [L]: the neuron, in the core's order, that each latent value counts."""
        channels, height, width = self.network.spec.shapes()[-1]
        order = np.arange(height * width * channels).reshape(height, width, channels)
        if self.network.spec.latent_order == "chw":
            order = order.transpose(2, 0, 1)
        return (order.ravel() + self.flat.layout[-1, NEURONS]).astype(np.int32)

    def ledger(self, statistics: np.ndarray, neuron_spikes: np.ndarray, decisions: int) -> Ledger:
        """Statistics [layers, STATISTICS] and spikes [neurons] of `decisions` as a ledger."""
        layers = []
        other = dict.fromkeys(
            ("spike_message", "hop_east_west", "hop_north_south", "chip_crossing"), 0
        )
        depth = len(self.flat.layout)
        for row, counts, routes in zip(self.flat.layout, statistics, self.placement.routes):
            neurons = int(row[POSITIONS] * row[CHANNELS])
            layer = {event: int(counts[column]) for event, column in _COLUMNS.items()}
            layer["synaptic_op"] *= self.network.config.synapses
            layer["neuron_update_pipeline"] = neurons * (depth - 1) * decisions
            layers.append(layer)
            spikes = neuron_spikes[row[NEURONS] : row[NEURONS] + neurons].astype(np.int64)
            other["spike_message"] += int(spikes @ routes.messages)
            other["hop_east_west"] += int(spikes @ routes.east_west)
            other["hop_north_south"] += int(spikes @ routes.north_south)
            other["chip_crossing"] += int(spikes @ routes.crossings)
        other["frame_event"] = layers[0]["input_event"]
        other["readout_event"] = layers[-1]["spike"]
        return Ledger(
            decisions,
            self.network.spec.time_steps,
            tuple(layers),
            other,
            tuple(self.network.spec.dense_macs()),
        )


def network_of(encoder: object, quant: QuantConfig | None = None) -> QuantNetwork:
    """The integer network of whatever can be compiled. Raises UserError for anything else."""
    if isinstance(encoder, QuantNetwork):
        if quant is not None and quant != encoder.config:
            raise ValueError("the network is quantised already; its QuantConfig cannot change")
        return encoder
    if hasattr(encoder, "quantised"):
        return network_of(encoder.quantised(), quant)
    if hasattr(encoder, "layers_spec"):
        try:
            encoder = encoder.layers_spec()
        except NotImplementedError as error:
            raise UserError(f"encoder: cannot run on the event core: {error}") from None
        if isinstance(encoder, list | tuple):
            encoder = network_from_layers(encoder)
    if not isinstance(encoder, NetworkSpec):
        raise UserError(
            f"encoder: {type(encoder).__name__} cannot run on the event core; "
            "use a spiking encoder (encoder=spiking)"
        )
    return quantise(encoder, quant)


def compile_encoder(
    encoder: object, core: CoreSpec | None = None, quant: QuantConfig | None = None
) -> CoreProgram:
    """Compile for `core` (default: Loihi 2), with as many synapses a weight as it takes where
    neither `quant` nor the encoder says. Raises CompileError naming the broken limit."""
    core = core or CoreSpec.loihi2()
    if quant is None and not _has_integers(encoder):
        quant = QuantConfig(synapses=core.max_synapses)
    network = network_of(encoder, quant)
    _check_weights(network, core)
    shapes = network.spec.shapes()
    dense = [layer.kind == "dense" for layer in network.layers]
    cuts: list[LayerCut] = []
    for number in range(len(network.layers), 0, -1):
        above = cuts[0] if cuts else None
        cut = cut_layer(
            network.layers[number - 1], number, shapes[number - 1], shapes[number],
            above, bool(cuts) and dense[number], core,
        )  # fmt: skip
        cuts.insert(0, cut)
    placement = place(cuts, shapes, dense, core)
    flat = flatten(network, placement.input_cores, bit_planes=not core.graded_input)
    return CoreProgram(network, flat, placement, core)


def _has_integers(encoder: object) -> bool:
    """Whether the encoder brings its own QuantConfig."""
    return isinstance(encoder, QuantNetwork) or hasattr(encoder, "quantised")


def _check_weights(network: QuantNetwork, core: CoreSpec) -> None:
    """Formats of the weights that `core` cannot store. Raises CompileError."""
    config, first = network.config, network.layers[0]
    if config.weight_bits > core.weight_bits:
        raise CompileError(
            "weight bits",
            1,
            f"weights of {config.weight_bits} bits on a core of {core.weight_bits}",
            f"set weight_bits to {core.weight_bits} or less",
        )
    if network.spec.graded and not core.graded_input:
        raise CompileError(
            "graded spikes",
            1,
            f"spikes of a {core.name} core carry no number",
            "set encoder.graded=false, or compile for core=loihi2",
        )
    if config.synapses > core.max_synapses:
        raise CompileError(
            "synapses of a weight",
            1,
            f"a {core.name} core takes pixels as bit planes, each of which would drop bits of its "
            "own where a weight has two synapses",
            "set synapses=1, or compile for core=loihi2",
        )
    # plane k of a pixel has the weights w << k: the same mantissas, an exponent higher by k
    top = first.stored_exponent + (0 if core.graded_input else BIT_PLANES - 1)
    if top > EXPONENT_MAX:
        raise CompileError(
            "weight exponent",
            1,
            f"the highest bit plane of a pixel needs the exponent {top} and a {core.name} core has "
            f"{EXPONENT_MIN}..{EXPONENT_MAX}",
            "give the layer more inputs a neuron (a larger kernel), or compile for core=loihi2",
        )


def recompile(program: CoreProgram, encoder: object) -> CoreProgram:
    """The same placement with new weights: for acting while the encoder learns.

    Raises ValueError where shapes or kinds differ, CompileError where the core cannot store the
    weights.
    """
    network = network_of(encoder, None if hasattr(encoder, "quantised") else program.network.config)
    same = network.spec.shapes() == program.network.spec.shapes() and all(
        (a.kind, a.weight.shape, a.stride, a.padding, a.crop)
        == (b.kind, b.weight.shape, b.stride, b.padding, b.crop)
        for a, b in zip(network.layers, program.network.layers)
    )
    if not same or len(network.layers) != len(program.network.layers):
        raise ValueError("the encoder's shape changed; compile it anew")
    _check_weights(network, program.core)
    flat = flatten(network, program.placement.input_cores, bit_planes=not program.core.graded_input)
    return replace(program, network=network, flat=flat)
