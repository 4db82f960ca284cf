"""Fill the tables of README and of docs/*.md from benchmarks/results/*.json.

    python benchmarks/readme.py            # rewrite the tables in place
    python benchmarks/readme.py --check    # exit 1 if a table is out of date (a test does this)

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; nothing does until it is recorded.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)


def load(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def source(name: str, result: dict) -> str:
    machine = result.get("machine")
    if isinstance(machine, dict) and "processor" in machine:
        threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
        where = f" on {threads} of {machine['processor']}"
    elif isinstance(machine, dict):
        where = f" on {machine['cores']} cores of {machine['cpu']}"
    else:
        where = f" on {machine}" if machine else ""
    if len(result["command"]) <= 120:
        return f"\n`benchmarks/results/{name}.json`: `{result['command']}`{where}.\n"
    commands = "\n".join(dict.fromkeys(result["command"].split(" && ")))
    return (
        f"\n<details><summary><code>benchmarks/results/{name}.json</code>{where}: how it was made"
        f"</summary>\n\n```\n{commands}\n```\n\n</details>\n"
    )


def throughput() -> str:
    result = load("throughput")
    labels = {
        "engram_spiking": "Engram `reactive`, spiking encoder",
        "engram_conv": "Engram `reactive`, ReLU twin",
        "sb3_dqn_nature": "Stable-Baselines3 DQN, Nature CNN",
    }
    rows = [
        [label, f"{result['median_agent_steps_per_s'][side]:.0f}", f"{ratio:.1f}x"]
        for side, label in labels.items()
        for ratio in [result["ratio_to_sb3"][side]]
    ]
    return markdown(["", "agent steps/s", "against SB3"], rows) + source("throughput", result)


def atari100k(all_variants: bool = False) -> str:
    """The agent with and without the world model's losses, or all that has been tried."""
    result = load("atari100k")
    labels = {
        "": "`reactive`",
        "self_prediction": "with self-prediction",
        "advantage": "with self-prediction, whole model",
    }
    if all_variants:
        labels |= {
            "fine": "with the encoder size `fine`",
            "long_return": "with n = 10 to the end",
            "constant_target": "constant target",
            "explored_alike": "constant target, one epsilon for all",
            "constant_self_prediction": "constant target, self-prediction",
            "normalised": "constant target, normalisation",
        }
    rows = []
    for game, row in result["table"].items():
        for variant, label in labels.items():
            cells = [row.get(f"{encoder} {variant}".strip()) for encoder in ("conv", "spiking")]
            if any(cells):
                digits = 1 if max(row["published"].values()) < 100 else 0
                ours = [
                    ", ".join(f"{s:,.{digits}f}" for s in c["seeds"]) if c else "-" for c in cells
                ]
                others = [f"{v:,.{digits}f}" for v in row["published"].values()]
                rows.append([game, label, *ours, *others])
    published = [
        name.replace("_eps", "(eps)") for name in next(iter(result["table"].values()))["published"]
    ]
    head = ["return at 100k agent steps", "agent", "conv (each seed)", "spiking", *published]
    return markdown(head, rows) + source("atari100k", result)


def encoder() -> str:
    result = load("encoder")
    rows = []
    for size, cell in result["sizes"].items():
        spiking, conv, ratio = (cell[k] for k in ("spiking", "conv", "ratio spiking / conv"))
        rows.append(
            [size]
            + [f"{spiking[k]:.1f} / {conv[k]:.1f}" for k in ("forward", "step", "double_q")]
            + [f"{ratio['step']:.2f}x", f"{ratio['double_q']:.2f}x"]
        )
    head = ["size", "forward", "training step", "double-Q update", "step ratio", "update ratio"]
    note = "\nMilliseconds, spiking / ReLU twin, batch 32, one thread.\n"
    return markdown(head, rows) + note + source("encoder", result)


def evaluation_throughput() -> str:
    result = load("evaluation_throughput")
    policies = {"random": "random actions", "der": "conv network of DER size"}
    rows = [
        [
            row["game"],
            policies[row["policy"]],
            f"{row['evaluation_steps_per_s']:,}",
            f"{row['bare_steps_per_s']:,}",
            f"{row['ratio']:.2f}x",
            f"{row['cpu_ratio']:.2f}x",
        ]
        for row in result["results"]
    ]
    head = ["game", "policy", "evaluation", "bare", "ratio", "ratio of processor time"]
    return markdown(head, rows) + source("evaluation_throughput", result)


def replay() -> str:
    result = load("replay")
    sample, saved = result["sample_ms"], result["checkpoint"]
    rows = [
        ["sample 32 transitions, n = 10", f"{sample['uniform']['median']:.2f} ms"],
        ["the same with random shifts", f"{sample['uniform_shift_4']['median']:.2f} ms"],
        ["memory of 1e5 transitions", f"{result['memory_bytes']['full'] / 1e9:.2f} GB"],
        ["first checkpoint of a full replay", f"{saved['first_seconds']:.1f} s"],
        [
            f"checkpoint {saved['new_agent_steps']:,} agent steps later",
            f"{saved['later_seconds_median']:.2f} s",
        ],
    ]
    return markdown(["", ""], rows) + source("replay", result)


def quickstart() -> str:
    result = load("quickstart")
    rows = [[*row] for row in result["table"]]
    tail = f"\n{result['seconds'] / 60:.1f} minutes of training and evaluation.\n"
    return markdown(result["head"], rows) + tail + source("quickstart", result)


def laptop_memory() -> str:
    result = load("laptop_memory")
    rows = [["peak memory with a full replay", f"{result['peak_memory_mb'] / 1e3:.2f} GB"]]
    if (growth := result.get("growth_mb_per_100k_steps")) is not None:
        rows.append(["growth from there, in 100k agent steps", f"{growth / 1e3:.3f} GB"])
    return markdown(["", ""], rows) + source("laptop_memory", result)


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
        "planning_advantage": "of fresh agents, taught from the start",
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
        [name, f"{row['none']:.1f}", f"{row['latent']:.1f}", f"{row['ratio']:.2f}x"]
        for name, row in result["encoders"].items()
    ]
    head = ["encoder", "ms a step of 4 agent steps and one update", "with world model", "ratio"]
    return markdown(head, rows) + source("world_model_cost", result)


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

    def earlier(row: dict) -> float:
        """Mean forgetting of the games that something was trained after (Chaudhry 2018)."""
        last = result["games"][-1]  # may have no scale
        lost = [
            value
            for run in row["runs"]
            for game, value in run["forgetting_by_game"].items()
            if game != last
        ]
        return sum(lost) / len(lost)

    rows = []
    for method, row in result["methods"].items():
        m = row["mean"]
        rows.append(
            [
                f"`{method}`",
                str(len(row["runs"])),
                over_seeds(row, "average"),
                over_seeds(row, "forgetting", "+"),
                cell(earlier(row), sign="+"),
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
        "Forgetting counts the last game, after which nothing is trained, as 0; the column beside "
        "it leaves that out. In brackets: lowest and highest seed. MB: replay, episodic memory, "
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


def continual_memory() -> str:
    result = load("continual")
    rows = [
        [
            f"{x['game']}, then {x['next']}",
            f"`{method}`, {run['seed']}",
            f"{x['left']['entries']:,.0f} / {x['after']['entries']:,.0f}",
            f"{x['after']['kept']:.0%}",
            f"{x['left']['error']:.2f} / {x['after']['error']:.2f}",
        ]
        for method in ("engram_shared_recall", "engram")
        for run in result["methods"].get(method, {"runs": []})["runs"]
        for x in run["memory"]
    ]
    head = ["game", "method, seed", "entries, left / after the next game", "moments kept",
            "error of their values"]  # fmt: skip
    note = (
        f"\nVisits of {result['steps_per_visit']:,} agent steps. Moments: 64 of the last of the "
        "visit, put aside with their returns and asked again; error: root mean square, in units of "
        "the spread of those returns.\n\n`benchmarks/results/continual.json`, as in README.\n"
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


def event_core() -> str:
    result = load("event_core")
    rows = [
        [f"synaptic events/s, {label}, 5 % activity", f"{result[key]:.1e}"]
        for label, key in (
            ("fully connected", "dense_events_per_s_at_5_percent"),
            ("convolution", "conv_events_per_s_at_5_percent"),
        )
    ]
    rows.append(["an empty time step", f"{result['decision']['1']['empty_step_ms'] * 1e3:.1f} µs"])
    for synapses, decision in result["decision"].items():
        times = [game["milliseconds"] for game in decision["games"].values()]

        def against(name: str, times: list[dict] = times) -> str:
            ratios = [ms[name] / ms["core"] for ms in times]
            return f"{min(ratios):.1f}x to {max(ratios):.1f}x"

        ours = [ms["core"] for ms in times]
        rows += [
            [
                f"one decision on real frames, batch 1, synapses a weight: {synapses}",
                f"{min(ours):.3f} to {max(ours):.3f} ms",
            ],
            ["dense PyTorch, as matrix products, takes longer by", against("torch_dense_gemm")],
            ["this project's own float encoder takes longer by", against("project_fused_encoder")],
        ]
    return markdown(["", ""], rows) + source("event_core", result)


def core_peers() -> str:
    result = load("core_peers")
    network = result["network"]
    rows = [
        [
            f"{name} {row.get('version', '')}".strip(),
            f"{row['seconds'] * 1e3:.1f}",
            f"{row['events_per_s']:.1e}",
            f"{row['engram_is_faster_by']:.1f}x",
        ]
        for name, row in result["rows"].items()
    ]
    note = (
        f"\n{network['inputs']:,} inputs, {network['neurons']:,} neurons, fully connected, "
        f"{network['steps']} steps at {100 * network['activity']:.0f} % activity.\n"
    )
    head = ["simulator", "ms", "synaptic events/s", "Engram is faster by"]
    return markdown(head, rows) + note + source("core_peers", result)


def core_equality(name: str = "core_equality") -> str:
    result = load(name)
    keys = ("frames", "spikes", "spikes_that_differ", "latents_that_differ")
    rows = [
        [synapses, game, *(f"{row[key]:,}" for key in keys)]
        for synapses, table in result["synapses"].items()
        for game, row in (*table["games"].items(), ("all", table["total"]))
    ]
    head = ["8-bit synapses a weight", "game", "frames", "spikes", "differ", "latents that differ"]
    return markdown(head, rows) + source(name, result)


def core_return() -> str:
    result = load("core_return")
    rows = []
    for synapses, table in result["synapses"].items():
        for game, row in (*table["games"].items(), ("all", table["all"])):
            ratio = "-" if row["ratio"] is None else "{:.2f} [{:.2f}, {:.2f}]".format(*row["ratio"])
            means = [
                f"{sum(row['returns'][name]) / len(row['returns'][name]):,.0f}"
                if "returns" in row
                else ""
                for name in ("torch", "event_core")
            ]
            agreement = f"{100 * row['agreement']:.2f} %"
            rows.append([synapses, game, *means, ratio, agreement, f"{row['decisions']:,}"])
    head = [
        "8-bit synapses a weight", "game", "return, PyTorch", "return, core", "ratio [95 %]",
        "equal actions", "decisions",
    ]  # fmt: skip
    note = f"\nOne `{result['run']['agent']}` agent, {result['episodes']} paired episodes a game.\n"
    return markdown(head, rows) + note + source("core_return", result)


def plastic_readout() -> str:
    result = load("plastic_readout")
    rows = []
    for mode, runs in result["courses"].items():
        cells = [
            f"{sum(ends) / len(ends):+.2f} ({min(ends):+.2f} to {max(ends):+.2f})"
            for ends in ([run[end] for run in runs] for end in ("first", "last"))
        ]
        events = runs[0]["readout"]["events_per_decision"]
        rows.append(
            [
                mode,
                *cells,
                f"{events.get('stdp_update', 0):,.0f}",
                f"{events.get('weight_update', 0):.0f}",
            ]
        )
    head = [
        f"{len(rows)} x {len(runs)} courses", f"return, first {result['window']} episodes",
        f"last {result['window']}", "STDP updates a decision", "weight updates",
    ]  # fmt: skip
    return markdown(head, rows) + source("plastic_readout", result)


def episodic() -> str:
    result = load("episodic")
    rows = [
        [
            f"{row['entries']:,}",
            f"{row['read']['cells']['best_us']:.0f}",
            f"{row['read']['cells']['recall']:.3f}",
            f"{row['read']['flat']['best_us']:.0f}",
            f"{row['speedup_over_knn']:.0f}x",
            f"{row['write']['mean_us']:.0f} / {row['overwrite']['mean_us']:.0f}",
        ]
        for row in result["single"]
    ]
    head = ["entries", "µs a query", "recall@50", "exact index", "faster than `faiss.knn` by",
            "µs to write / overwrite an entry"]  # fmt: skip
    note = f"\nKeys: {result['keys']}. {result['setting']}.\n"
    return markdown(head, rows) + note + source("episodic", result)


def episodic_share() -> str:
    result = load("episodic_share")
    ms = result["median_ms"]
    head = ["ms a step of 4 agent steps and 4 updates, `reactive`", "`episodic`", "share of memory"]
    row = [f"{ms['reactive']:.1f}", f"{ms['episodic']:.1f}", f"{100 * result['share']:.1f} %"]
    return markdown(head, [row]) + source("episodic_share", result)


def episodic_agents() -> str:
    result = load("episodic_agents")
    medians = result["median_hns"]
    held = {agent for row in result["table"].values() for agent in row}
    agents = [a for a in ("reactive", "episodic", "mfec", "nec") if a in held]

    def digits(score: float) -> int:
        return 0 if abs(score) >= 100 else 1

    def shown(cell: dict | None) -> str:
        if cell is None:
            return "-"
        mean = f"{cell['mean']:,.{digits(cell['mean'])}f}"
        return mean + (f" ({n} seeds)" if (n := len(cell["seeds"])) > 1 else "")

    rows = [
        [game, *(shown(row.get(agent)) for agent in agents)]
        for game, row in result["table"].items()
    ]
    rows.append(
        [
            "median HNS of " + ", ".join(result["median_games"]),
            *(f"{100 * medians[a]:.1f} %" if a in medians else "-" for a in agents),
        ]
    )
    head = ["return at 100k agent steps", *(f"`{a}`" for a in agents)]
    table = markdown(head, rows)
    silent = [
        [
            run["game"],
            f"{run['score']:,.{d}f}",
            f"{alone['score']:,.{d}f}",
            f"{alone['gain_of_memory']:+,.{d}f} ± {alone['standard_error']:,.{d}f}",
        ]
        for run in result["runs"]
        if (alone := run.get("without_memory"))
        for d in [digits(run["score"])]
    ]
    if silent:
        head = ["`episodic`, the same weights and episodes", "with its memory", "memory silent",
                "memory adds (± standard error)"]  # fmt: skip
        table += "\n" + markdown(head, silent)
    return table + source("episodic_agents", result)


TABLES: dict[str, Callable[[], str]] = {
    "throughput": throughput,
    "atari100k": atari100k,
    "atari100k_all": lambda: atari100k(all_variants=True),
    "encoder": encoder,
    "evaluation_throughput": evaluation_throughput,
    "replay": replay,
    "quickstart": quickstart,
    "laptop_memory": laptop_memory,
    "continual": continual,
    "continual_long": lambda: continual("continual_long"),
    "continual_memory": continual_memory,
    "consolidation_cost": consolidation_cost,
    "change_detection": change_detection,
    "engram_cost": engram_cost,
    "planning": planning,
    "planning_again": planning_again,
    "planning_oracle": planning_oracle,
    "planning_100k": planning_100k,
    "planning_taught": planning_taught,
    "planning_advantage": lambda: planning_100k("planning_advantage"),
    "planning_summary": planning_summary,
    "planning_times": planning_times,
    "world_model_cost": world_model_cost,
    "event_core": event_core,
    "core_peers": core_peers,
    "core_equality": core_equality,
    "core_equality_trained": lambda: core_equality("core_equality_trained"),
    "core_return": core_return,
    "plastic_readout": plastic_readout,
    "episodic": episodic,
    "episodic_share": episodic_share,
    "episodic_agents": episodic_agents,
}


# Tables made from the results of another.
FROM = {
    "continual_memory": "continual",
    "atari100k_all": "atari100k",
    "planning_summary": "planning_advantage",
}


def fill(text: str, page: Path = PAGES[0]) -> str:
    """`text` of a page with its tables made anew; pictures are named as seen from there."""

    def table(match: re.Match[str]) -> str:
        made = TABLES[match[2]]() if recorded(match[2]) else ""
        up = "../" * len(page.relative_to(ROOT).parent.parts)
        return match[1] + made.replace("](benchmarks/", f"]({up}benchmarks/") + match[3]

    return MARK.sub(table, text)


def recorded(name: str) -> bool:
    return (ROOT / "benchmarks" / "results" / f"{FROM.get(name, name)}.json").exists()


def main() -> None:
    for page in PAGES:
        old = page.read_text()
        new = fill(old, page)
        if "--check" in sys.argv:
            if old != new:
                sys.exit(f"{page.name} is out of date: python benchmarks/readme.py")
        else:
            page.write_text(new)


if __name__ == "__main__":
    main()
