"""The readout of the benchmark learns Catch on the core from the episode's reward alone."""

import numpy as np

from benchmarks.plastic_readout import FIELDS, Sight, learn


def test_catch_is_learned_and_only_with_the_reward():
    learned, control = learn(0, 200, "reward"), learn(0, 60, "none")
    assert np.mean(learned["returns"][-100:]) > 0.2
    assert np.mean(control["returns"]) < -0.1
    events = learned["readout"]["events_per_decision"]
    # eleven decisions an episode, one reward for all synapses of the three actions
    assert np.isclose(events["weight_update"], FIELDS * 3 / 11, rtol=0.02)
    assert events["stdp_update"] > 0
    assert "stdp_update" not in control["readout"]["events_per_decision"]  # none happened


def test_coincidence_neurons_need_ball_and_paddle():
    frames = np.zeros((3, 4, 84, 84), np.uint8)
    frames[0, :, 21:28, 35:42] = 255  # the ball alone
    frames[1, :, 77:84, 35:56] = 160  # the paddle alone
    frames[2] = np.maximum(frames[0], frames[1])
    sight = Sight(0)
    ball, paddle, both = (sight(stack).sum() for stack in frames)
    assert ball == paddle == 0
    assert both > 0
