"""Which runs a comparison is about, which of them are one method, and what to call it.

Runs whose configurations differ in nothing but the seed are one method, unless names are given
(name=path): then runs of one name are. Nothing here imports the agents: a config.yaml is plain
data, so that runs of older versions can be compared too.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from earlier import in_todays_words
from errors import UserError, require
from evaluation.page import read_json
from evaluation.runlog import FILE_NAME, RunLog, read_run_log
from evaluation.style import short

# Keys in which the seeds of one method may differ: they change nothing about what is learned.
OWN = ("run", "seed", "title", "display", "checkpoint", "device", "log_every")
# Keys that say what a run's agent plays and how it is judged, not what it is.
PLAYED = ("sequence", "eval")
GROUPS = Path(__file__).resolve().parent.parent / "configs"
PARTS = ("replay", "memory", "consolidation", "clone")  # of agents/footprint.py


@dataclass(frozen=True)
class Run:
    """A run's folder as far as comparisons read it."""

    path: str
    name: str | None  # given on the command line
    log: RunLog
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def folder(self) -> str:
        return Path(self.path).resolve().name

    @property
    def budget(self) -> int | None:
        """Agent steps the run was started for; None where the folder does not say."""
        steps = self.manifest.get("budget_agent_steps")
        if isinstance(steps, int):
            return steps
        try:
            sequence = self.config["sequence"]
            return len(sequence["games"]) * sequence["cycles"] * sequence["steps_per_task"]
        except (KeyError, TypeError):
            return None

    @property
    def finished(self) -> bool:
        visits = self.log.visits
        whole = bool(visits) and visits[-1].end is not None
        return whole and self.log.last_step >= (self.budget or 0)

    def costs(self) -> dict[str, float | None]:
        """Seconds of the whole run with its evaluations, median agent steps/s of training alone,
        peak memory in MB, and bytes that the agent remembers with, by part and in sum."""
        lines = [line.numbers for line in self.log.train]
        last = lines[-1] if lines else {}
        rates = sorted(n["agent_steps_per_s"] for n in lines if n.get("agent_steps_per_s"))
        parts = {p: last[f"bytes/{p}"] for p in PARTS if last.get(f"bytes/{p}") is not None}
        return {
            "seconds": last.get("seconds"),
            "agent_steps_per_s": rates[len(rates) // 2] if rates else None,
            "peak_memory_mb": max((n.get("peak_memory_mb") or 0 for n in lines), default=0) or None,
            **{f"bytes/{part}": parts.get(part) for part in PARTS},
            "bytes": sum(parts.values()) if parts else None,
        }


def find(words: str, key: str) -> list[tuple[str | None, str]]:
    """(name or None, folder) of every run in `a,name=b,c/*`, in this order.

    A wildcard and a folder of runs stand for the runs in it, sorted; what is no run is left out.

    Raises:
        UserError: nothing there, or a run named twice.
    """
    found: list[tuple[str | None, str]] = []
    for word in (w for w in words.split(",") if w):
        name, equals, path = word.partition("=")
        if not equals or _runs_at(word):
            name, path = None, word
        require(name != "", f"{key}={word}: the name before = is empty")
        folders = _runs_at(path)
        require(
            bool(folders),
            f"{key}={path}: no run there (a run's folder holds {FILE_NAME})",
        )
        found += [(name, folder) for folder in folders]
    places = [str(Path(folder).resolve()) for _, folder in found]
    twice = next((p for p, place in zip(found, places) if places.count(place) > 1), None)
    require(twice is None, f"{key}= names {twice[1] if twice else ''} twice")
    require(bool(found), f"{key}= is empty: give folders of runs")
    return found


def _runs_at(word: str) -> list[str]:
    """Folders of runs that a word stands for; a bare name is looked for under runs/, too."""
    if (Path(word) / FILE_NAME).is_file():
        return [word]
    if len(Path(word).parts) == 1 and not Path(word).exists() and (Path("runs") / word).exists():
        return _runs_at(f"runs/{word}")
    pattern = f"{glob.escape(word)}/*" if Path(word).is_dir() else word
    if not glob.has_magic(pattern):
        return []
    return [p for p in sorted(glob.glob(pattern)) if (Path(p) / FILE_NAME).is_file()]


def read(path: str, name: str | None = None) -> Run:
    """Raises UserError where the log is damaged or the configuration missing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    file = Path(path) / "config.yaml"
    require(file.is_file(), f"{path}: {file} is missing; give the folder of a run")
    try:
        config = OmegaConf.to_container(OmegaConf.load(file))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no YAML: restore it from a copy") from error
    require(isinstance(config, dict), f"{file} is no configuration: restore it from a copy")
    manifest = read_json(Path(path) / "manifest.json")
    return Run(path, name, read_run_log(path), in_todays_words(config), manifest)


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a run that was trained to its end, saved and reported: what a sweep
    need not start again."""
    files = (FILE_NAME, "config.yaml", "report/report.html")
    return all((folder / name).is_file() for name in files) and read(str(folder)).finished


def only_finished(runs: Sequence[Run], notes: list[str]) -> list[Run]:
    """Figures at the end need an end: runs that are still going on are left out, and said so."""
    for run in runs:
        if not run.finished:
            of = f" of {short(run.budget)}" if run.budget else ""
            notes.append(
                f"{run.folder} is left out: it is not finished "
                f"({short(run.log.last_step)}{of} agent steps)"
            )
    return [run for run in runs if run.finished]


def baseline_first(groups: dict[str, Any], name: str | None) -> dict[str, Any]:
    """Methods by name, that one before all others.

    Raises:
        UserError: it is none of them.
    """
    if name is None:
        return groups
    require(name in groups, f"baseline={name} is no method here: choose from {', '.join(groups)}")
    return {name: groups[name]} | groups


def group(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Name of the method -> its runs, both in the order given."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        learned = {k: v for k, v in run.config.items() if k not in OWN}
        groups.setdefault(run.name or json.dumps(learned, sort_keys=True), []).append(run)
    methods = list(groups.values())
    for rows in methods:
        seeds = [r.seed for r in rows]
        again = next((r for r in rows if seeds.count(r.seed) > 1), None)
        if again is not None:
            both = " and ".join(r.path for r in rows if r.seed == again.seed)
            raise UserError(f"{both} are the same method and seed {again.seed}: leave one out")
    names = [_own_name(rows) for rows in methods]
    clash = [n is None or names.count(n) > 1 for n in names]
    if any(clash):
        said = descriptions([rows[0].config for rows in methods])
        names = [s if c else n for n, s, c in zip(names, said, clash)]
    require(
        len(set(names)) == len(names),
        "two methods get the same name: give names, compare=name=path,name=path",
    )
    return dict(zip(names, methods))


def agent_of(run: Run) -> str:
    """What tells agents apart, whatever they are trained on: the configuration without seed,
    sequence and evaluation."""
    return agent_key(run.config)


def agent_key(config: Mapping[str, Any]) -> str:
    """The same of a configuration."""
    kept = {k: v for k, v in config.items() if k not in OWN + PLAYED}
    return json.dumps(kept, sort_keys=True)


def _own_name(runs: Sequence[Run]) -> str | None:
    """The name given, or that of the folders without the seed; None where they do not agree, or are
    named by experiment and date."""
    if runs[0].name:
        return runs[0].name
    stems = set()
    for run in runs:
        match = re.fullmatch(r"(.+?)[-_.](?:s|seed)?[-_]?(\d+)", run.folder)
        stems.add(match[1] if match and int(match[2]) == run.seed else run.folder)
    stem = stems.pop()
    return None if stems or re.search(r"-\d{8}-\d{6}$", stem) else stem


def differences(configs: Sequence[Mapping]) -> dict[str, list[Any]]:
    """Dotted keys in which configurations differ -> their values, in the order of `configs`."""
    flat = [_flatten({k: v for k, v in c.items() if k not in OWN}) for c in configs]
    keys = sorted(set().union(*flat))
    table = {key: [f.get(key) for f in flat] for key in keys}
    return {key: row for key, row in table.items() if any(x != row[0] for x in row)}


def descriptions(configs: Sequence[Mapping]) -> list[str]:
    """What sets each configuration apart, in the command line's words where a preset says it:
    `agent=engram replay=fifo` rather than six keys."""
    apart = differences(configs)
    groups = dict.fromkeys(key.partition(".")[0] for key in apart)
    brief, whole = [], []
    for i, config in enumerate(configs):
        words, rest = [], []
        for name in groups:
            preset, keys = _preset(name, config.get(name))
            words += [f"{name}={preset}"] if preset else []
            own = [k for k in apart if k.partition(".")[0] == name and k not in keys]
            said = [f"{k}={_plain(apart[k][i])}" for k in own]
            (rest if preset else words).extend(said)
        brief.append(" ".join(words))
        whole.append(" ".join(words + rest))
    # The shortest that still tells them apart: what is merely absent need not be said.
    bare = [" ".join(w for w in text.split() if not w.endswith("=[]")) for text in brief]
    for out in (bare, brief):
        if len(set(out)) == len(out) and all(out):
            return out
    return [text or "run" for text in whole]


def _preset(name: str, values: Any) -> tuple[str | None, set[str]]:
    """The file of configs/<name>/ with the most keys that all are as in `values`, and its keys."""
    flat = _flatten({name: values})
    fitting = [
        (len(content), preset, set(content))
        for preset, content in _presets(name).items()
        if content and all(k in flat and flat[k] == v for k, v in content.items())
    ]
    _, preset, keys = max(fitting, key=lambda x: (x[0], x[1]), default=(0, None, set()))
    return preset, keys


@cache
def _presets(name: str) -> dict[str, dict[str, Any]]:
    from omegaconf import OmegaConf

    out = {}
    for path in sorted((GROUPS / name).glob("*.yaml")):
        content = OmegaConf.to_container(OmegaConf.load(path))
        content.pop("defaults", None)
        whole = "@package _global_" in path.read_text()
        out[path.stem] = _flatten({name: content.get(name, {}) if whole else content})
    return out


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    out: dict[str, Any] = {}
    for key, value in node.items():
        out |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return out


def _plain(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
