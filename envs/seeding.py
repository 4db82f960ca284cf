"""Seeds of episodes, and random numbers that depend on nothing but a seed and a counter."""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def episode_seed(seed: int, *key: int) -> int:
    """A seed in 1..2^31-1 for the emulator, from the run's seed and a key of integers >= 0.

    Emulators take 31 bits; SeedSequence keeps neighbouring keys apart.
    """
    word = np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint32)[0]
    return max(1, int(word) >> 1)


def counter_uniform(seeds: np.ndarray, counters: np.ndarray | int, stream: int = 0) -> np.ndarray:
    """Uniform numbers in [0, 1): float64 [N] for seeds [N] and counters [N] (or one for all).

    SplitMix64 (Steele et al. 2014) of (seed, stream, counter): the n-th number of an episode
    needs no stored generator and no loop over environments.
    """
    with np.errstate(over="ignore"):
        state = np.asarray(seeds).astype(np.uint64) * _GOLDEN + np.uint64(stream)
        state = _mix(state) + np.asarray(counters).astype(np.uint64) * _GOLDEN
        return (_mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))
