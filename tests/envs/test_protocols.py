from dataclasses import replace

import pytest

from envs import PROTOCOLS, ProtocolConfig, atari100k, machado2018, make_action_set
from errors import UserError


def test_presets_follow_the_literature():
    m, a = machado2018(), atari100k()
    assert (m.sticky, m.actions, m.life_loss_terminal, m.noop_max, m.max_frames) == (
        0.25, "full", False, 0, 18_000,
    )  # fmt: skip
    assert (a.sticky, a.actions, a.life_loss_terminal, a.noop_max, a.max_frames) == (
        0.0, "minimal", True, 30, 108_000,
    )  # fmt: skip
    assert not m.fire_reset
    assert not a.fire_reset
    assert a.max_steps == 27_000
    assert PROTOCOLS["machado2018"]() == ProtocolConfig()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sticky", 1.0),
        ("sticky", -0.1),
        ("actions", "some"),
        ("noop_max", -1),
        ("max_frames", 0),
        ("max_frames", 18_001),
        ("frame_skip", 3),
        ("stack", 2),
    ],
)
def test_values_out_of_range_name_their_key(key, value):
    with pytest.raises(UserError, match=f"protocol.{key}"):
        replace(machado2018(), **{key: value})


def test_action_sets():
    pong = (0, 1, 3, 4, 11, 12)
    alone = make_action_set("pong", atari100k(), None)
    assert alone.num_actions == 6
    assert tuple(alone.to_full) == pong
    assert alone.translate([2, 5]).tolist() == [3, 12]
    shared = make_action_set("pong", atari100k(), True)
    assert shared.num_actions == 18
    assert tuple(shared.mask.nonzero()[0]) == pong
    assert shared.translate([11, 4]).tolist() == [11, 4]
    full = make_action_set("pong", machado2018(), None)
    assert full.num_actions == 18
    assert full.mask.all()
    assert make_action_set("catch", atari100k(), None).to_full.tolist() == [0, 3, 4]


def test_forbidden_actions_raise():
    shared = make_action_set("pong", atari100k(), True)
    with pytest.raises(ValueError, match="masked"):
        shared.translate([0, 2])
    with pytest.raises(ValueError, match="out of range"):
        shared.translate([18])
    with pytest.raises(ValueError, match="integers"):
        shared.translate([0.5])
    with pytest.raises(ValueError, match="do not go together"):
        make_action_set("pong", machado2018(), False)
