"""A readout learned on the core by reward-modulated STDP, in the toy world Catch.

    python benchmarks/plastic_readout.py run=runs/x [episodes=1000] [seeds=3]

The spikes of a trained encoder's last layer (run: any spiking run of sequence.games=[catch]) drive
three competing integer neurons, one an action. Their synapses start all equal and know nothing
of the trained head: nothing is propagated back, the only teacher is the reward at the end of an
episode minus its running mean. Controls: the reward shuffled over episodes, and no learning. All
events of encoder, readout and learning go into ledgers. Writes
benchmarks/results/plastic_readout.json and .png.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.event_core import machine  # noqa: E402
from envs import Task, make_core  # noqa: E402
from envs.seeding import episode_seed  # noqa: E402
from neuromorphic import CoreSpec, EventCore, Ledger, compile_encoder  # noqa: E402
from neuromorphic.plasticity import (  # noqa: E402
    PlasticityConfig,
    PlasticReadout,
    PlasticSynapses,
)
from training.loading import load_run  # noqa: E402

ACTIONS = np.array([0, 3, 4])  # stay, right, left
BASELINE_RATE = 0.02  # of the running mean of the reward
WINDOW = 100  # episodes of a point of the curve
# Membranes keep everything within a decision and fire about once, so that the trace of a winner's
# inputs is their spike count; eligibility lasts about 15 decisions. The bounds of a weight are
# about ten times the noise of one decision.
PLASTICITY = {
    "tau_plus": 64.0, "tau_minus": 64.0, "tau_eligibility": 60.0, "a_plus": 1.0, "a_minus": 0.0,
    "a_lost": 0.5, "learning_rate": 0.06,
}  # fmt: skip
LEVEL, THRESHOLD, NOISE = 30.0, 3000, 12


def learn(core: EventCore, protocol, seed: int, episodes: int, mode: str) -> dict:
    """Returns of one course of learning. mode: reward | shuffled | none."""
    rng, teacher = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    inputs = int(np.prod(core.program.network.spec.shapes()[-1]))
    rule = "none" if mode == "none" else "rstdp"
    synapses = PlasticSynapses(
        PlasticityConfig(rule=rule, **PLASTICITY), np.full((inputs, len(ACTIONS)), LEVEL)
    )
    readout = PlasticReadout(synapses, THRESHOLD, leak=1.0, noise=NOISE)
    last = len(core.program.flat.layout) - 1
    env = make_core(Task("catch", 1), protocol, 1)
    returns: list[float] = []
    expected, encoder = 0.0, None
    for episode in range(episodes):
        start = episode_seed(seed, 1, episode)
        obs, _ = env.reset(np.ones(1, bool), np.array([start]))
        synapses.forget()
        over = False
        while not over:
            result = core.run(obs[0], record=True)
            encoder = result.ledger if encoder is None else encoder + result.ledger
            synapses.settle()
            spikes = result.layer_raster(last)[0]  # [T, C, H, W]
            action = readout.act(spikes.reshape(len(spikes), -1), rng)
            env.send(ACTIONS[action : action + 1])
            step = env.recv()
            obs, over = step.obs, bool(step.terminated[0] or step.truncated[0])
        returns.append(float(step.reward[0]))
        told = returns[-1]
        if mode == "shuffled":
            told = returns[int(teacher.integers(len(returns)))]
        if mode != "none":
            readout.reward(told - expected)
        expected += BASELINE_RATE * (told - expected)
    env.close()
    return {
        "returns": returns,
        "first": float(np.mean(returns[:WINDOW])),
        "last": float(np.mean(returns[-WINDOW:])),
        "best": float(max(np.convolve(returns, np.ones(WINDOW) / WINDOW, "valid"))),
        "readout": counts(readout.ledger()),
        "encoder": counts(encoder),
    }


def counts(ledger: Ledger) -> dict:
    """Events and priced energy a decision."""
    bill = ledger.bill("loihi1")
    return {
        "decisions": ledger.decisions,
        "events_per_decision": {k: n / ledger.decisions for k, n in ledger.counts().items()},
        "nanojoule_per_decision_loihi1": bill.picojoule_per_decision / 1e3,
        "grade": bill.grade,
        "unpriced": dict(bill.unpriced),
    }


def draw(courses: dict[str, list[dict]], path: Path) -> None:
    from evaluation.style import PALETTE, dress, new_figure, smooth

    figure = new_figure(3.6)
    axes = figure.add_subplot()
    for colour, (mode, runs) in zip(PALETTE, courses.items()):
        for number, run in enumerate(runs):
            label = mode if number == 0 else None
            axes.plot(smooth(run["returns"], WINDOW), color=colour, alpha=0.8, label=label)
    dress(axes, "Catch: a readout learned on the core", "return (mean of 100)", "episode")
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    options = dict(word.split("=", 1) for word in sys.argv[1:])
    if "run" not in options:
        sys.exit(__doc__)
    run = load_run(options["run"])
    episodes, seeds = int(options.get("episodes", 1000)), int(options.get("seeds", 3))
    core = EventCore(compile_encoder(run.agent.acting_network.encoder, CoreSpec.loihi2()))
    courses: dict[str, list[dict]] = {}
    for mode in ("reward", "shuffled", "none"):
        for seed in range(seeds):
            course = learn(core, run.config.protocol, seed, episodes, mode)
            courses.setdefault(mode, []).append(course)
            print(mode, seed, {k: round(course[k], 3) for k in ("first", "last", "best")})
    result = ROOT / "benchmarks" / "results" / "plastic_readout"
    draw(courses, result.with_suffix(".png"))
    for runs in courses.values():
        for course in runs:
            course["returns"] = [int(r) for r in course["returns"]]
    report = {
        "command": "python " + " ".join(["benchmarks/plastic_readout.py", *sys.argv[1:]]),
        "machine": machine(),
        "plasticity": PLASTICITY | {"level": LEVEL, "threshold": THRESHOLD, "noise": NOISE},
        "courses": courses,
    }
    result.with_suffix(".json").write_text(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
