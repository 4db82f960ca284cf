"""runs/<name>/report/: one HTML page with the table, the figures and the configuration of a run.

Made from metrics.jsonl, config.yaml, manifest.json and, if planning was judged, from what that
left in the report's folder alone, at any time, also of a run that is
still going on or of one from another machine.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.metrics import ContinualMetrics
from evaluation.page import page, picture, png, read_json, table, write_whole
from evaluation.runlog import RunLog, read_run_log
from evaluation.style import short, two_digits
from evaluation.summary import HEADERS, cells, note, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# figure -> what to see in it; in the order of the page
CAPTIONS = {
    "forgetting": "Every game is evaluated all through the run. Thick: while it was being trained.",
    "games": "The same, one game a panel on its own scale; shaded: its training.",
    "task_by_time": "Read along a row: how a game rises when it is trained and what remains of it.",
    "returns": "Episodes played while training, exploration included. Line: moving mean.",
    "spikes": "Mean firing rate of each layer of the encoder.",
    "losses": "Named losses of the learner. Line: moving mean.",
}
# the same for the pictures that `evaluate.py run=...` left in the folder
PLANNING = {
    "planning": "Mean return of each way to choose; whiskers: 95 % of the paired difference.",
    "model_errors": "Errors of the world model by steps ahead, along episodes of reacting.",
    "thought": "What was searched in some moments: the best actions at each node, by value.",
}
# metric -> (name on the page, what it says)
METRICS = {
    "average": ("average score", "mean over all games at the end"),
    "forgetting": ("forgetting", "mean loss since each game's latest visit"),
    "backward_transfer": ("backward transfer", "minus that loss, games but the last"),
    "forward_transfer": ("forward transfer", "area gained against training alone"),
    "intransigence": ("intransigence", "what training alone reaches beyond this run"),
    "cora_forgetting": ("CORA isolated forgetting", "first cycle, scaled by the run's own maximum"),
    "cora_zero_shot": ("CORA zero-shot transfer", "first cycle, scaled by the run's own maximum"),
}


def write_report(run_folder: Path | str) -> Path:
    """Write report/report.html (figures embedded) and report/*.png; returns the page's path.

    Raises:
        UserError: the run's metrics.jsonl is missing or damaged.
    """
    folder = Path(run_folder)
    log = read_run_log(folder)
    metrics = log.metrics()
    report = folder / "report"
    report.mkdir(exist_ok=True)
    for name in CAPTIONS:  # other pictures belong to other commands
        (report / f"{name}.png").unlink(missing_ok=True)
    images = {}
    for name, figure in run_figures(log, metrics).items():
        images[name] = png(figure)
        (report / f"{name}.png").write_bytes(images[name])
    path = report / "report.html"
    write_whole(path, _page(folder, log, metrics, images))
    return path


def run_figures(log: RunLog, metrics: ContinualMetrics) -> dict[str, Figure]:
    """All figures that a run's numbers allow: name -> Figure, in the order of `CAPTIONS`."""
    from evaluation import figures

    curves = log.curves()
    made: dict[str, Figure | None] = {}
    if any(curve.steps.size for curve in curves.values()):
        made["forgetting"] = figures.forgetting_curves(curves, log.visits)
        made["games"] = figures.small_multiples(curves, log.visits, metrics)
        if metrics.visits:
            made["task_by_time"] = figures.task_by_time(metrics, curves)
    made["returns"] = figures.training_returns(log)
    made["spikes"] = figures.spikes_per_layer(log)
    made["losses"] = figures.losses(log)
    return {name: made[name] for name in CAPTIONS if made.get(name) is not None}


def _page(folder: Path, log: RunLog, metrics: ContinualMetrics, images: dict[str, bytes]) -> str:
    manifest = read_json(folder / "manifest.json")
    parts = [
        f"<h1>{escape(folder.resolve().name)}</h1>",
        f'<p class="faint">{escape(_line(log, manifest))}</p>',
        table([HEADERS, *(cells(row) for row in summarise(log))]),
        f'<p class="faint">{escape(note(log))}</p>',
        "<h2>Continual learning</h2>",
        _metrics(metrics),
    ]
    parts += [picture(name, image, CAPTIONS[name]) for name, image in images.items()]
    parts += _planning(folder / "report")
    for title, file in (("Manifest", "manifest.json"), ("Configuration", "config.yaml")):
        if (folder / file).exists():
            text = escape((folder / file).read_text(encoding="utf-8"))
            parts.append(f"<details><summary>{title}</summary><pre>{text}</pre></details>")
    return page(folder.resolve().name, parts)


def _planning(report: Path) -> list[str]:
    """What `evaluate.py run=...` has found about planning, if it has been asked."""
    found = read_json(report / "planning.json")
    if not found:
        return []
    try:
        parts = [
            "<h2>Planning against reacting</h2>",
            f'<p class="faint">The weights of agent step {found["step"]:,}, {found["episodes"]} '
            f"paired episodes a game ({found['oracle_episodes']} with the oracle): "
            f"<code>{escape(found['command'])}</code></p>",
            table(planning_rows(found), "numbers"),
        ]
    except (KeyError, TypeError):  # damaged, or another version's: it only adds to the page
        return []
    for path in sorted(report.glob("*.png")):
        kind = path.stem if path.stem in PLANNING else path.stem.split("_")[0]
        if kind in PLANNING:
            parts.append(picture(path.stem, path.read_bytes(), PLANNING[kind]))
    return parts


def planning_rows(found: dict) -> list[tuple[str, ...]]:
    """The comparison of planners as rows of text, the first of them the heading."""
    rows: list[tuple[str, ...]] = [
        ("game, variant", "return", "HNS", "difference [95 %]", "better episodes", "overridden",
         "ms a decision", "best in that time")
    ]  # fmt: skip
    for game, row in found["games"].items():
        for name, v in row["variants"].items():
            apart = v.get("against_reactive")
            rows.append((
                f"{game}, {name}",
                f"{v['mean']:,.1f}",
                two_digits(v["hns"]),
                "{:+,.1f} [{:+,.1f}, {:+,.1f}]".format(*apart["difference"]) if apart else "-",
                f"{100 * v['better_episodes']:.0f} %" if apart else "-",
                f"{100 * v['override']:.1f} %",
                f"{v['ms_per_decision']:.2f}",
                found["equal_time"][game].get(name, "-"),
            ))  # fmt: skip
    for name, v in found["overall"].items():
        better, apart = v["improvement"], v.get("iqm_difference")
        rows.append((
            f"all games, {name}",
            "IQM {:.2f} [{:.2f}, {:.2f}]".format(*v["iqm"]),
            two_digits(v["iqm"][0]),
            "{:+.2f} [{:+.2f}, {:+.2f}]".format(*apart) if apart else "-",
            "P {:.2f} [{:.2f}, {:.2f}]".format(*better) if better else "-",
            "-",
            "-",
            "-",
        ))  # fmt: skip
    return rows


def _line(log: RunLog, manifest: dict) -> str:
    """What was run, in one line."""
    cycles = max(log.cycles, default=0) + 1
    steps = short(log.last_step)
    said = [
        f"{', '.join(log.games)} in {cycles} cycle{'s' if cycles > 1 else ''}",
        f"{steps} agent steps ({short(4 * log.last_step)} frames)",
    ]
    budget = manifest.get("budget_agent_steps")
    if isinstance(budget, int) and budget > log.last_step:
        said[-1] += f" of {short(budget)}"
    said += [f"{key} {manifest[key]}" for key in ("seed", "device") if key in manifest]
    if manifest.get("commit"):
        said.append(f"commit {str(manifest['commit'])[:12]}")
    return "; ".join(said)


def _metrics(metrics: ContinualMetrics) -> str:
    numbers = metrics.as_dict()
    rows = [("", "value", "meaning")]
    for key, (name, meaning) in METRICS.items():
        if numbers[key] is None and key in ("forward_transfer", "intransigence"):
            meaning = "needs runs of each game alone"
        rows.append((name, two_digits(numbers[key]), meaning))
    return table(rows, "words")
