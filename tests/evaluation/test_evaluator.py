import zlib
from dataclasses import replace

import numpy as np
import pytest

from envs import Task, atari100k, machado2018, make_core, make_vector_env
from envs.seeding import episode_seed
from errors import UserError
from evaluation.evaluator import Evaluator

CATCH = Task("catch", 1)
BREAKOUT = Task("breakout", 1)


def by_pixels(obs, game):
    """A policy that depends on its row alone."""
    allowed = np.flatnonzero(game.action_mask)
    return allowed[obs.reshape(len(obs), -1).sum(1, dtype=np.int64) % len(allowed)]


def equal(a, b):
    for x, y in zip(a, b):
        np.testing.assert_array_equal(x, y)


def evaluate(game, policy=by_pixels, protocol=None, name=None, **options):
    evaluator = Evaluator([game], protocol or machado2018(), **options)
    try:
        return evaluator.evaluate(policy, name or game.name)
    finally:
        evaluator.close()


def test_results_do_not_depend_on_the_number_of_slots_or_the_order():
    options = {"episodes": 5, "seed": 3, "epsilon": 0.1}
    many = evaluate(BREAKOUT, num_envs=5, **options)
    assert len(set(many.lengths)) > 1, "episodes should differ in length"
    equal(many, evaluate(BREAKOUT, num_envs=2, **options))
    equal(many, evaluate(BREAKOUT, num_envs=1, **options))
    other_seed = evaluate(BREAKOUT, num_envs=5, episodes=5, seed=4, epsilon=0.1)
    assert (many.lengths != other_seed.lengths).any()


def test_evaluations_are_repeatable_and_do_not_touch_each_other():
    evaluator = Evaluator([BREAKOUT, CATCH], machado2018(), episodes=3, num_envs=2, seed=1)
    first = evaluator.evaluate(by_pixels, "breakout")
    toy = evaluator.evaluate(by_pixels, "catch")
    equal(first, evaluator.evaluate(by_pixels, "breakout"))
    together = evaluator.evaluate_all(by_pixels)
    equal(first, together["breakout"])
    equal(toy, together["catch"])
    evaluator.close()


def test_an_episode_is_the_one_its_seed_says():
    """Against a plain loop over one emulator, life loss included."""
    protocol = replace(atari100k(), sticky=0.25, max_frames=2400)
    result = evaluate(BREAKOUT, protocol=protocol, episodes=2, num_envs=2, seed=7)
    core = make_core(BREAKOUT, protocol, 1)
    game = Evaluator([BREAKOUT], protocol).games[0]
    full = np.array([0, 1, 3, 4])
    for i in range(2):
        seed = episode_seed(7, zlib.crc32(b"breakout"), i)
        obs, _ = core.reset(np.ones(1, bool), np.array([seed]))
        total = length = 0
        while True:
            core.send(full[by_pixels(obs, game)])
            step = core.recv()
            obs = step.obs
            total += step.reward[0]
            length += 1
            if step.terminated[0] or step.truncated[0]:
                break
        assert (result.returns[i], result.lengths[i]) == (total, length)
        assert result.capped[i] == step.truncated[0]
    assert len(set(result.lengths)) == 2
    assert not result.capped.all()
    core.close()


def test_step_cap():
    result = evaluate(BREAKOUT, episodes=3, num_envs=3, max_steps=40)
    assert result.lengths.tolist() == [40, 40, 40]
    assert result.capped.all()
    short = replace(machado2018(), max_frames=80)
    assert evaluate(BREAKOUT, protocol=short, episodes=2).lengths.tolist() == [20, 20]


def test_catch_scores_and_epsilon():
    def expert(obs, game):
        grid = obs[:, -1, ::7, ::7]
        ball = (grid == 255).any(1).argmax(1)
        paddle = (grid[:, -1] == 160).argmax(1) + 1
        return np.where(ball > paddle, 3, np.where(ball < paddle, 4, 0))

    protocol = replace(machado2018(), sticky=0.0)
    perfect = evaluate(CATCH, expert, protocol, episodes=40)
    assert perfect.returns.tolist() == [1.0] * 40
    assert perfect.lengths.tolist() == [11] * 40
    noise = evaluate(CATCH, expert, protocol, episodes=200, epsilon=1.0)
    assert noise.returns.mean() == pytest.approx(-0.5, abs=0.25)  # standard error 0.06


def test_policy_is_told_its_game_and_mask():
    seen = []

    def policy(obs, game):
        assert obs.dtype == np.uint8
        assert obs.shape[1:] == (4, 84, 84)
        seen.append((game.name, game.index, game.num_actions, int(game.action_mask.sum())))
        return np.zeros(len(obs), dtype=np.int64)

    evaluator = Evaluator([CATCH, Task("pong", 1)], atari100k(), full_actions=True, episodes=2)
    evaluator.evaluate(policy, "catch")
    assert set(seen) == {("catch", 0, 18, 3)}
    assert [g.name for g in evaluator.games] == ["catch", "pong"]
    assert evaluator.games[1].action_mask.sum() == 6
    with pytest.raises(ValueError, match="masked"):
        evaluator.evaluate(lambda obs, game: np.full(len(obs), 2), "catch")
    evaluator.evaluate(policy, "catch")  # usable after the failure
    evaluator.close()


def test_training_is_not_touched():
    def run(evaluating):
        env = make_vector_env(BREAKOUT, machado2018(), 2, seed=1)
        env.reset()
        frames = []
        for t in range(40):
            env.send(np.full(2, t % 18))
            if evaluating and t == 20:
                evaluate(BREAKOUT, episodes=2, max_steps=10)
            frames.append(env.recv()[0])
        env.close()
        return np.stack(frames)

    np.testing.assert_array_equal(run(False), run(True))


def test_bad_options_name_their_key():
    for key, value in {"episodes": 0, "num_envs": 0, "max_steps": 0, "epsilon": 2.0}.items():
        with pytest.raises(UserError, match=f"eval.{key}"):
            Evaluator([CATCH], machado2018(), **{key: value})
    with pytest.raises(UserError, match="twice"):
        Evaluator([CATCH, CATCH], machado2018())
