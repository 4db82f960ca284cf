"""The loop: tasks in order, learning beside the emulators, evaluation of all games, checkpoints.

Everything it needs is handed in. What it does at each vector step (training/step.py):

    actions = agent.act(obs)
    env.send(actions)          # emulator threads start
    agent.learn()              # the updates that the fixed ratio owes
    obs, ... = env.recv()
    agent.observe(...)
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from agents.agent import Agent
from envs import Task, TaskSequence
from errors import UserError
from training.checkpoint import CheckpointStore
from training.step import vector_step

UPKEEP_EVERY = 400  # agent steps between two calls of `upkeep`


class Interrupted(Exception):
    """A signal asked the run to stop; its state was saved."""

    def __init__(self, step: int, signum: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.step, self.signum = step, signum


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0  # agent steps of the whole run
    visit: int = 0  # index of the running visit in the sequence
    visit_step: int = 0  # agent steps done in it
    in_visit: bool = False  # its environment is running
    ended: bool = False  # the agent was told of its end; the evaluation there may be due
    evaluated_at: int = -1  # step of the last evaluation


class _Abandoned(Exception):
    """A signal asked to stop in the middle of an evaluation."""


class StopSignal:
    """SIGINT and SIGTERM become a flag that the loop reads between two steps, and evaluations
    between two decisions."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __enter__(self) -> StopSignal:
        self._old = {}
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._old[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, _frame: object) -> None:
        if self.signum is not None:  # the second request does not wait
            raise KeyboardInterrupt
        self.signum = signum


class Runner:
    """Runs a `TaskSequence` from where its last checkpoint left it to the end.

    Args:
        sequence: the tasks.
        make_env: (task, visit index) -> training environment.
        agent: the agent.
        evaluator: its `evaluate_all(policy)` plays all games (evaluation/evaluator.py).
        final_evaluator: the one for the run's last evaluation.
        judge: (curves, schedule, raw=curves of raw returns) -> continual metrics, with `as_dict()`.
        normalise: (game, raw score) -> human-normalised score.
        telemetry, display: where numbers go.
        store: checkpoints.
        eval_every, log_every, checkpoint_every: agent steps.
        upkeep: called now and then, for the process's own sake.
        goes_on: called once a checkpoint has been gone back to.
    """

    def __init__(
        self,
        sequence: TaskSequence,
        make_env: Callable[[Task, int], Any],
        agent: Agent,
        evaluator: Any,
        final_evaluator: Any,
        judge: Callable[..., Any],
        normalise: Callable[[str, float], float],
        telemetry: Any,
        display: Any,
        store: CheckpointStore,
        eval_every: int,
        log_every: int,
        checkpoint_every: int,
        upkeep: Callable[[], None] | None = None,
        goes_on: Callable[[], None] = lambda: None,
    ) -> None:
        self.sequence, self.make_env, self.agent = sequence, make_env, agent
        self.evaluator, self.final_evaluator = evaluator, final_evaluator
        self.judge, self.normalise = judge, normalise
        self.telemetry, self.display, self.store = telemetry, display, store
        self.eval_every, self.log_every = eval_every, log_every
        self.checkpoint_every, self.upkeep = checkpoint_every, upkeep
        self.goes_on = goes_on
        self.games = sequence.games
        self.progress = Progress()
        self.env: Any = None
        self._rate_mark = (time.perf_counter(), 0)
        self._excluded_seconds = 0.0  # evaluation and checkpoints since the mark

    # -- whole run ------------------------------------------------------------------------------
    def run(self) -> Progress:
        """Train to the end. Raises `Interrupted` after saving when a signal asks to stop."""
        with StopSignal() as self._stop:
            if self.store.latest() is not None:
                self._resume()
                self.goes_on()
            try:
                if self.progress.evaluated_at < 0:
                    self._evaluate()
                    self._save()
                while self.progress.visit < len(self.sequence):
                    self._visit()
            finally:
                if self.env is not None:
                    self.env.close()
        return self.progress

    def _visit(self) -> None:
        p = self.progress
        task = self.sequence[p.visit]
        game = self.games.index(task.name)
        if not p.in_visit:
            self._begin(task, game)
        elif p.visit_step < task.steps and self._due(self.eval_every, p.evaluated_at):
            self._evaluate()  # it was abandoned when the run was stopped
        while p.visit_step < task.steps:
            before = p.step
            self._step()
            if self._due(self.log_every, before):
                self._log()
            # A visit's last evaluation is of the agent that its end has left, which is what a
            # checkpoint holds: some hundred moments more are then in its memory.
            if self._due(self.eval_every, before) and p.visit_step < task.steps:
                self._evaluate()
            if self.upkeep is not None and self._due(UPKEEP_EVERY, before):
                self.upkeep()
            if self._stop.signum is not None:
                self._halt()
            if self._due(self.checkpoint_every, before):
                self._save()
        self._end(task)

    def _due(self, every: int, before: int) -> bool:
        """Whether a multiple of `every` lies between `before` and the present step."""
        return self.progress.step // every > before // every

    def _begin(self, task: Task, game: int) -> None:
        p = self.progress
        self.env = self.make_env(task, p.visit)
        self.env.reset()
        self.agent.begin_task(game)
        p.in_visit, p.ended, p.visit_step = True, False, 0
        self._task_event("begin", task)
        # What a visit's end and beginning take is not training.
        self._rate_mark, self._excluded_seconds = (time.perf_counter(), p.step), 0.0

    def _end(self, task: Task) -> None:
        p = self.progress
        if not p.ended:
            self.agent.end_task(self.env.observations)
            p.ended = True
        if p.evaluated_at != p.step:
            self._evaluate()
        self._task_event("end", task)
        self.telemetry.continual(p.step, self._metrics())  # now that the visit has an end
        self.env.close()
        self.env = None
        p.visit, p.visit_step, p.in_visit = p.visit + 1, 0, False
        self._save()

    # -- one vector step ------------------------------------------------------------------------
    def _step(self) -> None:
        p, env, agent = self.progress, self.env, self.agent
        info = vector_step(agent, env)
        p.step += env.num_envs
        p.visit_step += env.num_envs
        if agent.contexts is not None:
            for event in agent.contexts.events():
                self.telemetry.change(p.step, p.visit, self.sequence[p.visit].name, **event)
        for i in np.flatnonzero(info["episode_over"]):
            score, length = float(info["episode_return"][i]), int(info["episode_length"][i])
            game = self.sequence[p.visit].name
            self.telemetry.episode(p.step, p.visit, game, score, length)
            self.display.episode(game, score)
        self.display.update(p.step, p.visit)

    # -- numbers --------------------------------------------------------------------------------
    def _log(self) -> None:
        p = self.progress
        now = time.perf_counter()
        start, start_step = self._rate_mark
        seconds = max(now - start - self._excluded_seconds, 1e-9)
        rate = (p.step - start_step) / seconds
        self._rate_mark, self._excluded_seconds = (now, p.step), 0.0
        game = self.sequence[p.visit].name
        numbers = self.agent.diagnostics()
        self.telemetry.train(p.step, p.visit, game, numbers, agent_steps_per_s=rate)
        self.display.rate(rate, numbers)

    def _evaluate(self) -> None:
        p = self.progress
        begin = time.perf_counter()
        self.display.note("evaluating all games")
        last = p.visit == len(self.sequence) - 1 and p.visit_step >= self.sequence[p.visit].steps
        evaluator = self.final_evaluator if last else self.evaluator
        try:
            results = evaluator.evaluate_all(self._judged_policy)
        except _Abandoned:
            self._halt()  # an evaluation changes nothing: it is made again after the resume
        visit = min(p.visit, len(self.sequence) - 1)
        for game, result in results.items():
            returns = [float(r) for r in result.returns]
            hns = float(np.mean([self.normalise(game, r) for r in returns]))
            capped = int(result.capped.sum())
            self.telemetry.eval(p.step, visit, game, returns, hns, capped)
            self.display.eval(game, float(np.mean(returns)), hns)
        p.evaluated_at = p.step
        metrics = self._metrics()
        self.telemetry.continual(p.step, metrics)
        self.display.continual(metrics)
        self._excluded_seconds += time.perf_counter() - begin

    def _judged_policy(self, obs: np.ndarray, game: Any) -> np.ndarray:
        if self._stop.signum is not None:
            raise _Abandoned
        return self.agent.eval_policy(obs, game.index)

    def _metrics(self) -> Any:
        known = self.telemetry
        return self.judge(known.curves, known.schedule, raw=known.raw_curves())

    def _task_event(self, event: str, task: Task) -> None:
        p = self.progress
        cycle = self.sequence.cycle_of(p.visit)
        self.telemetry.task(p.step, p.visit, task.name, event, task.steps, cycle)

    # -- state ----------------------------------------------------------------------------------
    def _halt(self) -> NoReturn:
        """Save, and leave as a signal asked."""
        self._save()
        assert self._stop.signum is not None
        raise Interrupted(self.progress.step, self._stop.signum)

    def _save(self) -> None:
        begin = time.perf_counter()
        p = self.progress
        state = {
            "progress": vars(p),
            "agent": self.agent.state_dict(),
            "replay": self.agent.replay.state_dict(),
            "memory": self.agent.memory_state(),
            "env": self.env.state_dict() if self.env is not None else None,
            "telemetry": self.telemetry.state_dict(),
        }
        self.store.save(p.step, state)
        self._excluded_seconds += time.perf_counter() - begin

    def _resume(self) -> None:
        state = self.store.load()
        try:
            self.progress = p = Progress(**state["progress"])
            self.telemetry.load_state_dict(state["telemetry"])
            self.agent.load_state_dict(state["agent"])
            self.agent.replay.load_state_dict(state["replay"])
            self.agent.load_memory_state(state.get("memory"))
            if p.in_visit:
                self.env = self.make_env(self.sequence[p.visit], p.visit)
                self.env.load_state_dict(state["env"])
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the checkpoint of step {self.store.latest()} does not fit this program "
                f"({error}): start again with another run="
            ) from error
        self._rate_mark = (time.perf_counter(), p.step)
        for game, curve in self.telemetry.curves.items():
            for score, (_, hns) in zip(self.telemetry.returns[game], curve):
                self.display.eval(game, score, hns)
        self.display.update(p.step, p.visit)
        if self.telemetry.schedule:
            self.display.continual(self._metrics())
        self.display.note(f"resumed at step {p.step}")
