"""What the recorded benchmarks say, in a line for each question."""

from __future__ import annotations

from statistics import mean

from benchmarks.tables.continual import earlier_forgetting
from benchmarks.tables.markdown import load, markdown


def findings() -> str:
    rows = [
        ("Does it forget?", forgetting(), "[Continual learning](#continual-learning)"),
        ("Must it be told which game it plays?", labels(), "[Without labels](#without-labels)"),
        ("Does planning beat reacting?", planning(), "[Planning](#planning)"),
        ("Which memory helps?", memory(), "[Episodic memory](#episodic-memory)"),
        ("Where does it stand beside published agents?", published(), "[Measured](#measured)"),
        ("What do spikes cost?", spikes(), "[Measured](#measured)"),
        (
            "What would a neuromorphic chip make of it?",
            core(),
            "[The spike-event core](#the-spike-event-core)",
        ),
    ]
    return markdown(["question", "measured", "more"], [list(row) for row in rows])


def forgetting() -> str:
    result = load("continual")
    methods = result["methods"]

    def says(name: str) -> str:
        row = methods[name]
        return (
            f"`{name}` {row['mean']['average']:.2f}, {row['mean']['forgetting']:+.2f} "
            f"({earlier_forgetting(result, row):+.2f}), {len(row['runs'])} seeds"
        )

    said = "; ".join(says(name) for name in ("finetune", "cloning", "engram"))
    return (
        "average at the end and forgetting (of all but the last game), as shares of the games "
        f"trained alone: {said}"
    )


def labels() -> str:
    methods, change = load("continual")["methods"], load("change_detection")["signals"]["screen"]
    told, none = (methods[name]["mean"]["average"] for name in ("engram", "engram_none"))
    seeds = len(methods["engram_none"]["runs"])
    quick = load("continual_quickstart")["methods"]
    quick_told, quick_none = (quick[name]["mean"]["average"] for name in ("engram", "engram_none"))
    quick_seeds = len(quick["engram_none"]["runs"])
    return (
        f"`engram` told nothing ends at {none:.2f}, told at {told:.2f} ({seeds} seeds each), with "
        f"quickstart's settings at {quick_none:.2f} and {quick_told:.2f} ({quick_seeds} each); "
        f"{change['changes'] - change['missed']} of {change['changes']} changes noticed, median "
        f"delay {change['delay_median']:.0f} agent steps, {change['false_alarms']} false alarms in "
        f"{change['agent_steps']:,}"
    )


def planning() -> str:
    def gain(name: str, variant: str) -> str:
        over = load(name)["overall"][0]["overall"]
        low_high = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*over[variant]["iqm_difference"])
        return low_high

    def both(name: str) -> str:
        return f"Gumbel {gain(name, 'gumbel_8')}, beam {gain(name, 'beam_depth3')}"

    oracle = ", ".join(
        f"{game} {v['oracle_depth5']['mean'] - apart:,.0f} and {v['oracle_depth5']['mean']:,.0f}"
        for name in ("planning_oracle", "planning_100k")
        for run in load(name)["runs"]
        for game, numbers in run["games"].items()
        for v in [numbers["variants"]]
        if "oracle_depth5" in v
        for apart in [v["oracle_depth5"]["against_reactive"]["difference"][0]]  # same episodes
    )
    return (
        "IQM of HNS over two games against reacting [95 %], model learned in every update: "
        f"{both('planning_advantage')}; in every fourth, the default: {both('planning_fourth')}; "
        f"returns reacting and with the emulator as model: {oracle}"
    )


def memory() -> str:
    result = load("episodic_agents")
    table = result["table"]

    def ahead(name: str) -> str:
        there = [row for row in table.values() if name in row]
        wins = sum(row[name]["mean"] > row["reactive"]["mean"] for row in there)
        return f"`{name}` on {wins} of {len(there)}"

    adds = ", ".join(
        f"{run['game']} {alone['gain_of_memory']:+,.0f} ± {alone['standard_error']:,.0f}"
        for run in result["runs"]
        if (alone := run.get("without_memory"))
    )
    return (
        f"games on which it is ahead of `reactive`: "
        f"{', '.join(map(ahead, ('episodic', 'mfec', 'nec')))}; what its memory adds to the same "
        f"weights of `episodic`: {adds}"
    )


def published() -> str:
    table = load("atari100k")["table"]
    presets = {
        "`reactive`, spiking": "spiking",
        "its ReLU twin": "conv",
        "`reactive` with graded spikes": "spiking graded",
        "`augmented`, spiking": "spiking augmented",
        "`drq` with the ReLU encoder": "conv drq",
        "`drq`, spiking": "spiking drq_held",
    }
    said = []
    for label, column in presets.items():
        there = [row for row in table.values() if row[column]]
        above = {
            rival: sum(row[column]["mean"] > row["published"][rival] for row in there)
            for rival in ("DrQ_eps", "SPR")
        }
        if there:
            said.append(f"{label} {above['DrQ_eps']} and {above['SPR']} of {len(there)}")
    return (
        f"at 100k agent steps, of {', '.join(table)}, those above DrQ(eps) and those above SPR: "
        + "; ".join(said)
    )


def spikes() -> str:
    results = [load("encoder"), load("encoder_amd")]
    steps, updates = (
        " and ".join(f"{r['sizes']['der']['ratio spiking / conv'][k]:.2f}x" for r in results)
        for k in ("step", "double_q")
    )
    return (
        f"a training step of the encoder takes {steps} that of its ReLU twin, a whole double-Q "
        f"update {updates} ({' and '.join(r['machine'] for r in results)})"
    )


def core() -> str:
    two = load("core_return")["synapses"]["2"]
    agreement, ratio = two["all"]["agreement"], two["all"]["ratio"]
    energy = mean(game["nanojoule_loihi1"] for game in two["games"].values()) / 1000
    speed = load("event_core")["dense_events_per_s_at_5_percent"]
    return (
        f"{agreement:.1%} of its decisions stay the same on the simulated core, and "
        "{:.2f} [{:.2f}, {:.2f}] of its return".format(*ratio)
        + f"; at least {energy:.0f} µJ a decision (the events of a Loihi 2 program at the prices "
        "published for Loihi 1, frames and what is read back without one); simulated at "
        f"{speed:.1e} synaptic events a second on one thread"
    )
