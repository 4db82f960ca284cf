"""What each method keeps of earlier games: three games, two cycles, equal bytes, equal budget.

    python benchmarks/continual.py train --jobs 2 --steps 10000
    python benchmarks/continual.py collect      # benchmarks/results/continual.json and .png
    python benchmarks/continual.py collect --out runs/other --name continual_other

`train` makes runs/continual/<method>-s<seed>; it leaves out what is finished and goes on with what
was interrupted. It also trains the single-task references: each game alone, with the budget of all
its visits in one stretch.

Equal bytes: a budget is set by `--capacity`, the transitions of finetune's replay (by default those
of one visit, at least 5,000: a replay that holds the whole run forgets nothing). What a method
keeps besides (episodic memory and its index, importances and anchors, the copy that is cloned) is
measured on the agent itself and paid for by fewer transitions (agents/footprint.py).

What was recorded elsewhere stays recorded: `collect` adds the runs it finds, and scales all of them
anew by all references (`--afresh` forgets what was recorded).

Scores are (score - random) / (single - random) with single = the reference's last evaluation, so 1
is what the agent reaches on that game alone. Games not learned even alone are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from evaluation.metrics import Curve, Visit
    from evaluation.runlog import RunLog
    from training.config import RunConfig

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.recording import called  # noqa: E402 - benchmarks/ is no package
from benchmarks.runs import train_all  # noqa: E402
from evaluation.page import write_whole  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
GAMES = ("road_runner", "krull", "kung_fu_master")  # of configs/sequence/quickstart.yaml
CYCLES = 2
PLAIN = "agent=reactive"
METHODS: dict[str, tuple[str, ...]] = {
    "finetune": (PLAIN,),
    "engram": ("agent=engram",),
    "cloning": (PLAIN, "replay=cloning"),
    "online_ewc": (PLAIN, "consolidation=[online_ewc]"),
    "ewc": (PLAIN, "consolidation=[ewc]"),
    "si": (PLAIN, "consolidation=[si]"),
    "mas": (PLAIN, "consolidation=[mas]"),
    # Not in the default list: engram with consolidation, and parts of it alone.
    "engram_online_ewc": ("agent=engram", "consolidation=[online_ewc]"),
    # Told only when the game changes; told nothing; told, but with all 18 actions like those two.
    "engram_boundaries": ("agent=engram", "task_labels=boundaries"),
    "engram_none": ("agent=engram", "task_labels=none"),
    "engram_full_actions": ("agent=engram", "protocol.actions=full"),
    "half_reservoir": (PLAIN, "replay=fifo_and_reservoir"),
    "episodic": ("agent=episodic",),
    "redo": (PLAIN, "plasticity=redo"),
    "continual_backprop": (PLAIN, "plasticity=continual_backprop"),
    "shrink_perturb": (PLAIN, "plasticity=shrink_perturb"),
}
DEFAULT = tuple(METHODS)[:7]
# Share of the way from random to human that a reference must have come: a game that is not learned
# even alone has no scale, and is left out of all means.
LEARNED = 0.02
EPISODES = 8  # of an evaluation; quickstart's 4 leave forgetting in the noise
FINAL_EPISODES = 20


# -- runs -----------------------------------------------------------------------------------------
def common(args: argparse.Namespace) -> list[str]:
    """Overrides of every run: those of experiment=quickstart, evaluated twice a visit."""
    return [
        "experiment=quickstart",
        f"eval.every={max(args.steps // 2, 1)}",
        f"eval.episodes={EPISODES}",
        f"eval.num_envs={EPISODES}",
        f"eval.final_episodes={FINAL_EPISODES}",
        f"checkpoint.every={max(args.steps // 2, 1)}",
        "device=cpu",
        "display=plain",
        "agent.updates_per_step=1",  # as most runs were recorded; quickstart's own is 0.25
        "agent.epsilon_decay=2000",  # as all runs were recorded; quickstart's own is 5000
        *args.overrides,
    ]


def of_method(method: str, seed: int, args: argparse.Namespace) -> list[str]:
    """Overrides of train.py, without run=."""
    capacity = args.capacity or max(args.steps, 5_000)
    overrides = [
        *common(args),
        *METHODS[method],
        f"sequence.games=[{','.join(args.games)}]",
        f"sequence.steps_per_task={args.steps}",
        f"sequence.cycles={CYCLES}",
        f"seed={seed}",
    ]
    if method.startswith(("engram", "episodic")):
        # an entry for each transition of one visit to each game
        overrides.append(f"memory.capacity={len(args.games) * args.steps}")
    # Told nothing it may take a few bytes more, its contexts' own: with the replay of the agent
    # that is told, the two are one and the same run until the first change, and what differs
    # afterwards is not the luck of another run.
    told = [o for o in overrides if not o.startswith("task_labels=")]
    return [*overrides, f"agent.replay_capacity={affordable(told, capacity)}"]


def of_single(game: str, seed: int, args: argparse.Namespace) -> list[str]:
    return [
        *common(args),
        PLAIN,
        f"sequence.games=[{game}]",
        f"sequence.steps_per_task={CYCLES * args.steps}",
        "sequence.cycles=1",
        f"seed={seed}",
        f"agent.replay_capacity={args.capacity or max(args.steps, 5_000)}",
    ]


def affordable(overrides: list[str], capacity: int) -> int:
    """Transitions of replay that leave the method within the bytes of a plain replay of `capacity`
    transitions."""
    plain = [o for o in overrides if not o.startswith(("agent=", "replay=", "consolidation="))]
    budget = held([*plain, PLAIN, f"agent.replay_capacity={capacity}"])["replay"]
    own = held([*overrides, f"agent.replay_capacity={capacity}"])
    left = budget - sum(own[part] for part in own if part != "replay")
    if left < 0.1 * budget:
        sys.exit(
            f"{overrides}: what it keeps besides replay takes more than nine tenths of the "
            f"{budget / 1e6:.0f} MB of {capacity} transitions: give a larger --capacity"
        )
    # A little of a replay's bytes does not depend on its capacity: two sizes give the line.
    half = held([*overrides, f"agent.replay_capacity={capacity // 2}"])["replay"]
    slope = (own["replay"] - half) / (capacity - capacity // 2)
    return min(capacity, int(capacity - (own["replay"] - left) / slope))


def held(overrides: list[str]) -> dict[str, int]:
    """Bytes that an agent of this configuration remembers with, by part."""
    from training.config import load_config

    return bytes_of(load_config(overrides))


def bytes_of(config: RunConfig) -> dict[str, int]:
    import torch

    from agents.footprint import footprint
    from training.build import build_agent

    return footprint(build_agent(config, torch.device("cpu")))


def finished(folder: Path, visits: int) -> bool:
    path = folder / "metrics.jsonl"
    ends = '"kind":"task"', '"event":"end"'
    if not path.exists():
        return False
    lines = path.read_text().splitlines()
    return sum(all(e in line for e in ends) for line in lines) == visits


def train(args: argparse.Namespace) -> None:
    """Start every run that is not finished, `--jobs` at a time; references first."""
    plan: list[tuple[Path, list[str], int]] = []
    for seed in args.seeds:
        for game in args.games if args.references else ():
            plan.append((args.out / f"single.{game}-s{seed}", of_single(game, seed, args), 1))
        for method in args.methods:
            visits = CYCLES * len(args.games)
            plan.append((args.out / f"{method}-s{seed}", of_method(method, seed, args), visits))
    args.out.mkdir(parents=True, exist_ok=True)
    note, command = args.out / "command.txt", called()
    given = note.read_text().splitlines() if note.exists() else []
    note.write_text("\n".join([*(c for c in given if c != command), command]) + "\n")
    todo = []
    for folder, overrides, visits in plan:
        if finished(folder, visits):
            print(f"{folder.name}: finished already", flush=True)
        else:
            todo.append((folder.resolve(), overrides))
    train_all(todo, args.jobs)


# -- results --------------------------------------------------------------------------------------
class Run(NamedTuple):
    """A finished run, as found in its folder or as recorded."""

    visits: list[Visit]
    raw: dict[str, Curve]  # mean returns of each game's evaluations
    kept: dict  # what the JSON says of it; figures that depend on the scale are made anew


def collect(args: argparse.Namespace) -> None:
    """Add every finished run under --out to the JSON, scale all anew, and draw the figure."""
    from envs.scores import reference
    from evaluation.metrics import Curve, as_curve, continual_metrics

    path = args.results / f"{args.name}.json"
    old = json.loads(path.read_text()) if path.exists() and not args.afresh else None
    methods, alone = recorded(old) if old else ({}, {})
    for folder in sorted(p.parent for p in args.out.glob("*/metrics.jsonl")):
        found(folder, methods, alone, old)
    if not methods:
        sys.exit(f"{args.out} holds no finished run yet: {parser().prog} train")
    order = [m for m in METHODS if m in methods]
    one = next(iter(methods[order[0]].values()))
    games = list(dict.fromkeys(v.game for v in one.visits))
    missing = [g for g in games if g not in alone]
    if missing:
        sys.exit(f"the single-task runs of {', '.join(missing)} are not finished")

    low = {g: reference(g).random for g in games}
    high = {g: np.mean([curve[-1][1] for curve in alone[g].values()]) for g in games}
    span = {g: reference(g).human - low[g] for g in games}
    used = [g for g in games if high[g] - low[g] > LEARNED * span[g]]
    if not used:
        sys.exit("no game was learned above random even alone: give more --steps")

    # A game without a scale is still part of the sequence: it is measured on the human one.
    top = {g: high[g] if g in used else low[g] + span[g] for g in games}

    def scaled(game: str, curve: Curve) -> Curve:
        return Curve(curve.steps, (curve.scores - low[game]) / (top[game] - low[game]))

    result: dict[str, dict] = {}
    curves: dict[str, list[dict[str, Curve]]] = {}
    for method in order:
        runs = []
        for seed, run in sorted(methods[method].items()):
            own = {g: scaled(g, c) for g, c in run.raw.items()}
            single = {g: scaled(g, as_curve(g, of_seed(alone[g], seed))) for g in games}
            metrics = continual_metrics(own, run.visits, single)

            def mean(by_game: dict[str, float | None]) -> float | None:
                return _mean([by_game[g] for g in used])

            lost = [v.value for v in metrics.visit_forgetting if v.game in used]
            figures = {
                "average": mean(metrics.now),
                "forgetting": mean(metrics.forgetting_by_game),
                "forgetting_by_game": {g: metrics.forgetting_by_game[g] for g in used},
                "visit_forgetting": _mean(lost),
                "forward_transfer": mean(metrics.forward_transfer_by_game),
                "intransigence": mean(metrics.intransigence_by_game),
                "intransigence_by_game": {g: metrics.intransigence_by_game[g] for g in used},
                "scores_at_the_end": {g: metrics.now[g] for g in used},
                "matrix": [metrics.level[metrics.games.index(g)].tolist() for g in used],
            }
            runs.append({"seed": seed} | run.kept | figures)
            curves.setdefault(method, []).append({g: own[g] for g in used})
        averaged = ("average", "forgetting", "visit_forgetting", "forward_transfer",
                    "intransigence", "seconds", "agent_steps_per_s", "bytes_total")  # fmt: skip
        result[method] = {
            "overrides": list(METHODS[method]),
            "mean": {f: _mean([r[f] for r in runs]) for f in averaged},
            "runs": runs,
        }
    note = args.out / "command.txt"
    commands = [c for c in old["command"].split(" && ") if " collect" not in c] if old else []
    given = note.read_text().splitlines() if note.exists() else []
    commands += [c for c in given if c not in commands]
    written = {
        "command": " && ".join([*commands, called()]),
        "what": "scores are (score - random) / (single - random); average: at the end; forgetting: "
        "from the end of a game's latest visit to the end of the run; visit_forgetting: from the "
        "end of each visit to the beginning of the next of that game; intransigence and forward "
        "transfer: first visit against the reference at the same steps",
        "games": games,
        "games_without_scale": [g for g in games if g not in used],
        "steps_per_visit": int(one.visits[0].end),
        "cycles": len(one.visits) // len(games),
        "single": {
            g: {
                "random": low[g],
                "end": float(high[g]),
                "runs": {str(seed): alone[g][seed] for seed in sorted(alone[g])},
            }
            for g in games
        },
        "methods": result,
    }
    args.results.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(written, indent=1) + "\n")
    draw(curves, used, one.visits).savefig(args.results / f"{args.name}.png")
    for method, row in result.items():
        shown = {k: None if v is None else round(v, 3) for k, v in row["mean"].items()}
        print(method, json.dumps(shown))


def of_seed(references: dict[int, list], seed: int) -> list:
    """The reference of this seed, or the mean of all where it has none."""
    if seed in references:
        return references[seed]
    return np.mean([np.array(rows) for rows in references.values()], axis=0).tolist()


def recorded(old: dict) -> tuple[dict[str, dict[int, Run]], dict[str, dict[int, list]]]:
    """The runs of a written JSON: by method and seed, and the references by game and seed."""
    from evaluation.metrics import Visit, as_curve

    steps = old["steps_per_visit"]
    visits = [
        Visit(game, i * steps, (i + 1) * steps)
        for i, game in enumerate(old["games"] * old["cycles"])
    ]
    methods = {
        method: {
            run["seed"]: Run(
                visits,
                {g: as_curve(g, pairs) for g, pairs in run["returns"].items()},
                run,
            )
            for run in row["runs"]
        }
        for method, row in old["methods"].items()
    }
    alone = {g: {int(s): x for s, x in row["runs"].items()} for g, row in old["single"].items()}
    return methods, alone


def found(folder: Path, methods: dict, alone: dict, old: dict | None) -> None:
    """Add the run of `folder` to the others, if it is finished and of the same sequence."""
    from evaluation.runlog import read_run_log
    from training.config import read_config

    name, _, seed = folder.name.rpartition("-s")
    config = read_config(folder / "config.yaml")
    if not finished(folder, len(config.sequence.games) * config.sequence.cycles):
        print(f"{folder.name}: not finished, left out")
        return
    log = read_run_log(folder)
    game = name.removeprefix("single.") if name.startswith("single.") else None
    if old is not None:
        steps, games = old["steps_per_visit"], old["games"]
        same = (list(log.games), log.visits[0].end) == (games, steps)
        if not (log.visits[0].end == old["cycles"] * steps and game in games if game else same):
            sys.exit(f"{folder}: of another sequence than what is recorded; --afresh forgets that")
    if game:
        alone.setdefault(game, {})[int(seed)] = [
            [float(step), float(score)] for step, score in zip(*log.raw_curves()[game])
        ]
        return
    rates = [x.numbers["agent_steps_per_s"] for x in log.train]
    sizes = bytes_of(config)
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = {
        "seconds": max((x.numbers["seconds"] for x in log.train), default=None),
        "agent_steps_per_s": float(np.median(rates)) if rates else None,
        "bytes": sizes,
        "bytes_total": sum(sizes.values()),
        "returns": {g: [[e.step, e.mean] for e in es] for g, es in log.evaluations.items()},
        "memory": remembered(log) if config.task_labels == "oracle" else [],
        "run": folder.name,
        **{k: manifest[k] for k in ("commit", "machine", "device", "versions")},
    }
    methods.setdefault(name, {})[int(seed)] = Run(log.visits, log.raw_curves(), kept)


def remembered(log: RunLog) -> list[dict]:
    """What the episodic memory still holds of each game after the next game's first visit.

    entries: of the game's own; kept: the share of moments kept aside (agents/episodic/probes.py)
    that is still stored; error: of their values, in units of the spread of their returns.
    """
    rows = []
    for game, (visit, following) in enumerate(zip(log.visits, log.visits[1:])):
        if game >= len(log.games) or log.games[game] != visit.game:
            break  # first visits only
        names = {"entries": "size", "kept": "kept", "error": "error"}
        lines = [
            {k: x.numbers[f"memory/{name}/{game}"] for k, name in names.items()}
            for x in log.train
            if following.start < x.step <= following.end and f"memory/kept/{game}" in x.numbers
        ]
        if lines:
            rows.append({"game": visit.game, "next": following.game, "left": lines[0],
                         "after": lines[-1]})  # fmt: skip
    return rows


def _mean(values: list) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def draw(curves: dict, games: list[str], visits):
    """Forgetting curves: a panel a game, a line a method (mean of its seeds)."""
    from evaluation.style import dress, look, new_figure, step_axis

    figure = new_figure(2.5 * len(games))
    panels = figure.subplots(len(games), 1, squeeze=False, sharex=True)[:, 0]
    for axes, game in zip(panels, games):
        for visit in visits:
            if visit.game == game:
                axes.axvspan(visit.start, visit.end, color="#eeeeee", zorder=0)
        for i, (method, seeds) in enumerate(curves.items()):
            steps = seeds[0][game].steps
            mean = np.mean([np.interp(steps, *c[game]) for c in seeds], axis=0)
            axes.plot(steps, mean, label=method, **look(i))
        axes.axhline(1, color="#777777", linewidth=0.8)
        dress(axes, game, "share of the game alone")
        step_axis(axes, visits[-1].end)
    panels[-1].set_xlabel("agent steps (shaded: the game is being trained)")
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper left", ncols=5, fontsize=9, frameon=False)
    return figure


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    out.add_argument("action", choices=("train", "collect"))
    out.add_argument("--games", nargs="+", default=GAMES)
    out.add_argument("--methods", nargs="+", default=DEFAULT, choices=tuple(METHODS))
    out.add_argument("--seeds", nargs="+", type=int, default=(0,))
    out.add_argument("--steps", type=int, default=10_000, help="agent steps of a visit")
    out.add_argument(
        "--no-references", dest="references", action="store_false", help="they are recorded already"
    )
    out.add_argument("--afresh", action="store_true", help="collect: forget what was recorded")
    out.add_argument("--capacity", type=int, help="transitions that the bytes of all methods equal")
    out.add_argument("--jobs", type=int, default=1)
    out.add_argument("--out", type=Path, default=Path("runs") / "continual")
    out.add_argument("--results", type=Path, default=RESULTS)
    out.add_argument("--name", default="continual", help="of the JSON and the figure")
    out.add_argument("--overrides", nargs="*", default=(), help="further overrides of train.py")
    return out


if __name__ == "__main__":
    arguments = parser().parse_args()
    {"train": train, "collect": collect}[arguments.action](arguments)
