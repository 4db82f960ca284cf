"""The event kernels behind one autograd function: forward and backward of a spiking encoder.

    L layers; K inputs of one neuron, O channels out, P positions, B batch, T steps

Applies on the CPU in float32, without k-winners-take-all, where every layer has a multiple of 16
channels and the first kernel is at most 8 pixels wide; `fits` says so.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from agents.encoders import kernels
from agents.encoders.config import EncoderConfig
from agents.encoders.geometry import STACK, ConvShape


def fits(shapes: tuple[ConvShape, ...], config: EncoderConfig) -> bool:
    """Whether the kernels can run these layers."""
    return (
        config.fused
        and config.k_wta == 0.0
        and all(shape.out_channels % kernels.LANES == 0 for shape in shapes)
        and shapes[0].kernel <= 8
    )


class Plan:
    """What the kernels must know of a net beside its parameters."""

    def __init__(self, shapes: tuple[ConvShape, ...], config: EncoderConfig, pixel: float) -> None:
        self.table = np.array(
            [
                [s.in_size, s.out_size, s.kernel, s.stride, s.in_channels, s.out_channels]
                for s in shapes
            ],
            dtype=np.int64,
        )
        self.crop = shapes[0].crop
        self.neurons = [s.neurons for s in shapes]
        self.boxcar = config.surrogate == "boxcar"
        self.width, self.peak = config.surrogate_width, config.surrogate_peak
        self.pixel = pixel


class EventEncoder(torch.autograd.Function):
    """(plan, obs, then weight, bias, leak, threshold of each layer) -> latent [B, L], rates."""

    @staticmethod
    def forward(ctx, plan: Plan, obs: Tensor, keep: bool, *params: Tensor):
        obs = obs.contiguous()
        batch = len(obs)
        neurons = plan.neurons
        weights = [w.detach().reshape(-1, w.shape[-1]) for w in params[0::4]]  # [K, O]
        weights[0] = weights[0] * plan.pixel
        biases, leaks, thresholds = (_arrays(params[i::4]) for i in (1, 2, 3))
        spikes = tuple(
            np.empty(batch * STACK * n // kernels.LANES, dtype=np.uint16) for n in neurons
        )
        # torch allocates: its allocator keeps large blocks where numpy returns them.
        drives = tuple(torch.empty((batch if keep else 1) * STACK * n).numpy() for n in neurons)
        counts = np.zeros(len(neurons), dtype=np.int64)
        latent = torch.empty(batch, neurons[-1])
        kernels.forward(
            obs.view(-1).numpy(), batch, plan.crop, plan.table, _arrays(weights), biases, leaks,
            thresholds, spikes, drives, counts, latent.view(-1).numpy(), keep,
        )  # fmt: skip
        rates = torch.from_numpy((counts / (batch * STACK * np.array(neurons))).astype(np.float32))
        if keep:
            ctx.plan, ctx.spikes, ctx.drives = plan, spikes, drives
            ctx.save_for_backward(obs, *params)
        return latent, rates

    @staticmethod
    def backward(ctx, grad_latent: Tensor, grad_rates: Tensor):
        plan = ctx.plan
        obs, *params = ctx.saved_tensors
        batch = len(obs)
        weights = params[0::4]
        transposed = _arrays(w.reshape(-1, w.shape[-1]).t().contiguous() for w in weights)
        leaks, thresholds = params[2::4], params[3::4]
        lifs = tuple(
            (_flat(leak), _flat(th), _flat(plan.peak / th), _flat(1.0 / (plan.width * th)))
            for leak, th in zip(leaks, thresholds)
        )
        grads = [torch.zeros_like(w) for w in weights]
        sums = [torch.zeros(3, w.shape[-1]) for w in weights]
        every = grad_rates.numpy() / (batch * STACK * np.array(plan.neurons))
        kernels.backward(
            obs.view(-1).numpy(), batch, plan.crop, plan.table, transposed, lifs,
            ctx.spikes, ctx.drives, _flat(grad_latent), every.astype(np.float32),
            plan.boxcar, _arrays(grads), _arrays(sums),
        )  # fmt: skip
        grads[0].mul_(plan.pixel)
        per_layer = [(g, s[0], s[1], s[2]) for g, s in zip(grads, sums)]
        return None, None, None, *(g for layer in per_layer for g in layer)


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().view(-1).numpy()  # the kernels know no strides


def _arrays(tensors) -> tuple[np.ndarray, ...]:
    return tuple(_flat(t) for t in tensors)
