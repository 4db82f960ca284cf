"""Fill README's tables from benchmarks/results/*.json.

    python benchmarks/readme.py            # rewrite the tables in place
    python benchmarks/readme.py --check    # exit 1 if a table is out of date (a test does this)

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)


def load(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def source(name: str, result: dict) -> str:
    machine = result.get("machine")
    where = f" on {machine['cores']} cores of {machine['cpu']}" if machine else ""
    return f"\n`benchmarks/results/{name}.json`: `{result['command']}`{where}.\n"


def throughput() -> str:
    result = load("throughput")
    labels = {
        "engram_spiking": "Engram `reactive`, spiking encoder",
        "engram_conv": "Engram `reactive`, ReLU twin",
        "sb3_dqn_nature": "Stable-Baselines3 DQN, Nature CNN",
    }
    rows = [
        [label, f"{result['median_agent_steps_per_s'][side]:.0f}", f"{ratio:.1f}x"]
        for side, label in labels.items()
        for ratio in [result["ratio_to_sb3"][side]]
    ]
    return markdown(["", "agent steps/s", "against SB3"], rows) + source("throughput", result)


def atari100k() -> str:
    result = load("atari100k")
    rows = []
    for game, row in result["table"].items():
        ours = []
        for encoder in ("conv", "spiking"):
            cell = row[encoder]
            ours.append(
                f"{cell['mean']:,.0f} ({', '.join(f'{s:,.0f}' for s in cell['seeds'])})"
                if cell
                else "-"
            )
        rows.append([game, *ours, *(f"{v:,.1f}" for v in row["published"].values())])
    published = [
        name.replace("_eps", "(eps)") for name in next(iter(result["table"].values()))["published"]
    ]
    head = ["return at 100k agent steps", "`reactive` conv (seeds)", "`reactive` spiking (seeds)"]
    return markdown([*head, *published], rows) + source("atari100k", result)


TABLES: dict[str, Callable[[], str]] = {"throughput": throughput, "atari100k": atari100k}


def fill(text: str) -> str:
    return MARK.sub(lambda m: m[1] + TABLES[m[2]]() + m[3], text)


def main() -> None:
    old = README.read_text()
    new = fill(old)
    if "--check" in sys.argv:
        sys.exit(0 if old == new else "README.md is out of date: python benchmarks/readme.py")
    README.write_text(new)


if __name__ == "__main__":
    main()
