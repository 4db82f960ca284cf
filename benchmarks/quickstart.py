"""Record a finished quickstart for README: its end table, its duration, its figure.

    python train.py experiment=quickstart run=runs/quickstart && python benchmarks/quickstart.py

Writes benchmarks/results/quickstart.json and docs/quickstart.png.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    from evaluation.runlog import read_run_log
    from evaluation.summary import HEADERS, cells, summarise

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart")
    manifest = json.loads((folder / "manifest.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = summarise(read_run_log(folder))
    result = {
        "command": "make train ARGS=run=quickstart && python benchmarks/quickstart.py",
        "what": "raw returns; HNS: 0 = random, 1 = human; forgetting in HNS",
        "head": list(HEADERS),
        "table": [list(cells(row)) for row in rows],
        "numbers": [row._asdict() for row in rows],
        "seconds": max(line.get("seconds", 0.0) for line in lines),
        "peak_memory_mb": max(line.get("peak_memory_mb", 0.0) for line in lines),
        **{k: manifest[k] for k in ("budget_agent_steps", "seed", "machine", "versions", "commit")},
    }
    path = ROOT / "benchmarks" / "results" / "quickstart.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    shutil.copyfile(folder / "report" / "forgetting.png", ROOT / "docs" / "quickstart.png")
    print(path)


if __name__ == "__main__":
    main()
