"""A run's folder: its name, its configuration, its manifest, and the lock that guards it."""

from __future__ import annotations

import difflib
import fcntl
import json
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from errors import UserError, require
from training.config import (
    CONFIG_DIR,
    RunConfig,
    differences,
    is_one_of,
    load_config,
    read_config,
    to_yaml,
    with_values,
)

# A run may go on under other values of these. They change nothing about the results, but for the
# last digits of what larger encoders learn with another number of learner threads.
FREE_KEYS = ("run", "display", "checkpoint", "device.learner_threads", "device.emulator_threads")
LENGTH = "sequence.cycles"  # may change (see `of_another_length`)
_PACKAGES = ("torch", "numpy", "numba", "gymnasium", "ale-py", "hydra-core", "tensorboard")


def configured(words: Sequence[str]) -> RunConfig:
    """The configuration that a command line asks for: where its words name a run that is there and
    no group, the one that it was started with, but for the keys they name.

    Raises:
        UserError: a mistake in the words, a damaged config.yaml, or words that name a run that is
            not there and say nothing else.
    """
    config = load_config(words)
    if config.run is None:
        return config
    path, keys = run_path(config), [word.partition("=")[0].lstrip("+~") for word in words]
    keys = [key for key in keys if not key.startswith("hydra.")]
    yaml = path / "config.yaml"
    if not yaml.is_file():
        new = path.exists() or any(not is_one_of(key, (*FREE_KEYS, LENGTH)) for key in keys)
        near = difflib.get_close_matches(path.name, _names(path.parent), n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        require(
            new,
            f"run={config.run}: no run there to go on with{meant}; a new one must be told more, "
            "such as experiment=quickstart or sequence=three",
        )
        return config
    if any((CONFIG_DIR / key).is_dir() for key in keys):  # a group may set keys of others
        return config
    return with_values(read_config(yaml), config, keys)


def run_path(config: RunConfig) -> Path:
    """The run's folder; a bare name is one in runs/, and a run without a name is called after its
    title, the time and its seed."""
    if config.run is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        return Path("runs") / f"{config.title}-{stamp}-s{config.seed}"
    path = Path(config.run)
    return path if len(path.parts) > 1 else Path("runs") / path


class RunFolder:
    """Opens `runs/<name>`: a new one, one of the same configuration to go on with, or one whose
    start failed before it ran.

    Args:
        config: of the run.
        words: of the command line; the keys they name are settled (see `differences`).

    Raises:
        UserError: the folder holds a run of another configuration, is in use, or is not a run.
    """

    def __init__(self, config: RunConfig, words: Sequence[str] = ()) -> None:
        self.path = run_path(config)
        yaml = self.path / "config.yaml"
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"run={self.path} is a file: choose another name")
        changed = other_settings(config, self.path, words)
        if changed:
            raise UserError(
                f"{self.path} holds a run of another configuration ({'; '.join(changed[:4])}"
                f"{'; ...' if len(changed) > 4 else ''}): choose another run=, or give the "
                "settings it was started with (run= alone takes them)"
            )
        held = _names(self.path)
        own = {".lock", _aside("config.yaml")}  # all that a start cut short leaves before that
        if yaml.name not in held and held - own:
            raise UserError(f"run={self.path} is not empty and holds no run: choose another run=")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held for the whole run
        except OSError as error:
            raise UserError(f"run={self.path} cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{self.path} is in use by another process: wait for it") from error
        if _never_ran(held):
            for name in ("manifest.json", _aside("manifest.json")):
                (self.path / name).unlink(missing_ok=True)
        # Another length, or keys that the run did not know, are settled once it goes on.
        new = not yaml.exists()
        self._unsettled = new or of_another_length(config, yaml) or bool(changed_keys(config, yaml))
        if new or _never_ran(held):
            self.settle(config)

    def settle(self, config: RunConfig) -> None:
        """Keep the configuration where it is not the folder's."""
        if self._unsettled:
            self.write("config.yaml", to_yaml(config))
        self._unsettled = False

    def check_goes_on(self, step: int | None) -> None:
        """Raise UserError where the newest checkpoint (None: there is none) is gone of a run that
        has trained: its numbers would make way for those of another beginning."""
        last = reached(self.path)
        if step is None and last > 0:  # the first checkpoint is of step 0
            raise UserError(
                f"{self.path / 'metrics.jsonl'} goes to step {last}, but "
                f"{self.path / 'checkpoints'} holds no checkpoint to go on from: put it back, or "
                "choose another run="
            )

    def write(self, name: str, text: str) -> None:
        """Write a small file whole or not at all."""
        aside = self.path / _aside(name)
        aside.write_text(text)
        aside.rename(self.path / name)

    def write_manifest(self, config: RunConfig, device: torch.device, games: tuple) -> None:
        """manifest.json: what is needed to say under which conditions the numbers arose. Where the
        run was gone on with under others, they are kept with the times in `later_starts`."""
        steps = config.sequence.steps_per_task * len(config.sequence.games) * config.sequence.cycles
        path = self.path / "manifest.json"
        old = _read_manifest(path) if path.exists() else {}
        now = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "commit": _commit(),
            "versions": versions(),
            "machine": machine(),
            "device": str(device),
        }
        first = {key: old.get(key, value) for key, value in now.items()}
        later = list(old.get("later_starts", []))
        others = {key: now[key] for key in now if now[key] != first[key] and key != "started"}
        command = command_line()
        if steps != old.get("budget_agent_steps", steps):
            others |= {"command": command, "budget_agent_steps": steps}
        if others:
            later.append({"started": now["started"]} | others)
        manifest = {
            "command": old.get("command", command),
            "starts": old.get("starts", 0) + 1,
            **first,
            "later_starts": later,
            "seed": config.seed,
            "protocol": vars(config.protocol),
            "games": list(games),
            "budget_agent_steps": steps,
            "budget_frames": steps * config.protocol.frame_skip,
        }
        self.write("manifest.json", json.dumps(manifest, indent=1, default=str) + "\n")


def _aside(name: str) -> str:
    """Name of a file that is being written."""
    return f".{name}.tmp"


def other_settings(config: RunConfig, path: Path, words: Sequence[str]) -> list[str]:
    """How the run in this folder differs from `config` (see `changed_keys`). Nothing where there is
    none, or where it failed before it ran: then there is nothing to lose.

    Raises:
        UserError: its config.yaml is damaged.
    """
    yaml = path / "config.yaml"
    changed = changed_keys(config, yaml, words)
    return [] if _never_ran(_names(path)) else changed


def _names(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()} if path.exists() else set()


def _never_ran(held: set[str]) -> bool:
    """Whether these files are those of a start that failed, and no others."""
    files = ("config.yaml", "manifest.json")
    return {".lock"} <= held <= {".lock", *files, *map(_aside, files)}


def of_another_length(config: RunConfig, yaml: Path) -> bool:
    """Whether `config` goes through the sequence more often than that of a run, or less often but
    no less than the run has been trained. Not where an agent has as many contexts as there are
    visits (`task_labels=boundaries`)."""
    try:
        cycles = read_config(yaml).sequence.cycles
    except UserError:  # it is damaged, which `changed_keys` says
        return False
    if config.sequence.cycles == cycles or config.task_labels == "boundaries":
        return False
    wanted = config.sequence.tasks().total_steps
    return config.sequence.cycles > cycles or wanted >= reached(yaml.parent)


def reached(path: Path) -> int:
    """The last agent step that a run's metrics are of; 0 where it has none."""
    file = path / "metrics.jsonl"
    if not file.exists():
        return 0
    return max(map(int, re.findall(rb'^\{"step":(\d+)', file.read_bytes(), re.M)), default=0)


def changed_keys(config: RunConfig, yaml: Path, words: Sequence[str] = ()) -> list[str]:
    """How a run's config.yaml differs from `config`, free keys left out (see `differences`), and
    cycles where they may change. Nothing where there is none.

    Raises:
        UserError: the file is damaged.
    """
    if not yaml.exists():
        return []
    said = {word.partition("=")[0].lstrip("+") for word in words}
    free = (*FREE_KEYS, LENGTH) if of_another_length(config, yaml) else FREE_KEYS
    try:
        return differences(to_yaml(config), yaml.read_text(), free, said)
    except (OSError, ValueError) as error:  # UserError and UnicodeDecodeError are of the latter
        raise UserError(
            f"{yaml} is damaged ({' '.join(str(error).split())}): restore it from a copy, or "
            "choose another run="
        ) from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        require(isinstance(found, dict), "no JSON object")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}): restore it from a copy, or remove it: it is then "
            "written anew, with this start as the first"
        ) from error
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in _PACKAGES}


def machine() -> dict[str, object]:
    """CPU model, cores and accelerator of this machine."""
    from training.threads import available_cores

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model, "cores": available_cores(), "gpu": gpu, "system": platform.system()}


def command_line() -> str:
    """What was called, as it can be given again from the repository's root."""
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])


def _commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    try:
        out = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return out.stdout.strip() or None
