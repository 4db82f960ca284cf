"""Single games at 100k agent steps against the published scores.

    python benchmarks/atari100k.py train --jobs 2     # runs/atari100k/<game>-<encoder>-s<seed>
    python benchmarks/atari100k.py collect            # benchmarks/results/atari100k.json
    python benchmarks/atari100k.py train --variants self_prediction

What each variant adds to experiment=atari100k stands at VARIANTS, and in the JSON.
Folders: <game>-<encoder>-<variant>-s<seed>, without the variant for `reactive`.

Both commands may be given on different machines, and training goes on where it was stopped: what
was recorded elsewhere stays recorded. The score of a run is the mean of its last evaluation, made
with the final weights.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.runs import train_all, whole  # noqa: E402 - benchmarks/ is no package
from evaluation.page import write_whole  # noqa: E402 - benchmarks/ is no package

RUNS = Path("runs") / "atari100k"
GAMES = ("road_runner", "krull", "boxing")
PUBLISHED = ("DER", "DrQ_eps", "SPR")
CONSTANT = "agent.target_tau_end=0"
MODEL = ("world_model=latent",)
ALWAYS = (*MODEL, "world_model.every=1")
VARIANTS: dict[str, tuple[str, ...]] = {
    "reactive": (),
    "world_model": MODEL,
    "self_prediction": (*ALWAYS, "world_model.advantage=0"),
    "self_prediction_first": ("world_model=self_prediction",),
    "changes": ("encoder.changes=true",),
    "changes_first": ("encoder.changes=true", "world_model=self_prediction"),
    "changes_augmented": (
        "agent=augmented",
        "encoder.changes=true",
        "encoder.bias_init=0.3",
        "encoder.surrogate_width=1",
    ),
    "graded": ("encoder.graded=true",),
    "graded_first": ("encoder.graded=true", "world_model=self_prediction"),
    "graded_drq": ("agent=drq", "encoder.graded=true"),
    "reset": ("plasticity=reset", "agent.updates_per_step=2"),
    "episodic_first": ("agent=episodic", "world_model=self_prediction"),
    "advantage": ALWAYS,
    "wide": ("encoder.width=2",),
    "wide_first": ("encoder.width=2", "world_model=self_prediction"),
    "fine": ("encoder.size=fine",),
    "nature": ("encoder.size=nature",),
    "drq": ("agent=drq", "agent.epsilon_hold=0"),  # as recorded, before that key was there
    "drq_held": ("agent=drq",),
    "drq_calibrated": ("agent=drq", "encoder.calibrated=true"),
    "augmented": ("agent=augmented",),
    "augmented_first": ("agent=augmented", "world_model=self_prediction"),
    "judged_as_is": (  # recorded before it had a mean, by overrides that come to the same
        "agent=augmented",
        "agent.explore_online=false",
        "agent.act_with_target=false",
    ),
    "long_return": ("agent.n_step_end=10",),
    "constant_target": (CONSTANT,),
    "explored_alike": (CONSTANT, "agent.epsilon_spread=1"),
    "constant_self_prediction": (CONSTANT, *ALWAYS, "world_model.advantage=0"),
    "normalised": (CONSTANT, "agent.normalise=true"),
}
RESULT = ROOT / "benchmarks" / "results" / "atari100k.json"


def train(args: argparse.Namespace) -> None:
    """Start every run that is not finished, `--jobs` at a time."""

    def overrides(game: str, encoder: str, variant: str, seed: int) -> list[str]:
        words = ["experiment=atari100k", f"sequence.games=[{game}]", f"encoder={encoder}"]
        return [*words, f"seed={seed}", "display=plain", *VARIANTS[variant], *args.overrides]

    def folder(game: str, encoder: str, variant: str, seed: int) -> Path:
        middle = "" if variant == "reactive" else f"{variant}-"
        return RUNS / f"{game}-{encoder}-{middle}s{seed}"

    every = [
        (game, encoder, variant, seed)
        for seed in args.seeds
        for game in args.games
        for encoder in args.encoders
        for variant in args.variants
    ]
    train_all([(folder(*run), overrides(*run)) for run in every], args.jobs)


def published() -> dict[str, dict[str, float]]:
    """Published scores per ROM and method."""
    path = ROOT / "benchmarks" / "data" / "atari100k_published.csv"
    with open(path) as file:
        return {row["rom"]: {m: float(row[m]) for m in PUBLISHED} for row in csv.DictReader(file)}


def collect(args: argparse.Namespace) -> None:
    """Add every finished run to the JSON."""
    runs = []
    for folder in sorted(p.parent for p in RUNS.glob("*-s[0-9]*/metrics.jsonl")):
        if folder.name.endswith("-taught"):  # of benchmarks/planning.py
            continue
        lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        evals = [x for x in lines if x["kind"] == "eval"]
        if not whole(lines):
            print(f"{folder.name}: not trained and judged at 100k steps, left out")
            continue
        manifest = json.loads((folder / "manifest.json").read_text())
        game, encoder, *variant, seed = folder.name.split("-")
        agent = yaml.safe_load((folder / "config.yaml").read_text())["agent"]
        rates = [x["agent_steps_per_s"] for x in lines if x["kind"] == "train"]
        runs.append(
            {
                "game": game,
                "encoder": encoder,
                "variant": variant[0] if variant else "reactive",
                "seed": int(seed[1:]),
                "score": float(np.mean(evals[-1]["returns"])),
                "episodes": len(evals[-1]["returns"]),
                "standard_error": float(
                    np.std(evals[-1]["returns"], ddof=1) / len(evals[-1]["returns"]) ** 0.5
                ),
                "curve": [[x["step"], float(np.mean(x["returns"]))] for x in evals],
                "agent_steps_per_s": float(np.median(rates)) if rates else None,
                "epsilon_spread": agent.get("epsilon_spread", 1.0),  # 1 before the key was there
                "normalise": agent.get("normalise", False),
                "target_tau_end": agent.get("target_tau_end", 0.0),
                "command": manifest["command"],
                "device": manifest["device"],
                "machine": manifest["machine"],
                "versions": manifest["versions"],
                "commit": manifest["commit"],
                "later_commits": [
                    x["commit"] for x in manifest.get("later_starts", []) if "commit" in x
                ],
            }
        )
    names = ("game", "encoder", "variant", "seed")
    found = {tuple(r[k] for k in names) for r in runs}
    recorded = json.loads(RESULT.read_text())["runs"] if RESULT.exists() else []
    runs += [r for r in recorded if tuple(r[k] for k in names) not in found]
    runs.sort(key=lambda r: tuple(r[k] for k in names))
    table = {}
    for game in GAMES:
        row: dict[str, object] = {"published": published()[game]}
        for variant in VARIANTS:
            for encoder in ("conv", "spiking"):
                kind = (game, encoder, variant)
                mine = [r for r in runs if (r["game"], r["encoder"], r["variant"]) == kind]
                scores = [r["score"] for r in mine]
                cell = {"mean": float(np.mean(scores)), "seeds": scores} if scores else None
                row[encoder if variant == "reactive" else f"{encoder} {variant}"] = cell
        table[game] = row
    result = {
        "command": "python benchmarks/atari100k.py train && python benchmarks/atari100k.py collect",
        "what": "return at 100k agent steps (400k frames), single game",
        "variants": {name: " ".join(overrides) for name, overrides in VARIANTS.items()},
        "table": table,
        "runs": runs,
    }
    write_whole(RESULT, json.dumps(result, indent=1) + "\n")
    for game, row in table.items():
        print(game, json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("train", "collect"))
    parser.add_argument("--games", nargs="+", default=GAMES)
    parser.add_argument("--encoders", nargs="+", default=("conv", "spiking"))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=("reactive",))
    parser.add_argument("--seeds", nargs="+", type=int, default=(0,))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--overrides", nargs="*", default=(), help="further overrides of train.py")
    args = parser.parse_args()
    {"train": train, "collect": collect}[args.action](args)


if __name__ == "__main__":
    main()
