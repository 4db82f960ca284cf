"""The core's spikes equal the quantised twin's and the readable step's, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.encoders import EncoderConfig, make_encoder
from agents.encoders.initial import generated_frames
from errors import UserError
from neuromorphic import (
    CompileError,
    CoreSpec,
    EventCore,
    LayerSpec,
    NetworkSpec,
    QuantConfig,
    compile_encoder,
    quantise,
)
from neuromorphic.lif import LifParams, LifState, LifStep
from neuromorphic.nir_export import export_nir
from neuromorphic.quantise import PAYLOAD_UNIT
from neuromorphic.spec import with_changes
from neuromorphic.twin import QuantisedTwin


def random_layer(
    rng, kind, out, reads, kernel=(1, 1), stride=(1, 1), padding=(0, 0), first=False, crop=(0,) * 4
):
    shape = (out, reads, *kernel) if kind == "conv" else (out, reads)
    fan_in = int(np.prod(shape[1:]))
    # strong enough that neurons fire, leak and threshold different per channel
    weight = rng.normal(size=shape) * rng.uniform(1, 4) / np.sqrt(fan_in)
    bias = rng.normal(size=out) * rng.choice([0.0, 0.1, 0.6])
    return LayerSpec(
        kind,
        weight,
        bias,
        leak=rng.choice([0.0, 1.0, rng.uniform(0.3, 1.0)], size=out),
        threshold=rng.uniform(0.3, 1.5, out),
        stride=stride,
        padding=padding,
        input_scale=1 / 255 if first else 1.0,
        crop=crop,
    )


def random_network(rng, depth, with_dense, time_steps, graded=False):
    shape = (int(rng.integers(1, 3)), int(rng.integers(4, 12)), int(rng.integers(4, 12)))
    layers, start = [], shape
    for number in range(depth):
        out = int(rng.integers(1, 9))
        if with_dense and number == depth - 1:
            layer = random_layer(rng, "dense", out, int(np.prod(shape)), first=number == 0)
        else:
            # cut a row or a column off here and there, where something is left
            crop = [int(n) for n in rng.integers(0, 2, 4) * (rng.random() < 0.5)]
            crop = tuple(c * (shape[1 + i // 2] > 3) for i, c in enumerate(crop))
            left = (shape[1] - sum(crop[:2]), shape[2] - sum(crop[2:]))
            kernel = tuple(int(rng.integers(1, min(4, n) + 1)) for n in left)
            stride = tuple(int(n) for n in rng.integers(1, 4, 2))
            padding = tuple(int(n) for n in rng.integers(0, 3, 2))
            layer = random_layer(
                rng, "conv", out, shape[0], kernel, stride, padding, number == 0, crop
            )
        layers.append(layer)
        shape = layer.output_shape(shape)
    order = str(rng.choice(["chw", "hwc"]))
    return NetworkSpec(layers, start, time_steps=time_steps, latent_order=order, graded=graded)


def random_frames(rng, spec, batch):
    """Images that repeat, move a little, are black or full: what frame differences must survive."""
    shape = (batch, spec.time_steps, *spec.input_shape)
    frames = rng.integers(0, 256, shape).astype(np.uint8)
    frames[rng.random(shape) < rng.random()] = 0
    for b in range(batch):
        for t in range(spec.time_steps):
            kind = rng.integers(5)
            if kind == 0 and t:
                frames[b, t] = frames[b, t - 1]
            elif kind == 1 and t:
                frames[b, t] = np.roll(frames[b, t - 1], 1, axis=-1)
            elif kind == 2:
                frames[b, t] = int(rng.choice([0, 255]))
            elif kind == 3 and t:
                frames[b, t] = frames[b, t - 1]
                frames[b, t, 0, 0, 0] ^= 1
    return frames


def assert_core_equals_twin(spec, frames, config, core=None):
    core = core or CoreSpec.ideal()
    twin = QuantisedTwin(spec, config)
    with torch.no_grad():
        expected = twin(torch.from_numpy(frames))
    machine = EventCore(compile_encoder(spec, core, config))
    result = machine.run(frames, record=True)
    for number, spikes in enumerate(expected.spikes):
        np.testing.assert_array_equal(result.layer_raster(number), spikes.numpy())
        np.testing.assert_array_equal(result.spikes[:, number], (spikes > 0).flatten(1).sum(1))
        layer = result.ledger.layers[number]
        assert layer["current_wrap"] == expected.wraps[number]
        assert layer["membrane_saturation"] == expected.saturations[number]
    np.testing.assert_array_equal(result.latent, expected.latent.numpy())
    return machine, result


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    depth=st.integers(1, 3),
    with_dense=st.booleans(),
    time_steps=st.integers(1, 5),
    bits=st.sampled_from([2, 5, 8]),
    scale=st.sampled_from(["channel", "layer"]),
    headroom=st.sampled_from([1.0, 0.3, 0.02]),
    synapses=st.sampled_from([1, 2]),
    graded=st.booleans(),
)
def test_every_spike_of_random_networks_equals_the_twin(
    seed, depth, with_dense, time_steps, bits, scale, headroom, synapses, graded
):
    rng = np.random.default_rng(seed)
    spec = random_network(rng, depth, with_dense, time_steps, graded)
    config = QuantConfig(bits, "channel" if graded else scale, headroom, synapses=synapses)
    assert_core_equals_twin(spec, random_frames(rng, spec, 3), config)


@pytest.mark.parametrize("graded", [False, True])
def test_the_property_sees_spikes_and_overflows(graded):
    """The random networks above do fire, wrap and saturate: the equality is not one of zeros."""
    spikes = wraps = clips = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        spec = random_network(rng, 2, bool(seed % 2), 4, graded)
        _, result = assert_core_equals_twin(
            spec, random_frames(rng, spec, 2), QuantConfig(headroom=0.05)
        )
        spikes += result.ledger["spike"]
        wraps += result.ledger["current_wrap"]
        clips += result.ledger["membrane_saturation"]
    assert spikes > 2000
    assert wraps > 100
    assert clips > 100


@pytest.mark.parametrize("synapses", [1, 2])
def test_the_core_equals_the_readable_step(synapses):
    """Layer by layer through lif.py, with dense matrices unrolled from the kernels."""
    rng = np.random.default_rng(5)
    spec = random_network(rng, 2, False, 6)
    frames = random_frames(rng, spec, 2)
    network = quantise(spec, QuantConfig(headroom=0.1, synapses=synapses))
    result = EventCore(compile_encoder(network, CoreSpec.ideal())).run(frames, record=True)
    x = frames.astype(np.int64)
    for number, layer in enumerate(network.layers):
        shape = spec.shapes()[number + 1]
        per_neuron = [np.repeat(a, shape[1] * shape[2]) for a in (layer.dv, layer.vth)]
        bias = [
            np.repeat(a, shape[1] * shape[2]) for a in (layer.bias_mantissa, layer.bias_exponent)
        ]
        step = LifStep(LifParams(4095, *per_neuron, *bias))
        out = np.zeros((*x.shape[:2], *shape), np.int64)
        for b in range(len(x)):
            state = LifState.zeros(int(np.prod(shape)))
            for t in range(x.shape[1]):
                top, bottom, left, right = layer.crop
                part = x[b, t][:, top : x.shape[3] - bottom, left : x.shape[4] - right]
                patches = torch.nn.functional.conv2d(
                    torch.from_numpy(part[None].copy()).double(),
                    torch.from_numpy(layer.weight).double(),
                    stride=layer.stride,
                    padding=layer.padding,
                )
                drive = (patches.numpy()[0].astype(np.int64) >> layer.drop) << (layer.shift - 6)
                out[b, t] = step(state, drive.ravel()).reshape(shape)
        np.testing.assert_array_equal(result.layer_raster(number), out)
        x = out


@pytest.mark.parametrize("graded", [False, True])
def test_results_do_not_depend_on_what_ran_before(graded):
    rng = np.random.default_rng(1)
    spec = random_network(rng, 2, True, 4, graded)
    program = compile_encoder(spec, CoreSpec.ideal())
    frames = random_frames(rng, spec, 6)
    together = EventCore(program).run(frames)
    core = EventCore(program)
    for i in (3, 0, 5, 1, 1, 4, 2):
        alone = core.run(frames[i])
        fresh = EventCore(program).run(frames[i])
        np.testing.assert_array_equal(alone.latent, together.latent[i])
        np.testing.assert_array_equal(alone.spikes, together.spikes[i])
        assert alone.ledger == fresh.ledger


@pytest.mark.parametrize("core", [CoreSpec.loihi1(), CoreSpec.loihi2()])
def test_the_core_spec_does_not_change_spikes(core):
    rng = np.random.default_rng(2)
    spec = random_network(rng, 2, True, 4)
    assert_core_equals_twin(spec, random_frames(rng, spec, 3), QuantConfig(synapses=1), core)


def test_rises_and_falls_by_hand():
    frames = np.array([[[10, 200]], [[13, 0]], [[13, 255]]], np.uint8)  # [T, 1, 2]
    expected = [
        [[10, 200], [0, 0], [0, 0]],
        [[13, 0], [3, 0], [0, 200]],
        [[13, 255], [0, 255], [0, 0]],
    ]
    np.testing.assert_array_equal(with_changes(frames)[:, :, 0], expected)
    np.testing.assert_array_equal(with_changes(np.stack([frames, frames]))[1, :, :, 0], expected)


def test_graded_spikes_by_hand():
    """One neuron a layer, thresholds of 1: what is above them, in 32nds, at most 255."""
    layers = [
        LayerSpec("dense", [[1.0]], [0.0], [0.5], [1.0], input_scale=1 / 16),
        LayerSpec("dense", [[2.0]], [0.0], [0.0], [1.0]),
    ]
    spec = NetworkSpec(layers, (1, 1, 1), time_steps=4, graded=True)
    frames = np.array([8, 20, 0, 255], np.uint8).reshape(1, 4, 1, 1, 1)
    # v: 1/2; 1/4 + 5/4 = 3/2, 1/2 above; 1 left, 1/2; 1/4 + 255/16 = 16 3/16, too much for 8 bits
    # drive above: 0, 1, 0, 2 * 255 / 32
    _, result = assert_core_equals_twin(spec, frames, QuantConfig())
    assert result.layer_raster(0).ravel().tolist() == [0, 16, 0, 255]
    assert result.layer_raster(1).ravel().tolist() == [0, 0, 0, 255]
    assert result.latent.tolist() == [[255]]
    assert result.ledger["spike"] == 3
    assert result.ledger.layers[1]["synaptic_op"] == 2 * 2  # of each weight two synapses


@pytest.mark.parametrize(("synapses", "error"), [(1, 0.3), (2, 0.03)])
@pytest.mark.parametrize("size", ["der", "nature"])
def test_an_encoder_with_graded_spikes(size, synapses, error):
    """Core and twin agree bit for bit, and nearly with the float encoder."""
    rng = torch.Generator().manual_seed(5)
    encoder = make_encoder(EncoderConfig(graded=True, size=size), rng)
    frames = generated_frames(6, rng)
    program = compile_encoder(encoder, CoreSpec.ideal(), QuantConfig(synapses=synapses))
    spec = program.network.spec
    _, result = assert_core_equals_twin(spec, frames.numpy(), program.network.config)
    assert result.ledger.overflows == 0
    latent = encoder(frames).latent.detach().numpy()
    assert np.abs(result.latent * PAYLOAD_UNIT - latent).mean() < error * latent.mean()


def test_gradients_of_the_graded_twin_are_about_those_of_the_float_encoder():
    """Not just those: the surrogates differ in shape."""
    rng = torch.Generator().manual_seed(5)
    encoder = make_encoder(EncoderConfig(graded=True, fused=False), rng)
    frames = generated_frames(4, rng)
    twin = QuantisedTwin(compile_encoder(encoder).network.spec)
    (encoder(frames).latent ** 2).sum().backward()
    ((twin(frames).latent * PAYLOAD_UNIT) ** 2).sum().backward()
    for theirs, own in zip(encoder.layers, twin.layers):
        expected = theirs.weight.grad.permute(3, 2, 0, 1).flatten()
        alike = torch.cosine_similarity(expected.double(), own.weight.grad.flatten(), 0)
        assert alike > 0.9


def test_graded_spikes_where_they_cannot_be(tmp_path):
    encoder = make_encoder(EncoderConfig(graded=True))
    with pytest.raises(CompileError, match="graded spikes"):
        compile_encoder(encoder, CoreSpec.loihi1())
    with pytest.raises(CompileError, match="graded spikes"):
        compile_encoder(encoder, CoreSpec.loihi2(), QuantConfig(scale="layer"))
    with pytest.raises(UserError, match="NIR"):
        export_nir(encoder, tmp_path / "encoder.nir")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("synapses", "error"), [(1, 0.15), (2, 0.01)])
def test_an_encoder_that_sees_changes(synapses, error):
    """Core and twin agree bit for bit, and nearly with the float encoder."""
    rng = torch.Generator().manual_seed(5)
    encoder = make_encoder(EncoderConfig(changes=True), rng)
    frames = generated_frames(16, rng)
    program = compile_encoder(encoder, CoreSpec.loihi2(), QuantConfig(synapses=synapses))
    spec = program.network.spec
    assert (spec.input, spec.input_shape, spec.frame_shape) == (
        "frames_and_changes", (3, 84, 84), (84, 84)
    )  # fmt: skip
    _, result = assert_core_equals_twin(spec, frames.numpy(), program.network.config)
    assert result.ledger.overflows == 0
    latent = encoder(frames).latent.detach().numpy()
    assert np.abs(result.latent - latent).mean() < error * latent.mean()


def test_core_and_twin_refuse_what_is_no_frame():
    """Also where the frames are first made into channels of frames and changes."""
    program = compile_encoder(make_encoder(EncoderConfig(changes=True)))
    core, twin = EventCore(program), QuantisedTwin(program.network.spec)
    for wrong in (
        np.zeros((2, 4, 84, 84), np.float32),
        np.zeros((2, 3, 84, 84), np.uint8),
        np.zeros((2, 4, 3, 84, 84), np.uint8),
    ):
        for run in (core.run, lambda frames: twin(torch.from_numpy(frames))):
            with pytest.raises(UserError, match="frames are"):
                run(wrong)


def test_changes_are_not_billed_to_the_dense_twin():
    """The ReLU twin reads the same four frames whether the spiking one sees changes or not."""
    macs = [
        compile_encoder(make_encoder(EncoderConfig(changes=changes))).network.spec.dense_macs()
        for changes in (False, True)
    ]
    assert macs[0] == macs[1]


def test_the_der_encoder_on_frames():
    rng = np.random.default_rng(3)
    spec = NetworkSpec(
        [
            random_layer(rng, "conv", 32, 1, (5, 5), (5, 5), first=True),
            random_layer(rng, "conv", 64, 32, (5, 5), (5, 5)),
        ],
        (1, 84, 84),
    )
    frames = np.full((9, 84, 84), 87, np.uint8)
    for t, frame in enumerate(frames):
        frame[30 + t : 38 + t, 40 - t : 48 - t] = 236
        frame[:10] = rng.integers(0, 256, (10, 84))
    stacks = np.stack([frames[i : i + 4] for i in range(6)])
    _, result = assert_core_equals_twin(spec, stacks, QuantConfig())
    assert result.latent.shape == (6, 576)
    assert result.ledger["current_wrap"] == 0
