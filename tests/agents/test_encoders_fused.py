"""The compiled CPU kernels against plain torch: spikes equal, gradients to rounding."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.encoders import EncoderConfig, kernels, make_encoder
from agents.encoders.geometry import conv_shapes
from agents.encoders.initial import generated_frames
from agents.encoders.patches import pixels


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other on a busy machine cost more than these tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frames(count: int) -> torch.Tensor:
    """Half static or slow (unchanged patches), half noise (every patch changes)."""
    moving = generated_frames(count - count // 2, rng(1))
    noise = torch.randint(0, 256, (count // 2, 4, 84, 84), generator=rng(2), dtype=torch.uint8)
    return torch.cat([moving, noise])


@pytest.mark.parametrize("size", ["der", "fine", "nature"])
def test_no_patch_is_read_beyond_the_pixels(size):
    first = conv_shapes(size, 1.0, 1)[0]
    obs = frames(2)
    row = pixels(obs, first)
    assert np.array_equal(row[: obs.numel()], obs.reshape(-1).numpy())
    corner = first.crop + first.stride * np.arange(first.out_size)
    ends = (corner[:, None, None] + np.arange(first.kernel)) * 84 + corner[:, None] + 8
    assert (2 * 4 - 1) * 84 * 84 + ends.max() <= len(row)  # eight at a time
    assert (len(row) > obs.numel()) == (size == "fine")  # the others need no copy


def run(encoder, forward, obs):
    """Encoding and all gradients of a loss that reaches latent and rates unevenly."""
    encoder.zero_grad()
    encoding = forward(obs)
    weight = torch.randn(encoding.latent.shape, generator=rng(3))
    loss = (encoding.latent * weight).sum()
    if encoding.rates.requires_grad:
        loss = loss + (encoding.rates * torch.arange(1.0, len(encoding.rates) + 1) * 300).sum()
    loss.backward()
    return encoding, {name: p.grad.clone() for name, p in encoder.named_parameters()}


def assert_same(one, other):
    (a, grads_a), (b, grads_b) = one, other
    torch.testing.assert_close(a.latent, b.latent, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(a.rates, b.rates, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(a.spikes, b.spikes, rtol=1e-5, atol=1e-3)
    for name, grad in grads_b.items():
        scale = grad.abs().max().item()
        torch.testing.assert_close(grads_a[name], grad, rtol=0, atol=1e-4 * scale, msg=name)


CASES = [
    {},
    {"surrogate": "boxcar", "surrogate_width": 1.0, "surrogate_peak": 0.5},
    {"size": "fine"},
    {"size": "nature"},
    {"changes": True},
    {"size": "nature", "changes": True},
    {"width": 0.5, "changes": True},
    {"graded": True},
    {"graded": True, "size": "nature", "changes": True},
    {"graded": True, "surrogate": "boxcar", "width": 1.5, "threshold_init": 0.3},
    {"width": 0.5, "leak_init": 0.9},  # 16 and 32 channels: blocks of one vector
    {"width": 1.5, "threshold_init": 0.3},  # 48 and 96 channels: blocks and a rest
]


@pytest.mark.parametrize("values", CASES, ids=str)
def test_event_kernels_equal_plain_torch(values):
    encoder = make_encoder(EncoderConfig(**values), rng())
    assert encoder.plan is not None
    obs = frames(6)  # not a multiple of the kernels' block of samples
    assert_same(run(encoder, encoder.forward, obs), run(encoder, encoder.forward_reference, obs))


@pytest.mark.parametrize("size", ["der", "fine"])
def test_patch_products_equal_convolutions(size):
    encoder = make_encoder(EncoderConfig(kind="conv", size=size), rng())
    assert encoder.patches
    obs = frames(6)
    assert_same(run(encoder, encoder.forward, obs), run(encoder, encoder.forward_reference, obs))


@pytest.mark.parametrize("changes", [False, True])
def test_fused_lif_of_the_residual_net_equals_plain_torch(changes):
    obs = frames(1)
    results = []
    for fused in (True, False):
        config = EncoderConfig(size="impala", fused=fused, changes=changes)
        encoder = make_encoder(config, rng())
        results.append(run(encoder, encoder.forward, obs))
    assert_same(*results)


def test_narrow_channels_and_k_wta_take_the_plain_path():
    assert make_encoder(EncoderConfig(width=0.25), rng()).plan is None
    assert make_encoder(EncoderConfig(k_wta=0.05), rng()).plan is None
    assert make_encoder(EncoderConfig(fused=False), rng()).plan is None


@pytest.mark.parametrize("values", [{}, {"changes": True}, {"graded": True}], ids=str)
@pytest.mark.parametrize("size", ["der", "fine", "nature"])
def test_with_and_without_gradient_give_the_same_bits(size, values):
    encoder = make_encoder(EncoderConfig(size=size, **values), rng())
    obs = frames(5)
    with_gradient = encoder(obs)
    with torch.no_grad():
        without = encoder(obs)
    assert torch.equal(with_gradient.latent, without.latent)
    assert torch.equal(with_gradient.rates, without.rates)
    one_by_one = torch.cat([encoder(row[None]).latent for row in obs])
    assert torch.equal(one_by_one, without.latent)


def test_expanded_gradients_and_strided_frames_are_read_right():
    encoder = make_encoder(EncoderConfig(), rng())
    obs = frames(8)
    sums = []
    for forward in (encoder.forward, encoder.forward_reference):
        encoder.zero_grad()
        forward(obs[::2]).latent.sum().backward()  # the gradient is one number, expanded
        sums.append(encoder.layers[0].weight.grad.clone())
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-4, atol=1e-4 * sums[1].abs().max().item())


def test_same_inputs_same_gradient_bits():
    encoder = make_encoder(EncoderConfig(), rng())
    (_, a), (_, b) = (run(encoder, encoder.forward, frames(6)) for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_compiled_caches_know_the_intrinsics():
    """numba reuses a compiled kernel until its own file changes, whatever its imports do."""
    sources = [Path(kernels.__file__).with_name(n) for n in ("vector.py", "vector_lif.py")]
    stamp = hashlib.sha256(b"".join(s.read_bytes() for s in sources)).hexdigest()[:12]
    for name in ("kernels.py", "fused_lif.py", "patches.py"):
        text = Path(kernels.__file__).with_name(name).read_text()
        assert f"# vector*.py {stamp}" in text, f"write '# vector*.py {stamp}' into {name}"
