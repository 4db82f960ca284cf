"""What all tables have in common: reading a result, Markdown, the line that names its source."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def source(name: str, result: dict) -> str:
    machine = result.get("machine")
    if isinstance(machine, dict) and "processor" in machine:
        threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
        where = f" on {threads} of {machine['processor']}"
    elif isinstance(machine, dict):
        where = f" on {machine['cores']} cores of {machine['cpu']}"
    else:
        where = f" on {machine}" if machine else ""
    if len(result["command"]) <= 120:
        return f"\n`benchmarks/results/{name}.json`: `{result['command']}`{where}.\n"
    commands = "\n".join(dict.fromkeys(result["command"].split(" && ")))
    return (
        f"\n<details><summary><code>benchmarks/results/{name}.json</code>{where}: how it was made"
        f"</summary>\n\n```\n{commands}\n```\n\n</details>\n"
    )
