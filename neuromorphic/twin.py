"""The quantised PyTorch twin: the same integers as the core, with gradients.

Forward, every number is an integer held exactly in float64 (the largest, |v| * 4096, has 35
bits), so spikes equal the core's bit for bit, on any device: convolutions are unfolded into
matrix products, where no library may choose an inexact transform. Backward, rounding is passed
straight through (Bengio et al. 2013, "Estimating or propagating gradients through stochastic
neurons"), and the spike has the fast-sigmoid surrogate 1 / (1 + slope |v/threshold - 1|)^2
(Zenke & Ganguli 2018, SuperSpike, eq. 5), a graded one below its threshold alone. Scales are
recomputed from the weights at each forward and treated as constants.

Shapes: B batch, T time steps, C, H, W of a layer's neurons, L latent.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from errors import UserError

from .lif import DRIVE_SHIFT, U_EDGE, V_MAX
from .quantise import (
    PAYLOAD_MAX,
    QuantConfig,
    QuantLayer,
    QuantNetwork,
    input_unit,
    largest_input,
    quantise_layer,
)
from .spec import LayerSpec, NetworkSpec, with_changes


class TwinOutput(NamedTuple):
    """latent float64 [B, L]; spikes: one float64 [B, T, C, H, W] of 0 and 1 a layer, or of what
    they carry, 0 to 255.

    wraps, saturations: int [layers], summed over the batch, as the core counts them.
    """

    latent: Tensor
    spikes: tuple[Tensor, ...]
    wraps: list[int]
    saturations: list[int]


class _Straight(torch.autograd.Function):
    """Forward: the second argument. Backward: to the first, unchanged."""

    @staticmethod
    def forward(ctx, exact: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None


class _Spike(torch.autograd.Function):
    """v > threshold, strict; fast-sigmoid surrogate in units of the threshold."""

    @staticmethod
    def forward(ctx, v: Tensor, threshold: Tensor, slope: float) -> Tensor:
        unit = threshold.clamp(min=1.0)  # a threshold of 0 has no unit
        ctx.save_for_backward((v - threshold) / unit, unit)
        ctx.slope = slope
        ctx.shape = threshold.shape
        return (v > threshold).to(v.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, unit = ctx.saved_tensors
        grad = grad / (1 + ctx.slope * x.abs()) ** 2 / unit
        return grad, (-grad).sum_to_size(ctx.shape), None


class _Above(torch.autograd.Function):
    """max(0, v - threshold); below the threshold the surrogate of `_Spike`, of height 1."""

    @staticmethod
    def forward(ctx, v: Tensor, threshold: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(v - threshold, threshold)
        ctx.slope = slope
        return F.relu(v - threshold)

    @staticmethod
    def backward(ctx, grad: Tensor):
        above, threshold = ctx.saved_tensors
        x = (above / threshold).clamp(max=0.0)
        grad = grad / (1 + ctx.slope * x.abs()) ** 2
        return grad, (-grad).sum_to_size(threshold.shape), None


def payload(carried: Tensor) -> Tensor:
    """What a graded spike carries, 0 to 255, of its exact size: rounded as the core does, halves
    up."""
    return (carried + 0.5).floor().clamp(max=PAYLOAD_MAX)


class TwinLayer(nn.Module):
    """One layer: float parameters that are trained, integers that are run."""

    def __init__(self, spec: LayerSpec, number: int, config: QuantConfig, graded: bool):
        super().__init__()
        self.graded = graded
        self.kind, self.stride, self.padding = spec.kind, spec.stride, spec.padding
        self.input_scale, self.number, self.config = spec.input_scale, number, config
        self.crop = spec.crop
        for name in ("weight", "bias", "leak", "threshold"):
            value = torch.tensor(getattr(spec, name), dtype=torch.float64)
            setattr(self, name, nn.Parameter(value))

    def spec(self) -> LayerSpec:
        """The present float parameters. Leak is held in [0, 1] and threshold from 0 up."""
        value = {
            name: getattr(self, name).detach().cpu().numpy().copy() for name in ("weight", "bias")
        }
        value["leak"] = self.leak.detach().cpu().numpy().clip(0.0, 1.0)
        value["threshold"] = self.threshold.detach().cpu().numpy().clip(0.0, None)
        return LayerSpec(
            kind=self.kind,
            stride=self.stride,
            padding=self.padding,
            input_scale=self.input_scale,
            crop=self.crop,
            **value,
        )

    def quantised(self) -> QuantLayer:
        x_max = largest_input(self.number, self.graded)
        return quantise_layer(self.spec(), self.number, x_max, self.config, self.graded)

    def integers(self) -> tuple[Tensor, Tensor, Tensor, Tensor, QuantLayer]:
        """(q, bias, keep, threshold, layer): integers with straight-through gradients.

        bias and threshold are in membrane units [C, 1, 1]; keep = (4096 - dv) / 4096.
        """
        layer = self.quantised()

        def tensor(array: np.ndarray) -> Tensor:
            return torch.as_tensor(np.asarray(array, np.float64), device=self.weight.device)

        unit = tensor(layer.scale)  # float drive of one unit of drive
        level = unit.reshape(-1, *[1] * (self.weight.ndim - 1)) * 2.0**layer.level_exponent
        membrane = unit / (1 << DRIVE_SHIFT)
        scale = self.input_scale * input_unit(self.number, self.graded)
        q = _Straight.apply(self.weight * scale / level, tensor(layer.weight))
        bias = _Straight.apply(self.bias / membrane, tensor(layer.bias))
        threshold = _Straight.apply(self.threshold / membrane, tensor(layer.threshold))
        keep = _Straight.apply(self.leak, tensor((4096 - layer.dv) / 4096))
        return q, *(x[:, None, None] for x in (bias, keep, threshold)), layer

    def drive(self, x: Tensor, q: Tensor) -> Tensor:
        """Sums of q x, float64 [N, C, H, W] of inputs x [N, C, H, W]."""
        if self.kind == "dense":
            return (x.flatten(1) @ q.T)[:, :, None, None]
        top, bottom, left, right = self.crop
        x = x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]
        height, width = (
            (n + 2 * p - k) // s + 1
            for n, p, k, s in zip(x.shape[2:], self.padding, q.shape[2:], self.stride)
        )
        patches = F.unfold(x, q.shape[2:], padding=self.padding, stride=self.stride)
        return (q.flatten(1) @ patches).unflatten(2, (height, width))


class QuantisedTwin(nn.Module):
    """Trainable twin of a compiled encoder.

    >>> twin = QuantisedTwin(spec); out = twin(frames); loss(out.latent).backward()
    >>> core = EventCore(compile_encoder(twin))     # spikes equal out.spikes, bit for bit
    """

    def __init__(self, spec: NetworkSpec, config: QuantConfig | None = None, slope: float = 5.0):
        super().__init__()
        self.config = config or QuantConfig()
        self.origin, self.slope = spec, slope
        self.layers = nn.ModuleList(
            TwinLayer(layer, number, self.config, spec.graded)
            for number, layer in enumerate(spec.layers, 1)
        )

    def layers_spec(self) -> NetworkSpec:
        """The present float parameters as a NetworkSpec."""
        origin = self.origin
        return NetworkSpec(
            tuple(layer.spec() for layer in self.layers),
            origin.input_shape,
            origin.time_steps,
            origin.input,
            origin.latent_order,
            origin.graded,
        )

    def quantised(self) -> QuantNetwork:
        return QuantNetwork(
            tuple(layer.quantised() for layer in self.layers), self.layers_spec(), self.config
        )

    def forward(self, frames: Tensor) -> TwinOutput:
        """frames uint8 [B, T, H, W] or [B, T, C, H, W], oldest first; changes are made here."""
        shape = (self.origin.time_steps, *self.origin.frame_shape)
        if frames.ndim == 5 and self.origin.input_shape[0] == 1:
            frames = frames.squeeze(2)
        if frames.dtype != torch.uint8 or tuple(frames.shape[1:]) != shape:
            raise UserError(
                f"frames are {frames.dtype} {tuple(frames.shape)}, not uint8 (B, *{shape})"
            )
        if self.origin.sees_changes:
            frames = torch.from_numpy(with_changes(frames.cpu().numpy())).to(frames.device)
        elif frames.ndim == 4:
            frames = frames.unsqueeze(2)
        x = frames.to(torch.float64)  # [B, T, C, H, W]
        spikes, wraps, clips = [], [], []
        for layer in self.layers:
            x, wrapped, clipped = self._layer(layer, x)
            spikes.append(x)
            wraps.append(wrapped)
            clips.append(clipped)
        counts = x.sum(1)  # [B, C, H, W]
        if self.origin.latent_order == "hwc":
            counts = counts.permute(0, 2, 3, 1)
        return TwinOutput(counts.flatten(1), tuple(spikes), wraps, clips)

    def _layer(self, layer: TwinLayer, x: Tensor) -> tuple[Tensor, int, int]:
        q, bias, keep, threshold, integers = layer.integers()
        batch, steps = x.shape[:2]
        drive = layer.drive(x.flatten(0, 1), q).unflatten(0, (batch, steps))
        drive = drive * 2.0**integers.level_exponent
        if integers.drop:
            drive = _Straight.apply(drive, drive.detach().floor())
        exact = drive * (1 << DRIVE_SHIFT)
        current = _Straight.apply(
            exact, torch.remainder(exact.detach() + U_EDGE, 2 * U_EDGE) - U_EDGE
        )
        wraps = int((current != exact).sum())
        if integers.graded:
            unit = torch.as_tensor(2.0**integers.payload_shift, device=x.device)[:, None, None]
        v = torch.zeros_like(current[:, 0])
        out, clips = [], 0
        for t in range(steps):
            kept = v * keep
            free = _Straight.apply(kept, kept.detach().trunc()) + current[:, t] + bias
            v = free.clamp(-V_MAX, V_MAX)
            clips += int((v != free).sum())
            if integers.graded:
                carried = _Above.apply(v, threshold, self.slope) / unit
                out.append(_Straight.apply(carried, payload(carried.detach())))
                v = v - F.relu(v - threshold)
                continue
            spike = _Spike.apply(v, threshold, self.slope)
            v = v * (1 - spike.detach())
            out.append(spike)
        return torch.stack(out, 1), wraps, clips
