"""Sequences of games: what is kept, what it costs, and how changes are noticed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import mean

from benchmarks.tables.markdown import load, markdown, source

GAMES = ("road_runner", "krull", "kung_fu_master")  # of quickstart


def change_detection() -> str:
    result = load("change_detection")
    rows = []
    for signal, row in result["signals"].items():
        games = dict.fromkeys(
            g for r in result["runs"] if r["signal"] == signal for g in r["games"]
        )
        rows.append(
            [
                f"`{signal}`",
                ", ".join(games),
                f"{row['agent_steps']:,}",
                f"{row['changes'] - row['missed']} of {row['changes']}",
                f"{row['delay_median']:.0f} (at most {row['delay_max']})"
                if row["delay_max"]
                else "-",
                str(row["false_alarms"]),
                f"{row['false_alarms_per_10k']:.1f}",
                f"{row['visits_known']} of {row['visits']}",
            ]
        )
    head = [
        "`change.signal`",
        "games",
        "agent steps",
        "changes noticed",
        "delay, agent steps",
        "false alarms",
        "per 10k steps",
        "visits in the right context",
    ]
    return markdown(head, rows) + source("change_detection", result)


def earlier_forgetting(result: dict, method: dict) -> float:
    """Mean forgetting of the games that something was trained after (Chaudhry 2018)."""
    last = result["games"][-1]  # may have no scale
    lost = [
        value
        for run in method["runs"]
        for game, value in run["forgetting_by_game"].items()
        if game != last
    ]
    return sum(lost) / len(lost)


def continual(name: str = "continual") -> str:
    result = load(name)

    def cell(value: float | None, digits: int = 2, sign: str = "") -> str:
        return "-" if value is None else f"{value:{sign}.{digits}f}"

    def over_seeds(row: dict, key: str, sign: str = "") -> str:
        """Mean, and the range over seeds where there are several."""
        values = [run[key] for run in row["runs"]]
        mean = cell(row["mean"][key], sign=sign)
        if len(values) == 1:
            return mean
        return f"{mean} [{cell(min(values), sign=sign)}, {cell(max(values), sign=sign)}]"

    rows = []
    for method, row in result["methods"].items():
        m = row["mean"]
        rows.append(
            [
                f"`{method}`",
                str(len(row["runs"])),
                over_seeds(row, "average"),
                over_seeds(row, "forgetting", "+"),
                cell(earlier_forgetting(result, row), sign="+"),
                cell(m["visit_forgetting"], sign="+"),
                *(cell(m[key], sign="+") for key in ("forward_transfer", "intransigence")),
                cell(m["bytes_total"] / 1e6, 1),
            ]
        )
    head = [
        "method",
        "seeds",
        "average at the end",
        "forgetting",
        "of all but the last game",
        "forgetting a visit",
        "forward transfer",
        "intransigence",
        "MB",
    ]
    games = ", ".join(
        f"{g} ({x['random']:,.0f} to {x['end']:,.0f})"
        for g, x in result["single"].items()
        if g not in result["games_without_scale"]
    )
    note = (
        f"\nScores as a share of the game trained alone (0 = random): {games}; "
        f"{result['cycles']} cycles of {result['steps_per_visit']:,} agent steps a visit. "
        + (
            "Forgetting counts the last game, after which nothing is trained, as 0; the column "
            "beside it leaves that out. "
            if result["games"][-1] not in result["games_without_scale"]
            else ""
        )
        + "In brackets: lowest and highest seed. MB: replay, episodic memory, "
        "consolidation and cloned network together.\n"
    )
    for g in result["games_without_scale"]:
        alone = result["single"][g]
        ends = [
            f"`{method}` " + ", ".join(f"{run['returns'][g][-1][1]:,.0f}" for run in row["runs"])
            for method, row in result["methods"].items()
        ]
        note += (
            f"\n{g} is hardly learned alone ({alone['random']:,.0f} to {alone['end']:,.0f}) and "
            "counts in none of these figures, for want of a scale; its return at the end: "
            f"{', '.join(ends)}.\n"
        )
    figure = f"\n![Forgetting curves of all methods](benchmarks/results/{name}.png)\n"
    return markdown(head, rows) + note + figure + source(name, result)


def continual_pairs() -> str:
    """Told the games and told nothing, seed by seed, in both settings that have such pairs."""
    settings = (("an update a step", "continual"), ("one in four", "continual_quickstart"))
    rows = []
    for setting, name in settings:
        result = load(name)
        told, none = (
            {run["seed"]: run for run in result["methods"][method]["runs"]}
            for method in ("engram", "engram_none")
        )
        seeds = [seed for seed in told if seed in none]
        for seed in seeds:
            pair = (told[seed], none[seed])
            ends = [" / ".join(f"{r['returns'][g][-1][1]:,.0f}" for r in pair) for g in GAMES]
            rows.append(
                [setting, str(seed), *ends, " / ".join(f"{r['average']:.2f}" for r in pair)]
            )
        gaps = [none[seed]["average"] - told[seed]["average"] for seed in seeds]
        means = [mean(runs[seed]["average"] for seed in seeds) for runs in (told, none)]
        ends = [
            " / ".join(
                f"{mean(runs[s]['returns'][g][-1][1] for s in seeds):,.0f}" for runs in (told, none)
            )
            for g in GAMES
        ]
        said = f"{means[0]:.2f} / {means[1]:.2f}, p = {sign_flips(gaps):.2f}"
        rows.append([f"**{setting}**", "mean", *ends, said])
    note = (
        "\nTold / told nothing. Games: returns at the end; average: of the scores as shares of the "
        "games trained alone, of those games that have such a scale there. p: two-sided, how often "
        "differences of these sizes with signs at random have as large a mean.\n"
    )
    return markdown(["updates", "seed", *GAMES, "average"], rows) + note


def sign_flips(gaps: Sequence[float]) -> float:
    """Exact two-sided p of the mean of paired differences, their signs drawn at random."""
    flips = itertools.product((-1, 1), repeat=len(gaps))
    sums = [abs(sum(s * g for s, g in zip(signs, gaps))) for signs in flips]
    return sum(total >= abs(sum(gaps)) - 1e-12 for total in sums) / len(sums)


def continual_alarm() -> str:
    """Scores without labels as what was wrong with them was put right, seed by seed."""
    wrong, false, since = load("continual_alarm"), load("continual_false"), load("continual")
    rows = [
        [
            label,
            str(run["seed"]),
            *(f"{run['scores_at_the_end'][game]:.2f}" for game in since["games"]),
            f"{run['average']:.2f}",
            f"{run['forgetting']:+.2f}",
        ]
        for label, result, method in (
            ("told nothing, late labels", wrong, "engram_none"),
            ("told nothing, false contexts", false, "engram_none"),
            ("told nothing", since, "engram_none"),
            ("told the games", since, "engram"),
        )
        for run in result["methods"][method]["runs"]
    ]
    head = ["`engram`", "seed", *since["games"], "average at the end", "forgetting"]
    note = "\nScores as a share of the game trained alone, as in README.\n"
    files = source("continual_alarm", wrong) + source("continual_false", false)
    return markdown(head, rows) + note + files


def continual_memory() -> str:
    result, earlier = load("continual"), load("continual_earlier")
    rows = [
        [
            f"{x['game']}, then {x['next']}",
            f"{label}, {run['seed']}",
            f"{x['left']['entries']:,.0f} / {x['after']['entries']:,.0f}",
            f"{x['after']['kept']:.0%}",
            f"{x['left']['error']:.2f} / {x['after']['error']:.2f}",
        ]
        for label, found in (
            ("all games answer", earlier),
            ("its own answer", result),
            ("keys kept up", load("continual_schedules")),
        )
        for run in found["methods"]["engram"]["runs"]
        for x in run["memory"]
    ]
    head = ["game", "`engram`, seed", "entries, left / after the next game", "moments kept",
            "error of their values"]  # fmt: skip
    note = (
        f"\nVisits of {result['steps_per_visit']:,} agent steps. Moments: 64 of the last of the "
        "visit, put aside with their returns and asked again; error: root mean square, in units of "
        "the spread of those returns. The first rows are of the memory in which the entries of all "
        "games answered for each, the last of a run that is told about below.\n\n"
        "`benchmarks/results/continual_earlier.json`, `continual.json` (as in README) and "
        "`continual_schedules.json`.\n"
    )
    return markdown(head, rows) + note


def consolidation_cost() -> str:
    result = load("consolidation_cost")
    rows = [
        [f"`{name}`", f"{row['step_ms']:.1f}", f"{row['ratio']:.2f}x", f"{row['bytes'] / 1e6:.1f}"]
        for name, row in result["rows"].items()
    ]
    head = ["consolidation", "ms an update", "ratio", "MB"]
    return markdown(head, rows) + source("consolidation_cost", result)


def engram_cost() -> str:
    result = load("engram_cost")
    ms = result["ms"]
    row = [f"{ms['reactive']:.1f}", f"{ms['engram']:.1f}", f"{result['ratio']:.2f}x"]
    head = ["ms a step of 4 agent steps and 4 updates, `reactive`", "`engram`", "ratio"]
    return markdown(head, [row]) + source("engram_cost", result)
