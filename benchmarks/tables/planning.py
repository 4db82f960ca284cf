"""Planning against reacting."""

from __future__ import annotations

from benchmarks.tables.markdown import load, markdown, source


def planning_again() -> str:
    """Depth 3 once more on other episodes, trusted wholly and by half."""
    result = load("planning_again")
    rows = []
    for run in result["runs"]:
        share = run["variants"]["beam_depth3"]["share"]
        for game, numbers in run["games"].items():
            v = numbers["variants"]["beam_depth3"]
            rows.append(
                [
                    f"{share:g}",
                    game,
                    f"{numbers['variants']['reactive']['mean']:,.0f}",
                    f"{v['mean']:,.0f}",
                    "{:+,.0f} [{:+,.0f}, {:+,.0f}]".format(*v["against_reactive"]["difference"]),
                ]
            )
        overall = run["overall"]
        iqm = ["{:.2f} [{:.2f}, {:.2f}]".format(*overall[n]["iqm"])
               for n in ("reactive", "beam_depth3")]  # fmt: skip
        rows.append([f"{share:g}", "all, IQM", *iqm, ""])
    head = ["`planner.share`", "game", "reactive", "beam, depth 3", "against reacting, 95 %"]
    return markdown(head, rows) + source("planning_again", result)


def planning_rows(run: dict) -> list[list[str]]:
    """A row for each game and variant of one report of `evaluate.py run=`."""
    rows = []
    for game, numbers in run["games"].items():
        for name, v in numbers["variants"].items():
            apart = v.get("against_reactive")
            rows.append(
                [
                    game,
                    f"`{name}`",
                    str(len(v["returns"])),
                    f"{v['mean']:,.0f}",
                    "{:+,.0f} [{:+,.0f}, {:+,.0f}]".format(*apart["difference"]) if apart else "",
                    f"{100 * v['override']:.0f} %",
                    f"{v['ms_per_decision']:.2f}",
                ]
            )
    return rows


def overall_rows(run: dict) -> list[list[str]]:
    rows = []
    for name, v in run["overall"].items():
        better, apart = v["improvement"], v.get("iqm_difference")
        chance = "P(better) {:.2f} [{:.2f}, {:.2f}]".format(*better) if better else ""
        if apart:
            chance = "{:+.2f} [{:+.2f}, {:+.2f}], ".format(*apart) + chance
        iqm = "IQM {:.2f} [{:.2f}, {:.2f}]".format(*v["iqm"])
        rows.append(["all", f"`{name}`", "", iqm, chance, "", ""])
    return rows


PLANNING = ["game", "variant", "episodes", "return", "against reacting, 95 %", "overrides",
            "ms a decision"]  # fmt: skip


def planning() -> str:
    result = load("planning")
    rows = []
    for run in result["runs"]:
        rows += planning_rows(run)
        rows += overall_rows(run)
    return markdown(PLANNING, rows) + source("planning", result)


def planning_oracle() -> str:
    """Agents of one game each, reacting and with the emulator as their model."""
    result = load("planning_oracle")
    rows = [row for run in result["runs"] for row in planning_rows(run)]
    return markdown(PLANNING, rows) + source("planning_oracle", result)


def planning_100k(name: str = "planning_100k") -> str:
    """Agents of one game each, after 100k agent steps."""
    result = load(name)
    rows = {}
    for run in result["runs"]:
        for row in planning_rows(run):
            row[1] += settings(run["variants"][row[1].strip("`")], run["seed"])
            rows.setdefault((row[0], row[1]), row)
    table = sorted(rows.values(), key=lambda row: row[0])  # stable
    over = {}
    for run in result["overall"]:
        for row in overall_rows(run):
            row[1] += settings(run["variants"][row[1].strip("`")], run["seed"])
            over.setdefault(row[1], row)
    return markdown(PLANNING, table + list(over.values())) + source(name, result)


def planning_taught() -> str:
    """The same agents, their models taught what difference an action makes."""
    head = ["game", "updates", "one-step values and q, correlation over actions",
            "same best action"]  # fmt: skip
    rows = {}
    for run in load("planning_taught")["runs"]:
        game, at = next(iter(run["games"])), run["training"]["taught"]
        for x in (at[0], at[-1]):
            same = f"{100 * x['same_best_action']:.0f} %"
            rows[game, x["update"]] = [game, f"{x['update']:,}", str(x["correlation"]), same]
    return markdown(head, list(rows.values())) + "\n" + planning_100k("planning_taught")


def settings(variant: dict, seed: int) -> str:
    """What a row says beside the name of its variant."""
    said = [f"gain {variant['gain']:g}"] if variant.get("gain") else []
    return "".join(f", {x}" for x in said + [f"seed {seed}"] * (seed != 0))


def planning_summary() -> str:
    """What a search three steps deep and the Gumbel search make of the agents of 100k steps."""
    names = ("reactive", "beam_depth3", "gumbel_8", "shuffled_depth3")
    models = {
        "planning_100k": "knows the actions taken",
        "planning_taught": "the same, taught about the others",
        "planning_advantage": "of fresh agents, taught in every update",
        "planning_fourth": "of fresh agents, taught in every fourth",
    }
    rows = []
    for source_name, model in models.items():
        result = load(source_name)
        games, over = {}, {}
        for run in result["runs"]:  # the first report of a game is that of the free searches
            for game, numbers in run["games"].items():
                games.setdefault(game, numbers["variants"])
        for run in result["overall"]:
            over = over or run["overall"]
        for game, variants in sorted(games.items()):
            cells = [f"{variants['reactive']['mean']:,.0f}"]
            for name in names[1:]:
                apart = "{:+,.0f} [{:+,.0f}, {:+,.0f}]".format(
                    *variants[name]["against_reactive"]["difference"]
                )
                cells.append(f"{variants[name]['mean']:,.0f} ({apart})")
            rows.append([model, game, *cells])
        cells = [f"{over['reactive']['iqm'][0]:.2f}"]
        for name in names[1:]:
            apart = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*over[name]["iqm_difference"])
            cells.append(f"{over[name]['iqm'][0]:.2f} ({apart})")
        rows.append([model, "all, IQM", *cells])
    head = ["model", "game", "reacting", "beam, depth 3", "Gumbel, 8 simulations",
            "beam, model told other actions"]  # fmt: skip
    return markdown(head, rows)


def planning_times() -> str:
    result = load("planning_times")
    rows = [
        [name, *(f"{row[f'{n} threads']['median_ms']:.1f}" for n in (1, 2))]
        for name, row in result["searches"].items()
    ]
    head = ["search", "ms, 1 thread", "ms, 2 threads"]
    return markdown(head, rows) + source("planning_times", result)


def world_model_cost() -> str:
    result = load("world_model_cost")
    rows = [
        [
            name,
            f"{row['none']:.1f}",
            *(
                f"{row[n]:.1f} ({row[r]:.2f}x)"
                for n, r in (("latent", "ratio"), ("always", "ratio_always"))
            ),
        ]
        for name, row in result["encoders"].items()
    ]
    head = [
        "encoder",
        "ms a step of 4 agent steps and one update",
        "with world model",
        "learning in every update",
    ]
    return markdown(head, rows) + source("world_model_cost", result)
