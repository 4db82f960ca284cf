"""The event kernels behind one autograd function: forward and backward of a spiking encoder.

    L layers; K inputs of one neuron, O channels out, P positions, B batch, T steps

Applies on the CPU in float32, without k-winners-take-all, where every layer has a multiple of 16
channels and the first kernel is at most 8 pixels wide; `fits` says so.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from agents.encoders import kernels
from agents.encoders.config import EncoderConfig
from agents.encoders.geometry import STACK, ConvShape
from agents.encoders.patches import pixels


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
        self.first, self.crop = shapes[0], shapes[0].crop
        self.latent = shapes[-1].neurons
        self.sizes = [s.neurons * STACK for s in shapes]  # neurons times steps of a decision
        self.words = [n // kernels.LANES for n in self.sizes]
        self.share = 1.0 / np.array(self.sizes)  # mean rate of one spike in a batch of one
        self.boxcar = config.surrogate == "boxcar"
        self.width, self.peak = config.surrogate_width, config.surrogate_peak
        self.graded = config.graded
        self.pixel = pixel


class EventEncoder(torch.autograd.Function):
    """(plan, obs, keep, then weight, bias, leak_logit, log_threshold of each layer) -> latent
    [B, L], rates [layers]; `keep` says whether a backward pass will follow."""

    @staticmethod
    def forward(ctx, plan: Plan, obs: Tensor, keep: bool, *params: Tensor):
        batch = len(obs)
        obs = pixels(obs, plan.first)
        weights = list(params[0::4])
        weights[0] = weights[0].permute(2, 0, 1, 3) * plan.pixel  # [C, k, k, O]: changes last
        leaks = [p.sigmoid() for p in params[2::4]]
        thresholds = [p.exp() for p in params[3::4]]
        gains = [1.0 / th for th in thresholds]
        spikes = tuple(np.empty(batch * n, np.uint16) for n in plan.words)

        def floats() -> tuple[np.ndarray, ...]:
            # torch allocates: its allocator keeps large blocks where numpy returns them.
            return tuple(torch.empty(n * batch if keep else n).numpy() for n in plan.sizes)

        drives = floats()
        sizes = floats() if plan.graded else tuple(np.empty(0, np.float32) for _ in plan.sizes)
        counts = np.zeros(len(spikes), np.int64)
        latent = torch.empty(batch, plan.latent)
        kernels.forward(
            obs, batch, plan.crop, plan.table, _arrays(weights),
            _arrays(params[1::4]), tuple(map(_arrays, zip(leaks, thresholds, gains))), spikes,
            sizes, drives, counts, latent.view(-1).numpy(), keep,
        )  # fmt: skip
        rates = torch.from_numpy((counts * (plan.share / batch)).astype(np.float32))
        if keep:
            ctx.plan, ctx.spikes, ctx.sizes, ctx.drives = plan, spikes, sizes, drives
            ctx.obs, ctx.batch = obs, batch
            ctx.save_for_backward(*params[0::4], *leaks, *thresholds)
        return latent, rates

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_latent: Tensor, grad_rates: Tensor):
        plan, layers = ctx.plan, len(ctx.spikes)
        saved = ctx.saved_tensors
        weights, leaks, thresholds = saved[:layers], saved[layers : 2 * layers], saved[-layers:]
        transposed = _arrays([w.view(-1, w.shape[-1]).t() for w in weights])
        lifs = tuple(
            _arrays([leak, th, plan.peak / th, (1.0 / plan.width) / th, 1.0 / th])
            for leak, th in zip(leaks, thresholds)
        )
        first, *others = weights
        grads = [torch.zeros(first.permute(2, 0, 1, 3).shape), *map(torch.zeros_like, others)]
        sums = [torch.zeros(3, w.shape[-1]) for w in weights]
        every = (grad_rates.numpy() * (plan.share / ctx.batch)).astype(np.float32)
        kernels.backward(
            ctx.obs, ctx.batch, plan.crop, plan.table, transposed, lifs, ctx.spikes, ctx.sizes,
            ctx.drives, _flat(grad_latent), every, plan.boxcar, _arrays(grads), _arrays(sums),
        )  # fmt: skip
        grads[0] = grads[0].mul_(plan.pixel).permute(1, 2, 0, 3).contiguous()
        result = [None, None, None]
        for grad, (bias, leak, threshold), lam, th in zip(grads, sums, leaks, thresholds):
            result += [grad, bias, leak * (lam - lam * lam), threshold * th]
        return tuple(result)


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().view(-1).numpy()  # the kernels know no strides


def _arrays(tensors) -> tuple[np.ndarray, ...]:
    return tuple(_flat(t) for t in tensors)
