"""The IMPALA residual net (Espeholt 2018, fig. 3) as a ReLU net and as a spiking one.

Three stages of: convolution, max-pooling, two residual blocks. A block is x + conv(f(conv(f(x))))
and f closes the net. In the twin f is ReLU and the four frames are channels. In the spiking net
f is a LIF layer and the frames are time steps: every convolution but the first reads spikes, and
what flows along the residual path is drive, never a spike count (the membrane shortcut of Hu
2021, "Advancing spiking neural networks towards deep residual learning"). Max-pooling acts on
drive, which a spike-event core cannot do, so this size has no `layers_spec`.

    T time steps, B batch; convolutions run over [T * B, C, H, W] in one call
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from agents.encoders import fused_lif
from agents.encoders.base import Encoder, Encoding, check_obs
from agents.encoders.config import EncoderConfig
from agents.encoders.conv import PIXEL, active_units, activity
from agents.encoders.geometry import FRAME, STACK, channels
from agents.encoders.initial import generated_frames, init_bias, init_kernels
from agents.encoders.lif import LIF
from agents.encoders.spiking import with_changes

STAGES = (16, 32, 32)  # channels at width 1
BLOCKS = 2  # residual blocks of a stage


class _Impala(Encoder):
    """The skeleton: convolutions in order, and one activation per `f` above."""

    def __init__(self, config: EncoderConfig, in_channels: int) -> None:
        super().__init__()
        stages = [channels(c, config.width) for c in STAGES]
        self.convs = nn.ModuleList()
        names, neurons, activations = [], [], []
        size = FRAME
        for i, out in enumerate(stages):
            inputs = in_channels if i == 0 else stages[i - 1]
            self.convs.append(nn.Conv2d(inputs, out, 3, padding=1))
            size = (size + 1) // 2
            for j in range(BLOCKS):
                for k in range(2):
                    self.convs.append(nn.Conv2d(out, out, 3, padding=1))
                    names.append(f"stage{i + 1}_block{j + 1}_{'ab'[k]}")
                    neurons.append(out * size**2)
                    activations.append(out)
        names.append("latent")
        neurons.append(out * size**2)
        activations.append(out)
        self.layer_names, self.layer_neurons = tuple(names), tuple(neurons)
        self.activation_channels = tuple(activations)
        self.latent_dim = neurons[-1]
        full = torch.tensor([float(STACK * n) for n in neurons])
        self.register_buffer("spikes_at_full_rate", full, persistent=False)

    def trunk(self, x: Tensor, activate) -> Tensor:
        """x [N, C, 84, 84] through the net; `activate(index, x)` stands for the index-th f."""
        convs = iter(self.convs)
        index = 0
        for _ in STAGES:
            x = F.max_pool2d(next(convs)(x), 3, 2, padding=1)
            for _ in range(BLOCKS):
                y = next(convs)(activate(index, x))
                x = x + next(convs)(activate(index + 1, y))
                index += 2
        return activate(index, x)


class ImpalaConvEncoder(_Impala):
    """kind=conv, size=impala."""

    has_plain_form = True

    def __init__(self, config: EncoderConfig, rng: Generator | None = None) -> None:
        super().__init__(config, STACK)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=rng)
            nn.init.zeros_(conv.bias)
        for i, conv in enumerate(self.convs):
            if i % (2 * BLOCKS + 1) in (2, 4):  # a block's last: sums must not grow with depth
                conv.weight.data.mul_(0.5)
        self.to(memory_format=torch.channels_last)

    def forward(self, obs: Tensor) -> Encoding:
        check_obs(obs)
        active = []

        def relu(_: int, x: Tensor) -> Tensor:
            x = F.relu(x)
            active.append(active_units(x))
            return x

        x = obs.to(self.convs[0].weight.dtype) * PIXEL
        x = self.trunk(x.contiguous(memory_format=torch.channels_last), relu)
        units = self.spikes_at_full_rate * (1.0 / STACK)
        return activity(x.permute(0, 2, 3, 1).flatten(1), torch.stack(active), units)

    def plain_latent(self, obs: Tensor) -> Tensor:
        x = obs.to(self.convs[0].weight.dtype) * PIXEL
        return self.trunk(x, lambda _, x: F.relu(x)).permute(0, 2, 3, 1).flatten(1)


class ImpalaSpikingEncoder(_Impala):
    """kind=spiking, size=impala."""

    def __init__(self, config: EncoderConfig, rng: Generator | None = None) -> None:
        super().__init__(config, 1 + config.changes)
        self.config = config
        self.lifs = nn.ModuleList(LIF(c, config) for c in self.activation_channels)
        for conv in self.convs:
            init_kernels(conv.weight, (2, 3), config.dc_gain, rng)
            fan_in = conv.in_channels * conv.kernel_size[0] ** 2
            conv.weight.data.mul_(fan_in**-0.5)
            nn.init.zeros_(conv.bias)
        self.to(memory_format=torch.channels_last)
        self._calibrate(rng)

    def forward(self, obs: Tensor) -> Encoding:
        check_obs(obs)
        rates = []

        def fire(index: int, x: Tensor) -> Tensor:
            spikes, rate = self._fire(self.lifs[index], self._steps(x))
            rates.append(rate)
            return spikes.flatten(0, 1).permute(0, 3, 1, 2)

        x = self.trunk(self._input(obs), fire)
        latent = self._steps(x).sum(0).flatten(1)
        rates = torch.stack(rates)
        return Encoding(latent, rates, rates.detach() * self.spikes_at_full_rate)

    def _fire(self, lif: LIF, drive: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes [T, B, H, W, C] and the share of neurons that spike in a step."""
        plain = self.config.k_wta or self.config.graded
        if self.config.fused and not plain and fused_lif.fits(drive):
            return fused_lif.FusedLIF.apply(drive, lif.leak_logit, lif.log_threshold, lif.surrogate)
        return lif(drive)

    def _input(self, obs: Tensor) -> Tensor:
        frames = obs.transpose(0, 1).unsqueeze(2).to(self.convs[0].weight.dtype)
        if self.config.changes:
            frames = with_changes(frames)
        return frames.flatten(0, 1) * PIXEL  # [T * B, 1 or 2, H, W]

    @staticmethod
    def _steps(x: Tensor) -> Tensor:
        """[T * B, C, H, W] to [T, B, H, W, C]."""
        return x.unflatten(0, (STACK, -1)).permute(0, 1, 3, 4, 2)

    @torch.no_grad()
    def _calibrate(self, rng: Generator | None) -> None:
        x = self._input(generated_frames(16, rng))
        for conv in self.convs[:: 2 * BLOCKS + 1]:  # the stages' own convolutions
            init_bias(conv.bias, self.config.bias_init * conv.weight.std(), rng)

        def fire(index: int, drive: Tensor) -> Tensor:
            steps = self._steps(drive)
            if self.config.threshold_init == 0.0:
                self.lifs[index].calibrate(steps, self.config.target_rate)
            return self.lifs[index](steps)[0].flatten(0, 1).permute(0, 3, 1, 2)

        self.trunk(x, fire)
