"""The integer network laid out for the event kernels: flat arrays, one description row a layer.

Neurons are numbered position by position: index = (y * W + x) * C + c, so that one active input
adds contiguous rows of weights. A convolution keeps one copy of its weights,

    rows [kh * kw * in, out]    row (ky * kw + kx) * in + c holds the weights of tap (ky, kx)

and two tables over positions (never over channels or synapses):

    pairs    for an input position: the output positions it reaches, and by which tap  (spikes)
    windows  for an output position: the inputs it reads, and their weight rows        (frames)

A dense layer is the case of one input position, one output position and one tap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .lif import V_MAX, dec
from .quantise import (
    DRIVE_MAX,
    PAYLOAD_MAX,
    QuantLayer,
    QuantNetwork,
    largest_input,
    worst_drive,
)

# columns of FlatProgram.layout
(
    IN_CHANNELS,  # channels of one input position
    POSITIONS,  # output positions
    CHANNELS,  # output channels
    WEIGHTS,  # offset of the weight rows in `weights`
    PAIRS,  # offset of the layer's pair pointers in `pair_ptr`
    NEURONS,  # offset of the layer's neurons in the state arrays
    PLACES,  # offset of the layer's positions in the position arrays
    PARAMS,  # offset of the tiled parameters
    BLOCK,  # positions for which the parameters are tiled
    RESTING,  # offset of the resting trajectory in `rest_v`, `rest_spikes`
    SHIFT,  # left shift from drive sum to current
    DROP,  # right shift before it: bits of fine synapses
    MAY_WRAP,  # 1 where an input exists that wraps the current
    ROWS,  # weight rows: the most events that one position can get in a step
    MAIL,  # offset of the positions' mail boxes, [positions, rows]; spike-driven layers only
) = range(15)
LAYOUT_COLUMNS = 15
BLOCK_NEURONS = 1024  # parameters are tiled to about this many: long loops that stay in L1


@dataclass(frozen=True, eq=False)
class FlatProgram:
    """What the kernels read. N neurons, P positions, all layers one behind the other.

    rest_*: the course of a neuron that never gets any input (bias and leak alone), [T, C] a
    layer: untouched positions need no work at all, only their row of this table.
    """

    layout: np.ndarray  # int64 [layers, LAYOUT_COLUMNS]
    weights: np.ndarray  # int8 (two synapses: int16), rows of all layers
    pair_ptr: np.ndarray  # int64, per spike-driven layer [input positions + 1]
    pair_out: np.ndarray  # int32: output position of each pair
    pair_tap: np.ndarray  # int32: its first weight row
    window_ptr: np.ndarray  # int64 [output positions of layer 1 + 1]
    window_input: np.ndarray  # int32: index into the flat frame
    window_row: np.ndarray  # int32: weight row
    reach_ptr: np.ndarray  # int64 [inputs + 1]: windows that read an input
    reach_out: np.ndarray  # int32
    keep: np.ndarray  # float64, tiled: (4096 - dv) / 4096
    bias: np.ndarray  # int32, tiled
    threshold: np.ndarray  # int32, tiled
    payload_shift: np.ndarray  # int32, tiled; only where spikes are graded, else empty
    rest_v: np.ndarray  # int32
    rest_spikes: np.ndarray  # uint8: 1, or what the spike carries
    rest_count: np.ndarray  # int64 [layers, T]: resting spikes of one position
    rest_clips: np.ndarray  # int64 [layers, T]: saturations of one resting position
    event_units: np.ndarray  # int64 [256]: events that one frame value costs a core that reads it
    input_cores: np.ndarray  # int32 [inputs]: cores that read it
    time_steps: int
    inputs: int
    neurons: int  # with the gaps that align layers to eight
    places: int
    mail: int


def windows_of(
    layer: QuantLayer, input_shape: tuple[int, int, int], output_shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(output position, y, x, tap) of every position pair of the layer, outputs ascending."""
    if layer.kind == "dense":
        zero = np.zeros(1, np.int64)
        return zero, zero, zero, zero
    _, height, width = input_shape
    _, out_h, out_w = output_shape
    kernel = layer.weight.shape[2:]
    oy, ox, ky, kx = np.meshgrid(
        np.arange(out_h), np.arange(out_w), np.arange(kernel[0]), np.arange(kernel[1]),
        indexing="ij",
    )  # fmt: skip
    y = oy * layer.stride[0] + ky - layer.padding[0]
    x = ox * layer.stride[1] + kx - layer.padding[1]
    top, bottom, left, right = layer.crop
    inside = (y >= 0) & (y < height - top - bottom) & (x >= 0) & (x < width - left - right)
    return tuple(a[inside] for a in (oy * out_w + ox, y + top, x + left, ky * kernel[1] + kx))


def weight_rows(layer: QuantLayer, input_shape: tuple[int, int, int], frames: bool) -> np.ndarray:
    """Weights [taps * in, out]: a dense layer's inputs are renumbered to positions first.

    `frames`: the input is a frame in C, H, W order rather than spikes, position by position.
    """
    weight = layer.weight
    if layer.kind == "conv":
        return np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0]))
    if not frames:
        weight = weight.reshape(-1, *input_shape).transpose(0, 2, 3, 1).reshape(weight.shape)
    return np.ascontiguousarray(weight.T)


def resting(layer: QuantLayer, time_steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """v and spikes [T, C], or what they carry, and saturations [T] of neurons without any input."""
    v = np.zeros(len(layer.bias), np.int64)
    rows_v, rows_s, clips = [], [], []
    for _ in range(time_steps):
        free = dec(v, layer.dv) + layer.bias
        v = np.clip(free, -V_MAX, V_MAX)
        clips.append(int((v != free).sum()))
        spikes = v > layer.threshold
        if layer.graded:
            spikes, v = payload(v, layer), np.minimum(v, layer.threshold)
        else:
            v = np.where(spikes, 0, v)
        rows_v.append(v)
        rows_s.append(spikes)
    return np.array(rows_v, np.int32), np.array(rows_s, np.uint8), np.array(clips, np.int64)


def payload(v: np.ndarray, layer: QuantLayer) -> np.ndarray:
    """What spikes of membranes v [..., C] carry, 0..255; 0: none."""
    shift = layer.payload_shift
    above = np.maximum(v - layer.threshold, 0)
    return np.minimum((above + (1 << (shift - 1))) >> shift, PAYLOAD_MAX)


def may_wrap(layer: QuantLayer, number: int) -> bool:
    x_max = largest_input(number + 1, layer.graded)
    unit = 2.0**layer.level_exponent
    return bool((worst_drive(layer.weight.astype(np.int64), x_max) * unit > DRIVE_MAX).any())


def _frame_windows(
    layer: QuantLayer, input_shape: tuple[int, int, int], output_shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(output position, frame index, weight row) of every input that a window reads."""
    channels, height, width = input_shape
    if layer.kind == "dense":
        inputs = np.arange(channels * height * width)
        return np.zeros_like(inputs), inputs, inputs
    out, y, x, tap = windows_of(layer, input_shape, output_shape)
    c = np.arange(channels)
    index = (c * height * width)[None] + (y * width + x)[:, None]
    row = tap[:, None] * channels + c[None]
    return np.repeat(out, channels), index.ravel(), row.ravel()


def _pointers(keys: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=size))]).astype(np.int64)


def flatten(
    network: QuantNetwork, input_cores: np.ndarray, bit_planes: bool = False
) -> FlatProgram:
    """Lay out `network`. input_cores [inputs]: cores that need each value of a frame.

    bit_planes: a frame value costs one event per set bit, not one.
    """
    spec = network.spec
    shapes, steps = spec.shapes(), spec.time_steps
    layout = np.zeros((len(network.layers), LAYOUT_COLUMNS), np.int64)
    parts: dict[str, list] = {
        name: []
        for name in (
            "weights", "pair_ptr", "pair_out", "pair_tap", "keep", "bias", "threshold",
            "payload_shift", "rest_v", "rest_spikes", "rest_count", "rest_clips",
        )
    }  # fmt: skip
    sizes = dict.fromkeys(
        ("weights", "pair_ptr", "pairs", "neurons", "places", "params", "rest", "mail"), 0
    )
    for number, layer in enumerate(network.layers):
        input_shape, output_shape = shapes[number], shapes[number + 1]
        channels, positions = output_shape[0], output_shape[1] * output_shape[2]
        dense = layer.kind == "dense"
        in_channels = int(np.prod(input_shape)) if dense else input_shape[0]
        rows = weight_rows(layer, input_shape, frames=number == 0)
        block = max(1, min(positions, BLOCK_NEURONS // channels))
        layout[number] = (
            in_channels, positions, channels, sizes["weights"], sizes["pair_ptr"],
            sizes["neurons"], sizes["places"], sizes["params"], block, sizes["rest"],
            layer.shift, layer.drop, may_wrap(layer, number), len(rows), sizes["mail"],
        )  # fmt: skip
        parts["weights"].append(rows.ravel())
        if number:
            out, y, x, tap = windows_of(layer, input_shape, output_shape)
            where = y * input_shape[2] + x
            order = np.argsort(where, kind="stable")
            places_in = 1 if dense else input_shape[1] * input_shape[2]
            parts["pair_ptr"].append(_pointers(where, places_in) + sizes["pairs"])
            parts["pair_out"].append(out[order])
            parts["pair_tap"].append(tap[order] * in_channels)
            sizes["pair_ptr"] += places_in + 1
            sizes["pairs"] += len(out)
        parts["keep"].append(np.tile((4096 - layer.dv) / 4096.0, block))
        parts["bias"].append(np.tile(layer.bias, block))
        parts["threshold"].append(np.tile(layer.threshold, block))
        if layer.graded:
            parts["payload_shift"].append(np.tile(layer.payload_shift, block))
        rest_v, rest_spikes, rest_clips = resting(layer, steps)
        parts["rest_v"].append(rest_v.ravel())
        parts["rest_spikes"].append(rest_spikes.ravel())
        parts["rest_count"].append((rest_spikes > 0).sum(1, dtype=np.int64))
        parts["rest_clips"].append(rest_clips)
        sizes["weights"] += rows.size
        # eight flags are read as one word: layers start at multiples of eight
        sizes["neurons"] += -(-positions * channels // 8) * 8
        sizes["mail"] += positions * len(rows) if number else 0
        sizes["places"] += positions
        sizes["params"] += block * channels
        sizes["rest"] += steps * channels
    out, index, row = _frame_windows(network.layers[0], shapes[0], shapes[1])
    inputs = int(np.prod(shapes[0]))
    order = np.argsort(index, kind="stable")
    values = np.arange(256)
    planes = sum((values >> bit) & 1 for bit in range(8))

    def joined(name: str, dtype: type) -> np.ndarray:
        arrays = parts[name]
        return np.ascontiguousarray(np.concatenate(arrays) if arrays else [], dtype=dtype)

    return FlatProgram(
        layout=layout,
        weights=joined("weights", network.layers[0].weight.dtype),
        pair_ptr=joined("pair_ptr", np.int64),
        pair_out=joined("pair_out", np.int32),
        pair_tap=joined("pair_tap", np.int32),
        window_ptr=_pointers(out, int(layout[0, POSITIONS])),
        window_input=index.astype(np.int32),
        window_row=row.astype(np.int32),
        reach_ptr=_pointers(index, inputs),
        reach_out=out[order].astype(np.int32),
        keep=joined("keep", np.float64),
        bias=joined("bias", np.int32),
        threshold=joined("threshold", np.int32),
        payload_shift=joined("payload_shift", np.int32),
        rest_v=joined("rest_v", np.int32),
        rest_spikes=joined("rest_spikes", np.uint8),
        rest_count=np.array(parts["rest_count"], np.int64),
        rest_clips=np.array(parts["rest_clips"], np.int64),
        event_units=(planes if bit_planes else values > 0).astype(np.int64),
        input_cores=np.asarray(input_cores, np.int32),
        time_steps=steps,
        inputs=inputs,
        neurons=sizes["neurons"],
        places=sizes["places"],
        mail=sizes["mail"],
    )
