"""How soon, and how often in vain, an agent without labels notices that the game has changed.

    python benchmarks/change_detection.py train           # runs/change/<signal>-s<seed>
    python benchmarks/change_detection.py collect         # benchmarks/results/change_detection.json
    python benchmarks/change_detection.py collect --runs runs/continual/engram_none-s0

`train` makes short runs with task_labels=none, one for each of --signals; `collect` reads any runs
with task_labels=none. The truth stands in metrics.jsonl beside the agent's alarms:

- delay: agent steps from a true change to the first alarm after it, within the visit;
- missed: changes whose whole visit passed without an alarm;
- false alarms: all other alarms, per 10,000 agent steps;
- a visit is known if the context that it is mostly played in is new for a game that is met for the
  first time, and for one that returns the context that it was mostly played in before.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.recording import called  # noqa: E402 - benchmarks/ is no package
from benchmarks.runs import train_all  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
GAMES = ("road_runner", "krull", "kung_fu_master")  # the detector was chosen on others
SIGNALS = ("screen", "spikes", "both")


def train(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "command.txt", "a") as note:
        note.write(called() + "\n")
    runs = []
    for seed in args.seeds:
        for signal in args.signals:
            overrides = [
                "experiment=quickstart",
                f"agent={args.agent}",
                "task_labels=none",
                f"change.signal={signal}",
                f"sequence.games=[{','.join(args.games)}]",
                f"sequence.steps_per_task={args.steps}",
                f"sequence.cycles={args.cycles}",
                f"seed={seed}",
                f"memory.capacity={len(args.games) * args.steps}",
                # Nothing is judged here but the alarms.
                "eval.every=1000000",
                "eval.episodes=1",
                "eval.final_episodes=1",
                "eval.max_steps=50",
                "device=cpu",
                "display=plain",
                "agent.updates_per_step=1",  # as recorded where nothing else is said
                "agent.epsilon_decay=2000",
                *args.overrides,
            ]
            runs.append(((args.out / f"{signal}-s{seed}").resolve(), overrides))
    train_all(runs)


def read(folder: Path) -> dict:
    """What one run says: visits, alarms and the truth."""
    from errors import UserError
    from training.config import read_config

    config = read_config(folder / "config.yaml")
    if config.task_labels != "none":
        raise UserError(f"{folder}: task_labels={config.task_labels}: a run with none is needed")
    visits, alarms = [], []
    for text in (folder / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["kind"] == "task" and line["event"] == "begin":
            visits.append({"game": line["game"], "begin": line["step"]})
        elif line["kind"] == "task":
            visits[-1]["end"] = line["step"]
        elif line["kind"] == "change":
            alarms.append({k: line[k] for k in ("step", "task", "context", "left", "score")})
    visits = [v for v in visits if "end" in v]
    planned = len(config.sequence.games) * config.sequence.cycles
    alarms = [a for a in alarms if a["task"] < len(visits)]
    return {
        "run": folder.name,
        "signal": config.change.signal,
        "seed": config.seed,
        "games": [v["game"] for v in visits],
        "agent_steps": visits[-1]["end"] if visits else 0,
        "finished": len(visits) == planned,
        **judge(visits, alarms),
        "alarms": alarms,
    }


def judge(visits: list[dict], alarms: list[dict]) -> dict:
    """Delays, missed changes, false alarms and known visits.

    Args:
        visits: game, begin, end (agent steps), in order.
        alarms: step, task (index of the visit) and the context that was entered.
    """
    delays: list[int | None] = []
    context, main, used = 0, {}, {0}  # main: the context that each game was mostly played in
    known, false = [], 0
    for i, visit in enumerate(visits):
        own = [a for a in alarms if a["task"] == i]
        again = i > 0 and visit["game"] == visits[i - 1]["game"]
        if i and not again:
            delays.append(own[0]["step"] - visit["begin"] if own else None)
        false += len(own) - (1 if own and i and not again else 0)
        before, steps, since = set(used) - ({0} if i == 0 else set()), {}, visit["begin"]
        for step, entered in [(a["step"], a["context"]) for a in own] + [(visit["end"], None)]:
            steps[context] = steps.get(context, 0) + step - since
            since = step
            if entered is not None:
                context = entered
                used.add(context)
        most = max(steps, key=steps.get)
        expected = main.get(visit["game"])
        known.append(most == expected if expected is not None else most not in before)
        main.setdefault(visit["game"], most)
    total = visits[-1]["end"] if visits else 0
    return {
        "delays": delays,
        "missed": sum(d is None for d in delays),
        "false_alarms": false,
        "false_alarms_per_10k": 1e4 * false / total if total else None,
        "known": known,
        "contexts": len(used),
    }


def collect(args: argparse.Namespace) -> None:
    folders = args.runs or sorted(p.parent for p in args.out.glob("*/metrics.jsonl"))
    runs = [read(folder) for folder in folders]
    for run in runs:
        if not run["finished"]:
            print(f"{run['run']}: not finished, left out")
    runs = [run for run in runs if run["finished"]]
    if not runs:
        sys.exit(f"{args.out} holds no finished run: benchmarks/change_detection.py train")
    signals = {}
    for signal in sorted({r["signal"] for r in runs}):
        own = [r for r in runs if r["signal"] == signal]
        delays = [d for r in own for d in r["delays"] if d is not None]
        steps = sum(r["agent_steps"] for r in own)
        signals[signal] = {
            "changes": sum(len(r["delays"]) for r in own),
            "missed": sum(r["missed"] for r in own),
            "delay_median": float(np.median(delays)) if delays else None,
            "delay_max": max(delays, default=None),
            "false_alarms": sum(r["false_alarms"] for r in own),
            "false_alarms_per_10k": 1e4 * sum(r["false_alarms"] for r in own) / max(steps, 1),
            "visits_known": sum(sum(r["known"]) for r in own),
            "visits": sum(len(r["known"]) for r in own),
            "agent_steps": steps,
        }
    first = json.loads((folders[0] / "manifest.json").read_text())
    note = args.out / "command.txt"
    commands = note.read_text().splitlines() if note.exists() and not args.runs else []
    result = {
        "command": " && ".join([*commands, called()]),
        "what": "delay in agent steps from a true change of game to the alarm; false alarms per "
        "10,000 agent steps; visits_known: mostly played in a new context where the game is new, "
        "in its own where it returns",
        "signals": signals,
        "runs": runs,
        **{k: first[k] for k in ("machine", "device", "versions", "commit")},
    }
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "change_detection.json").write_text(json.dumps(result, indent=1) + "\n")
    for signal, row in signals.items():
        print(signal, json.dumps(row))


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    out.add_argument("action", choices=("train", "collect"))
    out.add_argument("--games", nargs="+", default=GAMES)
    out.add_argument("--signals", nargs="+", default=SIGNALS[:1], choices=SIGNALS)
    out.add_argument("--seeds", nargs="+", type=int, default=(0,))
    out.add_argument("--steps", type=int, default=1_500, help="agent steps of a visit")
    out.add_argument("--cycles", type=int, default=2)
    out.add_argument("--agent", default="engram")
    out.add_argument("--out", type=Path, default=Path("runs") / "change")
    out.add_argument("--runs", nargs="*", type=Path, help="read these runs instead of --out")
    out.add_argument("--results", type=Path, default=RESULTS)
    out.add_argument("--overrides", nargs="*", default=(), help="further overrides of train.py")
    return out


if __name__ == "__main__":
    arguments = parser().parse_args()
    {"train": train, "collect": collect}[arguments.action](arguments)
