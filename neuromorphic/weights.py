"""Loihi's weight formats: 1 to 9 bit mantissas, a sign mode, a shared exponent.

A weight is stored as a mantissa of which the lowest bits are lost: (w >> k) << k with
k = 8 - bits, and one bit more where the sign must be stored too. Ranges at 8 bits:
mixed -256..254 in steps of 2; excitatory 0..255; inhibitory -256..0 (as in Lava's bit-accurate
connection and Brian2Loihi). The drive of a spike is mantissa * 2^exponent, exponent -8..7.
"""

import numpy as np

SIGN_MODES = ("mixed", "excitatory", "inhibitory")
EXPONENT_MIN, EXPONENT_MAX = -8, 7


def lost_bits(bits: int, sign_mode: str) -> int:
    """How many low bits of a mantissa of magnitude 0..256 are not stored."""
    if sign_mode not in SIGN_MODES:
        raise ValueError(f"sign_mode {sign_mode!r} is none of {SIGN_MODES}")
    # nine bits: eight of magnitude and the sign
    if not 1 <= bits <= 9 or (bits == 9 and sign_mode != "mixed"):
        raise ValueError(f"{bits} weight bits do not exist with sign mode {sign_mode}")
    return max(0, 8 - bits + (sign_mode == "mixed"))


def mantissa_range(bits: int, sign_mode: str) -> tuple[int, int, int]:
    """Smallest and largest stored mantissa and the step between them."""
    step = 1 << lost_bits(bits, sign_mode)
    low = 0 if sign_mode == "excitatory" else -256
    high = 0 if sign_mode == "inhibitory" else 256 - step
    return low, high, step


def store_mantissa(weight: np.ndarray, bits: int = 8, sign_mode: str = "mixed") -> np.ndarray:
    """What the synapse memory returns for integer `weight`: clipped, low bits truncated."""
    low, high, step = mantissa_range(bits, sign_mode)
    lost = step.bit_length() - 1
    return (np.clip(np.asarray(weight, np.int64), low, high + step - 1) >> lost) << lost


def drive_of(mantissa: np.ndarray, exponent: int) -> np.ndarray:
    """Each weight shifted by the exponent on its own: floor for negative exponents."""
    if not EXPONENT_MIN <= exponent <= EXPONENT_MAX:
        raise ValueError(f"weight exponent {exponent} is outside {EXPONENT_MIN}..{EXPONENT_MAX}")
    mantissa = np.asarray(mantissa, np.int64)
    return mantissa << exponent if exponent >= 0 else mantissa >> -exponent
