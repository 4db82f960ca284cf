"""What an encoder is to the rest of the suite.

encoding = encoder(obs)                      # obs uint8 [B, 4, 84, 84], oldest frame first
values = head(encoding.latent)               # [B, L]
penalty = (encoding.rates - target) ** 2     # [layers], differentiable
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agents.encoders.geometry import FRAME, STACK


class Encoding(NamedTuple):
    """Result of an encoder.

    latent: [B, L]; of a plain convolutional encoder in the order (row, column, channel).
    rates: [layers] mean spikes per neuron per time step, differentiable; for the ReLU twin the
        share of active units, without gradient.
    spikes: [layers] spikes of the layer in one decision, mean over the batch, detached.
    """

    latent: Tensor
    rates: Tensor
    spikes: Tensor


@dataclass(frozen=True)
class LayerSpec:
    """One layer as plain numbers, for compilers and exporters.

    drive = conv(input * input_scale, weight, stride, padding) + bias, on the input without its
    first `crop` rows and columns and without what lies beyond the last whole patch; `changes`: the
    input is a frame and its change from the one before (0 at the first), two channels;
    v <- leak v + drive; spike where v > threshold; v <- 0 there. The latent counts the last
    layer's spikes in the order (row, column, channel). `graded`: a spike carries (v - threshold) /
    threshold, v <- threshold there, and the latent sums what spikes carry. For the ReLU twin leak
    and threshold are None and the layer's output is max(drive, 0).
    """

    name: str
    kind: str  # "conv" or "dense"
    weight: Tensor  # [O, C, k, k]
    bias: Tensor  # [O]
    stride: int
    padding: int
    crop: int
    in_size: int  # side of the input that is read
    out_size: int
    input_scale: float  # 1/255 on the first layer, 1 on spikes
    leak: Tensor | None  # [O]
    threshold: Tensor | None  # [O]
    changes: bool = False
    graded: bool = False


class Encoder(nn.Module):
    """Base of all encoders: `forward(obs uint8 [B, 4, 84, 84]) -> Encoding`."""

    latent_dim: int
    layer_names: tuple[str, ...]
    layer_neurons: tuple[int, ...]
    has_plain_form = False

    def plain_latent(self, obs: Tensor) -> Tensor:
        """The latent [B, L] by operations that torch.func can vectorise and differentiate, where
        `has_plain_form`."""
        raise NotImplementedError(f"{type(self).__name__} has no plain form")

    def layers_spec(self) -> list[LayerSpec]:
        """The layers as plain numbers. Raises `NotImplementedError` where that cannot be said."""
        raise NotImplementedError(
            f"{type(self).__name__} has residual paths and pooling, which the list of plain "
            "layers cannot express: use encoder.size=der, fine or nature"
        )


def check_obs(obs: Tensor) -> None:
    """Raise unless obs is uint8 [B, 4, 84, 84]."""
    if obs.dtype != torch.uint8 or obs.shape[1:] != (STACK, FRAME, FRAME):
        raise ValueError(
            f"an encoder takes uint8 [B, {STACK}, {FRAME}, {FRAME}], "
            f"not {obs.dtype} {list(obs.shape)}"
        )
