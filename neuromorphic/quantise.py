"""Float network to integers: the one place where rounding is decided.

Of each layer the integer form is

    a   = q (*) x << (exponent + 1)         q [out, ...]: signed weight levels, |q| <= 2^(bits-1)-1
    u   = wrap24(a << 6)                    the current decays fully: du = 4095
    v   = clip(dec(v, dv) + u + bias)       dv 12 bits; bias 13-bit mantissa << exponent
    s   = v > vth << 6                      vth 17 bits

The stored Loihi mantissa is 2 q << (8 - bits) (even: signs are mixed), so with exponent >= -1 no
bit is ever shifted out and all emulators agree.

One unit of a is worth `scale` of the float drive. scale="channel" gives every output channel its
own (hard reset and leak do not depend on the unit, and thresholds and biases are per neuron
anyway, so the chip pays nothing for it); scale="layer" shares one. The scale is the smallest that
(1) keeps |q| within its bits, (2) keeps the drive of *any* input from wrapping (times `headroom`),
(3) keeps threshold (17 bits) and bias (13 bits << 7) in range. With headroom < 1 rare inputs may
wrap, and are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .lif import BIAS_EXPONENT_MAX, BIAS_MANTISSA_MAX, DECAY_ONE, DRIVE_SHIFT, V_MAX, VTH_MAX
from .spec import CompileError, LayerSpec, NetworkSpec
from .weights import EXPONENT_MAX

FRAME_MAX = 255
DRIVE_MAX = V_MAX >> DRIVE_SHIFT  # 2^17 - 1: the largest drive that does not wrap
BIAS_DRIVE_MAX = (BIAS_MANTISSA_MAX << BIAS_EXPONENT_MAX) >> DRIVE_SHIFT
PRIOR_LENGTH, PRIOR_NOISE = 10.0, 0.1  # taps; share of an input that is not smooth
ACCUMULATOR_MAX = (1 << 31) - 1  # of the simulation: drive << 6 is held in 32 bits


@dataclass(frozen=True)
class QuantConfig:
    """weight_bits 2..8 with the sign; scale per "channel" | "layer"; the rest see above."""

    weight_bits: int = 8
    scale: str = "channel"
    headroom: float = 1.0
    rounding: str = "compensated"

    def __post_init__(self) -> None:
        if not 2 <= self.weight_bits <= 8:
            raise CompileError(
                "weight bits",
                "quantiser",
                f"weight_bits={self.weight_bits} is outside 2..8",
                "set weight_bits to 8 or less",
            )
        if self.scale not in ("channel", "layer"):
            raise ValueError(f"scale={self.scale!r} is neither 'channel' nor 'layer'")
        if self.rounding not in ("compensated", "nearest"):
            raise ValueError(f"rounding={self.rounding!r} is neither 'compensated' nor 'nearest'")
        if not 0 < self.headroom <= 1:
            raise ValueError(f"headroom={self.headroom} must lie in (0, 1]")

    @property
    def level_max(self) -> int:
        return (1 << (self.weight_bits - 1)) - 1


@dataclass(frozen=True, eq=False)
class QuantLayer:
    """Integers of one layer. All arrays [out] except weight (int8, the spec's shape).

    scale: float drive of one unit of a. du is 4095 throughout: no current is carried over.
    """

    kind: str
    weight: np.ndarray
    exponent: int
    bias_mantissa: np.ndarray
    bias_exponent: np.ndarray
    dv: np.ndarray
    vth: np.ndarray
    scale: np.ndarray
    stride: tuple[int, int]
    padding: tuple[int, int]
    weight_bits: int
    crop: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def shift(self) -> int:
        """Left shift from the sum of q x to the current u: weight exponent, even step, 2^6."""
        return self.exponent + 1 + DRIVE_SHIFT

    @property
    def bias(self) -> np.ndarray:
        """int64 [out], in membrane units."""
        return self.bias_mantissa << self.bias_exponent

    @property
    def threshold(self) -> np.ndarray:
        """int64 [out], in membrane units: spikes are v > threshold."""
        return self.vth << DRIVE_SHIFT

    @property
    def mantissa(self) -> np.ndarray:
        """What a chip's synapse memory would hold."""
        return self.weight.astype(np.int64) << (9 - self.weight_bits)


@dataclass(frozen=True, eq=False)
class QuantNetwork:
    """The integer network with its float origin's frame: shapes, time steps, latent order."""

    layers: tuple[QuantLayer, ...]
    spec: NetworkSpec
    config: QuantConfig


def worst_drive(weight: np.ndarray, x_max: int) -> np.ndarray:
    """Largest |sum w x| over inputs 0 <= x <= x_max, [out]: all of one sign at full input."""
    flat = weight.reshape(len(weight), -1)
    return x_max * np.maximum(np.maximum(flat, 0).sum(1), np.maximum(-flat, 0).sum(1))


def quantise_layer(
    spec: LayerSpec, number: int, x_max: int, config: QuantConfig | None = None
) -> QuantLayer:
    """Integers of layer `number` whose input values are 0..x_max. Raises CompileError."""
    config = config or QuantConfig()
    weight = spec.weight * spec.input_scale
    flat = weight.reshape(len(weight), -1)
    largest = np.abs(flat).max(1)
    # smallest scales that hold threshold, bias and drive: in units of a, whatever the exponent
    floor = np.maximum(spec.threshold / VTH_MAX, np.abs(spec.bias) / BIAS_DRIVE_MAX)
    floor = np.maximum(floor, config.headroom * worst_drive(weight, x_max) / DRIVE_MAX)
    floor = np.where(floor > 0, floor, 1.0)
    if config.scale == "layer":
        largest, floor = np.full_like(largest, largest.max()), np.full_like(floor, floor.max())
    exponent, scale = -1, np.maximum(floor, largest / config.level_max)
    for candidate in range(EXPONENT_MAX, -1, -1):
        # the finest unit that every channel can afford with all its levels in use
        levels = largest / (config.level_max << (candidate + 1))
        if (levels[largest > 0] >= floor[largest > 0]).all():
            exponent, scale = candidate, np.maximum(floor, levels)
            break
    unit = 1 << (exponent + 1)
    q = _rounded(weight / _per_output(scale * unit, weight), config)
    if config.headroom == 1.0:
        # rounding up may pass the limit by a hair: coarsen until no input can wrap
        while (over := worst_drive(q, x_max) * unit > DRIVE_MAX).any():
            if config.scale == "layer":
                over[:] = True
            scale = np.where(over, scale * (1 + 2**-8), scale)
            q = _rounded(weight / _per_output(scale * unit, weight), config)
    if (worst_drive(q, x_max) * (unit << DRIVE_SHIFT) > ACCUMULATOR_MAX).any():
        raise CompileError(
            "drive accumulator",
            number,
            "weights overflow: the summed drive of a neuron can pass 32 bits",
            "use headroom=1.0, fewer weight bits, or smaller weights",
        )
    if largest.max() > 0 and not q.any():
        raise CompileError(
            "weight range",
            number,
            "weights vanish: threshold or fan-in is so large that all weights round to 0",
            "lower the threshold or the fan-in, or train with the quantised twin",
        )
    vth = np.rint(spec.threshold / scale)
    mantissa, bias_exponent = _bias(spec.bias / scale * (1 << DRIVE_SHIFT))
    arrays = {
        "weight": q.astype(np.int8),
        "bias_mantissa": mantissa,
        "bias_exponent": bias_exponent,
        # 12 bits: a leak of 0 becomes 1/4096
        "dv": np.clip(np.rint((1 - spec.leak) * DECAY_ONE), 0, DECAY_ONE - 1).astype(np.int64),
        "vth": np.clip(vth, 0, VTH_MAX).astype(np.int64),
        "scale": scale,
    }
    return QuantLayer(
        kind=spec.kind,
        exponent=exponent,
        stride=spec.stride,
        padding=spec.padding,
        weight_bits=config.weight_bits,
        crop=spec.crop,
        **arrays,
    )


def quantise(spec: NetworkSpec, config: QuantConfig | None = None) -> QuantNetwork:
    """All layers; the first reads values 0..255, the others spikes."""
    config = config or QuantConfig()
    layers = tuple(
        quantise_layer(layer, number, FRAME_MAX if number == 1 else 1, config)
        for number, layer in enumerate(spec.layers, 1)
    )
    return QuantNetwork(layers, spec, config)


def _rounded(levels: np.ndarray, config: QuantConfig) -> np.ndarray:
    """Whole numbers [out, in, kh, kw] or [out, in] near `levels`, never a full level away."""
    if config.rounding == "nearest" or levels.ndim == 2:
        return np.rint(levels)
    rest = levels.reshape(-1, levels.shape[2] * levels.shape[3])  # [out * in, taps]
    low = np.floor(rest)
    high = np.minimum(low + 1, config.level_max)
    low = np.maximum(low, -config.level_max)
    rest, q = rest.copy(), np.empty_like(rest)
    share = _error_shares(*levels.shape[2:])
    for tap in range(rest.shape[1]):
        q[:, tap] = np.clip(np.rint(rest[:, tap]), low[:, tap], high[:, tap])
        error = rest[:, tap] - q[:, tap]
        rest[:, tap + 1 :] -= error[:, None] * share[tap, tap + 1 :]
    return q.reshape(levels.shape)


@cache
def _error_shares(height: int, width: int) -> np.ndarray:
    """[taps, taps]: what of a tap's rounding error, negated, goes to each later tap."""
    y, x = (n.ravel() for n in np.mgrid[:height, :width])
    distance = np.abs(y[:, None] - y) + np.abs(x[:, None] - x)
    covariance = np.exp(-distance / PRIOR_LENGTH) + PRIOR_NOISE * np.eye(len(y))
    upper = np.linalg.cholesky(np.linalg.inv(covariance)).T
    return upper / np.diag(upper)[:, None]


def _per_output(scale: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


def _bias(bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """13-bit mantissas and the smallest exponents that hold `bias` [out] (membrane units)."""
    exponent = np.zeros(len(bias), np.int64)
    while (over := np.abs(np.rint(bias / (1 << exponent))) > BIAS_MANTISSA_MAX).any():
        exponent += over
    return np.rint(bias / (1 << exponent)).astype(np.int64), exponent
