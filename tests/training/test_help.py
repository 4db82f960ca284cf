"""What `train.py --help` says of the keys."""

from dataclasses import dataclass, is_dataclass

import pytest

import train
from training.config import RunConfig
from training.help import meanings


def every_key(config, prefix=""):
    said = meanings(type(config))
    for key, value in vars(config).items():
        if is_dataclass(value):
            yield from every_key(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", said[key]


@pytest.mark.parametrize(("key", "meaning"), every_key(RunConfig()))
def test_every_key_has_a_meaning_that_ends(key, meaning):
    assert meaning, f"{key} has no comment"
    assert meaning[-1] not in ",;:(", f"{key}: '{meaning}' goes on in a line that is not shown"


@dataclass
class Values:
    one: int = 1  # agent steps
    # -- a heading ---
    # Grey levels; what it is, fig. 3,
    # over two lines. Why it is so.
    two: float = 2.0
    # Why three is three.
    three: int = 3  # unit of three

    text: str = "# no comment"
    four: int = 4

    def method(self) -> None:
        one = 5  # not the field's
        assert one


def test_meanings_are_the_comments_beside_or_right_above():
    assert meanings(Values) == {
        "one": "agent steps",
        "two": "Grey levels; what it is, fig. 3, over two lines",
        "three": "unit of three",
        "text": "",
        "four": "",
    }


def test_help_shows_the_values_of_its_command(capsys):
    assert train.main(["experiment=quickstart", "agent.hidden=17", "--help"]) == 0
    out = capsys.readouterr().out
    assert "under experiment=quickstart agent.hidden=17:" in out
    assert "agent.hidden=17 " in out
    assert "agent.name=engram" in out
    assert train.main(["-h"]) == 0
    assert "agent.name=reactive" in capsys.readouterr().out


def test_help_takes_a_sweep_and_refuses_a_mistake(capsys):
    assert train.main(["--help", "experiment=ablation", "seed=0,1"]) == 0
    assert "agent.name=reactive" in capsys.readouterr().out
    assert train.main(["--help", "agent.hiden=17"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no key 'agent.hiden'")
