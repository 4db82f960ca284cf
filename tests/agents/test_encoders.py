"""The encoders as the rest of the suite sees them: shapes, rates, semantics, errors."""

import copy

import numpy as np
import pytest
import torch

from agents.encoders import EncoderConfig, make_encoder
from agents.encoders.config import KINDS, SIZES
from agents.encoders.initial import generated_frames
from agents.encoders.lif import LIF, k_winners
from errors import UserError


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other on a busy machine cost more than these tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


LATENT = {"der": 576, "fine": 3136, "nature": 3136, "impala": 3872}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def catch_frames(count: int) -> torch.Tensor:
    """Mostly black frames: a falling ball and a paddle."""
    draw = np.random.default_rng(0)
    frames = np.zeros((count, 4, 84, 84), np.uint8)
    for i in range(count):
        x, y, paddle = draw.integers(0, 10), draw.integers(0, 6), draw.integers(0, 10)
        for t in range(4):
            frames[i, t, (y + t) * 8 : (y + t + 1) * 8, x * 8 : x * 8 + 8] = 255
            frames[i, t, 76:, paddle * 8 : paddle * 8 + 8] = 255
    return torch.from_numpy(frames)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_gradients(kind, size):
    encoder = make_encoder(EncoderConfig(kind=kind, size=size), rng())
    encoding = encoder(generated_frames(3, rng(1)))
    layers = len(encoder.layer_names)
    assert encoding.latent.shape == (3, encoder.latent_dim) == (3, LATENT[size])
    assert encoding.rates.shape == encoding.spikes.shape == (layers,)
    assert encoding.rates.requires_grad == (kind == "spiking")
    assert not encoding.spikes.requires_grad
    (encoding.latent**2).sum().backward()
    for name, p in encoder.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, name


@pytest.mark.parametrize("size", ["der", "fine", "nature"])
@pytest.mark.parametrize("frames", [generated_frames(16, rng(7)), catch_frames(16)])
def test_activity_starts_between_a_few_and_fifteen_percent(size, frames):
    for seed in range(3):
        encoder = make_encoder(EncoderConfig(size=size), rng(seed))
        rates = encoder(frames).rates
        assert rates.min() > 0.03
        assert rates.max() < 0.17


def test_spike_counts_and_latent_agree():
    encoder = make_encoder(EncoderConfig(), rng())
    encoding = encoder(generated_frames(5, rng(1)))
    per_decision = encoding.latent.sum(1).mean()
    assert encoding.spikes[-1].item() == pytest.approx(per_decision.item(), rel=1e-5)
    latent = encoding.latent.detach()
    assert torch.equal(latent, latent.round())
    assert latent.max() <= 4


def test_hard_reset_and_strict_threshold():
    lif = LIF(1, EncoderConfig(leak_init=0.5, threshold_init=1.0))
    drive = torch.tensor([1.0, 0.5, 0.6, 0.9]).view(4, 1, 1)
    # v: 1.0 (not above 1), 1.0 (not above), 1.1 -> spike and reset, 0.9
    assert lif(drive)[0].flatten().tolist() == [0.0, 0.0, 1.0, 0.0]


def test_surrogate_gradients_by_hand():
    lif = LIF(1, EncoderConfig(leak_init=0.5, threshold_init=1.0, surrogate_width=0.5))
    drive = torch.tensor([0.8, 0.8, 0.0, 0.0]).view(4, 1, 1).requires_grad_()
    lif(drive)[0][1].sum().backward()  # v_2 = 0.4 + 0.8 = 1.2; phi = 1 - 0.2 / 0.5 = 0.6
    assert drive.grad.flatten().tolist() == pytest.approx([0.3, 0.6, 0.0, 0.0], abs=1e-6)
    assert lif.log_threshold.grad.item() == pytest.approx(-0.6, abs=1e-6)
    assert lif.leak_logit.grad.item() == pytest.approx(0.6 * 0.8 * 0.25, abs=1e-6)


def test_no_gradient_flows_through_a_reset():
    lif = LIF(1, EncoderConfig(leak_init=0.5, threshold_init=1.0))
    drive = torch.tensor([1.2, 0.9, 0.0, 0.0]).view(4, 1, 1).requires_grad_()
    lif(drive)[0][1].sum().backward()
    assert drive.grad[0].item() == 0.0
    assert drive.grad[1].item() == pytest.approx(0.8, abs=1e-6)


def graded(**values) -> LIF:
    return LIF(1, EncoderConfig(leak_init=0.5, threshold_init=0.8, graded=True, **values))


def test_a_graded_spike_carries_what_is_above_the_threshold_and_leaves_the_threshold():
    drive = torch.tensor([1.2, 0.2, 0.6, 0.8]).view(4, 1, 1)
    # v: 1.2 -> spike, 0.8 left; 0.6; 0.9 -> spike, 0.8 left; 1.2 -> spike
    spikes, rate = graded()(drive)
    assert spikes.flatten().tolist() == pytest.approx([0.5, 0.0, 0.125, 0.5], abs=1e-6)
    assert rate.item() == 0.75


def test_gradients_of_graded_spikes_are_exact_but_for_the_surrogate():
    """Against finite differences, in every drive and parameter, where no v is at the threshold and
    the surrogate reaches nowhere."""
    lif = graded(surrogate_width=1e-6).double()
    drive = torch.tensor([1.2, 0.5, 0.3, 0.9, 0.5, 0.2, 1.0, 0.1], dtype=torch.double)
    drive = drive.view(4, 2, 1).requires_grad_()
    weight = torch.tensor([1.0, -2.0, 3.0, 1.0, -1.0, 2.0, 1.0, 4.0]).double().view(4, 2, 1)

    def loss(drive, leak_logit, log_threshold):
        parts = {"leak_logit": leak_logit, "log_threshold": log_threshold}
        return (torch.func.functional_call(lif, parts, drive)[0] * weight).sum()

    parts = [p.detach().clone().requires_grad_() for p in (lif.leak_logit, lif.log_threshold)]
    assert torch.autograd.gradcheck(loss, (drive, *parts))


def test_neurons_below_their_threshold_learn_by_the_surrogate():
    lif = graded(surrogate_width=0.5)
    drive = torch.tensor([0.6, 0.0, 0.0, 0.0]).view(4, 1, 1).requires_grad_()
    lif(drive)[0][0].sum().backward()  # phi = (1 - 0.2 / 0.4) / 0.8
    assert drive.grad.flatten().tolist() == pytest.approx([0.625, 0.0, 0.0, 0.0])
    assert lif.log_threshold.grad.item() == pytest.approx(-0.625 * 0.8)


def test_small_changes_of_drive_change_graded_spikes_little():
    """Around the threshold in two steps: no jump, where spikes that are alike jump by 1."""
    steps = torch.linspace(-1e-3, 1e-3, 2001)
    drive = torch.stack([0.8 + steps, torch.full_like(steps, 0.4) + steps]).unsqueeze(-1)
    drive = torch.cat([drive, torch.zeros_like(drive)])
    jumps = graded()(drive)[0].diff(dim=1).abs()
    assert 0 < jumps.max() < 1e-5
    alike = LIF(1, EncoderConfig(leak_init=0.5, threshold_init=0.8))(drive)[0].diff(dim=1).abs()
    assert alike.max() == 1.0


def test_graded_does_not_go_with_conv():
    with pytest.raises(UserError, match=r"encoder\.graded"):
        EncoderConfig(kind="conv", graded=True)


def test_k_winners_keeps_the_strongest():
    over = torch.tensor([[0.1, 0.4, -0.2, 0.3, 0.2]])
    assert (k_winners(over, 0.4) > 0).tolist() == [[False, True, False, True, False]]
    encoder = make_encoder(EncoderConfig(k_wta=0.02), rng())
    assert encoder(generated_frames(4, rng(1))).rates.max() <= 0.021  # 12 of 576


def test_same_seed_same_weights_and_results():
    frames = generated_frames(4, rng(1))
    for kind in KINDS:
        a, b = (make_encoder(EncoderConfig(kind=kind), rng(3)) for _ in range(2))
        assert torch.equal(a(frames).latent, b(frames).latent)
        other = make_encoder(EncoderConfig(kind=kind), rng(4))
        assert not torch.equal(a(frames).latent, other(frames).latent)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_state_dicts_are_independent(kind):
    frames = generated_frames(4, rng(1))
    encoder = make_encoder(EncoderConfig(kind=kind), rng(0))
    twin = copy.deepcopy(encoder)
    loaded = make_encoder(EncoderConfig(kind=kind), rng(9))
    loaded.load_state_dict(encoder.state_dict())
    before = encoder(frames).latent.detach()
    with torch.no_grad():
        for p in encoder.parameters():
            p.mul_(0.5).add_(0.1)
    assert torch.equal(twin(frames).latent, before)
    assert torch.equal(loaded(frames).latent, before)
    assert not torch.equal(encoder(frames).latent, before)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "relu"), ("size", "large"), ("width", 0.0), ("leak_init", 1.0),
        ("threshold_init", -1.0), ("bias_init", -1.0), ("dc_gain", 2.0), ("target_rate", 0.9),
        ("k_wta", 1.5), ("surrogate", "sigmoid"), ("surrogate_width", 0.0),
        ("surrogate_peak", 0.0),
    ],
)  # fmt: skip
def test_values_out_of_range_name_the_key(key, value):
    with pytest.raises(UserError, match=rf"encoder\.{key}"):
        EncoderConfig(**{key: value})


def test_k_wta_does_not_go_with_conv():
    with pytest.raises(UserError, match=r"encoder\.k_wta"):
        EncoderConfig(kind="conv", k_wta=0.1)


def test_changes_do_not_go_with_conv():
    with pytest.raises(UserError, match=r"encoder\.changes"):
        EncoderConfig(kind="conv", changes=True)


@pytest.mark.parametrize("size", ["der", "impala"])
def test_changes_are_what_moved_and_still_frames_have_none(size):
    """Weights of changes matter where something moves, and not at all where nothing does."""
    encoder = make_encoder(EncoderConfig(size=size, width=0.25, changes=True), rng())
    moving = generated_frames(2, rng(1))
    still = moving[:, :1].repeat(1, 4, 1, 1)
    first = encoder.convs[0].weight if size == "impala" else encoder.layers[0].weight
    before = [encoder(obs).latent.detach() for obs in (moving, still)]
    with torch.no_grad():
        (first[:, 1] if size == "impala" else first[:, :, 1]).mul_(-1.0)
    after = [encoder(obs).latent.detach() for obs in (moving, still)]
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_wrong_observations_are_refused():
    encoder = make_encoder(EncoderConfig(), rng())
    for bad in (torch.zeros(2, 4, 84, 84), torch.zeros(2, 3, 84, 84, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            encoder(bad)


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("size", ["der", "fine", "nature"])
def test_layers_spec_reproduces_the_spikes(size, changes):
    """A reader of the plain numbers alone gets the same latent."""
    encoder = make_encoder(EncoderConfig(size=size, changes=changes), rng())
    frames = generated_frames(3, rng(1))
    x = frames.float().transpose(0, 1).unsqueeze(2)  # [T, B, 1, 84, 84]
    for layer in encoder.layers_spec():
        if layer.changes:
            x = torch.cat([x, torch.diff(x, dim=0, prepend=x[:1])], 2)
        x = x[..., layer.crop :, layer.crop :][..., : layer.in_size, : layer.in_size]
        v, spikes = 0.0, []
        for x_t in x:
            drive = torch.nn.functional.conv2d(
                x_t * layer.input_scale, layer.weight, layer.bias, layer.stride
            )
            v = layer.leak.view(-1, 1, 1) * v + drive
            s = (v > layer.threshold.view(-1, 1, 1)).float()
            v = v * (1 - s)
            spikes.append(s)
        x = torch.stack(spikes)
        assert x.shape[-1] == layer.out_size
    latent = x.sum(0).permute(0, 2, 3, 1).flatten(1)
    assert torch.equal(latent, encoder(frames).latent.detach())


def test_layers_spec_of_the_residual_net_says_why_not():
    encoder = make_encoder(EncoderConfig(size="impala", width=0.25), rng())
    with pytest.raises(NotImplementedError, match=r"encoder\.size"):
        encoder.layers_spec()
