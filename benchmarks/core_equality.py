"""The core's spikes against those of its quantised PyTorch twin on 1e5 real frames.

    python benchmarks/core_equality.py [--run runs/x] [--frames 100000] [--synapses 1 2]

Every spike of every layer and time step is compared, and overflow counts with them. Frames come
from random play of several games, every fourth decision, so that no frame is used twice. Without
--run the DER-size encoder is a new one; with it, the one that acts in that run (and its games are
played). Writes benchmarks/results/core_equality.json, with --run core_equality_trained.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agents.encoders import Encoder, EncoderConfig, make_encoder  # noqa: E402
from benchmarks.event_core import GAMES, machine  # noqa: E402
from envs import Task, machado2018, make_vector_env  # noqa: E402
from neuromorphic import CoreSpec, EventCore, compile_encoder  # noqa: E402
from neuromorphic.quantise import QuantConfig  # noqa: E402
from neuromorphic.twin import QuantisedTwin  # noqa: E402

STACK, ENVS, BLOCK = 4, 8, 64
DIFFER = ("spikes_that_differ", "latents_that_differ")


def real_decisions(game: str, count: int):
    """uint8 [n, 4, 84, 84], `count` in all: stacks that share no frame, random actions."""
    env = make_vector_env(Task(game, 1), machado2018(), ENVS, seed=1)
    rng = np.random.default_rng(1)
    env.reset()
    rows: list[np.ndarray] = []
    for _ in range(-(-count // ENVS)):
        for _ in range(STACK):
            obs = env.step(rng.integers(0, env.num_actions, ENVS))[0]
        rows.extend(obs.copy())
        while len(rows) >= BLOCK:
            yield np.stack(rows[:BLOCK])
            del rows[:BLOCK]
    if rows:
        yield np.stack(rows)
    env.close()


def compare(encoder: Encoder, games: Sequence[str], frames: int, synapses: int) -> dict:
    """Counts by game and in total, with so many 8-bit synapses a weight."""
    program = compile_encoder(encoder, CoreSpec.loihi2(), QuantConfig(synapses=synapses))
    core, twin = EventCore(program), QuantisedTwin(program.network.spec, program.network.config)
    each, table = -(-frames // (STACK * len(games))), {}
    for game in games:
        row = {"frames": 0, "spikes": 0, "spikes_that_differ": 0, "latents_that_differ": 0,
               "overflows_core": 0, "overflows_twin": 0}  # fmt: skip
        for obs in real_decisions(game, each):
            result = core.run(obs, record=True)
            with torch.inference_mode():
                out = twin(torch.from_numpy(obs))
            for number, spikes in enumerate(out.spikes):
                theirs = spikes.numpy().astype(np.uint8)
                row["spikes"] += int((theirs > 0).sum())
                row["spikes_that_differ"] += int((theirs != result.layer_raster(number)).sum())
            row["latents_that_differ"] += int((out.latent.numpy() != result.latent).sum())
            row["overflows_core"] += result.ledger.overflows
            row["overflows_twin"] += sum(out.wraps) + sum(out.saturations)
            row["frames"] += obs.shape[0] * obs.shape[1]
        table[game] = row
        print(synapses, game, row, flush=True)
    total = {key: sum(row[key] for row in table.values()) for key in next(iter(table.values()))}
    return {"total": total, "games": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="folder of a trained run")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--synapses", type=int, nargs="+", default=(1, 2), choices=(1, 2))
    given = parser.parse_args()
    torch.set_num_threads(1)
    games = GAMES
    if given.run:
        from training.loading import load_run

        run = load_run(given.run)
        encoder, games = run.agent.acting_network.encoder, tuple(run.sequence.games)
    else:
        config = EncoderConfig(kind="spiking", size="der")
        encoder = make_encoder(config, torch.Generator().manual_seed(0))
    begin = time.process_time()
    tables = {
        str(synapses): compare(encoder, games, given.frames, synapses)
        for synapses in given.synapses
    }
    report = {
        "command": "python " + " ".join(["benchmarks/core_equality.py", *sys.argv[1:]]),
        "machine": machine(),
        "encoder": "trained" if given.run else "new, seed 0",
        "processor_seconds": time.process_time() - begin,
        "equal": all(t["total"][key] == 0 for t in tables.values() for key in DIFFER),
        "synapses": tables,
    }
    name = "core_equality_trained" if given.run else "core_equality"
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print("equal:", report["equal"])


if __name__ == "__main__":
    main()
