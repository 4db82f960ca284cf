"""Speed of the spike-event core, one thread, everything in one run and in turn.

    python benchmarks/event_core.py            # writes benchmarks/results/event_core.json, .png
    python benchmarks/event_core.py --draw     # the figure once more, from the recorded numbers

Rows: synaptic events/s of a fully connected and of a convolutional layer, overhead of an empty
time step, growth of the time with activity, and one decision of the DER-size encoder on real
frames against PyTorch dense on the same weights and frames. Whole decisions are timed through
`EventCore.run`, neuron updates and the layer that feeds the spikes included; only the synaptic
events of the layer in question are counted. Every figure is the best of many interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agents.encoders import make_encoder  # noqa: E402
from agents.encoders.config import EncoderConfig  # noqa: E402
from envs import Task, machado2018, make_vector_env  # noqa: E402
from neuromorphic import (  # noqa: E402
    CoreSpec,
    EventCore,
    LayerSpec,
    NetworkSpec,
    compile_encoder,
)
from neuromorphic.quantise import QuantConfig  # noqa: E402
from neuromorphic.twin import QuantisedTwin  # noqa: E402

GAMES = ("pong", "breakout", "space_invaders", "ms_pacman")
STEPS = 4  # time steps of a decision: short calls, so that the best of many is undisturbed
ROUNDS = 200
RESULT = ROOT / "benchmarks" / "results" / "event_core"


def best_of(calls: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of each call, best of interleaved rounds (the first is warm-up)."""
    best = dict.fromkeys(calls, float("inf"))
    for number in range(rounds + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if number:
                best[name] = min(best[name], time.perf_counter() - begin)
    return best


def relay(channels: int) -> LayerSpec:
    """1 x 1 neurons that repeat pixels as spikes: channel c fires for values above its threshold.

    No leak is kept and there is no bias, so that a spike says "this pixel, now".
    """
    levels = 255 * np.arange(channels) / channels + 0.5
    return LayerSpec("conv", np.ones((channels, 1, 1, 1)), np.zeros(channels), np.zeros(channels),
                     levels / 255, input_scale=1 / 255)  # fmt: skip


def dense_network(rng: np.random.Generator, neurons: int = 4096) -> NetworkSpec:
    side = int(neurons**0.5)
    weight = rng.normal(size=(neurons, neurons)) / side
    layer = LayerSpec("dense", weight, *(np.full(neurons, x) for x in (0.0, 0.9, 4.0)))
    return NetworkSpec([relay(1), layer], (1, side, side), time_steps=STEPS)


def conv_network(rng: np.random.Generator, channels: int = 32, out: int = 64) -> NetworkSpec:
    weight = rng.normal(size=(out, channels, 3, 3)) / 17
    layer = LayerSpec("conv", weight, *(np.full(out, x) for x in (0.0, 0.9, 4.0)), padding=(1, 1))
    return NetworkSpec([relay(channels), layer], (1, 32, 32), time_steps=STEPS)


def active_frames(rng: np.random.Generator, spec: NetworkSpec, activity: float) -> np.ndarray:
    """Frames [T, H, W] whose relayed spikes have about this activity (pixels are uniform)."""
    shape = (spec.time_steps, *spec.input_shape[1:])
    channels = spec.layers[0].out_channels
    # channels fire for half of a lit pixel's range on average; a single one always
    lit = rng.random(shape) < min(1.0, activity * (2 if channels > 1 else 1))
    values = rng.integers(1, 256, shape)
    return np.where(lit, values, 0).astype(np.uint8)


def dense_torch(spec: NetworkSpec) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network in float PyTorch, the fastest form found: GEMM over patches, fused nowhere.

    Only for kernel = stride, no padding. Returns counts [positions, C] of the last layer.
    """
    layers = []
    for layer in spec.layers:
        weight = torch.tensor(layer.weight * layer.input_scale, dtype=torch.float32)
        rows = weight.permute(2, 3, 1, 0).reshape(-1, len(weight)).contiguous()
        vectors = [
            torch.tensor(v, dtype=torch.float32) for v in (layer.bias, layer.leak, layer.threshold)
        ]
        layers.append((rows, *vectors, layer.crop, layer.kernel[0]))

    def run(frames: torch.Tensor) -> torch.Tensor:
        x = frames.float().unsqueeze(-1)  # [T, H, W, C]
        for rows, bias, leak, threshold, (top, bottom, left, right), k in layers:
            x = x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]
            steps, height, width, channels = x.shape
            h, w = height // k, width // k
            x = x[:, : h * k, : w * k].reshape(steps, h, k, w, k, channels)
            patches = x.permute(0, 1, 3, 2, 4, 5).reshape(steps * h * w, -1)
            drive = torch.addmm(bias, patches, rows).reshape(steps, h, w, -1)
            v, spikes = torch.zeros_like(drive[0]), []
            for t in range(steps):
                v = v * leak + drive[t]
                spike = v > threshold
                v = v.masked_fill(spike, 0.0)
                spikes.append(spike.float())
            x = torch.stack(spikes)
        return x.sum(0)

    return run


def real_frames(count: int) -> dict[str, np.ndarray]:
    """uint8 [count, 4, 84, 84] of each game: successive decisions under random actions."""
    frames = {}
    for game in GAMES:
        env = make_vector_env(Task(game, 1), machado2018(), 1, seed=0)
        rng = np.random.default_rng(0)
        obs, _ = env.reset()
        rows = []
        for _ in range(count):
            rows.append(obs[0].copy())
            obs = env.step(rng.integers(0, env.num_actions, 1))[0]
        env.close()
        frames[game] = np.stack(rows)
    return frames


def layer_rows() -> dict:
    rng = np.random.default_rng(0)
    rows, growth = {}, {}
    for name, spec in (("dense", dense_network(rng)), ("conv", conv_network(rng))):
        # one synapse a weight: an event is one addition, as for the peers
        core = EventCore(compile_encoder(spec, CoreSpec.ideal(), QuantConfig(synapses=1)))
        curve = []
        for activity in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
            frames = active_frames(rng, spec, activity)
            seconds = best_of({"core": lambda core=core, frames=frames: core.run(frames)})["core"]
            ledger = core.run(frames).ledger
            neurons = int(np.prod(spec.shapes()[1]))
            curve.append(
                {
                    "activity": ledger.layers[0]["spike"] / (neurons * STEPS),
                    "synaptic_ops": ledger.layers[1]["synaptic_op"],
                    "seconds": seconds,
                    "events_per_s": ledger.layers[1]["synaptic_op"] / seconds,
                }
            )
        growth[name] = curve
        rows[f"{name}_events_per_s_at_5_percent"] = curve[3]["events_per_s"]
        operations = [point["synaptic_ops"] for point in curve]
        rows[f"{name}_growth_r2"] = line_fit(operations, [p["seconds"] for p in curve])[2]
    return {**rows, "growth": growth}


def line_fit(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Least squares: slope, intercept and the share R^2 of y's variance that they explain."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    slope, base = np.polyfit(x, y, 1)
    return float(slope), float(base), float(1 - ((y - slope * x - base) ** 2).mean() / y.var())


def decision_rows(synapses: int) -> dict:
    config = QuantConfig(synapses=synapses)
    encoder = make_encoder(
        EncoderConfig(kind="spiking", size="der"), torch.Generator().manual_seed(0)
    )
    program = compile_encoder(encoder, CoreSpec.loihi2(), config)
    spec = program.network.spec
    core, dense, twin = EventCore(program), dense_torch(spec), QuantisedTwin(spec, config)
    black = np.zeros((4, 84, 84), np.uint8)
    many = np.zeros((20, 4, 84, 84), np.uint8)
    quiet = NetworkSpec(
        [LayerSpec(a.kind, a.weight, a.bias * 0, a.leak, a.threshold, a.stride, a.padding,
                   a.input_scale, a.crop) for a in spec.layers],
        spec.input_shape, spec.time_steps, latent_order=spec.latent_order,
    )  # fmt: skip
    empty = EventCore(compile_encoder(quiet, CoreSpec.loihi2(), config))
    times = best_of({"one": lambda: empty.run(black), "many": lambda: empty.run(many)}, 200)
    rows = {
        "empty_step_ms": times["one"] / 4 * 1e3,
        "empty_step_without_call_ms": times["many"] / 80 * 1e3,
        "games": {},
    }
    for game, frames in real_frames(52).items():
        frames = frames[40:]  # short blocks: the best of many is not disturbed by others
        tensors = [torch.from_numpy(f) for f in frames]
        batches = [t[None] for t in tensors]
        # no image resembles the one before: the core cannot save work between decisions
        shuffled = frames[np.random.default_rng(0).permutation(len(frames))]

        def each(call: Callable, inputs: list) -> Callable[[], None]:
            def run() -> None:
                with torch.inference_mode():
                    for x in inputs:
                        call(x)

            return run

        seconds = best_of(
            {
                "core": each(core.run, list(frames)),
                "core_shuffled": each(core.run, list(shuffled)),
                "torch_dense_gemm": each(dense, tensors),
                "torch_dense_conv": each(encoder.forward_reference, batches),
                "project_fused_encoder": each(encoder, batches),
            },
            40,
        )
        with torch.inference_mode():
            dense_latent = torch.stack([dense(t).flatten() for t in tensors]).numpy()
            float_latent = encoder(torch.from_numpy(frames)).latent.numpy()
            twin_out = twin(torch.from_numpy(frames))
        result = core.run(frames, record=True)
        ledger, neurons = result.ledger, [int(np.prod(s)) for s in spec.shapes()[1:]]
        even = ledger.break_even()
        rows["games"][game] = {
            "milliseconds": {k: v / len(frames) * 1e3 for k, v in seconds.items()},
            "speedup_over_torch_dense_gemm": seconds["torch_dense_gemm"] / seconds["core"],
            "speedup_over_torch_dense_conv": seconds["torch_dense_conv"] / seconds["core"],
            "activity": [
                layer["spike"] / (n * 4 * len(frames)) for layer, n in zip(ledger.layers, neurons)
            ],
            "spikes_equal_to_twin": all(
                np.array_equal(result.layer_raster(i), s.numpy())
                for i, s in enumerate(twin_out.spikes)
            ),
            "dense_gemm_computes_the_encoder": float((dense_latent == float_latent).mean()),
            "latent_values_equal_to_float": float((result.latent == float_latent).mean()),
            "synaptic_ops_per_decision": ledger["synaptic_op"] / len(frames),
            "ops_per_dense_mac": even.ratio,
            "break_even": dict(even.limits),
            "overflows": ledger.overflows,
        }
    return rows


def draw(growth: dict, path: Path) -> Figure:
    """Time of a step against activity on linear axes, with the line that fits it best."""
    from evaluation.style import PALETTE, dress, new_figure

    figure = new_figure(3.6)
    names = {"dense": "fully connected", "conv": "convolution"}
    for number, (name, curve) in enumerate(growth.items()):
        axes = figure.add_subplot(1, len(growth), number + 1)
        activity = [100 * point["activity"] for point in curve]
        microseconds = [1e6 * point["seconds"] / STEPS for point in curve]
        slope, base, r2 = line_fit(activity, microseconds)
        ends = np.array([0.0, max(activity)])
        axes.plot(ends, base + slope * ends, color=PALETTE[number], linewidth=1,
                  label=f"{base:.1f} µs + {slope:.2f} µs per %,  R² = {r2:.4f}")  # fmt: skip
        axes.plot(activity, microseconds, "o", color=PALETTE[number])
        dress(axes, names[name], "µs a time step", "activity, % of inputs a time step")
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.legend(frameon=False, loc="upper left")
    figure.savefig(path)
    return figure


def machine() -> dict:
    import numba

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    load = Path("/proc/loadavg")
    return {
        "processor": model or platform.processor(),
        "threads": 1,
        "load_average": load.read_text().split()[0] if load.exists() else None,
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="the figure alone, as recorded")
    if parser.parse_args().draw:
        recorded = json.loads(RESULT.with_suffix(".json").read_text())
        draw(recorded["growth"], RESULT.with_suffix(".png"))
        return
    torch.set_num_threads(1)
    # decaying float membranes become denormal numbers, which would slow PyTorch down several times
    torch.set_flush_denormal(True)
    report = {
        "command": "python benchmarks/event_core.py",
        "machine": machine(),
        **layer_rows(),
        "decision": {str(synapses): decision_rows(synapses) for synapses in (1, 2)},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    draw(report["growth"], RESULT.with_suffix(".png"))
    print(json.dumps({k: v for k, v in report.items() if k != "growth"}, indent=1))


if __name__ == "__main__":
    main()
