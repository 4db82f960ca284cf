"""The quantiser: ranges, promises and refusals; and the twin learns through it."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from errors import UserError
from neuromorphic import CompileError, LayerSpec, NetworkSpec, QuantConfig, quantise
from neuromorphic.lif import synaptic_drive
from neuromorphic.quantise import DRIVE_MAX, quantise_layer, worst_drive
from neuromorphic.twin import QuantisedTwin
from neuromorphic.weights import store_mantissa


def dense(weight, bias=0.0, leak=0.9, threshold=1.0, **more):
    weight = np.atleast_2d(np.asarray(weight, float))
    full = [np.broadcast_to(np.asarray(x, float), len(weight)) for x in (bias, leak, threshold)]
    return LayerSpec("dense", weight, *full, **more)


def test_golden_integers_of_a_small_layer():
    layer = quantise_layer(
        dense([[1.0, -0.5]], bias=0.25, leak=0.75, threshold=2.0), 2, 1, QuantConfig(synapses=1)
    )
    # the coarsest limits: weights 127 levels, threshold 17 bits, bias 13 bits << 7
    unit = 1.0 / layer.scale[0]
    assert layer.weight.tolist() == [[127, -64]]
    assert layer.dv.tolist() == [1024]
    assert layer.exponent == 7
    assert layer.vth[0] == round(2.0 * unit)
    assert abs(layer.bias[0] - 0.25 * unit * 64) <= 2 ** layer.bias_exponent[0] / 2


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 255]),
    st.sampled_from(["channel", "layer"]),
    st.integers(2, 8),
)
def test_no_input_can_wrap_at_full_headroom(seed, x_max, scale, bits):
    rng = np.random.default_rng(seed)
    out, reads = rng.integers(1, 12, 2)
    spec = dense(
        rng.normal(size=(out, reads)) * 10.0 ** rng.uniform(-3, 3, (out, 1)),
        rng.normal(size=out) * 10.0 ** rng.uniform(-3, 1),
        rng.uniform(0, 1, out),
        10.0 ** rng.uniform(-2, 2, out),
    )
    config = QuantConfig(bits, scale, synapses=1)
    # weights that vanish beside their threshold are refused, which another test is about
    assume(np.abs(spec.weight).max() > 0.3 * spec.threshold.max() / reads)
    layer = quantise_layer(spec, 1, x_max, config)
    levels = (1 << (bits - 1)) - 1
    assert np.abs(layer.weight.astype(int)).max() <= levels
    drive = worst_drive(layer.weight.astype(np.int64), x_max) << (layer.exponent + 1)
    assert (drive <= DRIVE_MAX).all()
    assert (layer.vth < 2**17).all()
    assert (np.abs(layer.bias_mantissa) <= 4095).all()
    assert ((layer.bias_exponent >= 0) & (layer.bias_exponent <= 7)).all()
    assert ((layer.dv >= 0) & (layer.dv <= 4095)).all()
    # what the chip's synapse memory would return is what we assumed
    np.testing.assert_array_equal(store_mantissa(layer.mantissa, bits), layer.mantissa)
    # every parameter is its float value to within half a unit of its format
    error = layer.weight * layer.scale[:, None] * 2.0 ** (layer.exponent + 1) - spec.weight
    half = layer.scale * 2.0**layer.exponent * (1 + 1e-9)
    assert (np.abs(error) <= half[:, None]).all()
    assert (np.abs(layer.vth * layer.scale - spec.threshold) <= layer.scale * 0.51).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_two_synapses_are_what_a_chip_would_sum(bits):
    """Coarse and fine mantissas at exponents a chip has give the drive that is simulated."""
    rng = np.random.default_rng(bits)
    spec = dense(rng.normal(size=(6, 40)), threshold=30.0, input_scale=1 / 255)
    one, two = (quantise_layer(spec, 1, 255, QuantConfig(bits, synapses=n)) for n in (1, 2))
    coarse, fine = two.mantissa
    assert two.drop > 0
    assert fine.any()
    for mantissa in (coarse, fine):
        np.testing.assert_array_equal(store_mantissa(mantissa, bits), mantissa)
    x = rng.integers(0, 256, 40)
    exponent = two.stored_exponent
    drive = synaptic_drive(coarse, exponent, x) + synaptic_drive(fine, exponent - bits, x, "sum")
    np.testing.assert_array_equal(drive, (two.weight.astype(np.int64) @ x) >> two.drop)
    exact = spec.weight / 255 @ x
    worse = np.abs((one.weight.astype(np.int64) @ x) * one.scale * 2.0**one.level_exponent - exact)
    better = np.abs((drive + 0.5) * two.scale - exact)
    assert better.mean() < worse.mean() / 4
    assert two.bias.tolist() == [32] * 6  # half a unit: the mean of what is dropped


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_bit_planes_lose_nothing_with_one_synapse(bits):
    """Each plane's group at its own exponent, read as any emulator does, sums to q x."""
    rng = np.random.default_rng(bits)
    config = QuantConfig(bits, synapses=1)
    layer = quantise_layer(dense(rng.normal(size=(6, 40)), input_scale=1 / 255), 1, 255, config)
    x = rng.integers(0, 256, 40)
    for reading in ("weight", "sum"):
        drive = sum(
            synaptic_drive(layer.mantissa, layer.stored_exponent + k, (x >> k) & 1, reading)
            for k in range(8)
        )
        expected = (layer.weight.astype(np.int64) @ x) * 2.0**layer.level_exponent
        np.testing.assert_array_equal(drive, expected)


def test_channel_scales_use_all_levels_of_every_channel():
    weight = np.array([[1.0, -0.3], [0.001, 0.0004]])
    per_channel, per_layer = (
        quantise_layer(
            dense(weight, threshold=[1.0, 0.001]), 2, 1, QuantConfig(scale=scale, synapses=1)
        )
        for scale in ("channel", "layer")
    )
    assert np.abs(per_channel.weight).max(1).tolist() == [127, 127]
    assert np.abs(per_layer.weight).max(1).tolist() == [127, 0]


def test_refusals_name_limit_layer_and_mend():
    with pytest.raises(CompileError, match=r"layer 3 breaks the limit 'weight range'.*lower"):
        quantise_layer(dense([[1e-6]], threshold=1e3), 3, 1)
    with pytest.raises(CompileError, match=r"layer 2 breaks the limit 'drive accumulator'"):
        quantise_layer(dense(np.ones((1, 70000))), 2, 1, QuantConfig(headroom=1e-6))
    with pytest.raises(CompileError, match="weight bits"):
        QuantConfig(weight_bits=9)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"kind": "pool"}, "pool"),
        ({"weight": np.full((2, 3), np.nan)}, "weight"),
        ({"bias": np.zeros(3)}, "bias"),
        ({"leak": np.full(2, 1.5)}, "leak"),
        ({"threshold": np.full(2, -1.0)}, "threshold"),
        ({"input_scale": 0.0}, "input_scale"),
    ],
)
def test_layers_that_the_core_cannot_run_are_refused(change, word):
    good = {
        "kind": "dense",
        "weight": np.ones((2, 3)),
        "bias": np.zeros(2),
        "leak": np.ones(2),
        "threshold": np.ones(2),
    }
    LayerSpec(**good)
    with pytest.raises(UserError, match=word):
        LayerSpec(**{**good, **change})


def test_networks_that_do_not_chain_are_refused():
    with pytest.raises(UserError, match="layer 2: dense layer reads 5"):
        NetworkSpec([dense(np.ones((4, 3))), dense(np.ones((2, 5)))], (3, 1, 1))
    conv = LayerSpec("conv", np.ones((1, 1, 5, 5)), [0.0], [1.0], [1.0])
    with pytest.raises(UserError, match="layer 1: conv kernel"):
        NetworkSpec([conv], (1, 4, 4))


def test_gradients_reach_every_parameter_through_the_integers():
    rng = np.random.default_rng(0)
    conv = LayerSpec("conv", rng.normal(size=(4, 1, 3, 3)), np.full(4, 0.1), np.full(4, 0.8),
                     np.ones(4), stride=(2, 2), input_scale=1 / 255)  # fmt: skip
    spec = NetworkSpec([conv, dense(rng.normal(size=(3, 36)) / 3)], (1, 8, 8))
    twin = QuantisedTwin(spec)
    frames = torch.from_numpy(rng.integers(0, 256, (5, 4, 8, 8)).astype(np.uint8))
    out = twin(frames)
    assert out.latent.sum() > 0
    out.latent.square().sum().backward()
    for name, parameter in twin.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_twin_learns():
    """Quantisation-aware training lowers a regression loss on latents."""
    torch.set_num_threads(1)  # two threads only wait for each other at this size
    rng = np.random.default_rng(1)
    conv = LayerSpec("conv", rng.normal(size=(6, 1, 3, 3)) * 0.5, np.zeros(6), np.full(6, 0.8),
                     np.ones(6), stride=(3, 3), input_scale=1 / 255)  # fmt: skip
    spec = NetworkSpec([conv, dense(rng.normal(size=(2, 54)) * 0.1)], (1, 9, 9))
    twin = QuantisedTwin(spec, QuantConfig(weight_bits=6))
    frames = torch.from_numpy(rng.integers(0, 256, (16, 4, 9, 9)).astype(np.uint8))
    frames[8:, :, :5] = 0
    target = torch.zeros(16, 2, dtype=torch.float64)
    target[:8, 0], target[8:, 1] = 3.0, 3.0
    optimiser = torch.optim.Adam(twin.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        loss = (twin(frames).latent - target).square().mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert min(losses[-10:]) < 0.5 * losses[0]


def test_quantise_keeps_the_specification():
    spec = NetworkSpec([dense(np.ones((2, 4)))], (1, 2, 2), time_steps=3)
    network = quantise(spec)
    assert network.spec is spec
    assert network.config == QuantConfig()
    assert len(network.layers) == 1


def test_compensated_rounding_keeps_the_answer_to_smooth_images():
    """Each weight stays within a level; the kernel's error on slow gradients shrinks."""
    rng = np.random.default_rng(5)
    shape = (64, 3, 5, 5)
    spec = LayerSpec("conv", rng.normal(size=shape), *(np.full(64, x) for x in (0.0, 0.9, 4.0)))
    y, x = np.mgrid[:5, :5] / 4
    images = np.stack([np.ones((5, 5)), x, y, 1 - x * y])  # [4, 5, 5]
    error = {}
    for rounding in ("nearest", "compensated"):
        layer = quantise_layer(spec, 2, 1, QuantConfig(rounding=rounding, synapses=1))
        unit = (layer.scale * 2.0 ** (layer.exponent + 1))[:, None, None, None]
        off = layer.weight - spec.weight / unit
        assert np.abs(off).max() < 1
        error[rounding] = np.sqrt((np.einsum("ocyx,iyx->oci", off, images) ** 2).mean())
    assert error["compensated"] < error["nearest"] / 3


def test_rounding_is_one_of_two():
    with pytest.raises(ValueError, match="rounding"):
        QuantConfig(rounding="up")
