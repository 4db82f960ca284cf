"""Record a finished quickstart for README: its end table, its duration, its figure.

    python train.py experiment=quickstart run=runs/quickstart && python benchmarks/quickstart.py

Runs of other seeds behind it (`quickstart.py runs/quickstart runs/seed1 runs/seed2`) are recorded
by what their games ended at. Writes benchmarks/results/quickstart.json and docs/quickstart.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.recording import called  # noqa: E402 - benchmarks/ is no package
from evaluation.page import write_whole  # noqa: E402


def ends(folder: Path) -> dict:
    """What another run ended at, mean return by game."""
    from evaluation.runlog import read_run_log
    from evaluation.summary import summarise

    manifest = json.loads((folder / "manifest.json").read_text())
    rows = summarise(read_run_log(folder))
    return {k: manifest[k] for k in ("seed", "machine", "commit")} | {
        "end": {row.game: row.end for row in rows}
    }


def main() -> None:
    from evaluation.runlog import read_run_log
    from evaluation.summary import HEADERS, cells, summarise

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("runs/quickstart")])
    folder, *others = parser.parse_args().folders
    manifest = json.loads((folder / "manifest.json").read_text())
    commands = [json.loads((o / "manifest.json").read_text())["command"] for o in others]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = summarise(read_run_log(folder))
    result = {
        "command": " && ".join(["make train ARGS=run=quickstart", *commands, called()]),
        "what": "raw returns; HNS: 0 = random, 1 = human; forgetting in HNS",
        "head": list(HEADERS),
        "table": [list(cells(row)) for row in rows],
        "numbers": [row._asdict() for row in rows],
        "other_seeds": [ends(other) for other in others],
        "seconds": max(line.get("seconds", 0.0) for line in lines),
        "peak_memory_mb": max(line.get("peak_memory_mb", 0.0) for line in lines),
        **{k: manifest[k] for k in ("budget_agent_steps", "seed", "machine", "versions", "commit")},
    }
    path = ROOT / "benchmarks" / "results" / "quickstart.json"
    write_whole(path, json.dumps(result, indent=1) + "\n")
    shutil.copyfile(folder / "report" / "forgetting.png", ROOT / "docs" / "quickstart.png")
    print(path)


if __name__ == "__main__":
    main()
