"""Encoders: uint8 frames [B, 4, 84, 84] become a latent [B, L] and spike counts per layer."""

from __future__ import annotations

from torch import Generator

from agents.encoders.base import Encoder, Encoding, LayerSpec
from agents.encoders.config import EncoderConfig
from agents.encoders.conv import ConvEncoder
from agents.encoders.impala import ImpalaConvEncoder, ImpalaSpikingEncoder
from agents.encoders.spiking import SpikingEncoder

__all__ = ["Encoder", "EncoderConfig", "Encoding", "LayerSpec", "make_encoder"]


def make_encoder(config: EncoderConfig, rng: Generator | None = None) -> Encoder:
    """The encoder of this configuration, on the CPU.

    rng: draws the initial weights; without it torch's own generator does, as in torch's layers.
    """
    impala = config.size == "impala"
    if config.kind == "spiking":
        return (ImpalaSpikingEncoder if impala else SpikingEncoder)(config, rng)
    return (ImpalaConvEncoder if impala else ConvEncoder)(config, rng)
