"""Filmed episodes: those of the evaluation, in the colours of the screen; and bad words."""

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

import evaluate
import train
from evaluation.evaluator import Evaluator
from evaluation.lockstep import play_settings
from evaluation.watch import Palette, gif, play
from tests.test_command_line import TINY
from training.loading import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run whose evaluations are half random."""
    folder = tmp_path_factory.mktemp("watch") / "run"
    words = ["sequence.games=[catch,krull]", "agent.updates_per_step=0.25", "agent.eval_epsilon=.5"]
    assert train.main([*TINY, *words, f"run={folder}"]) == 0
    return folder


def filmed(loaded, game, **changes):
    settings = play_settings(loaded, game) | {"max_steps": 11, "episodes": 2}
    settings["seed"] = loaded.evaluator_settings()["seed"]
    index = loaded.sequence.games.index(game)
    return play(loaded.agent, index, **(settings | changes))


@pytest.mark.parametrize("game", ["catch", "krull"])
def test_the_episodes_of_the_evaluation_are_filmed(run, game):
    loaded, seen = load_run(run), []
    films = filmed(loaded, game)
    settings = loaded.evaluator_settings(episodes=2, max_steps=11, num_envs=1)
    evaluator = Evaluator(**settings)

    def watch(obs, task):
        if task.name == game:
            seen.extend(obs[:, -1].copy())

    def policy(obs, task):
        return loaded.agent.eval_policy(obs, task.index)

    result = evaluator.evaluate_all(policy, watch=watch)[game]
    evaluator.close()
    assert [film.rewards.sum() for film in films] == result.returns.tolist()
    assert np.array_equal([frame for film in films for frame in film.seen], seen)
    assert len({action for film in films for action in film.actions}) > 1


def test_the_picture_has_the_colours_of_the_screen(run):
    film = filmed(load_run(run), "krull", episodes=1)[0]
    assert (
        len(
            {colour for screen in film.screens for colour in map(tuple, screen[::5].reshape(-1, 3))}
        )
        > 4
    )
    moving = Image.open(io.BytesIO(gif(film, "krull")))
    pictures = [np.array(p.convert("RGB")) for p in ImageSequence.Iterator(moving)]
    assert len(pictures) == len(film.screens) == 11
    for picture, screen in zip(pictures, film.screens):
        assert np.array_equal(picture[:420:2, :320:2], screen)
    assert np.isfinite(film.values).all()
    assert film.active.min() >= 0
    assert film.active.max() <= 1


def test_colours_beyond_a_palette_become_the_nearest():
    palette = Palette()
    many = np.zeros((1, 300, 3), np.uint8)
    many[0, :, 0], many[0, :, 1] = np.arange(300) % 256, np.arange(300) // 256
    indices = palette.of_screen(many)
    assert len(palette.colours) == 256
    far = np.abs(np.array(palette.colours) - many[0, :, None].astype(int)).sum(2)  # [300, 256]
    assert np.array_equal(
        np.take_along_axis(far, indices[0, :, None].astype(int), 1), far.min(1, keepdims=True)
    )
    assert (far.min(1) == 0).sum() >= 256 - 37


def test_agents_that_act_by_the_network_that_learns_are_filmed(tmp_path):
    """And games whose screen has not the usual 210 lines."""
    words = ["sequence.games=[pacman]", "agent=drq", "encoder=conv", "encoder.size=der"]
    assert train.main([*TINY, *words, "agent.updates_per_step=0.05", f"run={tmp_path}/x"]) == 0
    assert evaluate.main([f"run={tmp_path}/x", "watch=true", "max_steps=5"]) == 0
    assert Image.open(tmp_path / "x" / "report" / "watch_pacman.gif").n_frames == 5


def test_the_command_writes_a_file_for_each_episode(run, capsys):
    words = [f"run={run}", "watch=true", "game=krull", "max_steps=5"]
    assert evaluate.main([*words, "episodes=2"]) == 0
    assert "krull: return" in capsys.readouterr().out
    for name in ("watch_krull.gif", "watch_krull_2.gif"):
        assert Image.open(run / "report" / name).n_frames == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["watch=false"], "watch=false"),
        (["watch=true", "colour=red"], "'colour' is no key"),
        (["watch=true", "game=pong"], "game=pong"),
        (["watch=true", "max_steps=0"], "max_steps=0"),
    ],
)
def test_bad_words_are_answered_in_one_line(run, capsys, words, message):
    assert evaluate.main([f"run={run}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
