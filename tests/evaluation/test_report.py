"""Figures and the report page of a synthetic run."""

import io
import re
import shutil

import pytest

from errors import UserError
from evaluation import figures
from evaluation.report import CAPTIONS, METRICS, run_figures, write_report
from evaluation.runlog import FILE_NAME, read_run_log
from evaluation.style import short, smooth, two_digits
from evaluation.summary import print_summary
from tests.evaluation.synthetic_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "synthetic", steps_per_task=4_000)


def test_report_is_one_page_with_everything_in_it(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "a<b")
    page = write_report(folder)
    assert page == folder / "report" / "report.html"
    text = page.read_text()
    assert text.count("data:image/png;base64,") == len(CAPTIONS)
    assert {p.stem for p in page.parent.glob("*.png")} == set(CAPTIONS)
    assert "src=" not in re.sub(r'src="data:', "", text)  # nothing is fetched
    for word in ("road_runner", "batch_size: 32", "3.11.2", "24k agent steps (96k frames)"):
        assert word in text
    assert "a&lt;b" in text
    assert "a<b" not in text


def test_report_needs_metrics_alone(run, tmp_path):
    shutil.copy(run / FILE_NAME, tmp_path)
    assert "Configuration" not in write_report(tmp_path).read_text()
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(UserError, match="does not exist"):
        write_report(tmp_path)


def test_report_of_a_run_that_has_just_begun(run, tmp_path):
    lines = (run / FILE_NAME).read_text().splitlines(keepends=True)
    for count in (1, 5, 12):  # the first evaluation, before and after the first visit begins
        (tmp_path / FILE_NAME).write_text("".join(lines[:count]))
        assert write_report(tmp_path).exists()
    (tmp_path / FILE_NAME).write_text("")
    assert write_report(tmp_path).exists()
    assert not list((tmp_path / "report").glob("*.png"))  # those of the longer file are gone


def test_a_comparison_of_planners_that_makes_no_sense_is_left_out(run, tmp_path):
    shutil.copy(run / FILE_NAME, tmp_path)
    (tmp_path / "report").mkdir()
    for found in ('{"step": 1}', '{"step": null, "episodes": 2}'):
        (tmp_path / "report" / "planning.json").write_text(found)
        assert "Planning against" not in write_report(tmp_path).read_text()


def test_same_run_same_pictures(run):
    log = read_run_log(run)
    first, second = run_figures(log, log.metrics()), run_figures(log, log.metrics())
    for name in ("forgetting", "task_by_time"):
        assert png(first[name]) == png(second[name])


def test_forgetting_figure_shows_every_game_and_boundary(run):
    log = read_run_log(run)
    figure = figures.forgetting_curves(log.curves(), log.visits)
    strip, axes = figure.axes
    assert [t.get_text() for t in axes.get_legend().get_texts()] == list(log.games)
    assert [t.get_text() for t in strip.texts] == [v.game for v in log.visits]
    vertical = {line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1}
    assert vertical == {v.start for v in log.visits[1:]}
    assert {t.get_text() for t in axes.texts} == {"random", "human"}
    longest = max((line for line in axes.lines), key=lambda line: len(line.get_xdata()))
    assert len(longest.get_xdata()) == log.curves()["krull"].steps.size


def test_matrix_figure_has_the_numbers(run):
    log = read_run_log(run)
    metrics = log.metrics()
    figure = figures.task_by_time(metrics, log.curves())
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert len(texts) == len(log.games) * (1 + len(log.visits))
    assert two_digits(metrics.level[0, 0]) in texts
    outlined = {(p.get_x() + 0.5, p.get_y() + 0.5) for p in figure.axes[0].patches}
    assert outlined == {(k + 1, log.games.index(v.game)) for k, v in enumerate(log.visits)}


def test_board_figures_go_from_the_telemetrys_lists(run):
    log = read_run_log(run)
    curves = {g: [[s, x] for s, x in zip(*c)] for g, c in log.curves().items()}
    schedule = [list(v) for v in log.visits]
    tags = ["figures/forgetting", "figures/task_by_time"]
    assert list(figures.board_figures(curves, schedule)) == tags
    assert list(figures.board_figures(curves | {"krull": []}, schedule)) == tags
    assert figures.board_figures({game: [] for game in curves}, []) == {}


def test_many_games_fit(run):
    curve = read_run_log(run).curves()["krull"]
    games = [f"space_invaders-m{k}" for k in range(10)]
    visits = figures.as_visits([(g, 400 * k, 400 * (k + 1)) for k, g in enumerate(games)])
    looks = {tuple(map(str, figures.look(k).values())) for k in range(len(games))}
    assert len(looks) == len(games)
    curves = dict.fromkeys(games, curve)
    assert png(figures.forgetting_curves(curves, visits))
    assert png(figures.small_multiples(curves, visits))


def test_a_run_without_spikes_has_no_picture_of_them(run):
    log = read_run_log(run)
    log.train.clear()
    log.episodes.clear()
    assert figures.spikes_per_layer(log) is None
    assert figures.losses(log) is None
    assert figures.training_returns(log) is None


def test_every_metric_of_the_page_exists(run):
    assert METRICS.keys() <= read_run_log(run).metrics().as_dict().keys()


def test_end_table_is_plain_text_without_a_terminal(run, capsys):
    print_summary(run)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["game", "random"]
    assert [line.split()[0] for line in lines[1:4]] == ["road_runner", "krull", "boxing"]
    assert "\x1b" not in "".join(lines)


def test_numbers_as_text():
    assert [short(x) for x in (0, 999, 1500, 20_000, 2e6)] == ["0", "999", "1.5k", "20k", "2M"]
    assert [two_digits(x) for x in (None, float("nan"), -0.001, 1.234, 12.34)] == [
        "-",
        "-",
        "0.00",
        "1.23",
        "12.3",
    ]
    assert two_digits(0.5, signed=True) == "+0.50"
    assert smooth([1, 2, 3, 4], 2).tolist() == [1.0, 1.5, 2.5, 3.5]


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()
