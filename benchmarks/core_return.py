"""What a trained agent decides and scores on the spike-event core, against PyTorch.

    python benchmarks/core_return.py --run runs/x [--episodes 20] [--synapses 1 2] [--games krull]

For one and for two 8-bit synapses a weight: the same episodes (equal seeds) on both backends,
returns with paired bootstrap intervals, and the share of equal greedy actions at every decision of
these whole episodes, whoever plays. The run may be of any spiking agent with a Q-network. Its
folder is not written to. Writes benchmarks/results/core_return.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agents.backend import BackendConfig  # noqa: E402
from benchmarks.event_core import machine  # noqa: E402
from evaluation.backends import compare_backends  # noqa: E402
from training.loading import load_run  # noqa: E402
from training.threads import configure_threads  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "core_return.json"


def row(game: dict) -> dict:
    """What is kept of one game's comparison."""
    torch, core = (game["backends"][name] for name in ("torch", "event_core"))
    decisions = torch["decisions"] + core["decisions"]
    agreed = sum(
        ours["decisions"] * share
        for ours in (torch, core)
        for share in ours["agreement_while_playing"].values()
    )
    clear = torch["clear_decisions"] + core["clear_decisions"]
    clear_agreed = sum(
        ours["clear_decisions"] * (share or 0.0)
        for ours in (torch, core)
        for share in ours["agreement_on_clear_decisions"].values()
    )
    return {
        "returns": {"torch": torch["returns"], "event_core": core["returns"]},
        "capped": {"torch": torch["capped"], "event_core": core["capped"]},
        **game["paired"]["event_core"],
        "decisions": decisions,
        "agreement": agreed / decisions,
        "clear_decisions": clear,
        "agreement_on_clear_decisions": clear_agreed / clear if clear else None,
        "synaptic_ops": game["core"]["synaptic_ops"],
        "spikes": game["core"]["spikes"],
        "nanojoule_loihi1": game["core"]["energy"]["loihi1"]["nanojoule"],
        "overflows": game["core"]["overflows"],
    }


def pooled(games: dict[str, dict], draws: int = 10_000) -> dict:
    """Mean over games of each game's ratio of mean returns, with a 95 % stratified bootstrap.

    Games where PyTorch itself scores nothing have no ratio and are left out, by name.
    """
    rng = np.random.default_rng(0)
    with_ratio = {name: game for name, game in games.items() if game["ratio"] is not None}
    out = {"left_out": sorted(set(games) - set(with_ratio)), "ratio": None}
    if with_ratio:
        samples = []
        for game in with_ratio.values():
            ours, theirs = (np.array(game["returns"][b]) for b in ("event_core", "torch"))
            pick = rng.integers(0, len(ours), (draws, len(ours)))  # pairs stay together
            samples.append(ours[pick].mean(1) / np.maximum(theirs[pick].mean(1), 1e-9))
        low, high = np.percentile(np.mean(samples, 0), [2.5, 97.5])
        mean = np.mean([game["ratio"][0] for game in with_ratio.values()])
        out["ratio"] = [float(mean), float(low), float(high)]
    decisions = sum(game["decisions"] for game in games.values())
    agreed = sum(game["decisions"] * game["agreement"] for game in games.values())
    return out | {"decisions": decisions, "agreement": agreed / decisions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of a trained run")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--synapses", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--games", nargs="+", help="by default all of the run")
    given = parser.parse_args()
    if given.episodes < 2:
        parser.error("--episodes must be at least 2: one pair has no interval")
    run = load_run(given.run)
    configure_threads(run.config.device.learner_threads)
    games = given.games or list(run.sequence.games)
    begin, table = time.process_time(), {}
    for synapses in given.synapses:
        config = BackendConfig("event_core", synapses=synapses)
        report = compare_backends(run, ["torch", "event_core"], games, given.episodes, config)
        rows = {name: row(report["games"][name]) for name in games}
        table[str(synapses)] = {"games": rows, "all": pooled(rows), "core": report["core"]}
        for name, numbers in [*rows.items(), ("all", table[str(synapses)]["all"])]:
            ratio = numbers["ratio"]
            shown = "no ratio" if ratio is None else "{:.3f} [{:.3f}, {:.3f}]".format(*ratio)
            print(
                synapses, name, shown, f"agreement {100 * numbers['agreement']:.2f} %", flush=True
            )
    words = [Path("runs", run.path.name).as_posix() if w == given.run else w for w in sys.argv[1:]]
    result = {
        "command": " ".join(["python benchmarks/core_return.py", *words]),
        "machine": machine(),
        "run": {
            "name": run.path.name,
            "agent": run.config.agent.name,
            "step": run.step,
            "seed": run.config.seed,
        },
        "episodes": given.episodes,
        "processor_seconds": time.process_time() - begin,
        "synapses": table,
    }
    RESULT.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
