"""LIF over the four time steps in one pass over memory, forward and backward (CPU).

    T time steps, N positions of all samples, C channels; arrays are flat [T, N, C]

For nets whose convolutions stay with torch (impala). The same arithmetic as `lif.LIF`.
"""

from __future__ import annotations

# vector*.py 349beef74739 (a change there must reach numba's cache of this file; a test checks)
import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from agents.encoders.vector import LANES, STEPS
from agents.encoders.vector_lif import lif_backward, lif_forward_dense


@njit(cache=True)
def forward(drive, positions, channels, leak, threshold, spikes):
    """Fill spikes [T, N, C] with 0.0 and 1.0; returns their number."""
    at = np.empty(STEPS, np.int64)
    count = 0
    for n in range(positions):
        for t in range(STEPS):
            at[t] = (t * positions + n) * channels
        for c in range(0, channels, LANES):
            count += lif_forward_dense(drive, at, leak, threshold, c, spikes)
    return count


@njit(cache=True)
def backward(drive, positions, channels, lif, upstream, every, boxcar, gradient, sums):
    """Fill gradient [T, N, C] of the drive; add to sums [3, C] of bias, leak and threshold."""
    at = np.empty(STEPS, np.int64)
    leak, threshold, slope, span = lif
    step = positions * channels
    for n in range(positions):
        for t in range(STEPS):
            at[t] = t * step + n * channels
        for c in range(0, channels, LANES):
            i = at[0] + c
            if boxcar:
                lif_backward(
                    drive, at, upstream, i, step, every, leak, threshold, slope, span, c, sums,
                    channels, gradient, i, step, 1,
                )  # fmt: skip
            else:
                lif_backward(
                    drive, at, upstream, i, step, every, leak, threshold, slope, span, c, sums,
                    channels, gradient, i, step, 0,
                )  # fmt: skip


def fits(drive: Tensor) -> bool:
    """Whether these kernels can run this drive [T, ..., C]."""
    return (
        drive.device.type == "cpu"
        and drive.dtype == torch.float32
        and len(drive) == STEPS
        and drive.shape[-1] % LANES == 0
    )


class FusedLIF(torch.autograd.Function):
    """(drive [T, ..., C], leak_logit, log_threshold, surrogate) -> spikes, their mean."""

    @staticmethod
    def forward(ctx, drive: Tensor, leak_logit: Tensor, log_threshold: Tensor, surrogate):
        drive = drive.contiguous()
        channels = drive.shape[-1]
        positions = drive.numel() // (STEPS * channels)
        leak, threshold = leak_logit.sigmoid(), log_threshold.exp()
        spikes = torch.empty_like(drive)
        count = forward(
            drive.detach().view(-1).numpy(), positions, channels, leak.numpy(),
            threshold.numpy(), spikes.view(-1).numpy(),
        )  # fmt: skip
        ctx.surrogate = surrogate
        ctx.save_for_backward(drive, leak, threshold)
        return spikes, spikes.new_tensor(count / drive.numel())

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, grad_rate: Tensor):
        drive, leak, threshold = ctx.saved_tensors
        boxcar, width, peak = ctx.surrogate
        channels = drive.shape[-1]
        gradient, sums = torch.empty_like(drive), torch.zeros(3, channels)
        lif = (leak, threshold, peak / threshold, (1.0 / width) / threshold)
        backward(
            drive.view(-1).numpy(), drive.numel() // (STEPS * channels), channels,
            tuple(value.numpy() for value in lif), grad.contiguous().view(-1).numpy(),
            np.float32(grad_rate.item() / drive.numel()), boxcar, gradient.view(-1).numpy(),
            sums.view(-1).numpy(),
        )  # fmt: skip
        return gradient, sums[1] * (leak - leak * leak), sums[2] * threshold, None
