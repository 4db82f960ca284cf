"""The ReLU twin of the spiking encoder, sizes `der` and `nature`; four frames as channels.

Same layers, same positions, same latent size and order. What differs: one pass over four input
channels instead of four time steps over one, and max(drive, 0) instead of LIF.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from agents.encoders.base import Encoder, Encoding, LayerSpec, check_obs
from agents.encoders.config import EncoderConfig
from agents.encoders.geometry import STACK, ConvShape, conv_shapes

PIXEL = 1.0 / 255.0  # input scale of the first layer


class ConvLayer(nn.Module):
    """Weights [O, C, k, k] and bias [O], He-initialised for ReLU (He 2015, eq. 10)."""

    def __init__(self, shape: ConvShape, rng: Generator | None) -> None:
        super().__init__()
        self.shape = shape
        k = shape.kernel
        self.weight = nn.Parameter(torch.empty(shape.out_channels, shape.in_channels, k, k))
        self.bias = nn.Parameter(torch.zeros(shape.out_channels))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu", generator=rng)

    def forward(self, x: Tensor) -> Tensor:
        x = x[..., : self.shape.in_size, : self.shape.in_size]
        return F.relu(F.conv2d(x, self.weight, self.bias, self.shape.stride))


class ConvEncoder(Encoder):
    """ReLU convolutions; kind=conv, size=der or nature."""

    def __init__(self, config: EncoderConfig, rng: Generator | None = None) -> None:
        super().__init__()
        shapes = conv_shapes(config.size, config.width, in_channels=STACK)
        self.layers = nn.ModuleList(ConvLayer(shape, rng) for shape in shapes)
        self.layer_names = tuple(shape.name for shape in shapes)
        self.layer_neurons = tuple(shape.neurons for shape in shapes)
        self.latent_dim = shapes[-1].neurons

    def forward(self, obs: Tensor) -> Encoding:
        check_obs(obs)
        crop = self.layers[0].shape.crop
        x = obs[:, :, crop:, crop:].to(self.layers[0].weight.dtype) * PIXEL
        active = []
        for layer in self.layers:
            x = layer(x)
            active.append((x.detach() > 0).sum() * (1.0 / len(x)))
        return activity(x.permute(0, 2, 3, 1).flatten(1), active, self.layer_neurons)

    def layers_spec(self) -> list[LayerSpec]:
        return [
            LayerSpec(
                name=layer.shape.name,
                kind="conv",
                weight=layer.weight.detach().clone(),
                bias=layer.bias.detach().clone(),
                stride=layer.shape.stride,
                padding=0,
                crop=layer.shape.crop,
                in_size=layer.shape.in_size,
                out_size=layer.shape.out_size,
                input_scale=PIXEL if i == 0 else 1.0,
                leak=None,
                threshold=None,
            )
            for i, layer in enumerate(self.layers)
        ]


def activity(latent: Tensor, active: list[Tensor], neurons: tuple[int, ...]) -> Encoding:
    """Encoding from active units per decision; neurons of each layer turn them into shares."""
    rates = torch.stack([count * (1.0 / n) for count, n in zip(active, neurons)])
    return Encoding(latent, rates, torch.stack(active))
