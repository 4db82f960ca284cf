"""Many runs from one command line: Hydra's multirun, each run in a folder and a process of its own.

    python train.py experiment=ablation [method=engram,conv] [seed=0,1] [jobs=2] [references=all]
    python train.py --multirun experiment=laptop replay=fifo,cloning seed=0,1,2
    python train.py experiment=ablation run=mine part=2/8   # every eighth run, from the second on

What is swept is said as everywhere in Hydra: `hydra.sweeper.params` of an experiment, or several
values for a key on the command line, or both (the command line wins); the runs are the product.
Hydra's own launcher would run them in one process, one after the other, and keep no account of what
is done; here each is the command `python train.py ... run=<folder> hydra.mode=RUN`, which a user
could give too and which goes on where it stopped. So the same sweep leaves out what is finished and
goes on with what is not.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from errors import UserError, require
from training.config import (
    CONFIG_DIR,
    RunConfig,
    SequenceConfig,
    as_text,
    check_group,
    check_name,
    load_config,
    one_line,
    to_yaml,
)
from training.folder import of_another_length, other_settings

FLAGS = ("--multirun", "-m")
WORDS = ("jobs", "references", "part")  # a sweep's own, no keys of a run
TRAIN = Path(__file__).resolve().parent.parent / "train.py"
POLL_SECONDS = 0.2
GAMES = ("sequence", "sequence.games")  # keys that say what is played, not who plays


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    method: str  # what is swept but the seed: "cloning", "replay-fifo_encoder-conv"
    folder: Path
    overrides: tuple[str, ...]  # of train.py, run= among them
    config: RunConfig
    reference: bool = False  # a game alone
    agent: str = ""  # what is swept but the seed and the games


@dataclass(frozen=True)
class Sweep:
    folder: Path  # of all its runs
    jobs: tuple[Job, ...]
    parallel: int  # runs at a time
    mine: tuple[Job, ...]  # those of them that this command runs


def is_sweep(argv: Sequence[str]) -> bool:
    """Whether Hydra would start a multirun."""
    words = [as_text(w) for w in argv if w.partition("=")[0] not in WORDS]
    return any(w in FLAGS for w in argv) or (
        any("experiment=" in w or "hydra." in w for w in words)
        and _hydra().get_mode("config", words) == RunMode.MULTIRUN
    )


def plan_sweep(argv: Sequence[str]) -> Sweep:
    """All runs of a command line, every configuration checked before the first one starts.

    `jobs=2` (runs at a time) and `references=` are the sweep's own words: true, each game alone by
    the first method; all, by every method; false, by none. `part=2/8` runs every eighth of them,
    from the second on, for machines that share the work. `run=` names the folder that holds the
    runs.

    Raises:
        UserError: a mistake in any of the configurations, or a folder of another configuration.
    """
    words = [w for w in argv if w not in FLAGS]
    parallel = _word(words, "jobs", "1")
    require(parallel.isdecimal() and int(parallel) > 0, f"jobs={parallel} must be at least 1")
    references = _word(words, "references", "true")
    require(
        references in ("true", "false", "all"),
        f"references={references}: use true, false or all",
    )
    part = _word(words, "part", "1/1")
    said = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", part)
    number, parts = map(int, said.groups()) if said else (1, 0)
    require(number <= parts, f"part={part}: write part=k/n, the k-th of n parts, k from 1 to n")
    parent = _word(words, "run", "")
    require(parts == 1 or parent, f"part={part}: name the folder that all parts share with run=")
    if parent:
        check_name(parent)
    grid = _grid(words)
    swept = [k for k, values in _columns(grid).items() if len(set(values)) > 1 and k != "seed"]
    if not swept and "method" in _columns(grid):
        swept = ["method"]
    configs = _configs(grid)
    folder = Path(parent or configs[0].title)
    folder = folder if len(folder.parts) > 1 else Path("runs") / folder
    jobs = []
    for row, config in zip(grid, configs):
        values = dict(word.split("=", 1) for word in row)
        only = len(swept) == 1
        said = {k: values[k] if only and k == "method" else f"{k}-{values[k]}" for k in swept}
        name = "_".join(map(_plain, said.values())) or "run"
        agent = "_".join(_plain(s) for k, s in said.items() if k not in GAMES)
        jobs.append(replace(_job(name, folder, row, config), agent=agent))
    first = [job for job in jobs if job.method == jobs[0].method]
    jobs = _references({"false": [], "true": first, "all": jobs}[references], folder) + jobs
    seeds = list(dict.fromkeys(job.config.seed for job in jobs))
    jobs.sort(key=lambda job: seeds.index(job.config.seed))  # all methods of one seed come first
    names = [job.folder for job in jobs]
    twice = next((n for n in names if names.count(n) > 1), None)
    require(twice is None, f"two runs of the sweep would share {twice}: sweep over other values")
    require(
        not (folder / "config.yaml").exists(),
        f"run={folder} is the folder of a run: choose another for those of the sweep",
    )
    _check_apart([job for job in jobs if not job.reference])
    for job in jobs:
        _check_folder(job)
    _check_start([job for job in jobs if not (job.folder / "checkpoints").exists()])
    return Sweep(folder, tuple(jobs), int(parallel), tuple(jobs[number - 1 :: parts]))


def _hydra():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return GlobalHydra.instance().hydra


def _grid(words: Sequence[str]) -> list[list[str]]:
    """Overrides of every run: Hydra's parser and basic sweeper over the sweep's parameters."""
    for word in words:
        check_group(word)
        require(
            not word.lstrip("+~").startswith("hydra.sweeper."),
            f"{word}: sweep over a key by giving its values, such as seed=0,1",
        )
    try:
        hydra = _hydra()
        words = [word if "," in word else as_text(word) for word in words]
        raw = hydra.compose_config(
            "config",
            list(words),
            run_mode=RunMode.MULTIRUN,
            with_log_configuration=False,
            validate_sweep_overrides=False,
        )
        assert isinstance(raw, DictConfig)
        params = [f"{key}={value}" for key, value in (raw.hydra.sweeper.params or {}).items()]
        parser = OverridesParser.create(config_loader=hydra.config_loader)
        overrides = parser.parse_overrides([*params, *words])
        ((*grid,),) = BasicSweeper.split_arguments(overrides, None)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from error
    require(grid, "the sweep has no values: give each key that is swept one at least")
    return grid


def _columns(grid: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """key -> its value in every run."""
    out: dict[str, list[str]] = {}
    for row in grid:
        for word in row:
            key, _, value = word.partition("=")
            out.setdefault(key, []).append(value)
    return out


def _configs(grid: Sequence[Sequence[str]]) -> list[RunConfig]:
    """The checked configuration of every run; composed once for all seeds."""
    known: dict[tuple[str, ...], RunConfig] = {}
    out = []
    for row in grid:
        seed = next((w.partition("=")[2] for w in row if w.startswith("seed=")), "")
        rest = tuple(w for w in row if not (seed.isdecimal() and w.startswith("seed=")))
        if rest not in known:
            known[rest] = load_config([*rest, "hydra.mode=RUN"])
            known[rest].sequence.tasks()  # unknown games are named before anything runs
        config = known[rest]
        out.append(replace(config, seed=int(seed)) if seed.isdecimal() else config)
    return out


def _job(
    method: str,
    folder: Path,
    overrides: Sequence[str],
    config: RunConfig,
    reference: bool = False,
) -> Job:
    place = folder / f"{method}-s{config.seed}"
    words = [w for w in overrides if w.partition("=")[0] not in ("run", "hydra.mode")]
    return Job(
        method, place, (*words, as_text(f"run={place}"), "hydra.mode=RUN"), config, reference
    )


def _references(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """Each game alone by each of the jobs, with the budget of all its visits."""
    out = []
    for job in jobs:
        of = "" if job.method == jobs[0].method else f".{job.method}"
        games, cycles = job.config.sequence.games, job.config.sequence.cycles
        for game in dict.fromkeys(games) if len(games) > 1 else ():
            steps = cycles * games.count(game) * job.config.sequence.steps_per_task
            words = (f"games=[{game}]", "cycles=1", f"steps_per_task={steps}")
            alone = SequenceConfig([game], steps, 1)
            out.append(
                _job(
                    f"single.{game}{of}",
                    folder,
                    [*job.overrides, *(f"sequence.{w}" for w in words)],
                    replace(job.config, sequence=alone),
                    reference=True,
                )
            )
    return out


def _check_apart(jobs: Sequence[Job]) -> None:
    """No two may come to the same: a key given for all can undo what tells them apart."""
    known: dict[str, Job] = {}
    for job in jobs:
        same = known.setdefault(to_yaml(replace(job.config, run=None, title="")), job)
        require(
            same is job,
            f"{same.folder} and {job.folder} would be the same run twice: what they differ in is "
            "overridden by another key of the command line; leave that out, or one of them",
        )


def _check_folder(job: Job) -> None:
    changed = other_settings(job.config, job.folder, job.overrides)
    require(
        not changed,
        f"{job.folder} holds a run of another configuration ({'; '.join(changed[:3])}): choose "
        "another run=, the folder of the sweep, or remove that run",
    )


def _check_start(jobs: Sequence[Job]) -> None:
    """Whether each can begin with the networks of the run it names, if it does."""
    asked = [job for job in jobs if job.config.start_from is not None]
    if not asked:
        return
    from training.loading import source_of

    first: dict[str, Job] = {}  # the seeds of a method are alike
    for job in asked:
        first.setdefault(job.method, job)
    for job in sorted(first.values(), key=lambda job: job.reference):
        try:
            source_of(job.config)
        except UserError as error:
            mend = "; references=false trains no game alone" if job.reference else ""
            raise UserError(f"{job.folder}: {error}{mend}") from None


def _word(words: list[str], key: str, default: str) -> str:
    """Take `key=value` out of the words."""
    for word in [w for w in words if w.startswith(f"{key}=")]:
        words.remove(word)
        default = word.partition("=")[2].strip("'\"")
    return default


def _plain(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-")


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever read along has gone; the sweep goes on
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


@dataclass
class Executor:
    """Runs a sweep's jobs, some at a time. A signal is passed on to all of them: each saves its
    state and ends, and no other is started."""

    sweep: Sweep
    finished: Callable[[Path], bool]
    stopped: int | None = None  # the signal
    failed: list[Job] = field(default_factory=list)
    _running: dict[subprocess.Popen, tuple[Job, float, IO | None]] = field(default_factory=dict)

    def run(self) -> None:
        todo = []
        for job in self.sweep.mine:
            if self.done(job):
                _say(f"{job.folder}: finished already")
            else:
                todo.append(job)
        old = {
            s: signal.signal(s, self._handle)
            for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            total = len(todo)
            while (todo and self.stopped is None) or self._running:
                while todo and self.stopped is None and len(self._running) < self.sweep.parallel:
                    self._start(todo.pop(0), f"[{total - len(todo)}/{total}]")
                time.sleep(POLL_SECONDS)
                self._collect()
        finally:
            for process in self._running:  # none goes on unseen when this ends by an error
                process.terminate()
            for process in self._running:
                process.wait()
            for signum, handler in old.items():
                signal.signal(signum, handler)

    def done(self, job: Job) -> bool:
        """Whether it has come to its end, and to the end that is asked for now."""
        other = of_another_length(job.config, job.folder / "config.yaml")
        return self.finished(job.folder) and not other

    def _start(self, job: Job, count: str) -> None:
        _say(f"{count} {job.folder}")
        log = None
        if self.sweep.parallel > 1:  # side by side they would talk over each other
            job.folder.parent.mkdir(parents=True, exist_ok=True)
            log = open(job.folder.parent / f"{job.folder.name}.log", "a")  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, str(TRAIN), *job.overrides],
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches it once, through `_handle`
        )
        self._running[process] = (job, time.monotonic(), log)
        if self.stopped is not None:  # the signal came while it was being started
            process.terminate()

    def _collect(self) -> None:
        for process in [p for p in self._running if p.poll() is not None]:
            job, begin, log = self._running.pop(process)
            if log is not None:
                log.close()
            if process.returncode == 0:
                said = "finished"
            elif self.stopped is not None:
                said = "saved" if process.returncode == 128 + signal.SIGTERM else "stopped"
            else:
                self.failed.append(job)
                where = f", see {log.name}" if log is not None else ""
                said = f"failed with status {process.returncode}{where}"
            minutes = (time.monotonic() - begin) / 60
            _say(f"{job.folder}: {said} after {minutes:.1f} minutes")

    def _handle(self, signum: int, _frame: object) -> None:
        self.stopped = signum
        for process in self._running:
            if process.poll() is None:
                process.terminate()  # before it listens this ends it without a word
