"""What the backend needs to know of a spiking network: plain arrays, no modules.

The float meaning of a `NetworkSpec`, which every other file of this package keeps:

    drive_t = weight (*) (x_t * input_scale) + bias          (*) convolution or matrix product
    v       = leak * v + drive_t                             v = 0 at the start of each decision
    s_t     = v > threshold                                  strict
    v[s_t]  = 0                                              hard reset
    latent  = sum_t s_t of the last layer, flattened

Where the spikes are graded (`NetworkSpec.graded`), a spike takes with it what is above the
threshold, in thresholds, and leaves the threshold:

    s_t = max(0, v / threshold - 1)                         on the core a whole number, see quantise
    v   = min(v, threshold)

x_t is the frame of time step t for the first layer (uint8, one frame a time step, oldest first)
and the spikes of the layer below at the same t for the others. With input="frames_and_changes" the
first layer has two more channels, what became brighter and what became darker since the frame
before: the ON and OFF events of an event camera, graded (`with_changes`).

Shapes: C, H, W channels, height, width; T time steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from errors import UserError

INPUTS = ("frames", "frames_and_changes")


def with_changes(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 [..., T, H, W] and their rises and falls, uint8 [..., T, 3, H, W]; both are 0 at
    the first."""
    out = np.zeros((*frames.shape[:-2], 3, *frames.shape[-2:]), np.uint8)
    out[..., 0, :, :] = frames
    now, before = frames[..., 1:, :, :], frames[..., :-1, :, :]
    highest = np.maximum(now, before)
    out[..., 1:, 1, :, :] = highest - before
    out[..., 1:, 2, :, :] = highest - now
    return out


class CompileError(UserError):
    """The network does not fit the core: names the limit, the layer and the mend."""

    def __init__(self, limit: str, layer: int | str, problem: str, mend: str):
        self.limit, self.layer, self.mend = limit, layer, mend
        where = f"layer {layer}" if isinstance(layer, int) else str(layer)
        super().__init__(f"{where} breaks the limit '{limit}': {problem}; {mend}")


@dataclass(frozen=True, eq=False)
class LayerSpec:
    """One layer of leaky integrate-and-fire neurons with its synapses, in float.

    kind: "conv" (weight [out, in, kh, kw]) or "dense" (weight [out, in]; it reads the layer below
    flattened in C, H, W order). bias, leak, threshold: [out]. `input_scale` multiplies the input
    (1/255 where it is a frame). `crop`: rows and columns (top, bottom, left, right) of the input
    that are cut away before padding. Raises UserError for anything the core cannot run.
    """

    kind: str
    weight: np.ndarray
    bias: np.ndarray
    leak: np.ndarray
    threshold: np.ndarray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    input_scale: float = 1.0
    crop: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        dims = {"conv": 4, "dense": 2}.get(self.kind)
        if dims is None:
            raise UserError(
                f"layer kind '{self.kind}' is not supported by the event core; "
                "use 'conv' or 'dense' layers of spiking neurons"
            )
        for name in ("weight", "bias", "leak", "threshold"):
            value = np.array(getattr(self, name), dtype=np.float64)
            if not np.isfinite(value).all():
                raise UserError(f"{self.kind} layer: {name} holds NaN or infinity; retrain it")
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        if self.weight.ndim != dims or self.weight.size == 0:
            raise UserError(
                f"{self.kind} layer: weight of shape {self.weight.shape} is not {dims}-d"
            )
        for name in ("bias", "leak", "threshold"):
            if getattr(self, name).shape != (self.out_channels,):
                raise UserError(
                    f"{self.kind} layer: {name} has shape {getattr(self, name).shape}, "
                    f"give one value per output: ({self.out_channels},)"
                )
        if (self.leak < 0).any() or (self.leak > 1).any():
            raise UserError(f"{self.kind} layer: leak must lie in [0, 1]; clamp it in the encoder")
        if (self.threshold < 0).any():
            raise UserError(f"{self.kind} layer: threshold must not be negative; clamp it")
        if not self.input_scale > 0 or not np.isfinite(self.input_scale):
            raise UserError(f"{self.kind} layer: input_scale must be positive and finite")
        for name, least in (("stride", 1), ("padding", 0)):
            value = getattr(self, name)
            value = (value, value) if isinstance(value, int) else tuple(int(i) for i in value)
            if len(value) != 2 or min(value) < least:
                raise UserError(f"{self.kind} layer: {name} {value} must be two numbers >= {least}")
            object.__setattr__(self, name, value)

        crop = tuple(int(i) for i in self.crop)
        if len(crop) != 4 or min(crop) < 0 or (self.kind == "dense" and any(crop)):
            raise UserError(f"{self.kind} layer: crop {crop} must be four numbers >= 0, conv only")
        object.__setattr__(self, "crop", crop)

    @property
    def out_channels(self) -> int:
        return self.weight.shape[0]

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2:] if self.kind == "conv" else (1, 1)

    def output_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of this layer's neurons for an input of shape (C, H, W)."""
        if self.kind == "dense":
            if self.weight.shape[1] != int(np.prod(input_shape)):
                raise UserError(
                    f"dense layer reads {self.weight.shape[1]} values but the layer below has "
                    f"{int(np.prod(input_shape))}: {input_shape}"
                )
            return (self.out_channels, 1, 1)
        channels, *size = input_shape
        if self.weight.shape[1] != channels:
            raise UserError(
                f"conv layer reads {self.weight.shape[1]} channels, the layer below has {channels}"
            )
        out = [
            (n - sum(cut) + 2 * p - k) // s + 1
            for n, cut, p, k, s in zip(
                size, (self.crop[:2], self.crop[2:]), self.padding, self.kernel, self.stride
            )
        ]
        if min(out) < 1:
            raise UserError(f"conv kernel {self.kernel} is larger than its input {tuple(size)}")
        return (self.out_channels, *out)


@dataclass(frozen=True, eq=False)
class NetworkSpec:
    """A feed-forward stack of layers and how it is fed.

    input "frames": graded uint8 values at the first layer, one frame [C, H, W] a time step;
    "frames_and_changes": frames [H, W], which become the C = 3 channels of `with_changes`.
    latent_order: "chw" flattens the last layer as PyTorch does, "hwc" position by position.
    graded: spikes carry a number, in all layers.
    """

    layers: Sequence[LayerSpec]
    input_shape: tuple[int, int, int]
    time_steps: int = 4
    input: str = "frames"
    latent_order: str = "chw"
    graded: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "input_shape", tuple(int(n) for n in self.input_shape))
        if not self.layers:
            raise UserError("the network has no layers; give at least one")
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise UserError(f"input_shape {self.input_shape} is not (C, H, W)")
        if not 1 <= self.time_steps <= 255:
            raise UserError(f"time_steps={self.time_steps} must lie in 1..255")
        if self.input not in INPUTS:
            raise UserError(f"input '{self.input}' is not supported; use {' or '.join(INPUTS)}")
        if self.sees_changes and self.input_shape[0] != 3:
            raise UserError(
                f"input '{self.input}' has 3 channels, not those of input_shape {self.input_shape}"
            )
        if self.latent_order not in ("chw", "hwc"):
            raise UserError(f"latent_order '{self.latent_order}' must be 'chw' or 'hwc'")
        if self.graded and any((layer.threshold == 0).any() for layer in self.layers):
            raise UserError("graded spikes are counted in thresholds: none of them may be 0")
        self.shapes()

    def shapes(self) -> list[tuple[int, int, int]]:
        """(C, H, W) of the input and of each layer's output, [layers + 1]."""
        shapes = [self.input_shape]
        for number, layer in enumerate(self.layers, 1):
            try:
                shapes.append(layer.output_shape(shapes[-1]))
            except UserError as error:
                raise UserError(f"layer {number}: {error}") from None
        return shapes

    @property
    def latent_dim(self) -> int:
        return int(np.prod(self.shapes()[-1]))

    @property
    def sees_changes(self) -> bool:
        return self.input == "frames_and_changes"

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Of what is given a time step: (H, W) where a frame has one channel, or (C, H, W)."""
        one = self.sees_changes or self.input_shape[0] == 1
        return self.input_shape[1:] if one else self.input_shape

    def dense_macs(self) -> list[int]:
        """Multiply-accumulates of each layer for one time step, were it computed densely.

        Changes cost none: a layer that sees several frames at once can take differences itself.
        """
        shapes = self.shapes()
        macs = [
            int(np.prod(layer.weight.shape)) * out[1] * out[2]
            for layer, out in zip(self.layers, shapes[1:])
        ]
        if self.sees_changes:
            macs[0] //= 3
        return macs


def network_from_layers(
    layers: Sequence, frame: tuple[int, int] = (84, 84), time_steps: int = 4
) -> NetworkSpec:
    """The NetworkSpec of an encoder's own list of layers: what its `layers_spec()` returns.

    Each entry has kind, weight, bias, stride, padding, input_scale, leak, threshold (tensors or
    arrays), `crop` rows and columns skipped at the upper left, and `in_size`, the side of the
    part that is read after them; the first may have `changes`: it reads a frame and its change,
    two channels; `graded` says that the spikes of the network carry a number. The latent is
    ordered (row, column, channel).
    """
    specs, size = [], tuple(frame)
    changes = bool(layers) and getattr(layers[0], "changes", False)
    for number, layer in enumerate(layers, 1):
        if layer.leak is None or layer.threshold is None:
            raise UserError(
                f"layer {number} has no spiking neurons; the event core needs encoder.kind=spiking"
            )
        crop = (0, 0, 0, 0)
        if layer.kind == "conv":
            skip = (layer.crop, layer.crop)
            rest = [n - a - layer.in_size for n, a in zip(size, skip)]
            crop = (skip[0], rest[0], skip[1], rest[1])
        values = {
            name: np.asarray(getattr(layer, name), np.float64)
            for name in ("weight", "bias", "leak", "threshold")
        }
        if changes and number == 1:  # a signed change is what rose less what fell
            frame_weight, change = values["weight"][:, :1], values["weight"][:, 1:]
            values["weight"] = np.concatenate([frame_weight, change, -change], 1)
        spec = LayerSpec(
            kind=layer.kind,
            **values,
            stride=layer.stride,
            padding=layer.padding,
            input_scale=layer.input_scale,
            crop=crop,
        )
        specs.append(spec)
        if layer.kind == "conv":
            size = spec.output_shape((spec.weight.shape[1], *size))[1:]
    channels = specs[0].weight.shape[1] if specs and specs[0].kind == "conv" else 1
    source = "frames_and_changes" if changes else "frames"
    graded = bool(layers) and getattr(layers[0], "graded", False)
    return NetworkSpec(specs, (channels, *frame), time_steps, source, "hwc", graded)
