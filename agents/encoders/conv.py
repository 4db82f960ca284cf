"""The ReLU twin of the spiking encoder, sizes `der`, `fine` and `nature`; four frames as channels.

Same layers, same positions, same latent size and order. What differs: one pass over four input
channels instead of four time steps over one, and max(drive, 0) instead of LIF.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from agents.encoders.base import Encoder, Encoding, LayerSpec, check_obs
from agents.encoders.config import EncoderConfig
from agents.encoders.geometry import STACK, ConvShape, conv_shapes
from agents.encoders.initial import generated_frames, init_bias, init_kernels
from agents.encoders.patches import PatchTwin
from agents.encoders.patches import fits as patches_fit

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
        self.to(memory_format=torch.channels_last)  # halves the time of small CPU convolutions

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.drive(x))

    def drive(self, x: Tensor) -> Tensor:
        x = x[..., : self.shape.in_size, : self.shape.in_size]
        return F.conv2d(x, self.weight, self.bias, self.shape.stride)


class ConvEncoder(Encoder):
    """ReLU convolutions; kind=conv, size=der, fine or nature."""

    has_plain_form = True

    def __init__(self, config: EncoderConfig, rng: Generator | None = None) -> None:
        super().__init__()
        shapes = conv_shapes(config.size, config.width, in_channels=STACK)
        self.layers = nn.ModuleList(ConvLayer(shape, rng) for shape in shapes)
        self.layer_names = tuple(shape.name for shape in shapes)
        self.layer_neurons = tuple(shape.neurons for shape in shapes)
        self.latent_dim = shapes[-1].neurons
        self.shapes, self.patches = shapes, config.fused and patches_fit(shapes)
        units = torch.tensor([float(n) for n in self.layer_neurons])
        self.register_buffer("units", units, persistent=False)
        if config.calibrated:
            self._calibrate(config, rng)

    @torch.no_grad()
    def _calibrate(self, config: EncoderConfig, rng: Generator | None) -> None:
        """Start as the spiking encoder does: kernels nearly blind to flat brightness, each layer's
        drive of unit variance on generated frames (LSUV, Mishkin 2016), biases spread over the
        channels."""
        x = self._input(generated_frames(32, rng))
        for layer in self.layers:
            init_kernels(layer.weight, (2, 3), config.dc_gain, rng)
            layer.weight.div_(layer.drive(x).std())
            init_bias(layer.bias, config.bias_init, rng)
            x = F.relu(layer.drive(x))

    def forward(self, obs: Tensor) -> Encoding:
        check_obs(obs)
        weight = self.layers[0].weight
        if not self.patches or weight.device.type != "cpu" or weight.dtype != torch.float32:
            return self.forward_reference(obs)
        params = [p for layer in self.layers for p in (layer.weight, layer.bias)]
        latent, active = PatchTwin.apply(self.shapes, PIXEL, obs, *params)
        return activity(latent, active * (1.0 / len(obs)), self.units)

    def forward_reference(self, obs: Tensor) -> Encoding:
        """The encoder in plain torch: every device and size."""
        x, active = self._input(obs), []
        for layer in self.layers:
            x = layer(x)
            active.append(active_units(x))
        return activity(x.permute(0, 2, 3, 1).flatten(1), torch.stack(active), self.units)

    def plain_latent(self, obs: Tensor) -> Tensor:
        x = self._pixels(obs)
        for layer in self.layers:
            x = layer(x)
        return x.permute(0, 2, 3, 1).flatten(1)

    def _input(self, obs: Tensor) -> Tensor:
        return self._pixels(obs).contiguous(memory_format=torch.channels_last)

    def _pixels(self, obs: Tensor) -> Tensor:
        crop = self.shapes[0].crop
        return obs[:, :, crop:, crop:].to(self.layers[0].weight.dtype) * PIXEL

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


def active_units(x: Tensor) -> Tensor:
    """Active units per decision of activations [B, ...] without gradient; a scalar tensor."""
    x = x.detach()
    if x.device.type == "cpu":  # torch sums booleans ten times slower than numpy counts them
        return x.new_tensor(np.count_nonzero(x.numpy() > 0) / len(x))
    return (x > 0).sum() * (1.0 / len(x))


def activity(latent: Tensor, active: Tensor, units: Tensor) -> Encoding:
    """Encoding from active units per decision [layers] out of `units` [layers]."""
    return Encoding(latent, active / units, active)
