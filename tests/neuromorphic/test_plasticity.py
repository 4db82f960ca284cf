"""On-core learning: golden STDP windows, eligibility bridges a delay, a readout learns a task."""

import numpy as np
import pytest

from neuromorphic.lif import VTH_MAX
from neuromorphic.plasticity import (
    ELIGIBILITY_MAX,
    LEVEL_BITS,
    PlasticityConfig,
    PlasticReadout,
    PlasticSynapses,
    decay_constant,
)


def course(config, events, levels=0.0):
    """Weight in levels after (pre, post) events of one synapse."""
    synapses = PlasticSynapses(config, np.full((1, 1), levels))
    for pre, post in events:
        synapses.learn(np.array([bool(pre)]), np.array([bool(post)]))
    return synapses, synapses.weight[0, 0] / (1 << LEVEL_BITS)


@pytest.mark.parametrize("gap", [0, 1, 3, 10])
def test_golden_window_of_pair_stdp(gap):
    config = PlasticityConfig(rule="stdp", a_plus=2.0, a_minus=1.5, tau_plus=10, tau_minus=5)
    before = [(1, 0)] + [(0, 0)] * (gap - 1) + [(0, 1)] if gap else [(1, 1)]
    _, causal = course(config, before)
    assert causal == pytest.approx(2.0 * (1 - 1 / 10) ** gap, abs=0.01)
    if gap:
        _, acausal = course(config, [(0, 1)] + [(0, 0)] * (gap - 1) + [(1, 0)])
        assert acausal == pytest.approx(-1.5 * (1 - 1 / 5) ** gap, abs=0.01)


def test_spikes_of_the_core_may_be_given_as_they_come():
    twins = [PlasticSynapses(PlasticityConfig(rule="stdp"), np.zeros((3, 2))) for _ in range(2)]
    pre, post, lost = np.array([0, 0, 1]), np.array([1, 0]), np.array([0, 1])
    twins[0].learn(pre.astype(np.uint8), post.astype(np.uint8), lost.astype(np.uint8))
    twins[1].learn(pre.astype(bool), post.astype(bool), lost.astype(bool))
    assert (twins[0].levels == twins[1].levels).all()
    assert twins[0].levels.tolist() == [[0, 0], [0, 0], [1, 0]]


def test_traces_decay_as_integers_toward_zero():
    assert decay_constant(20) == 205
    synapses, _ = course(PlasticityConfig(rule="stdp"), [(1, 0), (0, 0), (0, 0)])
    once = (4096 * (4096 - 205)) >> 12
    assert synapses.pre_trace[0] == (once * (4096 - 205)) >> 12


def test_soft_bounds_scale_with_the_room_left():
    soft = PlasticityConfig(rule="stdp", bounds="soft")
    for start in (-100.0, 0.0, 100.0):
        _, end = course(soft, [(1, 1)], start)
        assert end - start == pytest.approx((127 - start) / 254, abs=0.01)
    _, end = course(PlasticityConfig(rule="stdp", a_plus=100.0), [(1, 1)] * 3, 0.0)
    assert end == 127.0  # hard bounds clip ...
    synapses, _ = course(PlasticityConfig(rule="stdp", a_plus=100.0), [(1, 1)] * 3, 0.0)
    assert synapses.counts["weight_clip"] == 2  # ... and say so


def test_reward_modulated_weights_wait_for_the_reward():
    config = PlasticityConfig(rule="rstdp", tau_eligibility=10, learning_rate=0.5)
    synapses, weight = course(config, [(1, 1), (0, 0), (0, 0), (0, 0)])
    assert weight == 0
    synapses.reward(2.0)
    after = synapses.weight[0, 0] / (1 << LEVEL_BITS)
    assert after == pytest.approx(0.5 * 2.0 * (1 - 1 / 10) ** 3, abs=0.01)
    other, _ = course(config, [(1, 1), (0, 0), (0, 0), (0, 0)])
    other.reward(-2.0)
    assert other.weight[0, 0] == -synapses.weight[0, 0]
    other.forget()
    held = other.weight[0, 0]
    other.reward(1.0)
    assert other.weight[0, 0] == held


def test_losers_of_a_competition_lose_what_the_winner_gains():
    config = PlasticityConfig(rule="rstdp", tau_plus=64, a_minus=0.0, a_lost=0.5)
    synapses = PlasticSynapses(config, np.zeros((2, 3)))
    pre, post = np.array([True, False]), np.array([False, True, False])
    synapses.learn(pre, post, ~post)
    synapses.reward(1.0)
    change = synapses.weight / (1 << LEVEL_BITS)
    np.testing.assert_allclose(change, [[-0.5, 1.0, -0.5], [0, 0, 0]], atol=0.01)
    synapses.settle()
    assert not synapses.pre_trace.any()
    assert synapses.eligibility.any()


def test_learning_is_counted_by_events():
    synapses = PlasticSynapses(PlasticityConfig(rule="rstdp"), np.zeros((10, 4)))
    quiet = np.zeros(10, bool), np.zeros(4, bool)
    synapses.learn(*quiet)
    assert synapses.counts["stdp_update"] == 0
    assert synapses.counts["eligibility_update"] == 0
    pre, post = quiet[0].copy(), quiet[1].copy()
    pre[:3], post[:2] = True, True
    synapses.learn(pre, post)
    assert synapses.counts["stdp_update"] == 3 * 4 + 10 * 2
    synapses.learn(*quiet)
    assert synapses.counts["eligibility_update"] == 40
    synapses.reward(1.0)
    assert synapses.counts["weight_update"] == 40


def test_eligibility_that_has_decayed_is_not_billed():
    config = PlasticityConfig(rule="rstdp", tau_eligibility=4.0)
    synapses = PlasticSynapses(config, np.zeros((1, 1)))
    synapses.learn(np.ones(1, bool), np.ones(1, bool))
    quiet = np.zeros(1, bool), np.zeros(1, bool)
    for _ in range(100):
        synapses.learn(*quiet)
    assert not synapses.eligibility.any()
    billed = synapses.counts["eligibility_update"]
    assert 10 < billed < 80
    synapses.learn(*quiet)
    synapses.reward(1.0)
    assert (synapses.counts["eligibility_update"], synapses.counts["weight_update"]) == (billed, 0)


def test_what_the_rule_does_not_do_is_not_billed():
    config = PlasticityConfig(rule="rstdp", a_minus=0.0)
    synapses = PlasticSynapses(config, np.zeros((10, 4)))
    for _ in range(5):  # spikes come in, none goes out
        synapses.learn(np.arange(10) < 3, np.zeros(4, bool))
    assert synapses.counts["stdp_update"] == synapses.counts["eligibility_update"] == 0
    synapses.learn(np.arange(10) < 3, np.arange(4) < 1)
    assert synapses.counts["stdp_update"] == 10


def make_patterns(rng, patterns, steps=4, inputs=40):
    rasters = np.zeros((patterns, steps, inputs), bool)
    for raster in rasters:
        raster[:, rng.permutation(inputs)[:8]] = rng.random((steps, 8)) < 0.7
    return rasters


def train(seed, trials=600, rule="rstdp", shuffled=False, delay=0):
    """A contextual bandit: six patterns, three actions, reward +1 or -1; share right at the end."""
    rng = np.random.default_rng(seed)
    patterns = make_patterns(rng, 6)
    right = np.arange(6) % 3
    config = PlasticityConfig(rule=rule, tau_plus=4, tau_minus=4, tau_eligibility=4,
                              a_minus=0.0, learning_rate=0.5)  # fmt: skip
    synapses = PlasticSynapses(config, rng.uniform(20, 40, (40, 3)))
    readout = PlasticReadout(synapses, threshold=150, noise=40)
    hits = []
    for _ in range(trials):
        which = int(rng.integers(6))
        synapses.forget()
        action = readout.act(patterns[which], rng)
        for _ in range(delay):
            synapses.learn(np.zeros(40, bool), np.zeros(3, bool))
        hit = action == (rng.integers(3) if shuffled else right[which])
        hits.append(hit)
        if rule == "rstdp":
            readout.reward(1.0 if hit else -1.0)
    return float(np.mean(hits[-150:])), readout


@pytest.mark.parametrize("delay", [0, 3])
def test_a_readout_learns_from_reward_alone(delay):
    shares = [train(seed, delay=delay)[0] for seed in range(3)]
    assert min(shares) > 0.8, shares


def test_without_the_reward_it_stays_at_chance():
    """The controls: rewards that do not depend on the action, and no learning at all."""
    assert np.mean([train(seed, shuffled=True)[0] for seed in range(3)]) < 0.5
    assert np.mean([train(seed, rule="none")[0] for seed in range(3)]) < 0.6


def test_learning_shows_in_the_ledger_with_its_price():
    _, readout = train(0, trials=20)
    ledger = readout.ledger()
    assert ledger.decisions == 20
    assert ledger["stdp_update"] > 0
    assert ledger["synaptic_op"] > 0
    bill = ledger.bill("loihi1")
    line = next(line for line in bill.lines if line.event == "stdp_update")
    assert line.picojoule == pytest.approx(ledger["stdp_update"] * 120.0)
    unpriced = dict(bill.unpriced)
    assert unpriced["eligibility_update"] == ledger["eligibility_update"]
    assert "weight_update" in unpriced


def test_where_no_neuron_fires_the_highest_membrane_decides():
    for levels in ([3.0, 2.0, 1.0], [-1.0, -50.0, -100.0]):
        synapses = PlasticSynapses(PlasticityConfig(rule="none"), np.array([levels]))
        readout, rng = PlasticReadout(synapses, threshold=100), np.random.default_rng(0)
        assert {readout.act(np.ones((4, 1), bool), rng) for _ in range(20)} == {0}


def test_a_saturated_membrane_wins_all_the_same():
    """Two steps of 92,880 pass the threshold of 100,000 and the 24 bits of a membrane at once."""
    synapses = PlasticSynapses(PlasticityConfig(rule="none"), np.full((1032, 1), 90.0))
    readout = PlasticReadout(synapses, threshold=100_000)
    assert readout.act(np.ones((2, 1032), bool), np.random.default_rng(0)) == 0
    ledger = readout.ledger()
    assert (ledger["spike"], ledger["membrane_saturation"]) == (1, 1)
    # at the largest threshold of all only a clipped membrane is above it
    highest = PlasticReadout(synapses, threshold=VTH_MAX)
    highest.act(np.ones((3, 1032), bool), np.random.default_rng(0))
    assert highest.ledger()["spike"] == 1


def test_clipped_weights_and_eligibility_are_overflows_of_the_ledger():
    config = PlasticityConfig(rule="rstdp", tau_plus=4096, a_plus=127.0, learning_rate=127.0)
    synapses = PlasticSynapses(config, np.zeros((1, 2)))
    readout = PlasticReadout(synapses, threshold=0)
    both, one = np.array([True]), np.array([True, False])
    while synapses.counts["eligibility_clip"] == 0:
        before = synapses.eligibility[0, 0]
        synapses.learn(both, one)
    assert before < synapses.eligibility[0, 0] == ELIGIBILITY_MAX
    assert synapses.counts["eligibility_clip"] == 1
    assert readout.ledger().overflows == 1
    readout.reward(127.0)
    ledger = readout.ledger()
    assert (ledger["weight_clip"], ledger["eligibility_clip"], ledger.overflows) == (1, 1, 2)
    assert "weight_clip" not in dict(ledger.bill("loihi1").unpriced)  # an accident has no price


def test_what_learning_does_beside_synapses_is_unpriced_and_counted():
    """Losers reset, random drives and rewards: of 20 decisions of four steps and three actions."""
    _, readout = train(0, trials=20)
    ledger = readout.ledger()
    unpriced = dict(ledger.bill("loihi1").unpriced)
    assert ledger["spike"] > 0
    assert unpriced["loser_reset"] == 2 * ledger["spike"]
    assert 0.9 * 240 < unpriced["noise_drive"] <= 240  # a drive of 0 is none
    assert unpriced["reward_signal"] == 20
    assert set(unpriced) <= set(dict(ledger.bill("truenorth").unpriced))


def test_the_same_seed_gives_the_same_weights_and_state_survives():
    _, one = train(7, trials=50)
    _, two = train(7, trials=50)
    np.testing.assert_array_equal(one.synapses.weight, two.synapses.weight)
    fresh = PlasticReadout(
        PlasticSynapses(one.synapses.config, np.zeros((40, 3))), threshold=150, noise=40
    )
    fresh.load_state_dict(one.state_dict())
    patterns = make_patterns(np.random.default_rng(1), 2)
    for readout in (one, fresh):
        rng = np.random.default_rng(2)
        for raster in patterns:
            readout.act(raster, rng)
            readout.reward(1.0)
    np.testing.assert_array_equal(one.synapses.weight, fresh.synapses.weight)
    assert one.ledger() == fresh.ledger()


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="does not use a reward"):
        PlasticSynapses(PlasticityConfig(rule="stdp"), np.zeros((1, 1))).reward(1.0)
    with pytest.raises(ValueError, match="rule"):
        PlasticityConfig(rule="hebb")
    with pytest.raises(ValueError, match="tau_plus"):
        PlasticityConfig(tau_plus=0.5)
    with pytest.raises(ValueError, match="levels"):
        PlasticSynapses(PlasticityConfig(), np.full((2, 2), 200.0))
