"""Train an agent on a sequence of Atari games.

    python train.py experiment=quickstart
    python train.py experiment=laptop seed=3 run=mine
    python train.py sequence.games=[pong,krull] sequence.steps_per_task=20000 agent=drq encoder=conv
    python train.py experiment=ablation jobs=2      # methods x seeds, and a report over all
    python train.py --multirun experiment=laptop replay=fifo,cloning seed=0,1,2

The same command with the same run= goes on where it stopped, and so does run= alone; with a larger
sequence.cycles= it is lengthened. --help with any of them shows every key with its value there,
its unit and its meaning. Groups are the folders of configs/.
"""

from __future__ import annotations

import errno
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from errors import UserError, require

HELP = ("-h", "--help")


def main(argv: Sequence[str]) -> int:
    try:
        return train(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        where = error.filename or "the run's folder"
        said = f"{where}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = (
                f"the disk is full ({where}): free some space and go on with the run's run=; the "
                "last checkpoint is intact"
            )
        print(f"error: {said}", file=sys.stderr)
    except MemoryError as error:
        print(
            f"error: this machine's memory is not enough ({error}): lower the sizes asked for, such"
            " as eval.episodes or memory.neighbours",
            file=sys.stderr,
        )
    except KeyboardInterrupt:  # before and after training, or a second time while it is saved
        print(
            "interrupted: the same command with the run's run= goes on from its last checkpoint",
            file=sys.stderr,
        )
        return 128 + signal.SIGINT
    return 2


def train(argv: Sequence[str]) -> int:
    from training.folder import RunFolder, configured, run_path
    from training.sweep import is_sweep

    if any(a in HELP for a in argv):
        from training.help import usage

        words = [a for a in argv if a not in HELP]
        print(f"{__doc__}\n{usage([] if is_sweep(words) else words)}")
        return 0
    if is_sweep(argv):
        return sweep(argv)

    config = configured(argv)  # before the slow imports: mistakes are answered at once
    from envs.scores import hns
    from evaluation import continual_metrics
    from evaluation.evaluator import Evaluator
    from evaluation.figures import board_figures
    from evaluation.report import write_report
    from evaluation.summary import print_summary
    from training.build import (
        build_agent,
        choose_device,
        make_training_env,
        named_seeds,
        shared_outputs,
    )
    from training.checkpoint import CheckpointStore
    from training.display import make_display
    from training.loading import networks_of
    from training.runner import Interrupted, Runner
    from training.telemetry import Telemetry
    from training.threads import configure_threads, release_freed_memory

    sequence = config.sequence.tasks()
    device = choose_device(config.device.name)
    configure_threads(config.device.learner_threads)
    store = CheckpointStore(run_path(config) / "checkpoints", config.checkpoint.keep)
    networks = None
    if config.start_from is not None and store.latest() is None:  # before anything is made
        networks, networks_step = networks_of(config)
    folder = RunFolder(config, argv)
    store = CheckpointStore(folder.path / "checkpoints", config.checkpoint.keep)
    folder.check_goes_on(store.latest())

    def settle() -> None:
        folder.settle(config)
        folder.write_manifest(config, device, sequence.games)

    if store.latest() is None:
        settle()
    print(f"{folder.path}: {describe(sequence, device)}", flush=True)
    if config.memory.controller != "mfec" and config.agent.learn_start >= sequence.total_steps:
        print(
            f"note: nothing is learned before agent.learn_start={config.agent.learn_start:,} agent "
            "steps, which this run does not reach",
            flush=True,
        )
    if networks is not None:
        at = f"{config.start_from} at step {networks_step:,}"
        print(f"begins with the networks of {at}", flush=True)
    agent = build_agent(config, device, networks)
    telemetry = Telemetry(
        folder.path,
        sequence.games,
        lambda curves, schedule: board_figures(curves, schedule) | agent.figures(sequence.games),
    )
    evaluator, final_evaluator = (
        Evaluator(
            [sequence.game_task(game) for game in sequence.games],
            config.protocol,
            episodes=episodes,
            num_envs=config.eval.num_envs,
            seed=named_seeds(config.seed)["eval"],
            max_steps=config.eval.max_steps,
            epsilon=config.agent.eval_epsilon,
            full_actions=shared_outputs(config),
        )
        for episodes in (config.eval.episodes, config.eval.final_episodes or config.eval.episodes)
    )
    with make_display(config.display, sequence) as display:
        runner = Runner(
            sequence,
            lambda task, visit: make_training_env(config, task, visit),
            agent,
            evaluator,
            final_evaluator,
            continual_metrics,
            hns,
            telemetry,
            display,
            store,
            eval_every=config.eval.every,
            log_every=config.log_every,
            checkpoint_every=config.checkpoint.every,
            upkeep=release_freed_memory if config.world_model.enabled else None,
            goes_on=settle,
        )
        try:
            runner.run()
        except Interrupted as stop:
            name = signal.Signals(stop.signum).name
            at = shlex.quote(str(folder.path))
            print(f"{name}: saved at step {stop.step}; go on with: run={at}")
            return 128 + stop.signum
        finally:
            telemetry.close()
            evaluator.close()
            final_evaluator.close()
    print_summary(folder.path)
    print(f"report: {write_report(folder.path)}")
    board = Path(sys.executable).with_name("tensorboard")
    print(f"tensorboard: {board} --logdir {shlex.quote(str(folder.path))}")
    return 0


def sweep(argv: Sequence[str]) -> int:
    """Many runs, and one report over them."""
    from evaluation import suite
    from evaluation.compare import compare
    from evaluation.compare_report import publish
    from evaluation.methods import is_finished
    from training.folder import command_line
    from training.sweep import Executor, plan_sweep

    plan = plan_sweep(argv)
    check_references([job for job in plan.jobs if job.reference])
    share = "" if plan.mine == plan.jobs else f", {len(plan.mine)} of them here"
    print(f"{plan.folder}: {len(plan.jobs)} runs{share}, {plan.parallel} at a time", flush=True)
    executor = Executor(plan, is_finished)
    executor.run()
    if executor.stopped is not None:
        print("the same command goes on")
        return 128 + executor.stopped
    for job in executor.failed:
        print(f"error: {job.folder} failed: mend it and give the same command", file=sys.stderr)
    done = [j for j in plan.jobs if executor.done(j)]
    if plan.mine != plan.jobs and len(done) < len(plan.jobs):
        left = len(plan.jobs) - len(done)
        print(f"{left} runs are not finished; the part that ends last writes the report")
        return 1 if executor.failed else 0
    command = command_line()
    sequences: dict[tuple[str, ...], list] = {}  # a comparison is of runs on one sequence
    for job in (j for j in done if not j.reference):
        sequences.setdefault(tuple(job.config.sequence.games), []).append(job)
    for k, (games, jobs) in enumerate(sequences.items(), 1):
        name = "comparison" if len(sequences) == 1 else f"comparison_{k}_{'_'.join(games)}"[:120]
        try:
            result = compare(
                [(j.method, str(j.folder)) for j in jobs],
                [(None, str(j.folder)) for j in done if j.reference],
            )
        except UserError as error:  # the runs are there, and what else can be said of them
            print(f"note: no comparison on {', '.join(games)}: {error}", flush=True)
        else:
            publish(result, plan.folder / name, command)
    if len(sequences) > 1 and all(len(games) == 1 for games in sequences):
        runs = [(j.agent or "agent", str(j.folder)) for jobs in sequences.values() for j in jobs]
        try:
            result = suite.judge(runs)
        except UserError as error:
            print(f"note: no table over the games: {error}", flush=True)
        else:
            suite.publish(result, plan.folder / "suite", command)
    return 1 if executor.failed else 0


def check_references(jobs: Sequence) -> None:
    """No two of them may be one agent on one game with one seed: a report could not tell which of
    them a method is to be judged by."""
    from evaluation.methods import agent_key

    known: dict[tuple, object] = {}
    for job in jobs:
        (game,) = job.config.sequence.games
        key = (agent_key(asdict(job.config)), game, job.config.seed)
        require(
            key not in known,
            f"references=all: {known.get(key)} and {job.folder} would be the same agent on {game} "
            "alone: sweep over keys of the agent, or give references=true",
        )
        known[key] = job.folder


def describe(sequence, device) -> str:
    steps = sequence.total_steps
    return (
        f"{', '.join(sequence.games)} x {sequence.cycles} cycles, {steps:,} agent steps "
        f"({4 * steps:,} frames) on {device}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
