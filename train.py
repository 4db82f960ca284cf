"""Train an agent on a sequence of Atari games.

    python train.py experiment=quickstart
    python train.py experiment=laptop seed=3 run=runs/mine
    python train.py sequence.games=[pong,krull] sequence.steps_per_task=20000 agent=drq encoder=conv

The same command with the same run= goes on where it stopped. `python train.py --help` lists groups
and keys.
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Sequence

from errors import UserError


def main(argv: Sequence[str]) -> int:
    if any(a in ("-h", "--help") for a in argv):
        from training.config import usage

        print(__doc__ + usage())
        return 0
    try:
        return _train(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(
            f"error: the disk is full ({error.filename or 'run folder'}): free some space and give "
            "the same command again; the last checkpoint is intact",
            file=sys.stderr,
        )
    return 2


def _train(argv: Sequence[str]) -> int:
    from training.config import load_config

    config = load_config(argv)  # before the slow imports: mistakes are answered at once
    from training.build import Session
    from training.runner import Interrupted

    with Session(config) as session:
        try:
            session.run()
        except Interrupted as stop:
            name = signal.Signals(stop.signum).name
            print(f"{name}: saved at step {stop.step}; go on with run={session.folder.path}")
            return 128 + stop.signum
        session.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
