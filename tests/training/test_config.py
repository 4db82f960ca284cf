"""Every shipped configuration is loaded; every mistake gets one line that names the key."""

from pathlib import Path

import pytest

from envs import PROTOCOLS
from envs.sequences import SEQUENCES
from errors import UserError
from training.config import CONFIG_DIR, differences, load_config, read_config, to_yaml

GROUPS = sorted(f"{path.parent.name}={path.stem}" for path in CONFIG_DIR.glob("*/*.yaml"))


@pytest.mark.parametrize("choice", GROUPS)
def test_shipped_configuration_loads(choice):
    config = load_config([choice])
    assert len(config.sequence.tasks()) >= 1


def test_command_line_wins_over_an_experiment():
    config = load_config(["experiment=quickstart", "sequence.games=[pong,krull]", "seed=7"])
    assert config.sequence.games == ["pong", "krull"]
    assert config.seed == 7


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sequence.steps_per_taks=3", ["sequence.steps_per_taks", "sequence.steps_per_task"]),
        ("agent.learning_rate=fast", ["agent.learning_rate", "fast"]),
        ("agent.learning_rate=-1", ["agent.learning_rate"]),
        ("agent.gamma_end=1.5", ["agent.gamma_end", "between 0 and 1"]),
        ("agent.noisy=true", ["agent.noisy", "agent.epsilon_end"]),
        ("agent=dqm", ["agent/dqm", "dqn"]),
        ("sequence.games=[]", ["sequence.games"]),
        ("sequence.games=[pogn]", ["pogn", "pong"]),
        ("nonsense", ["nonsense"]),
        ("seed=-1", ["seed"]),
        ("task_labels=some", ["task_labels=some", "oracle, boundaries, none"]),
        ("change.signal=smell", ["change.signal=smell", "screen, spikes"]),
        ("change.threshold=0", ["change.threshold"]),
    ],
)
def test_mistakes_are_named_in_one_line(override, words):
    with pytest.raises(UserError) as caught:
        load_config([override]).sequence.tasks()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("agent", ["nec", "mfec"])
def test_without_latent_spikes_a_change_is_noticed_on_screen(agent):
    with pytest.raises(UserError, match=r"set change\.signal=screen"):
        load_config([f"agent={agent}", "task_labels=none", "change.signal=spikes"])
    load_config([f"agent={agent}", "task_labels=none"])


def test_without_labels_no_mask_of_actions_betrays_the_game():
    assert load_config(["protocol=atari100k"]).protocol.actions == "minimal"
    for labels in ("boundaries", "none"):
        config = load_config(["protocol=atari100k", f"task_labels={labels}"])
        assert config.protocol.actions == "full"


def test_differences_name_the_key():
    ours = to_yaml(load_config(["agent.learning_rate=1e-3"]))
    theirs = to_yaml(load_config([]))
    (difference,) = differences(ours, theirs)
    assert "agent.learning_rate" in difference
    assert differences(ours, theirs, ignore=("agent",)) == []


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocol_files_say_what_the_code_says(name):
    assert load_config([f"protocol={name}"]).protocol == PROTOCOLS[name]()


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequence_files_say_what_the_code_says(name):
    assert load_config([f"sequence={name}"]).sequence.tasks() == SEQUENCES[name].build()


def test_no_yaml_file_is_orphaned():
    assert Path(CONFIG_DIR, "config.yaml").exists()
    assert len(GROUPS) > 10


def test_a_run_of_an_earlier_version_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    saved = to_yaml(load_config(["seed=4"]))
    path.write_text(saved.replace("planner:\n", "planner:\n  margin: 0.0\n"))
    assert read_config(path).seed == 4
    path.write_text(saved.replace("planner:\n", "planner:\n  margin: 0.1\n"))
    with pytest.raises(UserError, match=r"planner\.margin"):
        read_config(path)
