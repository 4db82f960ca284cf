"""The page of what an agent was reminded of: whose choices it shows, and bad words."""

import numpy as np
import pytest

import evaluate
import train
from agents.episodic.trails import Step, Trails
from evaluation import lockstep
from evaluation.evaluator import Evaluator
from evaluation.explain import followed, play
from evaluation.lockstep import play_settings
from tests.test_command_line import TINY
from training.loading import load_run

EPISODES = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of an agent with a memory and a planner, whose evaluations are half random."""
    folder = tmp_path_factory.mktemp("explain") / "run"
    words = ["agent=episodic", "world_model=latent", "planner=beam", "planner.depth=1"]
    words += ["sequence.games=[catch]", "agent.updates_per_step=0.25", "agent.eval_epsilon=0.5"]
    assert train.main([*TINY, *words, f"run={folder}"]) == 0
    return folder


def played(loaded, **changes):
    settings = play_settings(loaded, "catch") | {"max_steps": 11, "episodes": EPISODES}
    settings["seed"] = loaded.evaluator_settings()["seed"]
    return play(loaded.agent, 0, **(settings | changes))


def test_it_plays_what_an_evaluation_plays(run):
    """Episode for episode and action for action, planner and random actions included."""
    loaded = load_run(run, with_replay=True)
    episodes, agent, seen = played(loaded), loaded.agent, []

    def policy(obs, game):
        return agent.eval_policy(obs, game.index)

    settings = loaded.evaluator_settings(episodes=EPISODES, max_steps=11, num_envs=1)
    evaluator = Evaluator(**settings)
    watch = lambda obs, game: seen.extend(obs[:, -1].copy())  # noqa: E731
    result = evaluator.evaluate_all(policy, watch=watch)["catch"]
    evaluator.close()
    assert [e.score for e in episodes] == result.returns.tolist()
    shown = [recall.frame for episode in episodes for recall in episode.recalls]
    assert np.array_equal(shown, seen)


def test_planned_and_random_actions_are_shown(run):
    loaded = load_run(run, with_replay=True)
    agent = loaded.agent
    for planned in (1, 2):
        agent.eval_policy = lambda obs, game, action=planned: np.full(len(obs), action)
        actions = [r.action for e in played(loaded, epsilon=0.0) for r in e.recalls]
        assert set(actions) == {planned}
    actions = [r.action for e in played(loaded) for r in e.recalls]
    assert len(set(actions)) > 1  # half of them at random


def trail_returns(rewards, ended, gamma, horizon):
    """What the memory stores, bootstrapping from 0."""
    trails, found = Trails(1, horizon), {}
    for t, (reward, end) in enumerate(zip(rewards, ended)):
        step = {"reward": np.array([reward], np.float32)}
        fields = {name: np.full(1, t) for name in Step._fields} | step
        for returns in trails.add(Step(**fields), np.zeros(1), np.array([end]), gamma):
            found |= dict(zip(returns.steps.action.tolist(), returns.returns))
    return found


@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_what_followed_ends_where_the_returns_of_the_memory_do(horizon):
    """Lost lives, too."""
    rewards = np.random.default_rng(0).random(10).astype(np.float32)
    ended = np.zeros(10, bool)
    ended[[0, 4, 9]] = True
    stored = trail_returns(rewards, ended, 0.5, horizon)
    shown = followed(rewards, ended, 0.5, horizon)
    assert len(stored) == 10
    np.testing.assert_allclose(shown, [stored[t] for t in range(10)], rtol=1e-6)


def test_lost_lives_are_ends_of_the_episodes_shown(run, monkeypatch):
    loaded = load_run(run, with_replay=True)
    assert all(e.ended.tolist() == [False] * (len(e.ended) - 1) + [not e.capped]
               for e in played(loaded))  # Catch has no lives  # fmt: skip
    whole = lockstep.play

    def with_a_loss(**settings):
        result, courses = whole(**settings)
        return result, [[m._replace(ended=i == 1) for i, m in enumerate(c)] for c in courses]

    monkeypatch.setattr(lockstep, "play", with_a_loss)
    assert all(e.ended.nonzero()[0].tolist() == [1] for e in played(loaded))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explain=false"], "explain=false"),
        (["explain=true", "colour=red"], "'colour' is no key"),
        (["explain=true", "depth=3"], "'depth' is no key"),
        (["explain=true", "moments=0"], "moments=0"),
        (["explain=true", "step=x"], "step=x"),
        (["explain=true", "step=7"], "7"),
    ],
)
def test_bad_words_are_answered_in_one_line(run, capsys, words, message):
    assert evaluate.main([f"run={run}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (run / "report" / "explain.html").exists()


def test_a_page_is_written(run):
    newest = max(int(p.name) for p in (run / "checkpoints").iterdir())
    words = [f"run={run}", "explain=true", "episodes=2", "moments=2", "max_steps=4"]
    words.append(f"step={newest}")
    assert evaluate.main(words) == 0
    page = (run / "report" / "explain.html").read_text()
    assert page.count("stopped after 4 agent steps") == 2
