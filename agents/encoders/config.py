"""Configuration of the encoder: one frozen dataclass, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from errors import require

KINDS = ("spiking", "conv")
SIZES = ("der", "fine", "nature", "impala")
SURROGATES = ("triangle", "boxcar")


@dataclass(frozen=True)
class EncoderConfig:
    """Values of one encoder. Those after `calibrated` concern kind=spiking, except where named."""

    kind: str = "spiking"  # spiking: LIF over the four frames; conv: ReLU twin, frames as channels
    # der: van Hasselt 2019; nature: Mnih 2015; impala: Espeholt 2018, fig. 3; fine: ours, two
    # layers as in der with the positions of nature
    size: str = "der"
    width: float = 1.0  # factor on the channels of every layer (1 = the published numbers)
    # kind=conv: start with the same care as the spiking layers (dc_gain, bias_init below, unit
    # variance); false = He's initialisation and biases of 0, as published
    calibrated: bool = True

    # -- LIF neuron: v <- leak v + drive; spike where v > threshold; v <- 0 on a spike ------------
    # Ours: low, so that a tonic input cannot pile up beyond twice its one-step value.
    leak_init: float = 0.5  # 1 / time step; share of v kept each frame; learned per channel
    # Drive units; 0 = calibrated so that each layer starts at target_rate on generated frames
    # (ours; LSUV of Mishkin 2016 does the same for variances).
    threshold_init: float = 0.0
    bias_init: float = 0.8  # std of the biases, in std of the layer's drive on generated frames.
    # Ours: some channels fire on black frames, so that activity cannot die in dark games
    dc_gain: float = 0.1  # share of each kernel's mean kept at initialisation (1 = plain normal).
    # Ours: bright and dark games start with similar rates
    target_rate: float = 0.08  # spikes per neuron per time step; activity budget is 0.15
    # The first layer sees, beside each frame, its change from the one before, with weights of its
    # own (ours: what an event camera, Lichtsteiner 2008, reports)
    changes: bool = False
    # A spike carries how far v was above the threshold, and leaves v there (graded spikes as of
    # Loihi 2, Orchard 2021; off: all spikes are alike, v <- 0)
    graded: bool = False
    k_wta: float = 0.0  # share of a layer's neurons that may spike in one step; 0 = no limit

    # -- gradient ---------------------------------------------------------------------------------
    surrogate: str = "triangle"  # triangle: Bellec 2018, eq. 2; boxcar: Wu 2018, eq. 24 (h1).
    # Both have compact support: far from threshold nothing is computed
    surrogate_width: float = 0.5  # in thresholds: support is |v - threshold| < width * threshold
    surrogate_peak: float = 1.0  # derivative at threshold, in spikes per threshold

    # -- execution --------------------------------------------------------------------------------
    fused: bool = True  # CPU: event-driven compiled kernels (same spikes); false = plain torch

    def __post_init__(self) -> None:
        def check(key: str, holds: bool, wanted: str) -> None:
            require(holds, f"encoder.{key}={getattr(self, key)!r}: set it to {wanted}")

        check("kind", self.kind in KINDS, " or ".join(KINDS))
        check("size", self.size in SIZES, " or ".join(SIZES))
        check("width", 0.125 <= self.width <= 16.0, "a value from 0.125 to 16")
        check("leak_init", 0.0 < self.leak_init < 1.0, "a value between 0 and 1, both excluded")
        check("threshold_init", 0.0 <= self.threshold_init <= 1e3, "0 (calibrate) or up to 1000")
        check("bias_init", 0.0 <= self.bias_init <= 10.0, "a value from 0 to 10")
        check("dc_gain", 0.0 <= self.dc_gain <= 1.0, "a value from 0 to 1")
        check("target_rate", 0.0 < self.target_rate < 0.5, "a value between 0 and 0.5")
        check("k_wta", 0.0 <= self.k_wta <= 1.0, "a share from 0 (off) to 1")
        check("surrogate", self.surrogate in SURROGATES, " or ".join(SURROGATES))
        check("surrogate_width", 0.0 < self.surrogate_width <= 10.0, "a value above 0, up to 10")
        check("surrogate_peak", 0.0 < self.surrogate_peak <= 10.0, "a value above 0, up to 10")
        require(
            self.kind == "spiking" or not self.changes,
            "encoder.changes is for spiking neurons, which see one frame at a time (kind=conv sees "
            "all four at once): set encoder.changes=false",
        )
        require(
            self.kind == "spiking" or not self.graded,
            "encoder.graded is a kind of spikes and encoder.kind=conv has none: set "
            "encoder.graded=false",
        )
        require(
            self.kind == "spiking" or self.k_wta == 0.0,
            "encoder.k_wta limits spikes and encoder.kind=conv has none: set encoder.k_wta=0",
        )
