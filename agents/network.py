"""The Q-network: encoder, then a dueling and possibly distributional head.

Shapes: B batch, A actions, Z atoms, L latent width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from agents.config import AgentConfig
from agents.encoders import Encoding


class QOutput(NamedTuple):
    logits: Tensor  # [B, A, Z]; Z = 1 holds plain Q-values
    q: Tensor  # [B, A]
    encoding: Encoding


class NoisyLinear(nn.Module):
    """Linear layer with factorised Gaussian noise on its weights (Fortunato 2018, eq. 9-11).

    y = (mu_w + sigma_w * f(e_out) f(e_in)^T) x + mu_b + sigma_b * f(e_out), f(x) = sign(x)
    sqrt|x|. `resample` draws new noise from the generator handed in; `quiet` sets it to zero.
    """

    def __init__(self, inputs: int, outputs: int, sigma: float) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma * bound))
        self.register_buffer("noise_in", torch.zeros(inputs))
        self.register_buffer("noise_out", torch.zeros(outputs))

    def resample(self, generator: torch.Generator) -> None:
        for noise in (self.noise_in, self.noise_out):
            draw = torch.randn(noise.shape, generator=generator, device=generator.device)
            noise.copy_(draw.sign() * draw.abs().sqrt())

    def quiet(self) -> None:
        self.noise_in.zero_()
        self.noise_out.zero_()

    def forward(self, x: Tensor) -> Tensor:
        noise = self.noise_out[:, None] * self.noise_in
        weight = self.weight + self.weight_sigma * noise
        return nn.functional.linear(x, weight, self.bias + self.bias_sigma * self.noise_out)


class Head(nn.Module):
    """Latent [B, L] to logits [B, A, Z]; dueling (Wang 2016, eq. 9) when asked for."""

    def __init__(self, latent_dim: int, num_actions: int, config: AgentConfig) -> None:
        super().__init__()
        self.shape = (num_actions, config.atoms)
        self.dueling, self.normalise = config.dueling, config.normalise

        def linear(inputs: int, outputs: int) -> nn.Module:
            if config.noisy:
                return NoisyLinear(inputs, outputs, config.noisy_sigma)
            return nn.Linear(inputs, outputs)

        # One hidden matrix serves both streams: one large product is quicker than two.
        streams = 2 if config.dueling else 1
        self.hidden_width = streams * config.hidden
        self.hidden = linear(latent_dim, self.hidden_width)
        self.advantage = linear(config.hidden, num_actions * config.atoms)
        self.value = linear(config.hidden, config.atoms) if config.dueling else None

    def forward(self, latent: Tensor) -> Tensor:
        return self.logits(self.features(latent))

    def features(self, latent: Tensor) -> Tensor:
        """Hidden layer [B, P] before it is rectified; each stream normalised by itself."""
        out = self.hidden(latent)
        if not self.normalise:
            return out
        # Behind hundreds of inputs that are never negative one step of Adam moves a unit's drive
        # by far more than its spread and can silence it for good; without gain and bias nothing
        # can drift away.
        streams = out.unflatten(1, (1 + self.dueling, -1))
        return nn.functional.layer_norm(streams, streams.shape[-1:]).flatten(1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [B, A, Z] of `features` [B, P]."""
        hidden = torch.relu(hidden)
        if self.value is None:
            return self.advantage(hidden).view(-1, *self.shape)
        left, right = hidden.chunk(2, dim=1)
        advantage = self.advantage(left).view(-1, *self.shape)  # [B, A, Z]
        value = self.value(right).unsqueeze(1)  # [B, 1, Z]
        return value + advantage - advantage.mean(1, keepdim=True)


class QNetwork(nn.Module):
    """Encoder and head; `forward(obs [B, 4, 84, 84] uint8) -> QOutput`."""

    def __init__(self, encoder: nn.Module, num_actions: int, config: AgentConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = Head(encoder.latent_dim, num_actions, config)
        self.num_actions = num_actions
        support = torch.linspace(config.v_min, config.v_max, config.atoms)
        self.register_buffer("support", support, persistent=False)

    def forward(self, obs: Tensor) -> QOutput:
        encoding = self.encoder(obs)
        logits = self.head(encoding.latent)
        return QOutput(logits, self.q_values(logits), encoding)

    def q_values(self, logits: Tensor) -> Tensor:
        """Expected return [B, A] of logits [B, A, Z]."""
        if logits.shape[-1] == 1:
            return logits[..., 0]
        return torch.softmax(logits, -1) @ self.support

    def resample_noise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, NoisyLinear):
                module.resample(generator)

    def quiet(self) -> None:
        for module in self.modules():
            if isinstance(module, NoisyLinear):
                module.quiet()
