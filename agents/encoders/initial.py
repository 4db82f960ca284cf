"""Initial values: weights, biases and the generated frames on which thresholds are calibrated.

Atari frames are mostly flat and often dark. Kernels therefore start nearly without response to
flat brightness, and biases are spread over the channels so that some are tonically active: rates
then start within a factor of two of each other in bright, dark and nearly black games.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from agents.encoders.geometry import FRAME, STACK


@torch.no_grad()
def init_kernels(weight: Tensor, mean_dims: tuple[int, ...], dc_gain: float, rng: Generator | None):
    """Normal, unit variance over the fan-in; the mean over `mean_dims` (space) times dc_gain."""
    weight.normal_(generator=rng)
    mean = weight.mean(mean_dims, keepdim=True)
    weight.sub_(mean * (1.0 - dc_gain))


@torch.no_grad()
def init_bias(bias: Tensor, std: Tensor | float, rng: Generator | None) -> None:
    """Quantiles of a normal distribution in random order: the same spread whatever the draw."""
    n = len(bias)
    quantiles = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    order = torch.randperm(n, generator=rng)
    bias.copy_(quantiles[order] * std)


def generated_frames(count: int, rng: Generator | None) -> Tensor:
    """Stacks of frames [count, 4, 84, 84] uint8: flat rectangles moving over a flat ground."""
    rectangles = 8
    frames = torch.rand(count, 1, 1, 1, generator=rng) * 0.6
    frames = (frames * (torch.rand(count, 1, 1, 1, generator=rng) < 0.7)).repeat(
        1, STACK, FRAME, FRAME
    )
    line = torch.arange(FRAME)
    for _ in range(rectangles):
        start = torch.randint(0, FRAME, (2, count, 1), generator=rng)
        speed = torch.randint(-3, 4, (2, count, 1), generator=rng)
        side = torch.randint(2, 24, (2, count, 1), generator=rng)
        shade = torch.rand(count, 1, 1, generator=rng)
        for t in range(STACK):
            first = start + t * speed
            inside = (line >= first) & (line < first + side)  # [2, count, 84]
            mask = inside[0, :, :, None] & inside[1, :, None, :]
            frames[:, t] = torch.where(mask, shade, frames[:, t])
    return (frames * 255).to(torch.uint8)
