import pytest

from envs import Task, TaskSequence, parse_task
from errors import UserError
from tests.envs.published import SEQUENCES, make_sequence


def test_names_round_trip():
    for name in ("pong", "space_invaders-m3", "freeway-m2-d1", "freeway-d1", "catch"):
        task = parse_task(name, 10)
        assert task.name == name
        assert task.steps == 10
    assert parse_task("freeway-m2-d1", 1) == Task("freeway", 1, mode=2, difficulty=1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pnog", "did you mean pong"),
        ("MsPacman", "ms_pacman"),
        ("space-invaders", "space_invaders"),
        ("space_invaders-m99", "has no mode 99; choose from 0, 1,"),
        ("freeway-d7", "has no difficulty 7; choose from 0, 1"),
        ("catch-m1", "drop them"),
        ("xxxxxxxxxxxx", "e.g. pong"),
        ("combat", "a game for two"),
        (["krull"], "is no name of a ROM"),
    ],
)
def test_bad_games_name_the_key_and_the_mend(name, said):
    with pytest.raises(UserError, match=said) as caught:
        parse_task(name, 10)
    assert "sequence.games" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_budgets():
    with pytest.raises(UserError, match="steps_per_task"):
        Task("pong", 0)
    with pytest.raises(UserError, match="cycles"):
        TaskSequence((Task("pong", 1),), cycles=0)
    with pytest.raises(UserError, match="give a list"):
        make_sequence("pong", 10)


def test_sequence_repeats_its_tasks():
    sequence = make_sequence(["pong", "krull", "pong-m0"], steps=5, cycles=2)
    assert len(sequence) == 6
    names = ["pong", "krull", "pong-m0"] * 2
    assert [task.name for task in sequence] == names
    assert [sequence[i].name for i in range(6)] == names
    assert sequence[-1].name == "pong-m0"
    assert [sequence.cycle_of(i) for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert sequence.games == ("pong", "krull", "pong-m0")
    assert sequence.total_steps == 30
    with pytest.raises(IndexError):
        sequence[6]


def test_games_are_distinct_when_a_list_repeats_one():
    assert make_sequence(["pong", "krull", "pong"], 5).games == ("pong", "krull")


def test_published_sequences_build():
    sizes = {name: len(spec.build().tasks) for name, spec in SEQUENCES.items()}
    assert sizes == {
        "cora": 6,
        "progress_and_compress": 6,
        "ewc10": 10,
        "modes_space_invaders": 10,
        "modes_freeway": 8,
    }
    cora = SEQUENCES["cora"].build()
    assert cora.total_steps == 5 * 6 * 50_000_000
    assert cora.games[0] == "space_invaders"
    assert SEQUENCES["modes_freeway"].build().games[-1] == "freeway-m7"
    assert SEQUENCES["progress_and_compress"].build(steps_per_task=3, cycles=1).total_steps == 18
