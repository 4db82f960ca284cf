"""Keys: where in the space of states a moment lies. Unit length, D numbers.

Shapes: B batch, L latent, D key dimensions, P pixels of a frame.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from agents.encoders import Encoding
from errors import UserError


def state_hashes(obs: np.ndarray) -> np.ndarray:
    """64-bit hashes int64 [B] of obs uint8 [B, ...]: equal states have equal hashes."""
    digests = (hashlib.blake2b(o.tobytes(), digest_size=8).digest() for o in obs)
    return np.frombuffer(b"".join(digests), np.int64)


def checked(keys: np.ndarray, what: str = "keys") -> np.ndarray:
    """Keys [B,D], or other numbers that come from the network, as they are.

    Raises:
        UserError: they are no longer numbers.
    """
    if not np.isfinite(keys).all():
        raise UserError(
            f"the {what} of the episodic memory are no longer numbers: lower agent.learning_rate; "
            "the last checkpoint of the run was kept"
        )
    return keys


def unit(keys: Tensor) -> Tensor:
    return nn.functional.normalize(keys, dim=1)


class FrameProjection(nn.Module):
    """MFEC's embedding: the newest frame [P] times a fixed Gaussian matrix, then unit length.

    Departure: the mean grey of the frame is taken out and the length set to one, so that the
    squared distances mean the same in dark and in bright games.
    """

    def __init__(self, key_dim: int, rng: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.randn(84 * 84, key_dim, generator=rng))

    def forward(self, obs: Tensor) -> Tensor:
        """Keys [B,D] of obs uint8 [B,4,84,84]."""
        frame = obs[:, -1].flatten(1).float()
        return unit((frame - frame.mean(1, keepdim=True)) @ self.matrix)


class KeyNetwork(nn.Module):
    """NEC's embedding: encoder, a linear layer, unit length; learned through the memory."""

    def __init__(self, encoder: nn.Module, key_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.key = nn.Linear(encoder.latent_dim, key_dim)

    def forward(self, obs: Tensor) -> tuple[Tensor, Encoding]:
        """Keys [B,D] of obs uint8 [B,4,84,84]."""
        encoding = self.encoder(obs)
        return unit(self.key(encoding.latent)), encoding


class LatentProjection:
    """Keys of a latent that was learned for something else: centred, projected, unit length.

    Rates and spike counts are not negative, so that without the running mean all keys would lie
    close to one direction. The mean moves slowly; what that does to old keys is part of their
    drift.
    """

    RATE = 1e-3  # 1 / vector step

    def __init__(self, latent_dim: int, key_dim: int, rng: torch.Generator) -> None:
        self.matrix = torch.randn(latent_dim, key_dim, generator=rng)
        self.mean: Tensor | None = None

    def see(self, latent: Tensor) -> None:
        """Let the mean follow latents [B,L]."""
        mean = latent.mean(0)
        self.mean = mean if self.mean is None else torch.lerp(self.mean, mean, self.RATE)

    def __call__(self, latent: Tensor) -> Tensor:
        mean = latent.mean(0) if self.mean is None else self.mean
        return unit((latent - mean) @ self.matrix)
