"""Bytes are counted once, and the benchmark's methods all have the same."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.footprint import held_bytes

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import continual


def test_arrays_count_once_however_they_are_reached():
    class Holder:
        def __init__(self):
            self.a = np.zeros(100, np.float32)
            self.views = (self.a[:10], self.a[50:])
            self.more = {"t": torch.zeros(3, dtype=torch.float64), "me": self, "text": "abc"}

    assert held_bytes(Holder()) == 400 + 24
    assert held_bytes(None) == 0


@pytest.mark.parametrize("method", ["engram", "engram_online_ewc", "si"])
def test_methods_of_the_benchmark_have_equal_bytes(method):
    args = argparse.Namespace(
        steps=5_000, games=("krull", "up_n_down"), capacity=8_000, overrides=()
    )
    plain = sum(continual.held(continual.of_method("finetune", 0, args)).values())
    own = continual.held(continual.of_method(method, 0, args))
    assert sum(own.values()) > own["replay"]
    assert (own["consolidation"] > 0) == (method != "engram")
    assert 0.98 * plain < sum(own.values()) <= plain
