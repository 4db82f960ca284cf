"""NeuroBench's own metrics (Yik et al. 2025) of the encoder, by the real library.

The library counts what it can see: it hooks `nn.Conv2d` and registered activation modules. So the
core's integer network is written down once more as such modules, in float64, which holds the
integers exactly; its spikes are checked against the core's before anything is reported.

How to read the numbers: an operation counts as AC where its input is a spike and as MAC where it is
a pixel or a graded spike that does not carry 1; a convolution over T frames counts T times; zero
weights do not count as effective. MembraneUpdates is left out, since it is 0 for neurons that are
not snntorch's.

    B observations, T time steps, C, H, W
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from errors import UserError
from neuromorphic import CoreProgram, EventCore
from neuromorphic.lif import DRIVE_SHIFT, V_MAX
from neuromorphic.quantise import QuantLayer, QuantNetwork
from neuromorphic.spec import with_changes
from neuromorphic.twin import payload

BATCH = 16


class Neurons(nn.Module):
    """Integer LIF over the time steps: drive [T, B, C, H, W] to spikes, or what they carry, of the
    same shape."""

    def __init__(self, layer: QuantLayer) -> None:
        super().__init__()
        bias = layer.bias_mantissa << layer.bias_exponent
        self.graded = layer.graded
        vectors = {"keep": (4096 - layer.dv) / 4096, "bias": bias, "threshold": layer.vth << 6}
        if self.graded:
            vectors["unit"] = 2.0**layer.payload_shift
        for name, values in vectors.items():
            tensor = torch.as_tensor(np.asarray(values, np.float64))
            self.register_buffer(name, tensor[:, None, None])

    def forward(self, drive: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(drive[0]), []
        for current in drive:
            v = ((v * self.keep).trunc() + current + self.bias).clamp(-V_MAX, V_MAX)
            if self.graded:
                above = (v - self.threshold).clamp(min=0)
                spikes.append(payload(above / self.unit))
                v = v - above
                continue
            spike = (v > self.threshold).to(v.dtype)
            v = v * (1 - spike)
            spikes.append(spike)
        return torch.stack(spikes)


class IntegerNetwork(nn.Module):
    """The core's network as convolutions and neurons; latent counts [B, C, H, W]."""

    def __init__(self, network: QuantNetwork) -> None:
        super().__init__()
        self.sees_changes = network.spec.sees_changes
        self.convs, self.neurons = nn.ModuleList(), nn.ModuleList()
        self.crops, self.gains = [], []
        for layer in network.layers:
            out, reads, *kernel = layer.weight.shape
            conv = nn.Conv2d(reads, out, kernel, layer.stride, layer.padding, bias=False)
            conv.weight = nn.Parameter(torch.as_tensor(layer.weight.astype(np.float64)), False)
            self.convs.append(conv)
            self.neurons.append(Neurons(layer))
            self.crops.append(layer.crop)
            self.gains.append(2.0**layer.level_exponent)

    def forward(self, obs: Tensor) -> Tensor:
        """obs uint8 [B, T, H, W]."""
        x = torch.from_numpy(with_changes(obs.numpy())) if self.sees_changes else obs.unsqueeze(2)
        x = x.to(torch.float64).transpose(0, 1)  # [T, B, C, H, W]
        for conv, neurons, crop, gain in zip(self.convs, self.neurons, self.crops, self.gains):
            top, bottom, left, right = crop
            x = x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]
            x = neurons(
                conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mul(gain).floor() * 2**DRIVE_SHIFT
            )
        return x.sum(0)


class Stored(nn.Module):
    """What the core keeps of a network, in the types it keeps it in: for the footprint."""

    def __init__(self, layers: tuple[QuantLayer, ...]) -> None:
        super().__init__()
        for number, layer in enumerate(layers):
            arrays = {
                "weight": layer.weight,
                "bias_mantissa": layer.bias_mantissa.astype(np.int16),
                "bias_exponent": layer.bias_exponent.astype(np.uint8),
                "dv": layer.dv.astype(np.int16),
                "vth": layer.vth.astype(np.int32),
            }
            for name, array in arrays.items():
                self.register_buffer(f"{name}_{number}", torch.from_numpy(array.copy()))


def require_library() -> None:
    """Raise `UserError` unless neurobench can be imported: it is an extra."""
    try:
        import neurobench.benchmarks  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"neurobench=true needs the library neurobench ({error}): pip install -e '.[bench]'"
        ) from None


def neurobench_metrics(program: CoreProgram, observations: np.ndarray) -> dict:
    """Metrics a decision on logged observations uint8 [N, 4, 84, 84].

    Raises:
        UserError: neurobench is not installed.
    """
    require_library()
    import neurobench
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel
    from torch.utils.data import DataLoader, TensorDataset

    network = IntegerNetwork(program.network)
    obs = torch.from_numpy(observations)
    with torch.inference_mode():
        counts = network(obs[:BATCH])
    latent = EventCore(program).run(observations[:BATCH]).latent.astype(np.float64)
    order = counts.permute(0, 2, 3, 1) if program.network.spec.latent_order == "hwc" else counts
    if not np.array_equal(order.flatten(1).numpy(), latent):
        raise RuntimeError("the network shown to NeuroBench does not fire as the core does")
    model = TorchModel(network)
    model.add_activation_module(Neurons)
    loader = DataLoader(TensorDataset(obs, torch.zeros(len(obs))), batch_size=BATCH)
    metrics = [[ConnectionSparsity], [ActivationSparsity, SynapticOperations]]
    with torch.no_grad():
        results = Benchmark(model, loader, [], [], metrics).run(quiet=True)
    operations = results["SynapticOperations"]
    return {
        "version": str(neurobench.__version__) if hasattr(neurobench, "__version__") else None,
        "observations": len(obs),
        "Footprint": int(Footprint()(TorchModel(Stored(program.network.layers)))),  # bytes
        "ConnectionSparsity": float(results["ConnectionSparsity"]),
        "ActivationSparsity": float(results["ActivationSparsity"]),
        "Effective_MACs": float(operations["Effective_MACs"]),
        "Effective_ACs": float(operations["Effective_ACs"]),
        "Dense": float(operations["Dense"]),
        "ledger_synaptic_ops": EventCore(program).run(observations).ledger["synaptic_op"]
        / len(obs),
    }
