"""Every shipped configuration is loaded; every mistake gets one line that names the key."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from agents.agent import Transition
from earlier import in_todays_words
from envs import PROTOCOLS
from errors import UserError
from tests.envs.published import SEQUENCES
from training.build import build_agent
from training.config import CONFIG_DIR, differences, load_config, read_config, to_yaml
from training.sweep import is_sweep, plan_sweep

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
        ("experimnt=toy", ["experimnt", "experiment"]),
        ("jobs=2", ["jobs=", "--multirun"]),
        ("+foo=1", ["foo", "no such key"]),
        ("++agent.x=2", ["'x'", "no such key"]),
        ("agent.v_max=inf", ["agent.v_max", "finite"]),
        ("memory=null", ["memory=null", "nec, none"]),
        ("agent=3", ["agent=3", "reactive"]),
        ("agent=[dqn,drq]", ["agent=[dqn,drq]", "reactive"]),
        ("experiment=", ["experiment=", "quickstart"]),
        ("=3", ["'=3'", "key=value"]),
        ("device.learner_threads=100000", ["device.learner_threads=100000", "1024"]),
        ("memory.reach=inf", ["memory.reach", "finite"]),
        ("change.slack=-inf", ["change.slack", "finite"]),
        ("consolidation=ewc", ["consolidation takes a list", "consolidation=[a]"]),
        ("sequence.games=pong", ["sequence.games takes a list", "sequence.games=[a]"]),
        ("sequence.games=[pong", ["sequence.games=[pong cannot be read", "close every bracket"]),
        ("seed=-1", ["seed"]),
        ("sequence.steps_per_task=1e3", ["sequence.steps_per_task", "write 1000"]),
        ("sequence.steps_per_task=1.5", ["sequence.steps_per_task", "converted to Integer"]),
        ("run=", ["run="]),
        ("run=..", ["run=.."]),
        ("task_labels=some", ["task_labels=some", "oracle, boundaries, none"]),
        ("change.signal=smell", ["change.signal=smell", "screen, spikes"]),
        ("change.threshold=0", ["change.threshold"]),
        ("change.contexts=1000000000000", ["change.contexts", "1,000"]),
        ("protocol.max_frames=400000000000000", ["protocol.max_frames", "10,000,000"]),
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
def test_what_a_memory_alone_does_not_go_by_is_refused(agent):
    for word, own in (
        ("agent.gamma_end=0.5", "memory.gamma"),
        ("agent.n_step_start=3", "memory.horizon"),
        ("agent.weight_decay=0.1", "set agent.weight_decay=0.0"),
        ("agent.prioritised=True", "set agent.prioritised=false"),
        ("agent.shift=4", "set agent.shift=0"),
    ):
        with pytest.raises(UserError, match=rf"has no {word}\b.*{own}"):
            load_config([f"agent={agent}", word])


def test_sizes_of_parts_that_are_off_are_not_blamed():
    words = ["sequence.games=[catch]", "world_model=latent", f"world_model.hidden={10**12}"]
    with pytest.raises(UserError, match="do not fit") as caught:
        build_agent(load_config(words), torch.device("cpu"))
    assert f"world_model.hidden={10**12}" in str(caught.value)
    assert "memory." not in str(caught.value)


def test_sizes_that_no_machine_holds_are_named():
    for key in ("agent.hidden", "memory.key_dim"):
        huge = load_config(["agent=episodic", "sequence.games=[catch]", f"{key}={10**12}"])
        with pytest.raises(UserError, match=rf"{key}={10**12}\b.* do not fit"):
            build_agent(huge, torch.device("cpu"))


def test_a_reservoir_smaller_than_the_batch_is_learned_from():
    """Its segments end with episodes, so that it may hold fewer transitions than it has room for;
    batches are drawn with replacement."""
    tight = load_config(
        ["sequence.games=[catch]", "replay=reservoir", "agent.replay_capacity=1200",
         "agent.batch_size=512", "agent.learn_start=512"]
    )  # fmt: skip
    agent = build_agent(tight, torch.device("cpu"))
    flags, obs = np.zeros(4, bool), np.zeros((4, 4, 84, 84), np.uint8)
    for t in range(130):
        agent.observe(
            Transition(obs, np.zeros(4, np.int64), np.zeros(4, np.float32), flags | (t % 5 == 4),
                       flags, flags | (t % 5 == 0), None)
        )  # fmt: skip
    assert 0 < len(agent.replay) < 512
    agent.learn()
    assert agent.learner.updates == 8


def test_a_batch_that_replay_can_never_fill_is_refused():
    tight = ["agent.batch_size=512", "agent.learn_start=600", "agent.replay_capacity=400"]
    with pytest.raises(UserError, match=r"agent\.batch_size=512 .* agent\.replay_capacity=400"):
        load_config(tight)


@pytest.mark.parametrize(("given", "there"), [(2, 3), (5, 5)])
def test_told_nothing_it_has_the_contexts_it_was_given_and_one_for_each_game(given, there):
    config = load_config(
        ["task_labels=none", f"change.contexts={given}", "sequence.games=[pong,krull,boxing]"]
    )
    assert len(build_agent(config, torch.device("cpu")).masks) == there


@pytest.mark.parametrize("agent", ["nec", "mfec"])
def test_without_latent_spikes_a_change_is_noticed_on_screen(agent):
    with pytest.raises(UserError, match=r"set change\.signal=screen"):
        load_config([f"agent={agent}", "task_labels=none", "change.signal=spikes"])
    load_config([f"agent={agent}", "task_labels=none"])


@pytest.mark.parametrize("kind", ["shrink_perturb", "reset"])
def test_weights_are_not_anchored_and_moved_away_at_once(kind):
    with pytest.raises(UserError, match=rf"plasticity={kind} .* set consolidation=\[\]"):
        load_config([f"plasticity={kind}", "consolidation=[si]"])
    load_config([f"plasticity={kind}"])


def test_one_way_to_stay_plastic_goes_with_consolidation():
    load_config(["plasticity=redo", "consolidation=[si]"])


def test_a_change_of_game_is_told_from_a_new_level_by_several_emulators():
    with pytest.raises(UserError, match=r"agent\.num_envs=1 must be at least 2"):
        load_config(["agent=der", "task_labels=none"])
    load_config(["agent=der", "task_labels=boundaries"])


def test_a_search_needs_a_model_that_learns_to_the_end():
    model = ["world_model=latent", "world_model.until=1000"]
    with pytest.raises(UserError, match=r"world_model\.until=1000 .* set world_model\.until=0"):
        load_config([*model, "planner=beam"])
    load_config(model)
    load_config([model[0], "planner=beam"])


def test_a_search_for_targets_is_by_the_network_that_learns():
    words = ["agent=dqn", "agent.num_envs=4", "world_model=latent", "planner=beam",
             "planner.reanalyse=0.25", "agent.n_step_end=5"]  # fmt: skip
    with pytest.raises(UserError, match=r"planner\.reanalyse=0\.25 .* agent\.double=true"):
        load_config(words)
    load_config([*words, "agent.double=true"])


def test_nec_does_not_move_its_keys_in_a_graph():
    with pytest.raises(UserError, match=r"memory\.index=hnsw .* set memory\.index=auto"):
        load_config(["agent=nec", "memory.index=hnsw"])
    with pytest.raises(UserError, match=r"agent\.shift=0"):
        load_config(["agent=nec", "agent.shift=4"])
    for agent in ("episodic", "mfec"):
        load_config([f"agent={agent}", "memory.index=hnsw"])


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


def test_a_newer_key_that_earlier_runs_went_without_is_not_asked_for():
    theirs = to_yaml(load_config([])).replace("start_from: null\n", "")
    assert "start_from" not in theirs
    assert differences(to_yaml(load_config([])), theirs) == []
    (difference,) = differences(to_yaml(load_config(["start_from=x"])), theirs, said=["start_from"])
    assert difference == "start_from='x' (folder: None)"


def test_a_newer_key_within_a_group_is_not_asked_for_either():
    ours = to_yaml(load_config([]))
    theirs = ours.replace("  until: 120000\n", "")
    assert theirs != ours
    assert differences(ours, theirs) == []
    then, now = (OmegaConf.to_container(OmegaConf.create(text)) for text in (theirs, ours))
    assert in_todays_words(then) == now


def test_a_key_newer_than_the_run_is_asked_for():
    ours = to_yaml(load_config([]))
    theirs = re.sub(r"  normalise: \w+\n", "", ours, count=1).replace("  shift: ", "  shifts: ")
    assert theirs.count("normalise") == ours.count("normalise") - 1
    *_, normalise, shift = differences(ours, theirs)
    assert normalise == (
        "agent.normalise is newer than the run, set it to go on: agent.normalise=false"
    )
    assert "agent.shift=..." in shift
    assert differences(ours, theirs, said=["agent.normalise", "agent.shift"]) == [
        "agent.shifts=0 in the folder is no longer known"
    ]


def test_a_key_that_no_longer_exists_is_no_difference_where_it_changed_nothing():
    ours = to_yaml(load_config([]))
    theirs = ours.replace("planner:\n", "planner:\n  margin: 0.0\n")
    assert differences(ours, theirs) == []
    assert "planner.margin" in differences(ours, theirs.replace("margin: 0.0", "margin: 0.1"))[0]


@pytest.mark.parametrize(
    "name",
    [
        "20261129_1530",
        "1e3",
        "true",
        "jörg",
        "a(1)",
        "tag=1",
        "o'neil",
        "~/a#b",
        "x,y",
        "a b",
        "[x]",
    ],
)
def test_names_are_taken_as_they_stand(name, tmp_path):
    config = load_config([f"run={name}", f"title={name}", f"start_from={name}"])
    assert (config.run, config.title, config.start_from) == (name, name, name)
    assert load_config([f'run="{name}"']).run == name  # as Hydra has it
    assert not is_sweep(["experiment=toy", f"run={name}"])
    (job,) = plan_sweep(["-m", "experiment=toy", "seed=0", f"run={tmp_path}/{name}"]).jobs
    assert load_config(job.overrides).run == f"{tmp_path}/{name}/run-s0"


def test_no_name_is_none():
    assert load_config(["run=null"]).run is None


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocol_files_say_what_the_code_says(name):
    assert load_config([f"protocol={name}"]).protocol == PROTOCOLS[name]()


@pytest.mark.parametrize(
    ("name", "eval_every", "checkpoint_every"),
    [
        ("cora", 250_000, 100_000),
        ("progress_and_compress", 250_000, 100_000),
        ("ewc10", 250_000, 100_000),
        ("modes_space_invaders", 50_000, 50_000),
        ("modes_freeway", 50_000, 50_000),
    ],
)
def test_published_sequences_have_their_own_intervals(name, eval_every, checkpoint_every):
    config = load_config([f"sequence={name}", "agent=engram"])
    assert (config.eval.every, config.eval.episodes) == (eval_every, 10)
    assert config.checkpoint.every == checkpoint_every
    words = ["eval.every=7", "checkpoint.every=8", "sequence.steps_per_task=9", "sequence.cycles=1"]
    short = load_config([f"sequence={name}", *words])
    assert (short.eval.every, short.checkpoint.every) == (7, 8)
    assert (short.sequence.steps_per_task, short.sequence.cycles) == (9, 1)


@pytest.mark.parametrize("name", ["cora", "progress_and_compress"])
def test_cora_is_played_by_its_protocol_unless_another_is_named(name):
    protocol = load_config([f"sequence={name}"]).protocol
    assert (protocol.sticky, protocol.actions, protocol.max_steps) == (0.0, "full", 10_000)
    assert load_config([f"sequence={name}", "protocol.sticky=0.25"]).protocol.sticky == 0.25
    other = load_config(["protocol=machado2018", f"sequence={name}"]).protocol
    assert other == PROTOCOLS["machado2018"]()


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
