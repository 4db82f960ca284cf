"""Leaky integrate-and-fire neurons over a short sequence, in plain torch.

    T time steps, B batch, C channels (last), ... any dimensions between

v_t = leak v_{t-1} + drive_t;  s_t = [v_t > threshold];  v_t <- 0 where s_t = 1;  v_0 = 0.

Graded (`encoder.graded`; spikes that carry a number, as Loihi 2's, Orchard 2021): a spike takes
with it what is above the threshold, in thresholds, s_t = (v_t - threshold) / threshold where that
is above 0, and leaves v_t <- threshold. So s is continuous in the drives.

Backward: where a spike is there or not, ds/dv is replaced by a surrogate of compact support (Neftci
2019, "Surrogate gradient learning in spiking neural networks"); the reset is treated as a constant,
since letting gradient flow through it makes learning worse (Zenke & Vogels 2021, section 3.4). The
gradient of graded spikes is exact, reset and all, but for neurons below their threshold, which have
the surrogate: where a twelfth of them fire, the exact one teaches too few (docs/atari100k.md). This
is the only path on accelerators and the oracle of the compiled kernels: static shapes, no
synchronisation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from agents.encoders.config import EncoderConfig


class _Spike(torch.autograd.Function):
    """s = [overdrive > 0] with ds/d(overdrive) = phi(overdrive / threshold) / threshold."""

    @staticmethod
    def forward(ctx, overdrive: Tensor, threshold: Tensor, boxcar: bool, width, peak) -> Tensor:
        ctx.save_for_backward(overdrive, threshold)
        ctx.surrogate = (boxcar, width, peak)
        return (overdrive > 0).to(overdrive.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        overdrive, threshold = ctx.saved_tensors
        phi = surrogate_gradient(overdrive, threshold, *ctx.surrogate)
        return grad * phi, None, None, None, None


class _Size(torch.autograd.Function):
    """s = max(0, overdrive) / threshold; ds/d(overdrive) = 1 / threshold, but below it phi."""

    @staticmethod
    def forward(ctx, overdrive: Tensor, threshold: Tensor, boxcar: bool, width, peak) -> Tensor:
        ctx.save_for_backward(overdrive, threshold)
        ctx.surrogate = (boxcar, width, peak)
        return overdrive.clamp(min=0.0) / threshold

    @staticmethod
    def backward(ctx, grad: Tensor):
        overdrive, threshold = ctx.saved_tensors
        phi = surrogate_gradient(overdrive, threshold, *ctx.surrogate)
        of_drive = torch.where(overdrive > 0, grad / threshold, grad * phi)
        of_unit = -grad * overdrive.clamp(min=0.0) / threshold**2
        return of_drive, of_unit.sum_to_size(threshold.shape), None, None, None


def surrogate_gradient(
    overdrive: Tensor, threshold: Tensor, boxcar: bool, width: float, peak: float
) -> Tensor:
    """ds/dv at v = threshold + overdrive: a triangle or a box of half-width width * threshold."""
    distance = overdrive.abs() * (1.0 / (width * threshold))
    height = peak / threshold
    if boxcar:
        return (distance < 1.0) * height
    return (1.0 - distance).clamp(min=0.0) * height


def k_winners(overdrive: Tensor, share: float) -> Tensor:
    """Subtract from each sample what keeps all but the `share` strongest neurons below zero.

    overdrive [B, ...] = v - threshold. At most ceil(share * neurons) stay above zero; neurons
    tied with the strongest loser stay below. Losers keep their membrane: they were not reset.
    """
    flat = overdrive.flatten(1)
    k = max(1, math.ceil(share * flat.shape[1]))
    if k >= flat.shape[1]:
        return overdrive
    loser = flat.detach().topk(k + 1, dim=1).values[:, -1]
    return overdrive - loser.clamp(min=0.0).view(-1, *[1] * (overdrive.dim() - 1))


class LIF(nn.Module):
    """A layer of LIF neurons; leak in (0, 1) and threshold above 0 are learned per channel."""

    def __init__(self, num_channels: int, config: EncoderConfig) -> None:
        super().__init__()
        self.surrogate = (
            config.surrogate == "boxcar",
            config.surrogate_width,
            config.surrogate_peak,
        )
        self.k_wta = config.k_wta
        self.graded = config.graded
        leak, threshold = config.leak_init, config.threshold_init or 1.0
        self.leak_logit = nn.Parameter(torch.full((num_channels,), math.log(leak / (1 - leak))))
        self.log_threshold = nn.Parameter(torch.full((num_channels,), math.log(threshold)))

    @property
    def leak(self) -> Tensor:
        """[C], 1 / time step."""
        return self.leak_logit.sigmoid()

    @property
    def threshold(self) -> Tensor:
        """[C], drive units."""
        return self.log_threshold.exp()

    def forward(self, drive: Tensor) -> tuple[Tensor, Tensor]:
        """Drive [T, B, ..., C] to spikes of the same shape, 0.0 or 1.0 (graded: 0.0 or their size),
        and the share of neurons that spike in a step (differentiable)."""
        leak, threshold = self.leak, self.threshold
        spikes, there = [], []
        v = None
        for drive_t in drive.unbind(0):
            v = drive_t if v is None else leak * v + drive_t
            overdrive = v - threshold
            if self.k_wta:
                overdrive = k_winners(overdrive, self.k_wta)
            s = _Spike.apply(overdrive, threshold.detach(), *self.surrogate)
            if self.graded:
                there.append(s)
                v = torch.where(overdrive > 0, threshold, v)
                s = _Size.apply(overdrive, threshold, *self.surrogate)
            else:
                v = v * (1.0 - s.detach())
            spikes.append(s)
        spikes = torch.stack(spikes)
        return spikes, (torch.stack(there) if self.graded else spikes).mean()

    @torch.no_grad()
    def calibrate(self, drive: Tensor, rate: float) -> None:
        """Set all thresholds to the one value at which this drive gives `rate` spikes a step.

        Bisection on the logarithm, on a regular sample of some 4000 positions; without
        k-winners-take-all, which would hide the rate.
        """
        drive = drive.flatten(1, -2)  # [T, N, C]
        drive = drive[:, :: max(1, drive.shape[1] // 4096) | 1].contiguous()
        share, self.k_wta = self.k_wta, 0.0
        scale = drive.std().clamp(min=1e-12).log()
        low, high = scale - math.log(1e3), scale + math.log(1e3)
        for _ in range(16):
            middle = (low + high) / 2
            self.log_threshold.fill_(middle)
            too_many = self(drive)[1] > rate
            low = torch.where(too_many, middle, low)
            high = torch.where(too_many, high, middle)
        self.log_threshold.fill_(high)
        self.k_wta = share
