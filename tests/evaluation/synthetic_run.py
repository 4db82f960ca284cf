"""A made-up but realistic run: what the training loop would tell its telemetry, call by call.

A game's skill rises towards a ceiling while it is trained, the slower the more is missing, and
decays towards random while others are. Scores are noisy; everything follows from the seed.
"""

import json
from pathlib import Path

import numpy as np

from evaluation.metrics import continual_metrics
from training.telemetry import Telemetry

# game -> random, human, ceiling in human-normalised units
GAMES = {
    "road_runner": (11.5, 7845.0, 1.25),
    "krull": (1598.0, 2665.5, 2.3),
    "boxing": (0.1, 12.1, 0.9),
    "freeway-m1": (0.0, 29.6, 0.8),
}
LAYERS = ("conv1", "conv2", "linear")


def calls(
    games=("road_runner", "krull", "boxing"),
    steps_per_task=10_000,
    cycles=2,
    eval_every=1_000,
    log_every=500,
    episodes=4,
    seed=0,
):
    """List of (method, arguments) for a `Telemetry`; ("checkpoint", step) where one would be."""
    rng = np.random.default_rng(seed)
    skill = dict.fromkeys(games, 0.0)
    curves, schedule, out = {g: [] for g in games}, [], []

    def evaluate(step, visit):
        for g in games:
            random, human, _ = GAMES[g]
            hns = skill[g] + rng.normal(0, 0.04 + 0.08 * skill[g], episodes)
            returns = [round(float(random + x * (human - random)), 1) for x in hns]
            mean = (float(np.mean(returns)) - random) / (human - random)
            curves[g].append([step, mean])
            out.append(("eval", (step, visit, g, returns, mean)))
        judge(step)

    def judge(step):
        out.append(("continual", (step, continual_metrics(curves, schedule).as_dict())))

    def train(step, visit, game):
        fade = np.exp(-step / 15_000)
        numbers = {
            "agent/epsilon": max(0.02, 1 - (step % steps_per_task) / 2_000),
            "loss/td": float((0.08 + 0.3 * fade) * rng.lognormal(0, 0.25)),
            "loss/rate": float(0.02 * fade * rng.lognormal(0, 0.15)),
        }
        for k, layer in enumerate(LAYERS):
            numbers[f"spikes/rate/{layer}"] = float(0.08 - 0.015 * k + 0.1 * fade * rng.uniform())
            numbers[f"spikes/spike/{layer}"] = numbers[f"spikes/rate/{layer}"] * 2_000
        out.append(("train", (step, visit, game, numbers, 200.0 + rng.normal(0, 10))))

    evaluate(0, 0)
    out.append(("checkpoint", 0))
    step = 0
    for visit, game in enumerate(list(games) * cycles):
        cycle = visit // len(games)
        schedule.append([game, step, None])
        out.append(("task", (step, visit, game, "begin", steps_per_task, cycle)))
        for _ in range(steps_per_task // log_every):
            step += log_every
            for g in games:
                rate = 4 * log_every / steps_per_task
                goal = GAMES[g][2] if g == game else 0.15 * skill[g]
                skill[g] += rate * (goal - skill[g]) * (1.0 if g == game else 0.5)
            random, human, _ = GAMES[game]
            score = random + skill[game] * (human - random) * rng.lognormal(-0.1, 0.3)
            length = int(rng.integers(200, 900))
            out.append(("episode", (step, visit, game, round(float(score), 1), length)))
            train(step, visit, game)
            if step % eval_every == 0:
                evaluate(step, visit)
                out.append(("checkpoint", step))
        schedule[-1][2] = step
        out.append(("task", (step, visit, game, "end", steps_per_task, cycle)))
        judge(step)
    return out


def play(telemetry: Telemetry, what: list) -> None:
    """Make the calls, checkpoints left out."""
    for method, arguments in what:
        if method != "checkpoint":
            getattr(telemetry, method)(*arguments)


def write_run(folder: Path, figures=None, **settings) -> Path:
    """A whole run's folder, as far as analyses read it."""
    folder.mkdir(parents=True, exist_ok=True)
    games = settings.get("games", ("road_runner", "krull", "boxing"))
    telemetry = Telemetry(folder, games, figures=figures)
    play(telemetry, calls(**settings))
    telemetry.close()
    (folder / "config.yaml").write_text("title: synthetic\nseed: 0\nagent:\n  batch_size: 32\n")
    manifest = {"command": "python train.py", "seed": 0, "versions": {"python": "3.11.2"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
