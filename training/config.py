"""The whole configuration of a run: Hydra composes it, this file types and checks it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import FrozenInstanceError, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from agents.backend import BackendConfig
from agents.change import ChangeConfig
from agents.config import AgentConfig
from agents.continual import ContinualConfig, ReplayConfig
from agents.encoders import EncoderConfig
from agents.episodic.config import MemoryConfig
from agents.labels import TASK_LABELS
from agents.planners.config import PlannerConfig
from agents.plasticity import PlasticityConfig
from agents.world_model import WorldModelConfig
from earlier import ADDED, RETIRED, in_todays_words
from envs import ProtocolConfig, TaskSequence, parse_task
from errors import UserError, require
from memory.consolidation import ConsolidationConfig

CONFIG_DIR = Path(__file__).resolve().parent.parent / "configs"
ALWAYS = ("sequence", "protocol", "agent", "eval")  # groups that every run's config.yaml has
NAMES = ("run", "start_from", "title")  # keys whose values are whatever a folder may be called


@dataclass(frozen=True)
class SequenceConfig:
    """Games in the order they are trained: `rom`, or `rom-m3` and `rom-m3-d1` for a mode and
    difficulty of the cartridge."""

    # ROMs in the order they are trained; -m3-d1 after one: mode 3 at difficulty 1
    games: list[str] = field(default_factory=lambda: ["road_runner", "krull", "boxing"])
    steps_per_task: int = 100_000  # agent steps of each visit (1 agent step = 4 frames)
    cycles: int = 1  # how often the whole list is gone through

    def __post_init__(self) -> None:
        require(len(self.games) > 0, "sequence.games is empty: name at least one ROM")
        require(
            self.steps_per_task >= 1,
            f"sequence.steps_per_task={self.steps_per_task} must be at least 1",
        )
        require(self.cycles >= 1, f"sequence.cycles={self.cycles} must be at least 1")

    def tasks(self) -> TaskSequence:
        return TaskSequence(
            tuple(parse_task(game, self.steps_per_task) for game in self.games), self.cycles
        )


@dataclass(frozen=True)
class EvalConfig:
    """All games of the sequence are evaluated at a fixed interval."""

    every: int = 10_000  # agent steps between two evaluations
    episodes: int = 10  # complete episodes per game
    final_episodes: int = 0  # the same for the last evaluation of a run; 0 = as all others
    num_envs: int = 10  # emulators stepped together
    max_steps: int = 27_000  # agent steps an episode may last (108,000 frames)

    def __post_init__(self) -> None:
        for key in ("every", "episodes", "num_envs", "max_steps"):
            require(getattr(self, key) >= 1, f"eval.{key} must be at least 1")
        require(self.final_episodes >= 0, "eval.final_episodes must not be negative")


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 10_000  # agent steps between two checkpoints
    keep: int = 2  # checkpoints kept, newest first

    def __post_init__(self) -> None:
        for key in ("every", "keep"):
            require(getattr(self, key) >= 1, f"checkpoint.{key} must be at least 1")


MOST_THREADS = 1024


@dataclass(frozen=True)
class DeviceConfig:
    name: str = "auto"  # cpu, cuda, or auto: cuda where there is one
    learner_threads: int = 1  # torch and faiss threads
    emulator_threads: int = 1  # threads of the running game; they overlap with learning
    cuda_graph: bool = True  # capture the update as one CUDA graph

    def __post_init__(self) -> None:
        require(
            self.name in ("auto", "cpu", "cuda"), f"device.name={self.name}: use auto, cpu or cuda"
        )
        for key in ("learner_threads", "emulator_threads"):
            value = getattr(self, key)
            require(
                1 <= value <= MOST_THREADS,
                f"device.{key}={value}: set it to a number from 1 to {MOST_THREADS}",
            )


def _check_finite(config: Any, prefix: str = "") -> None:
    """Of all groups: `key >= 0` alone would let infinity pass."""
    for key, value in vars(config).items():
        if is_dataclass(value):
            _check_finite(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            require(math.isfinite(value), f"{prefix}{key}={value} must be a finite number")


@dataclass(frozen=True)
class RunConfig:
    run: str | None = None  # folder of the run; without it one is made from experiment, date, seed
    title: str = "run"  # name of the experiment preset
    seed: int = 0  # of everything random; evaluations have seeds of their own made from it
    start_from: str | None = None  # folder of a run whose networks this one begins with
    log_every: int = 1_000  # agent steps between two lines of training diagnostics
    # oracle: told which game it is; boundaries: told only when it changes; none: told nothing
    task_labels: str = "oracle"
    display: str = "auto"  # auto: live table on a terminal, plain lines otherwise; plain; off
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    consolidation: list[str] = field(default_factory=list)  # ewc, online_ewc, si, mas, l2: add up
    stiffness: ConsolidationConfig = field(default_factory=ConsolidationConfig)
    plasticity: PlasticityConfig = field(default_factory=PlasticityConfig)
    change: ChangeConfig = field(default_factory=ChangeConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)

    def __post_init__(self) -> None:
        _check_finite(self)
        if self.run is not None:
            check_name(self.run)
        require(self.seed >= 0, f"seed={self.seed} must not be negative")
        require(self.log_every >= 1, "log_every must be at least 1")
        require(
            self.display in ("auto", "plain", "off"),
            f"display={self.display}: use auto, plain or off",
        )
        require(
            self.task_labels in TASK_LABELS,
            f"task_labels={self.task_labels}: use {', '.join(TASK_LABELS)}",
        )
        if self.task_labels != "oracle":  # a mask of actions would betray the game
            object.__setattr__(self, "protocol", replace(self.protocol, actions="full"))
        continual = ContinualConfig(tuple(self.consolidation), self.stiffness, self.replay)
        acts = self.memory.controller
        name = self.agent.name
        require(
            name not in ("nec", "mfec") or acts == name,
            f"agent={name} acts by its own memory, not memory.controller={acts}: leave out "
            f"memory=, or set memory={name}",
        )
        require(
            acts not in ("nec", "mfec") or continual == ContinualConfig(stiffness=self.stiffness),
            f"memory.controller={acts} learns by its own rules: set consolidation=[] and "
            "replay=fifo, or memory.controller=mix",
        )
        require(
            acts == "none" or self.replay.kind != "reservoir",
            f"memory.controller={acts} looks up the newest frames in replay: set "
            "replay=fifo_and_reservoir",
        )
        require(
            not self.agent.prioritised or self.replay.kind == "fifo",
            f"agent.prioritised=true takes replay=fifo, not replay={self.replay.kind}",
        )
        require(
            acts != "nec" or self.memory.index != "hnsw",
            "memory.controller=nec moves agent.batch_size x memory.neighbours keys an update, and "
            "memory.index=hnsw would insert each anew: set memory.index=auto, ivf or flat",
        )
        plain = self.encoder.size != "impala" and self.encoder.k_wta == 0.0
        require(
            self.backend.name == "torch" or (self.encoder.kind == "spiking" and plain),
            "backend=event_core runs plain spiking layers: set encoder.kind=spiking, encoder.size="
            "der, fine or nature, encoder.k_wta=0; or set backend=torch",
        )
        require(
            not self.agent.explore_online or (acts == "none" and self.backend.name == "torch"),
            "agent.explore_online=true lets two networks act: an episodic memory's keys and "
            "backend=event_core are of one; set agent.explore_online=false",
        )
        pure = self.memory.controller in ("nec", "mfec")
        require(
            not pure or self.task_labels != "none" or self.change.signal == "screen",
            f"memory.controller={acts} has no latent spikes: set change.signal=screen",
        )
        require(
            self.planner.name == "none" or self.world_model.enabled,
            f"planner={self.planner.name} searches a world model: set world_model=latent",
        )
        if self.world_model.enabled:
            self._check_world_model(pure)
        require(
            self.backend.name == "torch" or not pure,
            f"memory.controller={self.memory.controller} acts by its own network: set "
            "backend=torch, or memory.controller=mix",
        )
        require(
            self.plasticity.kind == "none" or not pure,
            f"memory.controller={self.memory.controller} learns by its own rules: set "
            "plasticity=none, or memory.controller=mix",
        )
        require(
            self.plasticity.kind not in ("shrink_perturb", "reset") or not self.consolidation,
            f"plasticity={self.plasticity.kind} moves all weights away from where consolidation "
            "has just anchored them: set consolidation=[] or another plasticity",
        )
        require(
            self.task_labels != "none" or self.agent.num_envs >= 2,
            f"task_labels=none tells a new level from a new game by its coming to all emulators "
            f"at once: agent.num_envs={self.agent.num_envs} must be at least 2 (better 4)",
        )
        if pure:
            self._check_what_memory_leaves_out()

    def _check_what_memory_leaves_out(self) -> None:
        """NEC and MFEC have none of these, or by their memory's own keys."""
        usual = AgentConfig()
        own = {"gamma": "memory.gamma", "n_step": "memory.horizon"}
        for key in (
            *("noisy", "prioritised", "shift", "weight_decay"),
            *("gamma_start", "gamma_end", "n_step_start", "n_step_end"),
        ):
            value, none = getattr(self.agent, key), getattr(usual, key)
            instead = own.get(key.rpartition("_")[0])
            require(
                value == none,
                f"memory.controller={self.memory.controller} has no agent.{key}={value}: set "
                f"agent.{key}={str(none).lower()}{f', and {instead}' if instead else ''}",
            )

    def _check_world_model(self, pure: bool) -> None:
        require(
            not pure,
            f"memory.controller={self.memory.controller} learns by its own rules: set "
            "world_model=none, or memory.controller=mix",
        )
        require(
            not self.agent.prioritised,
            "world_model=latent draws sequences uniformly: set agent.prioritised=false",
        )
        require(
            self.agent.reward_transform == "clip",
            "world_model=latent predicts clipped rewards: set agent.reward_transform=clip",
        )
        require(
            self.planner.name == "none" or not self.world_model.until,
            f"world_model.until={self.world_model.until} leaves planner={self.planner.name} a "
            "model of an earlier encoder: set world_model.until=0 or planner=none",
        )
        require(
            self.planner.name == "none"
            or not self.planner.reanalyse
            or self.agent.double
            or self.agent.bootstrap == "online",
            f"planner.reanalyse={self.planner.reanalyse} chooses by the online network: set "
            "agent.double=true",
        )
        require(
            self.world_model.unroll <= self.agent.n_step_max,
            f"world_model.unroll={self.world_model.unroll} must be at most the longest n-step "
            f"return, {self.agent.n_step_max}: lower it or raise agent.n_step_start",
        )


def _writable(node: DictConfig) -> DictConfig:
    """Frozen dataclasses become read-only nodes, which overrides could not be merged into."""
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _writable(child)
    return node


ConfigStore.instance().store(name="run_schema", node=_writable(OmegaConf.structured(RunConfig)))


def check_name(run: str) -> None:
    """Raise `UserError` unless a run, or the runs of a sweep, may be called so."""
    require(Path(run).name not in ("", ".."), f"run={run} is no name of a run")


def as_text(word: str) -> str:
    """A name is taken as it stands: Hydra would read run=1e3 as a number and run=jörg not at all.
    Quoted ones are left to Hydra."""
    key, _, value = word.partition("=")
    if key not in NAMES or value[:1] in ("", "'", '"') or value == "null":
        return word
    require("${" not in value, f"{word}: a name cannot hold ${{...}}")
    return f"{key}='{value}'" if "'" not in value else f'{key}="{value}"'


def load_config(overrides: Sequence[str]) -> RunConfig:
    """Compose `configs/` with command-line overrides and check every value.

    Raises:
        UserError: a key that does not exist, a value of the wrong type or out of range.
    """
    for word in overrides:
        check_group(word)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            raw = compose("config", overrides=[as_text(word) for word in overrides])
        config = OmegaConf.to_object(raw)
    except UserError:
        raise
    except FrozenInstanceError as error:  # +key=value adds what no group has
        raise UserError(f"{one_line(error)}: there is no such key; leave out the +") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from error
    assert isinstance(config, RunConfig)
    return config


def check_group(word: str) -> None:
    """A group takes a name; where it gets a number or nothing, Hydra does not say which group."""
    key, _, value = word.partition("=")
    require(bool(key), f"'{word}' names no key: write key=value")
    if key.isidentifier() and (CONFIG_DIR / key).is_dir():
        options = ", ".join(sorted(p.stem for p in (CONFIG_DIR / key).glob("*.yaml")))
        none = re.fullmatch(r"(null|true|false|[-+.\d].*|[\[{].*)?", value, re.IGNORECASE)
        require(none is None, f"{word} names none of the group's options: {options}")


def with_values(config: RunConfig, other: RunConfig, keys: Sequence[str]) -> RunConfig:
    """`config` with the values that `other` has under these dotted keys."""
    ours, theirs = (_writable(OmegaConf.structured(c)) for c in (config, other))
    for key in keys:
        OmegaConf.update(ours, key, OmegaConf.select(theirs, key))
    changed = OmegaConf.to_object(ours)
    assert isinstance(changed, RunConfig)
    return changed


def is_one_of(key: str, keys: Collection[str]) -> bool:
    """Whether a dotted key, or its group, is among the keys."""
    return key in keys or key.split(".")[0] in keys


def read_config(path: Path) -> RunConfig:
    """The configuration of a run from its config.yaml; keys it does not name have their defaults.

    Raises:
        UserError: not readable, a key that this version does not know, a value out of range.
    """
    try:
        schema, saved = _writable(OmegaConf.structured(RunConfig)), OmegaConf.load(path)
        missing = [key for key in ALWAYS if not OmegaConf.is_dict(saved) or key not in saved]
        require(
            not missing, f"it is damaged (it lacks {', '.join(missing)}); restore it from a copy"
        )
        saved = OmegaConf.create(in_todays_words(OmegaConf.to_container(saved)))
        config = OmegaConf.to_object(OmegaConf.merge(schema, saved))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{path}: {one_line(error)}; restore it from a copy, or choose another run="
        ) from error
    assert isinstance(config, RunConfig)
    return config


def to_yaml(config: RunConfig) -> str:
    """The whole resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def differences(
    ours: str, theirs: str, ignore: Sequence[str] = (), said: Collection[str] = ()
) -> list[str]:
    """Dotted keys in which our YAML configuration differs from that of a run, with both values.

    A key that the run's does not name came with a later version, and its default need not be what
    was done before it: it passes only where the user has `said` it on the command line, or is known
    to have been so (`ADDED`).

    Raises:
        UserError: theirs is no configuration.
    """
    left, right = _flatten(OmegaConf.create(ours)), ADDED | _flatten(_mapping(theirs))
    changed, newer = [], []
    for key in sorted(left.keys() | right.keys()):
        if is_one_of(key, ignore):
            continue
        if key not in right:
            without = "false" if isinstance(left[key], bool) else "..."
            if key not in said:
                newer.append(f"{key} is newer than the run, set it to go on: {key}={without}")
        elif key not in left:
            if key not in RETIRED or RETIRED[key] != right[key]:
                changed.append(f"{key}={right[key]!r} in the folder is no longer known")
        elif left[key] != right[key]:
            changed.append(f"{key}={left[key]!r} (folder: {right[key]!r})")
    changed.sort(key=lambda line: line.partition("=")[0] not in said)  # the user's own first
    return changed + newer


def _mapping(text: str) -> dict[Any, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.create(text))
    except (YAMLError, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from error
    require(isinstance(content, dict) and bool(content), "it holds no keys")
    return content


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    plain = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    if not isinstance(plain, dict):
        return {prefix: plain}
    out: dict[str, Any] = {}
    for key, value in plain.items():
        out |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return out


def one_line(error: Exception) -> str:
    """What is wrong, in one line that names the key; the nearest key where one was misspelt."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    key = getattr(cause, "full_key", None)
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override} cannot be read: write key=value, a list as key=[a,b] without "
            "spaces, and close every bracket and quote"
        )
    if isinstance(cause, MissingConfigException):
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        found = next((line for line in lines if "Could not find" in line), lines[0])
        end = next((i for i, line in enumerate(lines) if line.startswith("Config search")), None)
        options = lines[2:end]
        return f"{found.partition(': ')[2] or found}; available: {', '.join(options)}"
    if key in ("jobs", "references", "part"):
        return f"{key}= is a word of sweeps: give experiment=ablation or --multirun with it"
    if key and isinstance(cause, ConfigAttributeError | ConfigKeyError):
        groups = [path.name for path in CONFIG_DIR.iterdir() if path.is_dir()]
        keys = [*_flatten(OmegaConf.structured(RunConfig)), *groups]
        near = difflib.get_close_matches(key, keys, n=3, cutoff=0.5) or [
            k for k in keys if k.rpartition(".")[2] == key.rpartition(".")[2]
        ]
        hint = f": did you mean {' or '.join(near[:3])}?" if near else ""
        return f"there is no key '{key}'{hint}"
    if key and "ListConfig" in str(cause).splitlines()[0]:
        return f"{key} takes a list, also of one: write {key}=[a] or {key}=[a,b]"
    if key:
        said = str(cause).splitlines()[0]
        number = re.fullmatch(r"Value '(.*)' of type 'float' could not .* Integer", said)
        if number and float(number[1]).is_integer():
            said += f": write {float(number[1]):.0f}"
        return f"{key}: {said}"
    return " ".join(str(error).split("See https")[0].split())
