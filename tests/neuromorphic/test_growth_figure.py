"""The figure of time against activity: linear axes, and the line that is claimed."""

import numpy as np
import pytest

from benchmarks.event_core import STEPS, draw, line_fit


def test_a_line_is_found_again():
    slope, base, r2 = line_fit([0.0, 1.0, 2.0], [1.0, 3.0, 5.0])
    assert (slope, base, r2) == pytest.approx((2.0, 1.0, 1.0))
    # y = x with residuals (1, -2, 1) / 3 beside it: 1 - (6/9) / (24/9)
    assert line_fit([0.0, 1.0, 2.0], [1.0, 1.0, 3.0])[2] == pytest.approx(0.75)


def test_the_figure_is_linear_and_states_its_fit(tmp_path):
    activity = np.array([0.005, 0.05, 0.5])
    curve = [{"activity": a, "seconds": STEPS * 1e-6 * (20 + 300 * a)} for a in activity]
    figure = draw({"dense": curve, "conv": curve}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 3000
    for axes in figure.axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")
        line, points = axes.lines
        np.testing.assert_allclose(points.get_xdata(), 100 * activity)
        np.testing.assert_allclose(points.get_ydata(), 20 + 300 * activity)
        np.testing.assert_allclose(line.get_ydata(), [20, 170])
        assert "R² = 1.0000" in axes.get_legend().texts[0].get_text()
