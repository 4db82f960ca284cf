"""Planning against reacting on one trained agent, with its controls."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate
import train
from agents.planners import PlannerConfig
from agents.world_model import ModelStep
from envs import PROTOCOLS, Task, make_action_set
from errors import UserError
from evaluation import planning
from evaluation.evaluator import Evaluator
from evaluation.lockstep import Moment, play
from evaluation.oracle import OracleModel
from evaluation.planning import Contest, ShuffledModel, main, model_errors, variants
from evaluation.planning_report import write_figures
from tests.test_command_line import TINY
from training.loading import load_run
from training.telemetry import WALL_CLOCK_FIELDS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run that plans while it trains, with a checkpoint in the middle of it."""
    folder = tmp_path_factory.mktemp("planning") / "run"
    assert train.main(command(folder)) == 0
    return folder


def command(folder):
    return [
        *TINY, "planner=beam", "planner.depth=1", "planner.reanalyse=0.5",
        "sequence.games=[catch,krull]",
        "eval.max_steps=20",
        "agent.updates_per_step=0.25", "agent.epsilon_start=0.1", "checkpoint.every=48",
        "checkpoint.keep=5", f"run={folder}",
    ]  # fmt: skip


def lines(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in WALL_CLOCK_FIELDS} for row in rows]


def test_a_planning_run_logs_its_model_and_resumes_bit_for_bit(run, tmp_path):
    last = [line for line in lines(run) if line["kind"] == "train"][-1]
    for name in ("reward", "termination", "self_prediction", "imagined_value"):
        assert last[f"loss/{name}"] >= 0
    assert last["model/value_error_5/game1"] > 0
    again = tmp_path / "again"
    shutil.copytree(run, again)
    steps = sorted(int(p.name) for p in (again / "checkpoints").iterdir())
    for step in steps[2:]:
        shutil.rmtree(again / "checkpoints" / str(step))
    assert train.main(command(again)) == 0
    assert lines(again) == lines(run)


def test_planners_are_compared_on_the_same_episodes(run, capsys):
    assert evaluate.main([f"run={run}", "episodes=3", "depth=1,2", "simulations=4", "games=krull",
                          "oracle_episodes=2"]) == 0  # fmt: skip
    report = json.loads((run / "report" / "planning.json").read_text())
    rows = report["games"]["krull"]["variants"]
    names = ["reactive", "beam_depth0", "beam_depth1", "beam_depth2", "gumbel_4",
             "shuffled_depth2", "oracle_depth5"]  # fmt: skip
    assert list(rows) == names
    assert rows["beam_depth0"]["returns"] == rows["reactive"]["returns"]
    assert rows["beam_depth0"]["override"] == 0
    assert rows["beam_depth2"]["override"] > 0  # an untrained model disagrees somewhere
    assert len(rows["oracle_depth5"]["returns"]) == 2
    assert report["variants"]["oracle_depth5"] == {
        "model": "oracle", "planner": "beam", "depth": 5, "width": 18, "branch": 1, "share": 1.0,
        "gain": 0.3,
    }  # fmt: skip
    errors = report["games"]["krull"]["model_errors"]
    assert len(errors["learned"]["value"]) == 5
    assert all(share <= 1 for share in errors["learned"]["reward_explained"])
    assert set(report["overall"]) == set(names) - {"oracle_depth5"}
    for picture in ("planning", "model_errors", "thought_krull"):
        assert (run / "report" / f"{picture}.png").stat().st_size > 10_000
    page = (run / "report" / "report.html").read_text()
    assert "krull, oracle_depth5" in page
    assert all(f'alt="{name}"' in page for name in ("forgetting", "planning", "thought_krull"))
    board = EventAccumulator(str(run / "planning"))
    board.Reload()
    assert "planning/return/krull/gumbel_4" in board.Tags()["scalars"]
    assert "beam_depth2" in capsys.readouterr().out


def test_an_agent_without_a_model_can_still_be_judged(run):
    loaded = load_run(run)
    loaded.agent.model = None
    report = main(loaded, {"planner": "reactive", "games": "krull", "episodes": "2"})
    assert report["games"]["krull"]["model_errors"] == {}
    assert len(report["games"]["krull"]["variants"]["reactive"]["returns"]) == 2
    assert "krull, reactive" in (run / "report" / "report.html").read_text()
    with pytest.raises(UserError, match="world_model=latent"):
        main(loaded, {"planner": "beam"})


def test_a_model_that_stopped_learning_is_not_searched(run):
    loaded = load_run(run)
    model = replace(loaded.config.world_model, until=1)
    config = replace(loaded.config, world_model=model, planner=PlannerConfig())
    loaded = replace(loaded, config=config)
    loaded.agent.imagination.config = model
    report = main(loaded, {"planner": "reactive", "games": "krull", "episodes": "1"})
    assert report["games"]["krull"]["model_errors"] == {}
    with pytest.raises(UserError, match="no world model that learned to the end"):
        main(loaded, {"planner": "beam"})


def test_an_agent_without_a_q_network_can_still_be_judged(tmp_path):
    folder = tmp_path / "run"
    assert train.main([*TINY, "agent=mfec", "sequence.games=[catch]", f"run={folder}"]) == 0
    report = main(load_run(folder), {"episodes": "2"})
    assert list(report["variants"]) == ["reactive"]  # no world model, and no emulator
    assert len(report["games"]["catch"]["variants"]["reactive"]["returns"]) == 2


def test_share_of_the_rewards_that_is_foreseen(run):
    """A model that knows the rewards explains all of them, one that says their mean none."""
    agent = load_run(run).agent
    rng = np.random.default_rng(0)
    allowed = agent.masks[0].nonzero()[:3, 0].tolist()
    by_action = torch.zeros(agent.masks.shape[1])
    by_action[allowed] = torch.tensor([1.0, 0.0, -1.0])
    course = [
        Moment(rng.integers(0, 256, (4, 84, 84), np.uint8), a, float(by_action[a]), False)
        for a in allowed * 7
    ]

    class Knows:
        def step(self, latent, action):
            return ModelStep(latent, by_action[action], torch.ones(len(action)))

    agent.model = Knows()
    errors = model_errors(agent, 0, [course])
    assert errors["learned"]["reward_explained"] == pytest.approx([1.0] * 5)
    assert max(errors["shuffled"]["reward_explained"]) < 0
    by_action = torch.zeros_like(by_action)
    errors = model_errors(agent, 0, [course])
    assert errors["learned"]["reward_explained"] == pytest.approx([0.0] * 5, abs=1e-6)


def test_errors_are_judged_in_the_agents_own_context(run, monkeypatch):
    agent, rng, asked = load_run(run).agent, np.random.default_rng(0), set()
    course = [Moment(rng.integers(0, 256, (4, 84, 84), np.uint8), 0, 0.0, False) for _ in range(9)]
    values = agent.values
    monkeypatch.setattr(agent, "label", lambda obs, game: 1)
    monkeypatch.setattr(agent, "values", lambda x, game: asked.add(game) or values(x, game))
    model_errors(agent, 0, [course])
    assert asked == {1}


def test_a_gumbel_search_is_drawn_where_no_beam_was_played(run, tmp_path):
    loaded, rng = load_run(run), np.random.default_rng(0)
    course = [Moment(rng.integers(0, 256, (4, 84, 84), np.uint8), 0, 0.0, False) for _ in range(9)]
    rows = {"variants": {"reactive": {"mean": 0.0}}, "model_errors": {}}
    stale = [tmp_path / f"{name}.png" for name in ("thought_pong", "model_errors")]
    for path in stale:  # of an earlier comparison
        path.touch()
    for kinds, drawn in ((["gumbel"], "gumbel_8"), (["gumbel", "beam"], "beam_depth2")):
        chosen = variants(kinds, PlannerConfig(), [1, 2], [8, 2])
        report, contest = {"games": {"krull": rows}}, Contest(loaded.agent)
        figures = write_figures(loaded, report, {"krull": [course]}, contest, chosen, tmp_path)
        assert list(figures) == ["planning", "thought_krull"]
        titles = [axes.get_title() for axes in figures["thought_krull"].axes]
        assert any(drawn in title for title in titles)
    assert not any(path.exists() for path in stale)


def test_the_oracle_has_settings_of_its_own(run, monkeypatch):
    played = []
    monkeypatch.setattr(planning, "compare_planners", lambda run, chosen, *_: played.append(chosen))
    words = {
        "planner": "oracle",
        "games": "krull",
        "depth": "1",
        "width": "3",
        "gain": "0.7",
        "share": "0.5",
    }
    own = {"oracle_depth": "2", "oracle_width": "4", "oracle_branch": "3", "oracle_gain": "0"}
    for options in (words, words | own):
        with pytest.raises(AttributeError):  # there is no report
            main(load_run(run), options)
    first, second = (chosen[-1] for chosen in played)
    assert first.name == "oracle_depth5"
    assert first.planner == PlannerConfig("beam", depth=5, width=18, branch=1, gain=0.3)
    assert second.name == "oracle_depth2"
    assert second.planner == PlannerConfig("beam", depth=2, width=4, branch=3, gain=0.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["planner=mcts"], "planner=mcts"),
        (["depth=x"], "depth=x"),
        (["games=pong"], "games=pong"),
        (["games=krull,krull"], "names one twice"),
        (["colour=red"], "colour"),
        (["planner=oracle", "oracle_gain=x"], "oracle_gain=x"),
        (["gain=inf"], "gain=inf"),
        (["share=nan"], "share=nan"),
        (["episodes=0"], "episodes=0"),
        (["oracle_episodes=0"], "oracle_episodes=0"),
        (["episodes=2", "oracle_episodes=3"], "at most episodes=2"),
        (["planner=reactive,oracle"], "catch"),  # it has no emulator to search with
    ],
)
def test_bad_words_are_answered_in_one_line(run, capsys, words, message):
    assert evaluate.main([f"run={run}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_lockstep_plays_the_evaluators_episodes():
    task, protocol = Task("krull", 1), PROTOCOLS["atari100k"]()
    settings = {"episodes": 3, "seed": 5, "max_steps": 40, "epsilon": 0.3, "full_actions": True}
    evaluator = Evaluator([task], protocol, num_envs=2, **settings)
    theirs = evaluator.evaluate(lambda obs, game: (obs[:, -1].sum((1, 2)) % 2).astype(int), "krull")
    evaluator.close()
    for saved in (False, True):
        ours, course = play(
            task, protocol, lambda obs, cores: (obs[:, -1].sum((1, 2)) % 2).astype(int),
            saved_states=saved, record=True, **settings,
        )  # fmt: skip
        assert (ours.returns == theirs.returns).all()
        assert (ours.lengths == theirs.lengths).all()
        assert sum(m.reward for m in course[0]) == ours.returns[0]


def test_the_oracle_foresees_what_happens():
    task, protocol = Task("krull", 1), PROTOCOLS["atari100k"]()
    actions = make_action_set("krull", protocol, True)
    model = OracleModel(task, protocol, actions)
    allowed = np.flatnonzero(actions.mask)
    rng, foreseen = np.random.default_rng(0), []

    def choose(obs, cores):
        root = model.begin(cores)
        assert (model.observations(root) == obs).all()
        output = rng.choice(allowed, size=2)
        one = model.step(root, torch.as_tensor(output[:1]).expand(len(cores)))
        two = model.step(one.latent, torch.as_tensor(output[1:]).expand(len(cores)))
        foreseen.append((one.reward[0].item(), model.observations(two.latent)[0]))
        choose.plan = choose.plan or list(output)
        return np.full(len(cores), choose.plan.pop(0))

    choose.plan = []
    _, courses = play(
        task, protocol, choose, episodes=1, seed=1, max_steps=60, full_actions=True,
        saved_states=True, record=True,
    )  # fmt: skip
    (course,) = courses
    for t in range(0, len(course) - 2, 2):  # two steps are planned, then both are played
        reward, obs = foreseen[t]
        assert reward == np.clip(course[t].reward, -1, 1)
        assert (obs == course[t + 2].obs).all()


def test_shuffled_actions_are_never_the_asked_ones(run):
    agent = load_run(run).agent
    shuffled = ShuffledModel(agent.model, agent.masks[0])
    allowed = agent.masks[0].nonzero()[:, 0]
    assert (shuffled.other[allowed] != allowed).all()
    assert set(shuffled.other[allowed].tolist()) == set(allowed.tolist())


def test_variants_start_with_reactive():
    names = [v.name for v in variants(("beam", "oracle"), PlannerConfig(), [1, 2, 3], [4])]
    assert names == [
        "reactive", "beam_depth0", "beam_depth1", "beam_depth2", "beam_depth3", "oracle_depth5",
    ]  # fmt: skip
