"""The spiking encoder of the sizes `der`, `fine` and `nature`: convolutions between LIF layers.

    T time steps (the stacked frames), B batch, H x W positions, C channels in, O channels out

The latent is the last layer's spike count over the T steps, 0 to T: what an integer core counts
too, and about unit variance for the layers behind it. Of graded spikes it is the sum of sizes.
Weights are kept as [k, k, C, O], the layout in which an event adds one contiguous row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from agents.encoders.base import Encoder, Encoding, LayerSpec, check_obs
from agents.encoders.config import EncoderConfig
from agents.encoders.fused import EventEncoder, Plan, fits
from agents.encoders.geometry import STACK, ConvShape, conv_shapes
from agents.encoders.initial import generated_frames, init_bias, init_kernels
from agents.encoders.lif import LIF

PIXEL = 1.0 / 255.0  # input scale of the first layer
F32 = torch.float32


def with_changes(frames: Tensor) -> Tensor:
    """Frames [T, B, 1, H, W] and behind each its change from the one before, [T, B, 2, H, W]; the
    first changes nothing."""
    change = torch.zeros_like(frames)
    change[1:] = frames[1:] - frames[:-1]
    return torch.cat([frames, change], 2)


class SpikingConv(nn.Module):
    """One convolution and its LIF neurons."""

    def __init__(self, shape: ConvShape, config: EncoderConfig, rng: Generator | None) -> None:
        super().__init__()
        self.shape = shape
        k = shape.kernel
        self.weight = nn.Parameter(torch.empty(k, k, shape.in_channels, shape.out_channels))
        self.bias = nn.Parameter(torch.zeros(shape.out_channels))
        self.lif = LIF(shape.out_channels, config)
        init_kernels(self.weight, (0, 1), config.dc_gain, rng)
        with torch.no_grad():
            self.weight.mul_(shape.fan_in**-0.5)

    def drive(self, x: Tensor) -> Tensor:
        """Input [T, B, C, H, W] to drive [T, B, H', W', O]."""
        x = x[..., : self.shape.in_size, : self.shape.in_size]
        weight = self.weight.permute(3, 2, 0, 1)  # [O, C, k, k]
        out = F.conv2d(x.flatten(0, 1), weight, self.bias, self.shape.stride)
        return out.unflatten(0, x.shape[:2]).permute(0, 1, 3, 4, 2)


class SpikingEncoder(Encoder):
    """LIF convolutions over the four frames; kind=spiking, size=der, fine or nature."""

    def __init__(self, config: EncoderConfig, rng: Generator | None = None) -> None:
        super().__init__()
        shapes = conv_shapes(config.size, config.width, in_channels=1 + config.changes)
        self.config = config
        self.layers = nn.ModuleList(SpikingConv(shape, config, rng) for shape in shapes)
        self.layer_names = tuple(shape.name for shape in shapes)
        self.layer_neurons = tuple(shape.neurons for shape in shapes)
        self.latent_dim = shapes[-1].neurons
        full = torch.tensor([float(STACK * n) for n in self.layer_neurons])
        self.register_buffer("spikes_at_full_rate", full, persistent=False)
        self.plan = Plan(shapes, config, PIXEL) if fits(shapes, config) else None
        self._calibrate(rng)

    def forward(self, obs: Tensor) -> Encoding:
        check_obs(obs)
        if self.plan is None or obs.device.type != "cpu" or self.layers[0].weight.dtype != F32:
            return self.forward_reference(obs)
        params = [
            p
            for layer in self.layers
            for p in (layer.weight, layer.bias, layer.lif.leak_logit, layer.lif.log_threshold)
        ]
        keep = torch.is_grad_enabled() and any(p.requires_grad for p in params)
        return self._encoding(*EventEncoder.apply(self.plan, obs, keep, *params))

    def forward_reference(self, obs: Tensor) -> Encoding:
        """The encoder in plain torch: every device, every configuration."""
        x = self._input(obs)
        rates = []
        for layer in self.layers:
            spikes, rate = layer.lif(layer.drive(x))  # [T, B, H, W, O]
            rates.append(rate)
            x = spikes.movedim(-1, 2)
        latent = spikes.sum(0).flatten(1)  # [B, H * W * O]
        return self._encoding(latent, torch.stack(rates))

    def _encoding(self, latent: Tensor, rates: Tensor) -> Encoding:
        return Encoding(latent, rates, rates.detach() * self.spikes_at_full_rate)

    def _input(self, obs: Tensor) -> Tensor:
        crop = self.layers[0].shape.crop
        frames = obs[:, :, crop:, crop:].transpose(0, 1).unsqueeze(2)  # [T, B, 1, H, W]
        frames = frames.to(self.layers[0].weight.dtype)
        return (with_changes(frames) if self.config.changes else frames) * PIXEL

    @torch.no_grad()
    def _calibrate(self, rng: Generator | None) -> None:
        x = self._input(generated_frames(32, rng))
        for layer in self.layers:
            drive = layer.drive(x)
            init_bias(layer.bias, self.config.bias_init * drive.std(), rng)
            drive = drive + layer.bias
            if self.config.threshold_init == 0.0:
                layer.lif.calibrate(drive, self.config.target_rate)
            x = layer.lif(drive)[0].movedim(-1, 2)

    def layers_spec(self) -> list[LayerSpec]:
        if self.config.k_wta:
            raise NotImplementedError(
                "k-winners-take-all compares the neurons of a whole layer, which plain layers "
                "cannot express: use encoder.k_wta=0"
            )
        return [
            LayerSpec(
                name=layer.shape.name,
                kind="conv",
                weight=layer.weight.detach().permute(3, 2, 0, 1).contiguous(),
                bias=layer.bias.detach().clone(),
                stride=layer.shape.stride,
                padding=0,
                crop=layer.shape.crop,
                in_size=layer.shape.in_size,
                out_size=layer.shape.out_size,
                input_scale=PIXEL if i == 0 else 1.0,
                changes=i == 0 and self.config.changes,
                graded=self.config.graded,
                leak=layer.lif.leak.detach().clone(),
                threshold=layer.lif.threshold.detach().clone(),
            )
            for i, layer in enumerate(self.layers)
        ]
