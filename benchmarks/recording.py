"""What every recorded result says of its making."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def called() -> str:
    """The command line, with the benchmark's path as it is from the repository's root."""
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
