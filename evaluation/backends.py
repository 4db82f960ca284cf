"""The same trained agent on several backends: does the core decide, score and fire as it should?

    python evaluate.py run=runs/x backend=torch,event_core

Each backend plays the same episodes (equal seeds: returns are paired) by the network's values
alone: an agent's episodic memory and planner have no say, and the report names them. At every
decision of these whole episodes the other backend is asked too: the share of equal greedy actions
is the action agreement, told apart by who was playing; the same share of the clear decisions stands
beside it. On the core every event is counted and billed under every price table. Written into the
run's folder: report/backends.json, report/raster_<game>.png, and TensorBoard scalars under
`backends/`.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.agent import Agent
from agents.backend import BACKENDS, BackendConfig, EventBackend
from agents.losses import masked_argmax
from agents.network import QNetwork
from envs.scores import hns
from errors import UserError, require
from evaluation.backends_table import backends_table
from evaluation.evaluator import EvalGame, Evaluator
from evaluation.page import write_whole
from neuromorphic import TABLES, Ledger
from neuromorphic.prices import MAC

KEYS = (
    "run", "step", "backend", "games", "episodes", "core", "chips", "weight_bits", "synapses",
    "neurobench",
)  # fmt: skip
LOGGED = 256  # observations kept of a game, for timing and for the raster
REPETITIONS = 2000  # bootstrap resamplings
CLEAR = 0.01  # a clear decision: the best value leads the second by more than this share of itself


@dataclass
class Watch:
    """What is noted at the decisions of one backend's whole episodes in one game."""

    decisions: int = 0
    agreed: dict[str, int] = field(default_factory=dict)  # by the backend that was asked too
    clear: int = 0  # decisions that were clear to the player
    clear_agreed: dict[str, int] = field(default_factory=dict)
    ledger: Ledger | None = None  # of the core, whoever played
    logged: list[np.ndarray] = field(default_factory=list)  # [4, 84, 84] each


class Contest:
    """Plays an agent's acting network on each backend and asks the others at every decision."""

    def __init__(self, agent: Agent, backends: Sequence[str], config: BackendConfig) -> None:
        network = agent.acting_network
        network.quiet()
        self.masks = agent.masks
        self.event = EventBackend(config, network) if "event_core" in backends else None
        self.networks: dict[str, QNetwork] = {
            name: self.event.network if name == "event_core" else network for name in backends
        }
        self.notes: dict[tuple[str, str], Watch] = {}  # by player and game

    @torch.no_grad()
    def values(self, backend: str, obs: np.ndarray) -> torch.Tensor:
        return self.networks[backend](torch.from_numpy(obs)).q  # [N, A]

    def greedy(self, q: torch.Tensor, game: int) -> np.ndarray:
        """Greedy actions [N] of values [N, A]."""
        return masked_argmax(q, self.masks[game].expand_as(q)).numpy()

    def actions(self, backend: str, obs: np.ndarray, game: int) -> np.ndarray:
        """Greedy actions [N]."""
        return self.greedy(self.values(backend, obs), game)

    def play(self, backend: str, evaluator: Evaluator, games: Sequence[str]) -> dict:
        """Results by game of `backend` playing; its decisions are noted."""

        def policy(obs: np.ndarray, game: EvalGame) -> np.ndarray:
            return self.actions(backend, obs, game.index)

        def watch(obs: np.ndarray, game: EvalGame) -> None:
            self._note(self.notes.setdefault((backend, game.name), Watch()), backend, obs, game)

        return evaluator.evaluate_all(policy, games, watch)

    def _note(self, note: Watch, player: str, obs: np.ndarray, game: EvalGame) -> None:
        if self.event is not None:
            self.event.encoder.reset_counts()
        values = {name: self.values(name, obs) for name in self.networks}
        chosen = {name: self.greedy(q, game.index) for name, q in values.items()}
        clear = clear_decisions(values[player][:, self.masks[game.index]].numpy())
        note.decisions += len(obs)
        note.clear += int(clear.sum())
        for name, actions in chosen.items():
            if name != player:
                equal = int((actions == chosen[player]).sum())
                note.agreed[name] = note.agreed.get(name, 0) + equal
                equal = int((actions == chosen[player])[clear].sum())
                note.clear_agreed[name] = note.clear_agreed.get(name, 0) + equal
        if self.event is not None:
            ledger = self.event.encoder.ledger()
            note.ledger = ledger if note.ledger is None else note.ledger + ledger
        # the first, then every so-and-so-many-th decision, so that the sample spans episodes
        due = note.decisions // 16 > (note.decisions - len(obs)) // 16
        if not note.logged or (due and len(note.logged) < LOGGED):
            note.logged.append(obs[0].copy())

    def milliseconds(self, logged: Sequence[np.ndarray], rounds: int = 5) -> dict[str, dict]:
        """Time of one decision, batch 1: {backend: {encoder, whole}}, best of interleaved rounds.

        The core starts each decision from the image of the one before, as it does in play.
        """
        batches = [torch.from_numpy(obs[None]) for obs in logged[:64]]
        calls: dict[tuple[str, str], Callable] = {}
        for name, network in self.networks.items():
            calls[name, "encoder"] = network.encoder
            calls[name, "whole"] = network
        best = dict.fromkeys(calls, float("inf"))
        with torch.inference_mode():
            for _ in range(rounds + 1):
                for key, call in calls.items():
                    begin = time.perf_counter()
                    for batch in batches:
                        call(batch)
                    best[key] = min(best[key], time.perf_counter() - begin)
        out: dict[str, dict] = {name: {} for name in self.networks}
        for (name, part), seconds in best.items():
            out[name][part] = seconds / len(batches) * 1e3
        return out


def clear_decisions(values: np.ndarray) -> np.ndarray:
    """bool [N]: where the best of values [N, A] leads the second by more than CLEAR of itself.

    Of the others a young agent has many: its actions are worth the same to it, and any rounding
    turns the choice between them. Their disagreement counts in full in `agreement_while_playing`.
    """
    if values.shape[1] < 2:
        return np.ones(len(values), bool)
    second, best = np.partition(values, -2, axis=1)[:, -2:].T
    return best - second > CLEAR * np.abs(best)


def compare_backends(
    run: Any,
    backends: Sequence[str],
    games: Sequence[str],
    episodes: int,
    config: BackendConfig,
) -> dict:
    """The whole comparison as plain data, without the pictures.

    run: a `training.loading.LoadedRun`.
    """
    contest = Contest(run.agent, backends, config)
    evaluator = Evaluator(**run.evaluator_settings(episodes=episodes))
    try:
        results = {name: contest.play(name, evaluator, games) for name in backends}
    finally:
        evaluator.close()
    report: dict[str, Any] = {
        "run": str(run.path),
        "step": run.step,
        "backends": list(backends),
        "episodes": episodes,
        "seed": run.config.seed,
        "left_out": _left_out(run.config),
        "games": {},
    }
    if contest.event is not None:
        program = contest.event.encoder.core.program
        report["core"] = {
            "name": program.core.name,
            "chips": program.core.chips,
            "cores_used": len(program.placement.tiles),
            "weight_bits": program.network.config.weight_bits,
            "synapses": program.network.config.synapses,
        }
    for game in games:
        report["games"][game] = _game(contest, game, {b: results[b][game] for b in backends})
    return report | {"contest": contest}


def _left_out(config: Any) -> list[str]:
    """Parts of the agent that have no say here: its learned values decide alone."""
    has = {
        "episodic memory": config.memory.controller != "none",
        "planner": config.planner.name != "none",
    }
    return [part for part, there in has.items() if there]


def _game(contest: Contest, game: str, results: Mapping[str, Any]) -> dict:
    names = list(results)
    first = contest.notes[names[0], game]
    times = contest.milliseconds(first.logged)
    out: dict[str, Any] = {"backends": {}}
    for name, result in results.items():
        note = contest.notes[name, game]
        returns = [float(r) for r in result.returns]
        out["backends"][name] = {
            "returns": returns,
            "mean_return": float(np.mean(returns)),
            "hns": _finite(hns(game, float(np.mean(returns)))),
            "capped": int(result.capped.sum()),
            "decisions": note.decisions,
            "agreement_while_playing": {
                other: agreed / note.decisions for other, agreed in note.agreed.items()
            },
            "clear_decisions": note.clear,
            "agreement_on_clear_decisions": {
                other: agreed / note.clear if note.clear else None
                for other, agreed in note.clear_agreed.items()
            },
            "ms_per_decision": times[name],
        }
    if len(names) > 1:
        reference, *others = names
        out["paired"] = {
            name: paired(results[reference].returns, results[name].returns) for name in others
        }
    if "event_core" in names:
        out["core"] = core_numbers(contest, contest.notes["event_core", game].ledger)
    return out


def paired(theirs: np.ndarray, ours: np.ndarray, seed: int = 0) -> dict:
    """Ours against theirs over paired episodes, with 95 % bootstrap intervals.

    ratio is None where the reference's mean is not above 0 in every resampling: a ratio of
    returns says nothing there.
    """
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(ours), (REPETITIONS, len(ours)))
    mine, other = ours[draws].mean(1), theirs[draws].mean(1)
    out: dict[str, Any] = {
        "difference": [float(ours.mean() - theirs.mean()), *_interval(mine - other)],
        "equal_episodes": int((ours == theirs).sum()),
        "ratio": None,
    }
    if other.min() > 0:
        out["ratio"] = [float(ours.mean() / theirs.mean()), *_interval(mine / other)]
    return out


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _interval(values: np.ndarray) -> list[float]:
    return [float(x) for x in np.percentile(values, [2.5, 97.5])]


def core_numbers(contest: Contest, ledger: Ledger) -> dict:
    """Spikes, operations and energy a decision while the core played."""
    encoder, decisions = contest.event.encoder, ledger.decisions
    even = ledger.break_even("loihi1")
    energy = {}
    for name in TABLES:
        bill = ledger.bill(name)
        energy[name] = {
            "nanojoule": bill.picojoule_per_decision / 1e3 if bill.lines else None,
            "grade": bill.grade,
            "unpriced_events": {event: count / decisions for event, count in bill.unpriced},
            "static_milliwatt_not_included": bill.static_milliwatt,
            "note": bill.note,
        }
    macs = even.macs / decisions
    return {
        "spikes": {
            name: layer["spike"] / decisions
            for name, layer in zip(encoder.layer_names, ledger.layers)
        },
        "activity": {
            name: layer["spike"] / (decisions * ledger.time_steps * neurons)
            for name, layer, neurons in zip(
                encoder.layer_names, ledger.layers, encoder.layer_neurons
            )
        },
        "events": {event: count / decisions for event, count in ledger.counts().items()},
        "synaptic_ops": ledger["synaptic_op"] / decisions,
        "overflows": ledger.overflows,
        "energy": energy,
        "dense": {
            "macs": macs,
            "nanojoule": {kind: macs * price.picojoule / 1e3 for kind, price in MAC.items()},
            "note": "arithmetic of the dense twin alone: no memory, no routing",
            "ops_per_mac": even.ratio,
            "break_even": dict(even.limits),
        },
    }


def main(run: Any, options: Mapping[str, str]) -> dict:
    """`evaluate.py run=... backend=...`: compare, print, and write into the run's folder."""
    for key in options:
        require(key in KEYS, f"'{key}' is no key of backend=; use one of {', '.join(KEYS)}")
    backends = options["backend"].split(",")
    for name in backends:
        require(name in BACKENDS, f"backend={name}: use one or both of {','.join(BACKENDS)}")
    require(len(set(backends)) == len(backends), f"backend={options['backend']} names one twice")
    require(
        isinstance(run.agent.acting_network, QNetwork),
        f"backend={options['backend']}: agent={run.config.agent.name} acts by its memory and has "
        "no Q-network to put on another backend; use a run of agent=reactive, episodic or engram",
    )
    games = options["games"].strip("[]").split(",") if "games" in options else run.sequence.games
    for game in games:
        there = ", ".join(run.sequence.games)
        require(game in run.sequence.games, f"games={game}: this run knows {there}")
    require(len(set(games)) == len(games), f"games={options.get('games')} names one twice")
    wanted = options.get("neurobench", "false")
    require(wanted in ("true", "false"), f"neurobench={wanted} is neither true nor false")
    require(
        wanted == "false" or "event_core" in backends,
        "neurobench=true judges the core's network: name event_core in backend=",
    )
    if wanted == "true":  # before all episodes are played
        from evaluation.neurobench_metrics import neurobench_metrics, require_library

        require_library()
    config = backend_config(run.config.backend, options)
    episodes = _whole(options, "episodes", 20)
    report = compare_backends(run, backends, games, episodes, config)
    contest = report.pop("contest")
    if wanted == "true":
        program = contest.event.encoder.core.program
        for game, numbers in report["games"].items():
            logged = np.stack(contest.notes["event_core", game].logged)
            numbers["neurobench"] = neurobench_metrics(program, logged)
    command = shlex.join(["python", "evaluate.py", *(f"{k}={v}" for k, v in options.items())])
    report = {"command": command} | report
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    data = json.dumps(report, indent=1, allow_nan=False) + "\n"
    write_whole(folder / "backends.json", data)
    _board(run, report, _rasters(contest, games, folder))
    print(backends_table(report))
    print(f"written: {folder / 'backends.json'}")
    return report


def backend_config(trained: BackendConfig, options: Mapping[str, str]) -> BackendConfig:
    """The core of the options; what they leave out is as in training."""
    try:
        config = BackendConfig(
            "event_core",
            options.get("core", trained.core),
            _whole(options, "chips", trained.chips),
            _whole(options, "weight_bits", trained.weight_bits),
            _whole(options, "synapses", trained.synapses),
        )
    except UserError as error:  # it names the configuration's key, which is not what was typed
        raise UserError(str(error).removeprefix("backend.")) from None
    most = config.core_spec().max_synapses
    require(
        "synapses" not in options or config.synapses <= most,
        f"synapses={config.synapses}: core={config.core} takes pixels as bit planes and can do "
        f"synapses={most} only",
    )
    return config


def _rasters(contest: Contest, games: Sequence[str], folder: Path) -> dict[str, Any]:
    """One decision of each game as a picture, also as a file."""
    if contest.event is None:
        return {}
    from neuromorphic import EventCore
    from neuromorphic.report import draw_raster

    figures = {}
    core = EventCore(contest.event.encoder.core.program)
    for game in games:
        obs = contest.notes["event_core", game].logged[-1]
        names = contest.event.encoder.layer_names
        result = core.run(obs, record=True)
        figures[game] = draw_raster(result, obs, names, folder / f"raster_{game}.png")
    return figures


def _board(run: Any, report: dict, rasters: Mapping[str, Any]) -> None:
    """TensorBoard scalars and rasters, in a folder of their own beside the training's."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.path / "backends")) as board:
        for game, numbers in report["games"].items():
            for name, backend in numbers["backends"].items():
                board.add_scalar(f"backends/return/{game}/{name}", backend["mean_return"], run.step)
                ms = backend["ms_per_decision"]["whole"]
                board.add_scalar(f"backends/ms_per_decision/{game}/{name}", ms, run.step)
                for other, share in backend["agreement_while_playing"].items():
                    tag = f"backends/agreement/{game}/{name}_with_{other}"
                    board.add_scalar(tag, share, run.step)
            for layer, spikes in numbers.get("core", {}).get("spikes", {}).items():
                board.add_scalar(f"backends/spikes/{game}/{layer}", spikes, run.step)
            if "core" in numbers:
                ops = numbers["core"]["synaptic_ops"]
                board.add_scalar(f"backends/synaptic_ops/{game}", ops, run.step)
                for table, energy in numbers["core"]["energy"].items():
                    if energy["nanojoule"] is not None:
                        tag = f"backends/energy_nj/{game}/{table}"
                        board.add_scalar(tag, energy["nanojoule"], run.step)
        for game, figure in rasters.items():
            figure.canvas.draw()
            pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # [H, W, 3]
            board.add_image(f"backends/raster/{game}", pixels, run.step, dataformats="HWC")


def _whole(options: Mapping[str, str], key: str, default: int) -> int:
    text = options.get(key, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{key}={text} is no whole number of at least 1")
    return int(text)
