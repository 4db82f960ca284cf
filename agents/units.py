"""The hidden units of a network: how active each is, what leads into it and what it leads to.

Units are those of the head's hidden layer and the channels of the encoder's convolutions (sizes
der, fine and nature; residual networks have no such chain, there the head alone is looked at).

H units of a layer, B batch, P positions of a feature map, O outputs of the layer behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agents.encoders.conv import ConvEncoder
from agents.encoders.spiking import SpikingEncoder
from agents.network import NoisyLinear, QNetwork
from agents.world_model import WorldModel


class Leads(NamedTuple):
    """Weights of some units: `by_unit` views the parameter, or a tensor like it, as [h, ...]."""

    parameter: nn.Parameter
    by_unit: Callable[[Tensor], Tensor]
    first: int = 0  # index of the first of these units in the layer


class Units(NamedTuple):
    """One hidden layer."""

    name: str
    count: int
    incoming: tuple[Leads, ...]
    outgoing: tuple[Leads, ...]
    noise: tuple[Leads, ...] = ()  # scales of the noise on the outgoing weights (noisy layers)
    model: tuple[Leads, ...] = ()  # weights of the world model that read these units

    def strength(self) -> Tensor:
        """[H] sum of absolute outgoing weights."""
        out = torch.zeros(self.count, device=self.outgoing[0].parameter.device)
        for leads in self.outgoing:
            weights = leads.by_unit(leads.parameter.detach()).abs().flatten(1).sum(1)
            out[leads.first : leads.first + len(weights)] += weights
        return out


def units_of(network: QNetwork, model: WorldModel | None = None) -> list[Units]:
    """The hidden layers, first to last; `model`: what learns on the network's latent."""
    head, out = network.head, []
    if _plain(network):
        layers = list(network.encoder.layers)
        spiking = isinstance(network.encoder, SpikingEncoder)
        axis_in, axis_out = (2, 3) if spiking else (1, 0)
        for i, (name, layer) in enumerate(zip(network.encoder.layer_names, layers)):
            own = [Leads(layer.weight, _along(axis_out)), Leads(layer.bias, _along(0))]
            if spiking:
                own += [Leads(p, _along(0)) for p in layer.lif.parameters()]
            channels = layer.weight.shape[axis_out]
            reads: tuple[Leads, ...] = ()
            if i + 1 < len(layers):
                behind, noise = (Leads(layers[i + 1].weight, _along(axis_in)),), ()
            else:
                by_channel = _channels_of_latent(channels)
                behind = (Leads(head.hidden.weight, by_channel),)
                noise = _noise(head.hidden, by_channel)
                reads = (Leads(model.state.weight, by_channel),) if model else ()
            out.append(Units(name, channels, tuple(own), behind, noise, reads))
    streams = [head.advantage] + ([head.value] if head.value is not None else [])
    width = head.hidden_width // len(streams)
    behind = tuple(Leads(s.weight, _along(1), k * width) for k, s in enumerate(streams))
    noise = sum((_noise(s, _along(1), k * width) for k, s in enumerate(streams)), ())
    own = tuple(Leads(p, _along(0)) for p in head.hidden.parameters())
    reads = (Leads(model.predictor.weight, _along(1)),) if model else ()
    out.append(Units("hidden", head.hidden_width, own, behind, noise, reads))
    return out


class Activity(NamedTuple):
    units: dict[str, Tensor]  # layer -> [H] mean absolute activation over batch and positions
    latent: Tensor  # [B, L]


@torch.no_grad()
def activity(network: QNetwork, obs: Tensor) -> Activity:
    """How active the units are on obs [B, 4, 84, 84]."""
    encoder, means = network.encoder, {}
    if isinstance(encoder, SpikingEncoder) and _plain(network):
        x = encoder._input(obs)
        for name, layer in zip(encoder.layer_names, encoder.layers):
            spikes, _ = layer.lif(layer.drive(x))  # [T, B, H', W', O]
            means[name] = spikes.mean((0, 1, 2, 3))
            x = spikes.movedim(-1, 2)
        latent = spikes.sum(0).flatten(1)
    elif _plain(network):
        x = encoder._input(obs)
        for name, layer in zip(encoder.layer_names, encoder.layers):
            x = layer(x)  # [B, O, H', W']
            means[name] = x.mean((0, 2, 3))
        latent = x.permute(0, 2, 3, 1).flatten(1)
    else:
        latent = encoder(obs).latent
    means["hidden"] = torch.relu(network.head.features(latent)).mean(0)
    return Activity(means, latent)


def _plain(network: QNetwork) -> bool:
    return isinstance(network.encoder, SpikingEncoder | ConvEncoder)


def _noise(
    layer: nn.Module, by_unit: Callable[[Tensor], Tensor], first: int = 0
) -> tuple[Leads, ...]:
    noisy = isinstance(layer, NoisyLinear)
    return (Leads(layer.weight_sigma, by_unit, first),) if noisy else ()


def _along(axis: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.movedim(axis, 0)


def _channels_of_latent(channels: int) -> Callable[[Tensor], Tensor]:
    """Columns of a matrix behind the latent (row, column, channel), by channel."""
    return lambda tensor: tensor.view(len(tensor), -1, channels).movedim(2, 0)
