"""Continual metrics against numbers worked out by hand."""

import numpy as np
import pytest

from evaluation.metrics import Curve, as_curve, as_visits, continual_metrics

# One evaluation at 0 and at the end of each visit: the task-by-time matrix is the curves.
STEPS = [0, 100, 200, 300]
ABC = {
    "a": (STEPS, [0.0, 1.0, 0.6, 0.2]),
    "b": (STEPS, [0.0, 0.1, 2.0, 0.5]),
    "c": (STEPS, [0.0, 0.0, 0.2, 3.0]),
}
SCHEDULE = [("a", 0, 100), ("b", 100, 200), ("c", 200, 300)]


def test_matrix_average_forgetting_and_backward_transfer():
    m = continual_metrics(ABC, SCHEDULE)
    assert m.games == ("a", "b", "c")
    np.testing.assert_allclose(m.level, [[1.0, 0.6, 0.2], [0.1, 2.0, 0.5], [0.0, 0.2, 3.0]])
    assert m.average == pytest.approx((0.2 + 0.5 + 3.0) / 3)
    assert m.forgetting_by_game == pytest.approx({"a": 0.8, "b": 1.5, "c": 0.0})
    assert m.forgetting == pytest.approx(2.3 / 3)
    assert m.backward_transfer == pytest.approx(-(0.8 + 1.5) / 2)


def test_forgetting_is_signed():
    m = continual_metrics(
        {"a": (STEPS[:3], [0, 1.0, 1.5]), "b": (STEPS[:3], [0, 0, 1])}, SCHEDULE[:2]
    )
    assert m.forgetting_by_game["a"] == pytest.approx(-0.5)
    assert m.backward_transfer == pytest.approx(0.5)


def test_levels_average_up_to_five_evaluations_of_a_visits_last_fifth():
    def levels(per_visit):
        steps = np.arange(1, 2 * per_visit + 1) * 60 / per_visit  # two visits of 60 steps
        curve = (steps, np.arange(1.0, 2 * per_visit + 1))
        m = continual_metrics({"a": curve, "b": curve}, [("a", 0, 60), ("b", 60, 120)])
        return m.level[0].tolist()

    assert levels(60) == [58.0, 118.0]  # the last five of twelve in (48, 60]
    assert levels(20) == [18.5, 38.5]  # all four in it
    assert levels(5) == [5.0, 10.0]  # the one at 48 is not in it
    assert levels(4) == [4.0, 8.0]
    assert levels(1) == [1.0, 2.0]


def test_evaluation_at_the_boundary_belongs_to_the_visit_that_ends():
    m = continual_metrics({"a": ([100], [1.0]), "b": ([100], [2.0])}, SCHEDULE[:2])
    assert m.level.tolist() == [[1.0], [2.0]]  # the second visit was not evaluated yet
    assert m.forgetting_by_game == {"a": 0.0, "b": None}


def test_cycles_count_forgetting_from_the_latest_visit_and_show_every_visit():
    steps = [0, 100, 200, 300, 400]
    scores = {"a": (steps, [0, 1.0, 0.3, 1.2, 0.9]), "b": (steps, [0, 0, 2.0, 1.0, 2.5])}
    schedule = [("a", 0, 100), ("b", 100, 200), ("a", 200, 300), ("b", 300, 400)]
    m = continual_metrics(scores, schedule)
    assert m.forgetting_by_game == pytest.approx({"a": 0.3, "b": 0.0})
    assert [(v.game, v.value) for v in m.visit_forgetting] == [
        ("a", pytest.approx(0.7)),  # 1.0 at its end, 0.3 before the second visit
        ("b", pytest.approx(1.0)),
        ("a", pytest.approx(0.3)),
        ("b", None),  # nothing came after
    ]


def test_a_game_played_twice_in_a_row_has_no_time_to_be_forgotten():
    m = continual_metrics({"a": (STEPS, [0, 1, 2, 3])}, [("a", 0, 100), ("a", 100, 300)])
    assert [v.value for v in m.visit_forgetting] == [None, None]
    assert m.backward_transfer is None  # there is no game but the last


def test_running_visit_counts_as_far_as_it_was_evaluated():
    scores = {"a": (STEPS[:3], [0, 1.0, 0.4]), "b": (STEPS[:3], [0, 0.0, 0.7])}
    m = continual_metrics(scores, [("a", 0, 100), ("b", 100, None)])
    assert m.forgetting_by_game == pytest.approx({"a": 0.6, "b": 0.0})
    assert m.visits[-1].end is None


def test_before_training_there_is_an_average_and_nothing_else():
    m = continual_metrics({"a": [[0, 0.1]], "b": [[0, 0.3]]}, [])
    assert m.average == pytest.approx(0.2)
    assert m.level.shape == (2, 0)
    assert m.forgetting is None
    assert m.backward_transfer is None
    assert m.as_dict()["cora_forgetting"] is None


def test_games_not_reached_count_in_the_average_but_not_in_forgetting():
    m = continual_metrics({g: (s[:2], x[:2]) for g, (s, x) in ABC.items()}, SCHEDULE[:1])
    assert m.average == pytest.approx((1.0 + 0.1 + 0.0) / 3)
    assert m.forgetting_by_game == {"a": 0.0, "b": None, "c": None}
    assert m.forgetting == 0.0


def test_forward_transfer_is_a_difference_of_areas_over_the_first_visit():
    single = {"b": ([0, 50, 100], [0.0, 1.0, 1.0])}  # area 0.25 + 0.5 = 0.75
    m = continual_metrics(ABC, SCHEDULE, single)
    # b goes from 0.1 at 100 to 2.0 at 200: mean height 1.05
    assert m.forward_transfer_by_game == {"a": None, "b": pytest.approx(0.3), "c": None}
    assert m.forward_transfer == pytest.approx(0.3)


def test_areas_are_cut_at_the_visits_ends():
    scores = {"a": ([0, 40, 160], [0.0, 4.0, 10.0])}  # 4 + 0.05 (t - 40): 7.0 at 100
    single = {"a": ([0, 200], [0.0, 0.0])}
    m = continual_metrics(scores, [("a", 0, 100)], single)
    assert m.forward_transfer == pytest.approx((0.5 * 40 * 4 + 60 * 5.5) / 100)


def test_intransigence_compares_with_training_alone():
    single = {"b": ([0, 100], [0.0, 2.6]), "c": ([0, 100], [0.0, 2.0])}
    m = continual_metrics(ABC, SCHEDULE, single)
    expected = {"a": None, "b": pytest.approx(0.6), "c": pytest.approx(-1.0)}
    assert m.intransigence_by_game == expected
    assert m.intransigence == pytest.approx(-0.2)


def test_a_reference_of_a_smaller_budget_is_no_reference():
    m = continual_metrics(ABC, SCHEDULE, {"b": ([0, 60], [0.0, 2.6])})
    assert m.forward_transfer is None
    assert m.intransigence is None


def test_a_running_first_visit_is_not_compared():
    m = continual_metrics(ABC, [("a", 0, None)], {"a": ([0, 300], [0.0, 1.0])})
    assert m.forward_transfer is None
    assert m.intransigence is None


def test_cora_matrices():
    raw = {"a": (STEPS, [10, 50, 40, 20]), "b": (STEPS, [0, 8, 4, 4]), "c": (STEPS, [0, 0, 1, 3])}
    m = continual_metrics(ABC, SCHEDULE, raw=raw).cora
    np.testing.assert_allclose(m.scale, [30, 4, 1])  # four evaluations: the mean of all
    nan = np.nan
    np.testing.assert_allclose(
        m.forgetting, [[nan, 100 / 30, 200 / 30], [nan, nan, 0], [nan, nan, nan]]
    )
    np.testing.assert_allclose(m.zero_shot, [[nan, nan, nan], [20, nan, nan], [0, 10, nan]])
    assert m.mean_forgetting == pytest.approx(10 / 3)
    assert m.mean_zero_shot == pytest.approx(10)


def test_cora_scales_by_the_peak_of_a_twenty_point_average():
    scores = np.concatenate([np.zeros(30), np.full(10, 20.0), np.zeros(5)])
    curve = Curve(np.arange(45) * 10, scores)
    assert continual_metrics({"a": curve}, [("a", 0, 440)]).cora.scale.tolist() == [10.0]


def test_cora_looks_at_the_first_cycle_only_and_skips_scales_that_mean_nothing():
    steps = [0, 100, 200, 300]
    scores = {"a": (steps, [-21, -20, -20.5, -19]), "b": (steps, [0, 0, 4, 0])}
    m = continual_metrics(scores, [("a", 0, 100), ("b", 100, 200), ("a", 200, 300)]).cora
    assert m.forgetting.shape == (2, 2)
    assert np.isnan(m.forgetting).all()  # a's maximum is negative, nothing came after b in cycle 0
    assert m.mean_forgetting is None


def test_flat_numbers_for_logs():
    numbers = continual_metrics(ABC, SCHEDULE).as_dict()
    assert numbers["forgetting/b"] == pytest.approx(1.5)
    assert numbers["intransigence"] is None
    assert not any(key.startswith("intransigence/") for key in numbers)


def test_curves_are_columns_or_rows_and_drop_scores_that_are_not_finite():
    rows = as_curve("a", [[0, 1.0], [10, np.nan], [20, 3.0]])
    assert rows.steps.tolist() == [0, 20]
    assert as_curve("a", ([0, 20], [1.0, 3.0])).scores.tolist() == rows.scores.tolist()
    assert as_curve("a", [[0, 1.0], [5, 2.0]]).steps.tolist() == [0, 5]  # two rows are no columns
    assert as_curve("a", []).steps.size == 0


def test_a_game_without_normalised_scores_leaves_the_others_figures_alone():
    m = continual_metrics({**ABC, "b": []}, SCHEDULE)
    assert m.forgetting_by_game == {"a": pytest.approx(0.8), "b": None, "c": 0.0}
    assert m.average == pytest.approx((0.2 + 3.0) / 2)


@pytest.mark.parametrize(
    ("scores", "schedule", "words"),
    [
        ({"a": ([10, 0], [1, 2])}, [], "go back"),
        ({"a": ([0, 1], [1])}, [], "differ"),
        ({"a": [[0, 1]]}, [("b", 0, 10)], "no curve"),
        ({"a": [[0, 1]]}, [("a", 10, 0)], "back in time"),
        ({"a": [[0, 1]]}, [("a", 0, 10), ("a", 5, 20)], "back in time"),
        ({"a": [[0, 1]]}, [("a", 0, None), ("a", 5, 20)], "no end"),
    ],
)
def test_nonsense_is_refused(scores, schedule, words):
    with pytest.raises(ValueError, match=words):
        continual_metrics(scores, schedule)


def test_visits_keep_their_order():
    assert [v.game for v in as_visits(SCHEDULE)] == ["a", "b", "c"]
