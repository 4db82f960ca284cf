"""The event core beside other simulators: same network, same input spikes, one thread, one run.

    python benchmarks/core_peers.py [--python PATH]     # writes benchmarks/results/core_peers.json

A fully connected layer of leaky integrate-and-fire neurons at 5 % activity. Rows: ours, PyTorch
dense, brian2 (its compiled target, cython) and NEST. The last two run in a process of their own,
by the interpreter given with --python where they need other versions of numpy than this project
(`pip install brian2 "numpy<2.4" nest-simulator`); what does not import there has its reason in the
row instead of a number. Building the network and compiling are not timed; each runs the same spikes
in several rounds, and the fastest counts, in processor time. Output spikes are counted too: ours
has integer weights, the others floats, and the last two deliver one step later and go on from the
round before, so the counts agree closely, not exactly.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
NEURONS, STEPS, ROUNDS = 2304, 64, 4
LEAK, THRESHOLD = 0.9, 0.5
PEERS = ("brian2", "nest")


def brian2(spikes: np.ndarray, weight: np.ndarray) -> tuple[str, list[float], int]:
    """(version, seconds of each round, output spikes of the last) for spikes [T, I]."""
    import brian2 as b

    b.prefs.codegen.target = "cython"
    b.defaultclock.dt = 1 * b.ms
    times, source = np.nonzero(np.tile(spikes, (ROUNDS, 1)))
    inputs = b.SpikeGeneratorGroup(spikes.shape[1], source, times * b.ms)
    neurons = b.NeuronGroup(
        len(weight), "v : 1\ng : 1", threshold=f"v > {THRESHOLD}", reset="v = 0"
    )
    neurons.run_regularly(f"v = {LEAK} * v + g\ng = 0", when="groups")
    synapses = b.Synapses(inputs, neurons, "w : 1", on_pre="g_post += w")
    synapses.connect()
    synapses.w = weight.T.ravel()  # [I, O], the order of all-to-all connections
    monitor = b.SpikeMonitor(neurons, record=False)
    net = b.Network(inputs, neurons, synapses, monitor)
    seconds, before = [], 0
    for _ in range(ROUNDS):
        before = monitor.num_spikes
        begin = time.process_time()
        net.run(len(spikes) * b.ms)
        seconds.append(time.process_time() - begin)
    return b.__version__, seconds, int(monitor.num_spikes - before)


def nest(spikes: np.ndarray, weight: np.ndarray) -> tuple[str, list[float], int]:
    import nest as n

    n.set_verbosity("M_ERROR")
    n.set(resolution=1.0, local_num_threads=1)
    train = np.tile(spikes, (ROUNDS, 1))
    sources = n.Create("spike_generator", spikes.shape[1])
    for source, line in zip(sources, train.T):
        source.spike_times = (np.flatnonzero(line) + 1.0).tolist()
    relays = n.Create("parrot_neuron", spikes.shape[1])
    n.Connect(sources, relays, "one_to_one", {"delay": 1.0})
    model = {
        "tau_m": -1 / np.log(LEAK), "E_L": 0.0, "V_reset": 0.0, "V_m": 0.0, "V_th": THRESHOLD,
        "t_ref": 0.0,
    }  # fmt: skip
    neurons = n.Create("iaf_psc_delta", len(weight), model)
    n.Connect(relays, neurons, "all_to_all", {"weight": weight, "delay": 1.0})
    recorder = n.Create("spike_recorder")
    n.Connect(neurons, recorder)
    n.Prepare()
    seconds, before = [], 0
    for _ in range(ROUNDS):
        before = recorder.n_events
        begin = time.process_time()
        n.Run(float(len(spikes)))
        seconds.append(time.process_time() - begin)
    n.Cleanup()
    return n.__version__, seconds, int(recorder.n_events - before)


def worker(peer: str, path: str) -> None:
    """In the peer's interpreter: one JSON line on the standard output."""
    data = np.load(path)
    try:
        version, seconds, out = {"brian2": brian2, "nest": nest}[peer](
            data["spikes"], data["weight"].astype(np.float64)
        )
        row = {"version": version, "seconds": min(seconds[1:]), "output_spikes": out}
    except ImportError as error:
        row = {"missing": str(error)}
    print("RESULT " + json.dumps(row))


def ask(peer: str, path: Path, python: str) -> dict:
    """The row of one peer, from its own process."""
    done = subprocess.run(
        [python, __file__, "--peer", peer, "--data", str(path)], capture_output=True, text=True
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"missing": f"the process ended with status {done.returncode}: {last}"}
    return json.loads(found[0].removeprefix("RESULT "))


def measure(python: str) -> dict:
    import torch

    from benchmarks.event_core import machine, relay
    from neuromorphic import (
        CoreSpec,
        EventCore,
        LayerSpec,
        NetworkSpec,
        QuantConfig,
        compile_encoder,
    )

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rng = np.random.default_rng(0)
    side = int(NEURONS**0.5)
    weight = (rng.normal(size=(NEURONS, NEURONS)) / np.sqrt(NEURONS)).astype(np.float32)
    zeros, leak, threshold = (np.full(NEURONS, x) for x in (0.0, LEAK, THRESHOLD))
    layer = LayerSpec("dense", weight, zeros, leak, threshold)
    spec = NetworkSpec([relay(1), layer], (1, side, side), time_steps=STEPS)
    core = EventCore(compile_encoder(spec, CoreSpec.ideal(), QuantConfig(synapses=1)))
    lit = rng.random((STEPS, side, side)) < 0.05
    frames = np.where(lit, 255, 0).astype(np.uint8)
    spikes = lit.reshape(STEPS, -1)
    events = int(spikes.sum()) * NEURONS

    rows, rest = torch.from_numpy(weight.T.copy()), torch.zeros(NEURONS)
    x = torch.from_numpy(spikes.astype(np.float32))

    def dense() -> int:
        drive, v, fired = x @ rows, rest.clone(), 0
        for t in range(STEPS):
            v = v * LEAK + drive[t]
            spike = v > THRESHOLD
            v = v.masked_fill(spike, 0.0)
            fired += int(spike.sum())
        return fired

    def ours() -> int:
        return int(core.run(frames).ledger.layers[1]["spike"])

    table = {}
    for name, call in (("engram", ours), ("torch_dense", dense)):
        seconds = []
        for _ in range(50):
            begin = time.process_time()
            out = call()
            seconds.append(time.process_time() - begin)
        table[name] = {"seconds": min(seconds[1:]), "output_spikes": out}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.npz"
        np.savez(path, spikes=spikes, weight=weight)
        for peer in PEERS:
            table[peer] = ask(peer, path, python)
    for row in table.values():
        if "seconds" in row:
            row["events_per_s"] = events / row["seconds"]
            row["engram_is_faster_by"] = row["seconds"] / table["engram"]["seconds"]
    return {
        "command": "python benchmarks/core_peers.py",
        "machine": machine(),
        "network": {"inputs": NEURONS, "neurons": NEURONS, "steps": STEPS,
                    "activity": float(spikes.mean()), "synaptic_events": events},
        "rows": table,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter of the peers")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        worker(given.peer, given.data)
        return
    sys.path.insert(0, str(ROOT))
    report = measure(given.python)
    path = ROOT / "benchmarks" / "results" / "core_peers.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
