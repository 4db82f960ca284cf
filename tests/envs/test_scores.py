import math

import pytest

from envs.roms import rom_names
from envs.scores import hns, reference, references
from errors import UserError


def test_golden_scores():
    assert hns("pong", -20.7) == 0.0
    assert hns("pong", 14.6) == pytest.approx(1.0)
    assert hns("krull", 2665.5) == pytest.approx(1.0)
    assert hns("breakout", 1.7 + 28.8 / 2) == pytest.approx(0.5)
    assert hns("skiing", -17098.1) == 0.0


def test_modes_use_the_scale_of_the_default_mode():
    assert hns("space_invaders-m3", 500.0) == hns("space_invaders", 500.0)
    assert hns("freeway-m2-d1", 3.0) == hns("freeway", 3.0)


def test_table_is_complete_and_every_name_is_a_rom():
    assert len(references()) == 58  # 57 games and catch
    assert set(references()) <= set(rom_names())
    assert all(r.human > r.random for r in references().values())


def test_roms_without_constants():
    assert math.isnan(hns("adventure", 1.0))
    with pytest.raises(UserError, match="adventure"):
        reference("adventure")
