"""Float network to integers: the one place where rounding is decided.

Of each layer the integer form is

    a   = q (*) x << (exponent + 1)         q [out, ...]: signed weight levels, |q| <= 2^(bits-1)-1
    u   = wrap24(a << 6)                    the current decays fully: du = 4095
    v   = clip(dec(v, dv) + u + bias)       dv 12 bits; bias 13-bit mantissa << exponent
    s   = v > vth << 6                      vth 17 bits

Graded spikes carry p, a whole number of 1/32 of the threshold, rounded, at most 255, and leave
the threshold:

    p   = min(255, (v - (vth << 6) + half) >> (e + 1))      vth = 2^e;  half = 2^e
    v   = vth << 6                                          where v > vth << 6

so each channel's scale is the smallest that makes its threshold a power of two: a shift stands for
a division, as in a chip's neuron program. Layers above read p as they would read pixels.

The stored Loihi mantissa is 2 q << (8 - bits) (even: signs are mixed), so with exponent >= -1 no
bit is ever shifted out and all emulators agree.

synapses=2 gives every weight a coarse and a fine synapse of `bits` each, in two groups of their
own exponent: q = q1 << bits plus q0, where q1 counts as above and q0 is worth 2^-bits of it. What
the fine group sums to below one unit of a is shifted out,

    a   = (q (*) x) >> drop                 drop = bits - 1 - exponent, where that is above 0

which is Lava's reading of a negative exponent (`lif.synaptic_drive`, negative_exponent="sum"; the
emulators that shift each weight would differ). The mean of what is lost, half a unit, goes into
the bias. It costs twice the synapse memory, fan-in and synaptic operations, all of them counted;
both groups hang on the same input axon. A core that takes pixels in bit planes has a group, an
exponent and a loss for each plane instead: it gets one synapse a weight (`CoreSpec.max_synapses`),
of which no plane loses a bit.

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
PAYLOAD_MAX = 255  # ours: 8 bits, as a pixel; Loihi 2's spikes carry whole numbers (Orchard 2021)
PAYLOAD_BITS = 5  # 2^5 units a threshold: ours, so that 8 bits reach to nine thresholds
PAYLOAD_UNIT = 2.0**-PAYLOAD_BITS  # thresholds
BIAS_DRIVE_MAX = (BIAS_MANTISSA_MAX << BIAS_EXPONENT_MAX) >> DRIVE_SHIFT
# mean x^2 of an input, to choose exponents
FRAME_MEAN_SQUARE, SPIKE_SHARE, PAYLOAD_MEAN_SQUARE = 128.0**2, 0.1, 32.0
PRIOR_LENGTH, PRIOR_NOISE = 10.0, 0.1  # taps; share of an input that is not smooth
ACCUMULATOR_MAX = (1 << 31) - 1  # of the simulation: drive << 6 is held in 32 bits


@dataclass(frozen=True)
class QuantConfig:
    """weight_bits 2..8 with the sign, of each of a weight's `synapses` (1 or 2); see above."""

    weight_bits: int = 8
    scale: str = "channel"
    headroom: float = 1.0
    rounding: str = "compensated"
    synapses: int = 2

    def __post_init__(self) -> None:
        if not 2 <= self.weight_bits <= 8:
            raise CompileError(
                "weight bits",
                "quantiser",
                f"weight_bits={self.weight_bits} is outside 2..8",
                "set weight_bits to a value from 2 to 8",
            )
        if self.scale not in ("channel", "layer"):
            raise ValueError(f"scale={self.scale!r} is neither 'channel' nor 'layer'")
        if self.rounding not in ("compensated", "nearest"):
            raise ValueError(f"rounding={self.rounding!r} is neither 'compensated' nor 'nearest'")
        if not 0 < self.headroom <= 1:
            raise ValueError(f"headroom={self.headroom} must lie in (0, 1]")
        if self.synapses not in (1, 2):
            raise CompileError(
                "synapses of a weight",
                "quantiser",
                f"synapses={self.synapses} is neither 1 nor 2",
                "set synapses to 1 or 2",
            )

    @property
    def level_max(self) -> int:
        one = (1 << (self.weight_bits - 1)) - 1
        return one if self.synapses == 1 else (one << self.weight_bits) + one

    @property
    def fine_bits(self) -> int:
        """Levels of the coarse synapse are 2^fine_bits levels of the weight."""
        return self.weight_bits * (self.synapses - 1)

    @property
    def least_exponent(self) -> int:
        """Of the coarse group, so that no synapse needs an exponent below -8."""
        return -1 if self.synapses == 1 else 0


@dataclass(frozen=True, eq=False)
class QuantLayer:
    """Integers of one layer. All arrays [out] except weight (the spec's shape; int8, or int16
    where it has two synapses).

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
    synapses: int = 1  # of each weight
    graded: bool = False

    @property
    def level_exponent(self) -> int:
        """One level of q is worth 2^this units of a: exponent, even step, fine synapse."""
        return self.exponent + 1 - self.weight_bits * (self.synapses - 1)

    @property
    def drop(self) -> int:
        """Bits shifted out of the sum of q x."""
        return max(0, -self.level_exponent)

    @property
    def shift(self) -> int:
        """Left shift from the sum of q x, less its dropped bits, to the current u."""
        return max(0, self.level_exponent) + DRIVE_SHIFT

    @property
    def stored_exponent(self) -> int:
        """Weight exponent beside `mantissa` in the synapse memory, -8..7; of the coarse group."""
        return self.exponent - (8 - self.weight_bits)

    @property
    def bias(self) -> np.ndarray:
        """int64 [out], in membrane units."""
        return self.bias_mantissa << self.bias_exponent

    @property
    def threshold(self) -> np.ndarray:
        """int64 [out], in membrane units: spikes are v > threshold."""
        return self.vth << DRIVE_SHIFT

    @property
    def payload_shift(self) -> np.ndarray:
        """int64 [out]: what is above the threshold, in membrane units, by so many bits to the right
        is what a graded spike carries."""
        return np.rint(np.log2(self.threshold)).astype(np.int64) - PAYLOAD_BITS

    @property
    def mantissa(self) -> np.ndarray:
        """What a chip's synapse memory would hold; two synapses: [2, ...], coarse and fine."""
        q = self.weight.astype(np.int64)
        if self.synapses == 2:
            coarse = (q + (1 << (self.weight_bits - 1))) >> self.weight_bits
            q = np.stack([coarse, q - (coarse << self.weight_bits)])
        return q << (9 - self.weight_bits)


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


def largest_input(number: int, graded: bool) -> int:
    """What layer `number`, from 1, reads at most."""
    if number == 1:
        return FRAME_MAX
    return PAYLOAD_MAX if graded else 1


def input_unit(number: int, graded: bool) -> float:
    """What 1 is worth in what layer `number` reads."""
    return PAYLOAD_UNIT if graded and number > 1 else 1.0


def quantise_layer(
    spec: LayerSpec,
    number: int,
    x_max: int,
    config: QuantConfig | None = None,
    graded: bool = False,
) -> QuantLayer:
    """Integers of layer `number` whose input values are 0..x_max. Raises CompileError."""
    config = config or QuantConfig()
    weight = spec.weight * (spec.input_scale * input_unit(number, graded))
    flat = weight.reshape(len(weight), -1)
    largest = np.abs(flat).max(1)
    # smallest scales that hold threshold, bias and drive: in units of a, whatever the exponent
    floor = np.maximum(spec.threshold / VTH_MAX, np.abs(spec.bias) / BIAS_DRIVE_MAX)
    floor = np.maximum(floor, config.headroom * worst_drive(weight, x_max) / DRIVE_MAX)
    floor = np.where(floor > 0, floor, 1.0)
    if config.scale == "layer":
        largest, floor = np.full_like(largest, largest.max()), np.full_like(floor, floor.max())
    mean_square = SPIKE_SHARE if x_max == 1 else FRAME_MEAN_SQUARE
    if graded:
        if config.scale == "layer":
            raise CompileError(
                "graded spikes",
                number,
                "each channel's threshold must be a power of two, which one scale cannot give",
                "use scale='channel'",
            )
        mean_square = FRAME_MEAN_SQUARE if number == 1 else PAYLOAD_MEAN_SQUARE
    exponent, scale = _exponent_and_scale(spec, largest, floor, mean_square, config)
    step = 1 + 2**-8
    if graded:
        scale, step = _to_power_of_two(spec.threshold, scale), 2.0
    unit = _unit(exponent, config)
    q = _rounded(weight / _per_output(scale * unit, weight), config)
    if config.headroom == 1.0:
        # rounding up may pass the limit by a hair: coarsen until no input can wrap
        while (over := worst_drive(q, x_max) * unit > DRIVE_MAX).any():
            if config.scale == "layer":
                over[:] = True
            scale = np.where(over, scale * step, scale)
            q = _rounded(weight / _per_output(scale * unit, weight), config)
    if (worst_drive(q, x_max) * max(1, unit * (1 << DRIVE_SHIFT)) > ACCUMULATOR_MAX).any():
        raise CompileError(
            "drive accumulator",
            number,
            "weights overflow: the summed drive of a neuron can pass 32 bits",
            "use headroom=1.0, fewer weight bits, or smaller weights",
        )
    if graded and (np.rint(spec.threshold / scale) < 1).any():
        raise CompileError(
            "threshold range",
            number,
            "a threshold vanishes beside what the neuron can be driven to",
            "lower the fan-in or the weights, or train with the quantised twin",
        )
    if largest.max() > 0 and not q.any():
        raise CompileError(
            "weight range",
            number,
            "weights vanish: threshold or fan-in is so large that all weights round to 0",
            "lower the threshold or the fan-in, or train with the quantised twin",
        )
    return QuantLayer(
        kind=spec.kind,
        weight=q.astype(np.int8 if config.synapses == 1 else np.int16),
        exponent=exponent,
        scale=scale,
        stride=spec.stride,
        padding=spec.padding,
        weight_bits=config.weight_bits,
        crop=spec.crop,
        synapses=config.synapses,
        graded=graded,
        **neuron_integers(spec, scale, exponent, config),
    )


def neuron_integers(
    spec: LayerSpec, scale: np.ndarray, exponent: int, config: QuantConfig
) -> dict[str, np.ndarray]:
    """bias_mantissa, bias_exponent, dv, vth, int64 [out]: what follows from floats and scale [out].

    A function of IEEE divisions and rounding alone: the same on every machine, so that an
    imported file can be checked against it.
    """
    lost = 0.5 if _unit(exponent, config) < 1 else 0.0  # of a, on average, where bits are dropped
    mantissa, bias_exponent = _bias((spec.bias / scale + lost) * (1 << DRIVE_SHIFT))
    return {
        "bias_mantissa": mantissa,
        "bias_exponent": bias_exponent,
        # 12 bits: a leak of 0 becomes 1/4096
        "dv": np.clip(np.rint((1 - spec.leak) * DECAY_ONE), 0, DECAY_ONE - 1).astype(np.int64),
        "vth": np.rint(spec.threshold / scale).astype(np.int64),
    }


def _exponent_and_scale(
    spec: LayerSpec, largest: np.ndarray, floor: np.ndarray, mean_square: float, config: QuantConfig
) -> tuple[int, np.ndarray]:
    """The weight exponent and each output's scale [out].

    largest, floor [out]: the largest weight, the smallest scale that holds everything else;
    mean_square: of an input value.
    """
    candidates = range(EXPONENT_MAX, config.least_exponent - 1, -1)
    levels = {e: largest / config.level_max / _unit(e, config) for e in candidates}
    if config.synapses == 1:
        # the finest unit that every channel can afford with all its levels in use
        for exponent in candidates:
            if (levels[exponent][largest > 0] >= floor[largest > 0]).all():
                return exponent, np.maximum(floor, levels[exponent])
        return exponent, np.maximum(floor, levels[exponent])
    # Weights are fine enough here that the unit of a matters as much: the least expected error of
    # the drive, of rounding it (1/12 unit^2) and its weights (1/12 level^2 an input and x^2).
    taps = spec.weight[0].size * mean_square

    def error(exponent: int) -> float:
        scale = np.maximum(floor, levels[exponent])
        relative = scale / np.maximum(spec.threshold, scale)
        return float(((1 + taps * _unit(exponent, config) ** 2) * relative**2).sum())

    exponent = min(candidates, key=error)
    return exponent, np.maximum(floor, levels[exponent])


def _to_power_of_two(threshold: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The smallest scales from `scale` on, [out], of which each threshold is 2^e, e <= 16."""
    return threshold / 2.0 ** np.floor(np.log2(threshold / scale))


def quantise(spec: NetworkSpec, config: QuantConfig | None = None) -> QuantNetwork:
    """All layers; the first reads values 0..255, the others spikes."""
    config = config or QuantConfig()
    layers = tuple(
        quantise_layer(layer, number, largest_input(number, spec.graded), config, spec.graded)
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


def _unit(exponent: int, config: QuantConfig) -> float:
    """Units of a that one level is worth: a power of two, exact."""
    return 2.0 ** (exponent + 1 - config.fine_bits)


def _per_output(scale: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


def _bias(bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """13-bit mantissas and the smallest exponents that hold `bias` [out] (membrane units)."""
    exponent = np.zeros(len(bias), np.int64)
    for _ in range(BIAS_EXPONENT_MAX):
        exponent += np.abs(np.rint(bias / (1 << exponent))) > BIAS_MANTISSA_MAX
    return np.rint(bias / (1 << exponent)).astype(np.int64), exponent
