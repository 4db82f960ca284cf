"""What `--help` says: groups with their options, and every key with its value and its meaning.

Meanings are the comments of the dataclasses that hold the keys, so that they stand once.
"""

from __future__ import annotations

import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from training.config import CONFIG_DIR, RunConfig, load_config

WIDTH = 100  # columns
MARGIN = 42  # column at which meanings begin


def usage(words: Sequence[str]) -> str:
    """Groups with their options, and all keys with the values that `words` (`key=value`) give them.

    Raises:
        UserError: as `load_config`.
    """
    lines = ["Groups:"]
    for group in sorted(p for p in CONFIG_DIR.iterdir() if p.is_dir()):
        lines.append(f"  {group.name}={'|'.join(sorted(p.stem for p in group.glob('*.yaml')))}")
    head = "Keys, with their defaults before any preset (experiment=... --help: under it):"
    if words:
        head = f"Keys, with their values under {' '.join(words)}:"
    return "\n".join([*lines, "", head, *_keys(load_config(words) if words else RunConfig())])


def meanings(config: type) -> dict[str, str]:
    """What the comments of a dataclass's source say of its fields.

    It is the comment on a field's own line; where that has none, the first sentence of those right
    above it.
    """
    beside: dict[int, str] = {}  # by line
    above: dict[int, str] = {}
    source = textwrap.dedent(inspect.getsource(config))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            (above if alone else beside)[token.start[0]] = token.string.lstrip("# ")
    names = {f.name for f in fields(config)}
    said: dict[str, str] = {}
    for row, line in enumerate(source.splitlines(), start=1):
        name = line.strip().partition(":")[0]
        if name in names - said.keys() and line.startswith(f"    {name}: "):
            said[name] = beside.get(row) or _first_sentence(above, row)
    return said


def _first_sentence(comments: dict[int, str], row: int) -> str:
    """Of the comments right above a line, up to a heading (`# -- ...`)."""
    first = row
    while not comments.get(first - 1, "--").startswith("--"):
        first -= 1
    return re.split(r"\. (?=[A-Z])", " ".join(comments[r] for r in range(first, row)))[0]


def _keys(config: Any, prefix: str = "") -> list[str]:
    lines = []
    said = meanings(type(config))
    for key, value in vars(config).items():
        if is_dataclass(value):
            lines += _keys(value, f"{prefix}{key}.")
            continue
        head = f"  {prefix}{key}={_shown(value)}"
        body = textwrap.wrap(said[key].rstrip("."), WIDTH - MARGIN)
        if body and len(head) < MARGIN:
            head = f"{head:<{MARGIN}}{body.pop(0)}"
        lines += [head, *(" " * MARGIN + line for line in body)]
    return lines


def _shown(value: Any) -> str:
    """As the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value)
