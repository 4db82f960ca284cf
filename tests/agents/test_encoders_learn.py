"""Both encoders learn: the direction in which a dot moves over four frames."""

import pytest
import torch
import torch.nn.functional as F

from agents.encoders import EncoderConfig, make_encoder


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other on a busy machine cost more than these tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def moving_dots(count: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames [count, 4, 84, 84] of a dot that moves 5 pixels a frame, and one of 4 labels."""
    label = torch.randint(0, 4, (count,), generator=rng)
    speed = torch.tensor([[0, 5], [0, -5], [5, 0], [-5, 0]])[label]
    start = torch.randint(25, 50, (count, 2), generator=rng)
    line = torch.arange(84)
    frames = torch.zeros(count, 4, 84, 84, dtype=torch.uint8)
    for t in range(4):
        first = (start + t * speed)[:, :, None]
        inside = (line >= first) & (line < first + 8)  # [count, 2, 84]
        frames[:, t] = (inside[:, 0, :, None] & inside[:, 1, None, :]) * 255
    return frames, label


@pytest.mark.parametrize(
    "config",
    [
        EncoderConfig(),
        EncoderConfig(changes=True),
        EncoderConfig(graded=True),
        EncoderConfig(kind="conv"),
    ],
    ids=["spiking", "changes", "graded", "conv"],
)
def test_learns_the_direction_of_motion(config):
    rng = torch.Generator().manual_seed(0)
    encoder = make_encoder(config, rng)
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    head = torch.empty(4, encoder.latent_dim).normal_(0, 0.01, generator=rng).requires_grad_()
    optimiser = torch.optim.Adam([*encoder.parameters(), head], lr=1e-3)
    for _ in range(300):
        frames, label = moving_dots(32, rng)
        encoding = encoder(frames)
        loss = F.cross_entropy(encoding.latent @ head.t(), label)
        if config.kind == "spiking":
            loss = loss + 0.01 * ((encoding.rates / config.target_rate - 1) ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        frames, label = moving_dots(400, rng)
        encoding = encoder(frames)
        right = (encoding.latent @ head.t()).argmax(1) == label
    assert right.float().mean() > 0.9
    for name, p in encoder.named_parameters():  # leaks and thresholds too
        assert not torch.equal(p, before[name]), name
    if config.kind == "spiking":
        assert encoding.rates.min() > 0.01
        assert encoding.rates.max() < 0.15
