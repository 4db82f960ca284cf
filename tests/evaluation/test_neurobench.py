"""The network that NeuroBench is shown fires as the core does; its counts agree with the ledger."""

import sys

import numpy as np
import pytest
import torch

from agents.encoders import EncoderConfig, make_encoder
from errors import UserError
from evaluation.neurobench_metrics import IntegerNetwork, Stored, neurobench_metrics
from neuromorphic import CoreSpec, EventCore, QuantConfig, compile_encoder


@pytest.fixture(scope="module", params=[{}, {"changes": True}, {"graded": True}], ids=str)
def program(request):
    encoder = make_encoder(EncoderConfig(**request.param), torch.Generator().manual_seed(3))
    return compile_encoder(encoder, CoreSpec.loihi2(), QuantConfig(synapses=1))


@pytest.fixture(scope="module")
def observations():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (4, 4, 84, 84)).astype(np.uint8)


def test_spike_counts_are_those_of_the_core(program, observations):
    counts = IntegerNetwork(program.network)(torch.from_numpy(observations))
    latent = EventCore(program).run(observations).latent
    np.testing.assert_array_equal(counts.permute(0, 2, 3, 1).flatten(1).numpy(), latent)
    assert latent.any()


def test_footprint_has_one_byte_a_weight(program):
    stored = Stored(program.network.layers)
    weights = [b for name, b in stored.named_buffers() if name.startswith("weight")]
    assert [w.element_size() for w in weights] == [1, 1]
    first = 3 if program.network.spec.input == "frames_and_changes" else 1
    assert sum(w.numel() for w in weights) == 32 * first * 25 + 64 * 32 * 25


def test_library_and_ledger_count_the_same(program, observations):
    pytest.importorskip("neurobench")
    numbers = neurobench_metrics(program, observations)
    effective = numbers["Effective_MACs"] + numbers["Effective_ACs"]
    # the library leaves out weights that are zero
    assert effective == pytest.approx(numbers["ledger_synaptic_ops"], rel=0.05)
    assert effective <= numbers["ledger_synaptic_ops"]


def test_without_the_library_there_is_one_clear_line(program, observations, monkeypatch):
    monkeypatch.setitem(sys.modules, "neurobench", None)  # as if it were not there
    with pytest.raises(UserError, match="pip install"):
        neurobench_metrics(program, observations)
