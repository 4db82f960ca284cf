"""Fill the tables of README and of docs/*.md from benchmarks/results/*.json.

    python benchmarks/readme.py            # rewrite the tables in place
    python benchmarks/readme.py --check    # exit 1 if a table is out of date (a test does this)

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; nothing does until it is recorded.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.tables import continual, core, episodic, findings, planning, training  # noqa: E402

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)

TABLES: dict[str, Callable[[], str]] = {
    "findings": findings.findings,
    "throughput": training.throughput,
    "gpu": training.gpu,
    "atari100k": training.atari100k,
    "atari100k_all": lambda: training.atari100k(all_variants=True),
    "encoder": training.encoder,
    "evaluation_throughput": training.evaluation_throughput,
    "replay": training.replay,
    "quickstart": training.quickstart,
    "laptop_memory": training.laptop_memory,
    "continual": continual.continual,
    "continual_earlier": lambda: continual.continual("continual_earlier"),
    "continual_alarm": continual.continual_alarm,
    "continual_schedules": lambda: continual.continual("continual_schedules"),
    "continual_long": lambda: continual.continual("continual_long"),
    "continual_fourth": lambda: continual.continual("continual_fourth"),
    "continual_quickstart": lambda: continual.continual("continual_quickstart"),
    "continual_pairs": continual.continual_pairs,
    "continual_memory": continual.continual_memory,
    "consolidation_cost": continual.consolidation_cost,
    "change_detection": continual.change_detection,
    "engram_cost": continual.engram_cost,
    "planning": planning.planning,
    "planning_again": planning.planning_again,
    "planning_oracle": planning.planning_oracle,
    "planning_100k": planning.planning_100k,
    "planning_taught": planning.planning_taught,
    "planning_advantage": lambda: planning.planning_100k("planning_advantage"),
    "planning_fourth": lambda: planning.planning_100k("planning_fourth"),
    "planning_summary": planning.planning_summary,
    "planning_times": planning.planning_times,
    "world_model_cost": planning.world_model_cost,
    "event_core": core.event_core,
    "core_peers": core.core_peers,
    "core_equality": core.core_equality,
    "core_equality_trained": lambda: core.core_equality("core_equality_trained"),
    "core_return": core.core_return,
    "plastic_readout": core.plastic_readout,
    "episodic": episodic.episodic,
    "episodic_share": episodic.episodic_share,
    "episodic_agents": episodic.episodic_agents,
}
# Tables made from the results of another.
FROM = {
    "findings": "continual",
    "continual_memory": "continual",
    "continual_pairs": "continual_quickstart",
    "atari100k_all": "atari100k",
    "planning_summary": "planning_advantage",
}


def fill(text: str, page: Path = PAGES[0]) -> str:
    """`text` of a page with its tables made anew; pictures are named as seen from there."""

    def table(match: re.Match[str]) -> str:
        made = TABLES[match[2]]() if recorded(match[2]) else ""
        up = "../" * len(page.relative_to(ROOT).parent.parts)
        return match[1] + made.replace("](benchmarks/", f"]({up}benchmarks/") + match[3]

    return MARK.sub(table, text)


def recorded(name: str) -> bool:
    return (ROOT / "benchmarks" / "results" / f"{FROM.get(name, name)}.json").exists()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if not in step")
    check = parser.parse_args().check
    for page in PAGES:
        old = page.read_text()
        new = fill(old, page)
        if check:
            if old != new:
                sys.exit(f"{page.name} is out of date: python benchmarks/readme.py")
        else:
            page.write_text(new)


if __name__ == "__main__":
    main()
