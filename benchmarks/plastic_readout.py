"""A readout learned on the core by reward-modulated STDP, in the toy world Catch.

    python benchmarks/plastic_readout.py [--episodes 600] [--seeds 3]

No backpropagation, no float weights, no replay. On the core run: 288 cell neurons (the ball's and
any light's, 12 x 12 each), 192 coincidence neurons with fixed random fields (the ball in this band
of columns while the paddle is within that one), and three competing action neurons. Only the
synapses onto these three learn: they start equal, and at the end of an episode the reward less
its running mean, one number for all, turns their eligibility into weight (three-factor rule).
Controls: rewards shuffled over episodes, and no learning. Every event of encoder, readout and
learning is counted. Writes benchmarks/results/plastic_readout.json and .png.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from envs.catch import CELL, GRID, CatchCore  # noqa: E402
from envs.protocols import machado2018  # noqa: E402
from envs.seeding import episode_seed  # noqa: E402
from neuromorphic import (  # noqa: E402
    CoreSpec,
    EventCore,
    LayerSpec,
    Ledger,
    NetworkSpec,
    QuantConfig,
    compile_encoder,
)
from neuromorphic.plasticity import (  # noqa: E402
    PlasticityConfig,
    PlasticReadout,
    PlasticSynapses,
)

ACTIONS = np.array([0, 3, 4])  # stay, right, left
FIELDS = 192  # coincidence neurons
BASELINE_RATE = 0.02  # of the running mean of the reward
WINDOW = 100  # episodes of a point of the curve
# A trace lasts a decision (four steps; `settle` ends it), eligibility an episode (44 steps).
PLASTICITY = {
    "tau_plus": 64.0, "tau_minus": 64.0, "tau_eligibility": 400.0, "a_plus": 1.0, "a_minus": 0.0,
    "a_lost": 0.5, "learning_rate": 0.2,
}  # fmt: skip
LEVEL, THRESHOLD, NOISE = 30.0, 60, 100  # initial weights; of the action neurons


def catch_encoder(seed: int) -> NetworkSpec:
    """Cells, then coincidences: integrate-and-fire without leak or memory over time steps."""
    kernel = np.full((2, 1, CELL, CELL), 1 / CELL**2)
    none = np.zeros(2)
    # channel 0: brighter than the paddle, so the ball; channel 1: anything lit
    cells = LayerSpec("conv", kernel, none, none, [0.8, 0.3], (CELL, CELL), input_scale=1 / 255)
    rng = np.random.default_rng([seed, 2])
    weight = np.zeros((FIELDS, 2, GRID, GRID))
    for field in weight:
        ball, paddle = slice(0, GRID - 1), slice(GRID - 1, GRID)  # rows
        for channel, rows, share in ((0, ball, 1.0), (1, paddle, 1 / 3)):
            first, width = rng.integers(-1 - channel, GRID - 1), rng.integers(3, 7)
            field[channel, rows, max(0, first) : first + width + channel] = share
    none = np.zeros(FIELDS)
    # ball 1, paddle's three cells 1 together: both are needed
    fields = LayerSpec("dense", weight.reshape(FIELDS, -1), none, none, none + 1.8)
    return NetworkSpec([cells, fields], (1, GRID * CELL, GRID * CELL))


class Sight:
    """The encoder's spikes of a decision; stacks seen before are looked up, and counted again."""

    def __init__(self, seed: int) -> None:
        # a few exact weights: one synapse holds them
        quant = QuantConfig(synapses=1)
        self.core = EventCore(compile_encoder(catch_encoder(seed), CoreSpec.loihi2(), quant))
        self.known: dict[bytes, tuple[np.ndarray, Ledger]] = {}
        self.seen: dict[bytes, int] = {}

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """bool [T, fields] of a stack uint8 [4, 84, 84]."""
        key = obs.tobytes()
        if key not in self.known:
            result = self.core.run(obs, record=True)
            raster = result.layer_raster(1)[0]
            self.known[key] = (raster.reshape(len(raster), -1).astype(bool), result.ledger)
        self.seen[key] = self.seen.get(key, 0) + 1
        return self.known[key][0]

    def counts(self) -> dict[str, float]:
        """Events a decision."""
        decisions = sum(self.seen.values())
        out: dict[str, float] = {}
        for key, times in self.seen.items():
            for event, count in self.known[key][1].counts().items():
                out[event] = out.get(event, 0) + count * times / decisions
        return out


def learn(seed: int, episodes: int, mode: str) -> dict:
    """One course of learning. mode: reward | shuffled | none."""
    rng, teacher = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    sight = Sight(seed)
    rule = "none" if mode == "none" else "rstdp"
    synapses = PlasticSynapses(
        PlasticityConfig(rule=rule, **PLASTICITY), np.full((FIELDS, len(ACTIONS)), LEVEL)
    )
    readout = PlasticReadout(synapses, THRESHOLD, leak=1.0, noise=NOISE)
    env = CatchCore(machado2018(), 1)
    returns: list[float] = []
    expected = 0.0
    for episode in range(episodes):
        obs, _ = env.reset(np.ones(1, bool), np.array([episode_seed(seed, 1, episode)]))
        synapses.forget()
        over = False
        while not over:
            synapses.settle()
            action = readout.act(sight(obs[0]), rng)
            env.send(ACTIONS[action : action + 1])
            step = env.recv()
            obs, over = step.obs, bool(step.terminated[0] or step.truncated[0])
        returns.append(float(step.reward[0]))
        told = returns[-1]
        if mode == "shuffled":  # of any episode so far: right on average, wrong about this one
            told = returns[int(teacher.integers(len(returns)))]
        if mode != "none":
            readout.reward(told - expected)
        expected += BASELINE_RATE * (told - expected)
    return {
        "returns": [int(r) for r in returns],
        "first": float(np.mean(returns[:WINDOW])),
        "last": float(np.mean(returns[-WINDOW:])),
        "encoder_events_per_decision": sight.counts(),
        "readout": readout_numbers(readout.ledger()),
    }


def readout_numbers(ledger: Ledger) -> dict:
    """Events and priced energy a decision, learning included."""
    bill = ledger.bill("loihi1")
    return {
        "decisions": ledger.decisions,
        "events_per_decision": {k: n / ledger.decisions for k, n in ledger.counts().items()},
        "nanojoule_per_decision_loihi1": bill.picojoule_per_decision / 1e3,
        "grade": bill.grade,
        "unpriced_per_decision": {k: n / ledger.decisions for k, n in bill.unpriced},
    }


def draw(courses: dict[str, list[dict]], path: Path) -> None:
    from evaluation.style import PALETTE, dress, new_figure, smooth

    figure = new_figure(3.6)
    axes = figure.add_subplot()
    for colour, (mode, runs) in zip(PALETTE, courses.items()):
        for number, run in enumerate(runs):
            label = mode if number == 0 else None
            axes.plot(smooth(run["returns"], WINDOW), color=colour, alpha=0.8, label=label)
    dress(axes, "Catch: a readout learned on the core", f"return (mean of {WINDOW})", "episode")
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    from benchmarks.event_core import machine

    courses: dict[str, list[dict]] = {}
    for mode in ("reward", "shuffled", "none"):
        for seed in range(given.seeds):
            course = learn(seed, given.episodes, mode)
            courses.setdefault(mode, []).append(course)
            print(mode, seed, {k: round(course[k], 3) for k in ("first", "last")}, flush=True)
    result = ROOT / "benchmarks" / "results" / "plastic_readout"
    draw(courses, result.with_suffix(".png"))
    report = {
        "command": " ".join(["python benchmarks/plastic_readout.py", *sys.argv[1:]]),
        "machine": machine(),
        "plasticity": PLASTICITY | {"level": LEVEL, "threshold": THRESHOLD, "noise": NOISE},
        "window": WINDOW,
        "courses": courses,
    }
    result.with_suffix(".json").write_text(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
