"""Judge trained runs.

    python evaluate.py run=runs/x [planner=reactive,beam,gumbel,shuffled,oracle] [episodes=30]
        [depth=1,2,3] [simulations=2,8,16] [oracle_depth=5] [games=krull]
    python evaluate.py run=runs/x backend=torch,event_core [episodes=20] [core=loihi2]
        [neurobench=true]
    python evaluate.py run=runs/x explain=true [game=krull] [episodes=1] [moments=24]
        [max_steps=2000] [step=24000]
    python evaluate.py run=runs/x score=true [episodes=100] [game=krull] [seed=1]
        [max_steps=27000] [step=24000]
    python evaluate.py run=runs/x watch=true [game=krull] [episodes=1] [max_steps=1000]
        [step=24000]
    python evaluate.py compare=runs/a,runs/b [single=runs/c,runs/d] [baseline=a]
        [scale=human|single] [out=comparison]   # or compare='runs/x/*', compare=name=runs/a
    python evaluate.py suite='runs/atari/*' [baseline=a] [out=suite]   # or suite=name=runs/a,...

One key says what is compared: with `run` alone, planning and reacting on the same trained agent;
`backend` plays it on several backends; `explain` writes a page of what an agent with episodic
memory was reminded of; `score` plays many episodes of each game, `watch` films some; `compare`
reports on many runs of one sequence, `suite` on agents trained on single games: IQM, mean, median
and optimality gap over the games.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from errors import exit_status, require

Options = dict[str, str]


def _loaded(options: Options, with_replay: bool = False):
    """The run that run= (and step=) names. Its replay holds the frames that the episodic memory
    refers to."""
    from training.loading import load_run
    from training.threads import configure_threads

    require("run" in options, "this needs run=, the folder of a trained run")
    step = options.get("step")
    require(step is None or step.isdecimal(), f"step={step} is no checkpoint's number")
    run = load_run(options["run"], None if step is None else int(step), with_replay=with_replay)
    configure_threads(run.config.device.learner_threads)
    return run


def _backends(options: Options) -> None:
    from evaluation.backends import main

    main(_loaded(options), options)


def _explain(options: Options) -> None:
    from evaluation.explain import main

    main(_loaded(options, with_replay=True), options)


def _watch(options: Options) -> None:
    from evaluation.watch import main

    main(_loaded(options), options)


def _score(options: Options) -> None:
    from evaluation.score import main

    main(_loaded(options), options)


def _planning(options: Options) -> None:
    from evaluation.planning import main

    main(_loaded(options, with_replay=True), options)


def _compare(options: Options) -> None:
    from evaluation.compare import main

    main(options)


def _suite(options: Options) -> None:
    from evaluation.suite import main

    main(options)


BRANCHES: dict[str, Callable[[Options], None]] = {
    "compare": _compare,
    "suite": _suite,
    "backend": _backends,
    "explain": _explain,
    "score": _score,
    "watch": _watch,
    "run": _planning,  # none of the others
}


def parse(argv: Sequence[str]) -> Options:
    """key=value words as a dictionary."""
    options: Options = {}
    for word in argv:
        key, equals, value = word.partition("=")
        require(bool(key and equals and value), f"'{word}' is not of the form key=value")
        require(key not in options, f"{key}= is given twice")
        options[key] = value
    return options


def main(argv: Sequence[str]) -> int:
    if not argv or any(a in ("-h", "--help") for a in argv):
        print(__doc__)
        return 0 if argv else 2
    return exit_status(lambda: judge(parse(argv)))


def judge(options: Options) -> None:
    branch = next((b for key, b in BRANCHES.items() if key in options), None)
    require(branch is not None, f"nothing to compare: give one of {'=, '.join(BRANCHES)}=")
    branch(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
