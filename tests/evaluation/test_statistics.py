"""Seeded statistics: against hand computations, and the same numbers for the same seed."""

import numpy as np
import pytest

from evaluation.statistics import (
    aggregate,
    iqm_difference,
    performance_profile,
    probability_of_improvement,
)

TABLE = np.array([[0.0, 0.4], [0.2, 0.8], [0.6, 2.0], [1.0, 4.0]])  # [R=4, G=2]


def test_points_against_hand_computation():
    a = aggregate({"ours": TABLE}, repetitions=5)["ours"]
    # sorted: 0 .2 .4 .6 .8 1 2 4; the middle half is .4 .6 .8 1
    assert a.iqm.point == pytest.approx(0.7)
    assert a.mean.point == pytest.approx(9.0 / 8)
    assert a.median.point == pytest.approx((1.8 / 4 + 7.2 / 4) / 2)
    assert a.optimality_gap.point == pytest.approx(1 - (0 + 0.2 + 0.4 + 0.6 + 0.8 + 3) / 8)


def test_intervals_contain_the_point_and_resample_runs_within_games():
    same = np.tile([[0.1, 5.0]], (6, 1))  # runs agree: nothing to resample, though games differ
    a = aggregate({"same": same, "ours": TABLE}, repetitions=200)
    assert a["same"].mean.low == a["same"].mean.high == pytest.approx(2.55)
    for interval in a["ours"]:
        assert interval.low <= interval.point <= interval.high
        assert interval.low < interval.high


def test_same_seed_same_interval_whatever_the_global_generator_does():
    np.random.seed(1)  # noqa: NPY002 - the generator that rliable reads
    first = aggregate({"x": TABLE}, seed=3, repetitions=50)["x"]
    np.random.seed(2)  # noqa: NPY002
    second = aggregate({"y": TABLE * 2, "x": TABLE}, seed=3, repetitions=50)["x"]
    assert first == second
    assert first != aggregate({"x": TABLE}, seed=4, repetitions=50)["x"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: aggregate({"x": TABLE}, repetitions=5),
        lambda: probability_of_improvement(TABLE, TABLE, repetitions=5),
        lambda: performance_profile(TABLE, [0.5], repetitions=5),
    ],
)
def test_the_global_generator_is_left_as_it_was(call):
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    call()
    assert np.random.random(3).tolist() == expected.tolist()  # noqa: NPY002


def test_probability_of_improvement_counts_ties_half():
    ours, theirs = np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]])
    # pairs: 1=1 half, 1<2 no, 3>1 yes, 3>2 yes
    p = probability_of_improvement(ours, theirs, repetitions=50)
    assert p.point == pytest.approx(2.5 / 4)
    assert p == probability_of_improvement(ours, theirs, repetitions=50)
    assert 0 <= p.low <= p.point <= p.high <= 1


def test_profile_is_the_share_above_each_threshold():
    profile = performance_profile(TABLE, [-1.0, 0.5, 5.0], repetitions=20)
    np.testing.assert_allclose(profile.share, [1.0, 5 / 8, 0.0])
    assert (profile.low <= profile.share).all()
    assert (profile.share <= profile.high).all()


def test_pairs_are_resampled_together():
    theirs = np.random.default_rng(0).normal(size=(30, 3))
    shifted = iqm_difference(theirs + 0.25, theirs, repetitions=50)
    assert shifted == pytest.approx((0.25, 0.25, 0.25))  # however far episodes lie apart
    ours = theirs + np.random.default_rng(1).normal(size=(30, 3))
    apart = iqm_difference(ours, theirs, repetitions=200)
    assert apart.low < apart.point < apart.high
    figures = aggregate({"ours": ours, "theirs": theirs}, repetitions=5)
    assert apart.point == pytest.approx(figures["ours"].iqm.point - figures["theirs"].iqm.point)
    with pytest.raises(ValueError, match="pairs"):
        iqm_difference(ours, theirs[:-1])


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 2)), np.array([[1.0, np.nan]])])
def test_tables_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="scores of x"):
        aggregate({"x": bad})


def test_other_games_are_refused():
    with pytest.raises(ValueError, match="games"):
        probability_of_improvement(np.zeros((2, 2)), np.zeros((2, 3)))
