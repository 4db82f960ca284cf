"""Shapes of the encoders' convolutions, apart from any neuron model.

H x W  input of a layer, C channels in, O channels out, k kernel, s stride
"""

from __future__ import annotations

from dataclasses import dataclass

FRAME = 84  # pixels; side of a frame
STACK = 4  # frames of an observation = time steps of the spiking encoder


@dataclass(frozen=True)
class ConvShape:
    """One square convolution on a square input."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int  # pixels
    stride: int  # pixels
    in_size: int  # side of the part of the input that is read
    crop: int = 0  # rows and columns skipped at the upper left before that part begins

    @property
    def out_size(self) -> int:
        return (self.in_size - self.kernel) // self.stride + 1

    @property
    def fan_in(self) -> int:
        return self.in_channels * self.kernel**2

    @property
    def neurons(self) -> int:
        return self.out_channels * self.out_size**2


def channels(base: int, width: float) -> int:
    """Channels of a layer at this width, at least one."""
    return max(1, round(base * width))


def conv_shapes(size: str, width: float, in_channels: int) -> tuple[ConvShape, ...]:
    """Layers of the plain convolutional sizes `der`, `fine` and `nature`.

    DER's second layer reads 15 x 15 of the first, which reads 75 x 75 pixels of 84. The published
    net takes them from the upper left and never sees the last nine rows and columns, where
    Breakout's paddle is; here they are taken from the middle. `fine`, ours, has patches of 4 pixels
    and of 3 x 3 of those, 12 pixels a position instead of 25: nature's latent of 7 x 7 positions,
    but no pixel is read twice, so that a training step costs twice DER's and a third of nature's.
    """
    first, second = channels(32, width), channels(64, width)
    if size == "der":
        return (
            ConvShape("conv1", in_channels, first, 5, 5, 75, crop=4),
            ConvShape("conv2", first, second, 5, 5, 15),
        )
    if size == "fine":
        return (
            ConvShape("conv1", in_channels, first, 4, 4, FRAME),
            ConvShape("conv2", first, second, 3, 3, 21),
        )
    if size == "nature":
        return (
            ConvShape("conv1", in_channels, first, 8, 4, FRAME),
            ConvShape("conv2", first, second, 4, 2, 20),
            ConvShape("conv3", second, second, 3, 1, 9),
        )
    raise ValueError(f"no plain convolutional shapes for size {size!r}")
