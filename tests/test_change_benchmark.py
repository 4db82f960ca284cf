"""Delays, false alarms and known visits of hand-made runs."""

from benchmarks.change_detection import judge

VISITS = [
    {"game": g, "begin": 100 * i, "end": 100 * i + 100} for i, g in enumerate(("a", "b", "a"))
]


def alarm(step: int, task: int, context: int) -> dict:
    return {"step": step, "task": task, "context": context}


def test_every_change_noticed_and_the_first_game_known_again():
    found = judge(VISITS, [alarm(112, 1, 1), alarm(208, 2, 0)])
    assert found["delays"] == [12, 8]
    assert (found["missed"], found["false_alarms"], found["contexts"]) == (0, 0, 2)
    assert found["known"] == [True, True, True]


def test_missed_false_and_unknown():
    found = judge(VISITS, [alarm(40, 0, 1), alarm(60, 0, 0), alarm(220, 2, 2)])
    assert found["delays"] == [None, 20]
    assert found["missed"] == 1
    assert found["false_alarms"] == 2
    assert found["false_alarms_per_10k"] == 2 / 300 * 1e4
    assert found["known"] == [True, False, False]  # b in a's context; a in a third one
