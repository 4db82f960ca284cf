"""The ReLU twin at DER size as matrix products over patches: where kernel = stride, a convolution
reads every input once, and one gather of the pixels leaves only products.

    B batch, P = 9 positions of layer 2, J = 25 positions of layer 1 before each, C = 4 frames

Rows of the first product are ordered by the patches of the second layer, so that its result is
that layer's patch matrix without moving a number.
"""

from __future__ import annotations

# vector*.py 349beef74739 (a change there must reach numba's cache of this file; a test checks)
import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from agents.encoders.geometry import FRAME, STACK, ConvShape
from agents.encoders.vector import read_row

SLACK = 8  # floats that a read may write behind its row


@njit(cache=True)
def gather(obs, batch, crop, kernel, grid, kernel2, out):
    """Pixels of obs [B, C, 84, 84] as floats: out [B, grid^2, kernel2^2, C * kernel^2]."""
    n = 0
    for b in range(batch):
        for p in range(grid * grid):
            for j in range(kernel2 * kernel2):
                row = crop + (p // grid * kernel2 + j // kernel2) * kernel
                column = crop + (p % grid * kernel2 + j % kernel2) * kernel
                for c in range(STACK):
                    start = ((b * STACK + c) * FRAME + row) * FRAME + column
                    for y in range(kernel):
                        read_row(obs, start + y * FRAME, out, n)
                        n += kernel


def pixels(obs: Tensor, first: ConvShape) -> np.ndarray:
    """obs uint8 [B, C, 84, 84] in a row. Patches are read eight pixels at a time: where the last
    one of a frame would be read beyond the end, it is a copy with room behind it."""
    last = first.crop + (first.out_size - 1) * first.stride  # row and column of the last patch
    if (last + first.kernel - 1) * FRAME + last + 8 <= FRAME**2:
        return obs.contiguous().view(-1).numpy()
    out = torch.empty(obs.numel() + 8, dtype=torch.uint8)
    out[: obs.numel()].view(obs.shape).copy_(obs)
    return out.numpy()


def fits(shapes: tuple[ConvShape, ...]) -> bool:
    """Whether these are two layers of patches that do not overlap."""
    return len(shapes) == 2 and all(s.kernel == s.stride <= 8 for s in shapes)


class PatchTwin(torch.autograd.Function):
    """(shapes, pixel scale, obs, w1, b1, w2, b2) -> latent [B, P * O2], active units per layer.

    Weights are [O, C, k, k]; w2 in channels-last memory, or it is copied at every call.
    """

    @staticmethod
    def forward(ctx, shapes, pixel: float, obs: Tensor, w1, b1, w2, b2):
        first, second = shapes
        batch, grid = len(obs), second.out_size
        rows = batch * (grid * second.kernel) ** 2
        buffer = torch.empty(rows * first.fan_in + SLACK)
        gather(
            pixels(obs, first), batch, first.crop, first.kernel, grid,
            second.kernel, buffer.numpy(),
        )  # fmt: skip
        patches = buffer[: rows * first.fan_in].view(rows, first.fan_in)
        hidden = torch.addmm(b1, patches, (w1 * pixel).reshape(first.out_channels, -1).t())
        hidden = hidden.relu_().view(batch * grid**2, second.fan_in)
        flat = w2.permute(0, 2, 3, 1).reshape(second.out_channels, -1)  # [O, k * k * C]
        latent = torch.addmm(b2, hidden, flat.t()).relu_()
        ctx.pixel, ctx.shape = pixel, w1.shape
        ctx.save_for_backward(patches, hidden, latent, w2)
        # numpy counts ten times faster than torch sums booleans
        counts = [np.count_nonzero(x.numpy() > 0) for x in (hidden, latent)]
        active = latent.new_tensor(counts)
        ctx.mark_non_differentiable(active)
        return latent.view(batch, -1), active

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_latent: Tensor, _):
        patches, hidden, latent, w2 = ctx.saved_tensors
        out, channels, k, _ = w2.shape
        g2 = torch.ops.aten.threshold_backward(grad_latent.reshape(latent.shape), latent, 0)
        grad_w2 = (g2.t() @ hidden).view(out, k, k, channels).permute(0, 3, 1, 2)
        g1 = g2 @ w2.permute(0, 2, 3, 1).reshape(out, -1)
        g1 = torch.ops.aten.threshold_backward(g1, hidden, 0).view(len(patches), -1)
        grad_w1 = (g1.t() @ patches).mul_(ctx.pixel).view(ctx.shape)
        return None, None, None, grad_w1, g1.sum(0), grad_w2, g2.sum(0)
