"""The readable integer step: golden vectors worked out by hand, each disputed point, overflow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromorphic.lif import (
    V_MAX,
    LifOptions,
    LifParams,
    LifState,
    LifStep,
    dec,
    synaptic_drive,
    wrap_signed,
)
from neuromorphic.weights import drive_of, mantissa_range, store_mantissa


def course(params, drives, options=None):
    """(u, v, s) after each step of one neuron."""
    state, step = LifState.zeros(1), LifStep(params, options or LifOptions())
    rows = []
    for drive in drives:
        spike = step(state, np.array([drive]))
        rows.append((int(state.u[0]), int(state.v[0]), int(spike[0])))
    return rows, state


def plain_python_step(u, v, drive, p):
    """The closed form once more, in Python integers alone."""

    def decay(x, k):
        magnitude = (abs(x) * (4096 - k)) >> 12
        return magnitude if x >= 0 else -magnitude

    u = decay(u, p.du + 1) + drive * 64
    u = (u + 2**23) % 2**24 - 2**23
    v = decay(v, p.dv) + u + (p.bias_mantissa << p.bias_exponent)
    v = max(-(2**23 - 1), min(2**23 - 1, v))
    return (u, 0, 1) if v > p.vth * 64 else (u, v, 0)


def test_decay_rounds_toward_zero():
    assert dec(np.array([5, -5, 4095, -4095, 1, -1]), 2048).tolist() == [2, -2, 2047, -2047, 0, 0]
    assert dec(np.array([7, -7]), 0).tolist() == [7, -7]
    assert dec(np.array([2**23]), 4096).tolist() == [0]


def test_golden_course_of_a_current_based_neuron():
    # u: 640 -> 640*2047>>12 = 319 -> 159; v: 640, 640*3072>>12=480 +319 = 799, 599+159 = 758
    params = LifParams(du=2048, dv=1024, vth=12)
    rows, _ = course(params, [10, 0, 0])
    assert rows == [(640, 640, 0), (319, 0, 1), (159, 159, 0)]
    rows, _ = course(LifParams(du=2048, dv=1024, vth=13), [10, 0, 0])
    assert rows == [(640, 640, 0), (319, 799, 0), (159, 758, 0)]


def test_golden_course_with_bias_and_inhibition():
    # bias 3 << 4 = 48; full current decay; v: -64+48 = -16, then -(16*2048>>12)+48 = 40, 20+48=68
    params = LifParams(du=4095, dv=2048, vth=1, bias_mantissa=3, bias_exponent=4)
    rows, _ = course(params, [-1, 0, 0, 0])
    assert rows == [(-64, -16, 0), (0, 40, 0), (0, 0, 1), (0, 48, 0)]


def test_the_threshold_is_strict_and_the_reset_hard():
    params = LifParams(du=4095, dv=0, vth=10)
    assert course(params, [10])[0] == [(640, 640, 0)]
    assert course(params, [11])[0] == [(704, 0, 1)]
    assert course(params, [10], LifOptions(compare=">="))[0] == [(640, 0, 1)]


def test_the_hidden_one_of_the_current_decay():
    # du = 0 still loses 1/4096: 64 * 4095 >> 12 = 63
    assert course(LifParams(du=0, dv=0, vth=100), [1, 0])[0][1][0] == 63


def test_current_wraps_and_is_counted():
    rows, state = course(LifParams(du=4095, dv=0, vth=2**17 - 1), [2**17])
    assert rows[0][:2] == (-(2**23), -V_MAX)
    assert (state.wraps, state.saturations) == (1, 1)
    rows, state = course(LifParams(4095, 0, 2**17 - 1), [2**17], LifOptions(wrap="keep_edge"))
    assert rows[0][0] == 2**23
    assert state.wraps == 0


def test_nengo_accumulator_wraps_at_twenty_one_bits():
    drive = (1 << 21) // 64
    assert course(LifParams(4095, 0, 2**17 - 1), [drive])[0][0][0] == 1 << 21
    rows, state = course(LifParams(4095, 0, 1), [drive], LifOptions(accumulator="nengo21"))
    assert rows[0][0] == -(1 << 21)
    assert state.wraps == 1


def test_floor_at_zero():
    assert course(LifParams(4095, 0, 10), [-5])[0] == [(-320, -320, 0)]
    rows, state = course(LifParams(4095, 0, 10), [-5], LifOptions(floor="zero"))
    assert rows == [(-320, 0, 0)]
    assert state.saturations == 0


def test_refractory():
    params = LifParams(du=4095, dv=0, vth=10, refractory_delay=2)
    rows = course(params, [11, 11, 11, 5, 11])[0]
    assert [s for _, _, s in rows] == [1, 0, 0, 0, 1]
    assert [v for _, v, _ in rows[1:3]] == [0, 0]  # as the spike left it


@given(
    st.integers(0, 4095),
    st.integers(0, 4095),
    st.integers(0, 2**17 - 1),
    st.integers(-4096, 4095),
    st.integers(0, 7),
    st.lists(st.integers(-(2**19), 2**19), min_size=1, max_size=12),
)
def test_any_course_equals_plain_integers(du, dv, vth, mantissa, exponent, drives):
    params = LifParams(du, dv, vth, mantissa, exponent)
    rows, _ = course(params, drives)
    u = v = 0
    for drive, row in zip(drives, rows):
        u, v, s = plain_python_step(u, v, drive, params)
        assert (u, v, s) == row


@pytest.mark.parametrize(
    ("mode", "bits", "expected"),
    [("mixed", 8, (-256, 254, 2)), ("excitatory", 8, (0, 255, 1)), ("inhibitory", 8, (-256, 0, 1)),
     ("mixed", 9, (-256, 255, 1)), ("mixed", 4, (-256, 224, 32)), ("excitatory", 1, (0, 128, 128))],
)  # fmt: skip
def test_weight_ranges(mode, bits, expected):
    assert mantissa_range(bits, mode) == expected


def test_low_weight_bits_are_truncated_not_rounded():
    stored = store_mantissa(np.array([3, -3, 255, -255, 1000, -1000]), 8, "mixed")
    assert stored.tolist() == [2, -4, 254, -256, 254, -256]


def test_negative_exponents_each_or_summed():
    mantissa, spikes = np.array([[3, 3, -3]]), np.array([1, 1, 1])
    assert synaptic_drive(mantissa, -1, spikes, "weight").tolist() == [0]  # 1 + 1 - 2
    assert synaptic_drive(mantissa, -1, spikes, "sum").tolist() == [1]  # 3 >> 1
    even = store_mantissa(np.array([[7, -9, 30]]))
    assert synaptic_drive(even, -1, spikes, "sum") == synaptic_drive(even, -1, spikes, "weight")
    assert drive_of(np.array([5]), 3).tolist() == [40]


def test_state_survives_a_round_trip():
    step = LifStep(LifParams(1000, 500, 40, refractory_delay=3))
    state = LifState.zeros(3)
    rng = np.random.default_rng(0)
    drives = rng.integers(-20, 60, (12, 3))
    for drive in drives[:6]:
        step(state, drive)
    other = LifState.zeros(3)
    other.load_state_dict(state.state_dict())
    for drive in drives[6:]:
        np.testing.assert_array_equal(step(state, drive), step(other, drive))
    np.testing.assert_array_equal(state.v, other.v)


@pytest.mark.parametrize(
    "bad", [{"du": 4096}, {"dv": -1}, {"vth": 2**17}, {"bias_mantissa": 4096}, {"dv": 0.5}]
)
def test_parameters_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LifParams(**{"du": 0, "dv": 0, "vth": 1, **bad})
    with pytest.raises(ValueError, match="wrap"):
        LifOptions(wrap="nonsense")


def test_wrap_is_twos_complement():
    assert wrap_signed(np.array([2**23, -(2**23), 2**24 + 5])).tolist() == [-(2**23), -(2**23), 5]
