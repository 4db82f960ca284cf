"""Export to NIR, the exchange format of spiking networks (Pedersen et al. 2024).

    input -> [scale_1] -> conv_1 -> lif_1 -> conv_2 -> lif_2 -> ... -> output

NIR says dv/dt in continuous time; with dt and forward Euler,

    tau dv/dt = (v_leak - v) + R I    ->    v' = (1 - dt/tau) v + (R dt/tau) I

so leak = 1 - dt/tau and R = tau/dt, v_leak = v_reset = 0 and a hard reset. Every neuron parameter
is a vector of the layer's full shape. What NIR cannot say goes into the metadata (dt, the Euler
step, the reset, time steps, integers) or, where another reader would get it wrong, is refused.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np

from errors import UserError

from .compile import network_of
from .quantise import QuantConfig, QuantLayer, QuantNetwork
from .spec import LayerSpec

FORMAT = "engram-snn-1"
DEFAULT_DT = 1e-3  # seconds a time step; only tau depends on it


def export_nir(
    encoder: object, path: Path | str, dt: float = DEFAULT_DT, quant: QuantConfig | None = None
) -> None:
    """Write encoder (anything `compile_encoder` takes) to `path`, with its integers.

    dt: seconds of one time step. Raises UserError for what NIR cannot express.
    """
    import nir

    if not (np.isfinite(dt) and dt > 0):
        raise UserError(f"dt={dt} must be a positive number of seconds")
    network = network_of(encoder, quant)
    graph = nir.NIRGraph(
        *_nodes_and_edges(network, dt, nir), metadata=_network_metadata(network, dt)
    )
    try:
        nir.write(str(path), graph)
    except OSError as error:  # its text is HDF5's own; its number says what is wrong
        reason = os.strerror(error.errno) if error.errno else "no file can be made there"
        raise UserError(f"{path}: cannot be written ({reason}); choose another out=") from None


def _network_metadata(network: QuantNetwork, dt: float) -> dict:
    spec = network.spec
    return {
        "format": FORMAT,
        "dt": float(dt),
        "discretisation": "forward euler",
        "reset": "hard",
        "time_steps": int(spec.time_steps),
        "input": spec.input,
        "latent_order": spec.latent_order,
        "weight_bits": int(network.config.weight_bits),
        "synapses": int(network.config.synapses),
        "scale_per": network.config.scale,
        "headroom": float(network.config.headroom),
        "rounding": network.config.rounding,
    }


def _nodes_and_edges(network: QuantNetwork, dt: float, nir) -> tuple[dict, list]:
    spec = network.spec
    if spec.graded:
        raise UserError("NIR cannot express graded spikes; use encoder.graded=false")
    shapes = spec.shapes()
    nodes = {"input": nir.Input(input_type={"input": np.array(spec.input_shape)})}
    chain = ["input"]

    def add(name: str, node: object) -> None:
        nodes[name] = node
        chain.append(name)

    for number, (layer, integers) in enumerate(zip(spec.layers, network.layers), 1):
        below, shape = shapes[number - 1], shapes[number]
        if number > 1 and spec.layers[number - 2].kind == "dense":
            below = below[:1]
        if layer.input_scale != 1.0:
            add(f"scale_{number}", nir.Scale(scale=np.full(below, layer.input_scale)))
        if layer.kind == "conv":
            add(f"conv_{number}", _conv(layer, below, number, nir))
        else:
            if number == 1 or spec.layers[number - 2].kind == "conv":
                flatten = nir.Flatten(
                    input_type={"input": np.array(below)}, start_dim=0, end_dim=-1
                )
                add(f"flatten_{number}", flatten)
            add(f"dense_{number}", nir.Affine(weight=layer.weight.copy(), bias=layer.bias.copy()))
            shape = shape[:1]
        add(f"lif_{number}", _neurons(layer, integers, shape, dt, number, nir))
    last = shapes[-1] if spec.layers[-1].kind == "conv" else shapes[-1][:1]
    add("output", nir.Output(output_type={"output": np.array(last)}))
    return nodes, list(pairwise(chain))


def _conv(layer: LayerSpec, below: tuple, number: int, nir):
    """NIR has no crop; zero rows and columns around the kernel say the same."""
    top, bottom, left, right = layer.crop
    if any(layer.crop) and any(layer.padding):
        raise UserError(f"layer {number}: NIR cannot express crop with padding; use one of them")
    weight = np.pad(layer.weight, ((0, 0), (0, 0), (top, bottom), (left, right)))
    if weight.shape[2] != weight.shape[3]:
        # nir 1.0 takes the kernel's height for its width when it works out shapes
        raise UserError(
            f"layer {number}: NIR cannot express a {weight.shape[2:]} kernel; use a square one"
        )
    return nir.Conv2d(
        input_shape=below[1:],
        weight=weight,
        stride=layer.stride,
        padding=layer.padding,
        dilation=1,
        groups=1,
        bias=layer.bias.copy(),
    )


def _neurons(layer: LayerSpec, integers: QuantLayer, shape: tuple, dt: float, number: int, nir):
    if (layer.leak == 1).any():
        if not (layer.leak == 1).all():
            raise UserError(
                f"layer {number}: NIR cannot mix leaky and non-leaky (leak = 1) neurons in one "
                "layer; clamp leak below 1 or set all of it to 1"
            )
        # dv/dt = R I: one step adds R dt I
        return nir.IF(
            r=np.full(shape, 1 / dt),
            v_threshold=_spread(layer.threshold, shape),
            v_reset=np.zeros(shape),
            metadata=_integers(layer, integers),
        )
    tau = dt / (1 - layer.leak)
    return nir.LIF(
        tau=_spread(tau, shape),
        r=_spread(tau / dt, shape),
        v_leak=np.zeros(shape),
        v_threshold=_spread(layer.threshold, shape),
        v_reset=np.zeros(shape),
        metadata=_integers(layer, integers),
    )


def _spread(values: np.ndarray, shape: tuple) -> np.ndarray:
    """[C] to the full shape (C, ...)."""
    return np.broadcast_to(values.reshape(-1, *[1] * (len(shape) - 1)), shape).copy()


def _integers(layer: LayerSpec, integers: QuantLayer) -> dict:
    """The core's own parameters; `leak` exactly, since 1 - dt/tau loses its last bits."""
    return {
        "leak": layer.leak.copy(),
        "crop": np.array(layer.crop),
        "weight_levels": integers.weight.copy(),
        "weight_exponent": int(integers.exponent),
        "bias_mantissa": integers.bias_mantissa.copy(),
        "bias_exponent": integers.bias_exponent.copy(),
        "dv": integers.dv.copy(),
        "vth": integers.vth.copy(),
        "scale": integers.scale.copy(),
    }
