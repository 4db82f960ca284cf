"""Training: scores at 100k agent steps, speed, encoders, evaluation, replay, memory."""

from __future__ import annotations

from benchmarks.tables.markdown import load, markdown, source


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


def gpu() -> str:
    """Training on a GPU beside one CPU thread of its machine."""
    result = load("gpu")

    def number(rate: float) -> str:
        return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"

    rows = [
        [
            name,
            f"{row['updates_per_step']:g}",
            number(row["cpu"]),
            number(row["eager"]) if "eager" in row else "-",
            number(row["graph"]),
            f"{row['graph_over_cpu']:.1f}x",
        ]
        for name, row in result["agents"].items()
    ]
    head = ["agent, encoder", "updates a step", "CPU", "GPU, eager", "GPU", "GPU / CPU"]
    card = f"\nAgent steps/s. GPU: {result['machine']['gpu']}.\n"
    return markdown(head, rows) + card + source("gpu", result)


def atari100k(all_variants: bool = False) -> str:
    """The agent with and without the world model's losses, or all that has been tried."""
    result = load("atari100k")
    labels = {
        "": "`reactive`",
        "graded": "with graded spikes",
        "world_model": "with the world model",
        "advantage": "with the world model, in every update",
        "self_prediction": "with self-prediction, in every update",
        "self_prediction_first": "with self-prediction, first half",
        "episodic_first": "`episodic`, with self-prediction, first half",
        "augmented": "`augmented`",
        "augmented_first": "`augmented`, with self-prediction, first half",
        "drq": "`drq`",
        "drq_held": "`drq`, epsilon held until it learns",
        "drq_calibrated": "`drq`, our initialisation",
    }
    if all_variants:
        labels |= {
            "graded_first": "with graded spikes, self-prediction, first half",
            "graded_drq": "`drq` with graded spikes",
            "changes": "that also sees changes",
            "changes_first": "that also sees changes, with self-prediction, first half",
            "changes_augmented": "`augmented` that also sees changes",
            "reset": "two updates a step, with resets",
            "wide": "with twice the channels",
            "wide_first": "with twice the channels and self-prediction, first half",
            "fine": "with the encoder size `fine`",
            "nature": "with the encoder size `nature`",
            "judged_as_is": "`augmented`, judged by the network that learns",
            "long_return": "with n = 10 to the end",
            "constant_target": "constant target",
            "explored_alike": "constant target, one epsilon for all",
            "constant_self_prediction": "constant target, self-prediction, in every update",
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


RATIOS = ("step", "double_q")
ALSO = ("changes", "graded")


def encoder() -> str:
    result, amd = load("encoder"), load("encoder_amd")
    rows = []
    for size, cell in result["sizes"].items():
        spiking, conv, ratio = (cell[k] for k in ("spiking", "conv", "ratio spiking / conv"))
        rows.append(
            [size]
            + [f"{spiking[k]:.1f} / {conv[k]:.1f}" for k in ("forward", "step", "double_q")]
            + [f"{ratio[k]:.2f}x" for k in RATIOS]
            + [f"{amd['sizes'][size]['ratio spiking / conv'][k]:.2f}x" for k in RATIOS]
            + [f"{cell[f'ratio spiking, {k} / spiking']['step']:.2f}x" for k in ALSO]
        )
    head = ["size", "forward", "training step", "double-Q update", "step ratio", "update ratio"]
    head += [f"{name} on {amd['machine']}" for name in head[4:]]
    head += ["step with changes", "with graded spikes"]
    note = (
        "\nMilliseconds, spiking / ReLU twin, batch 32, one thread; last columns: "
        "`encoder.changes=true` and `encoder.graded=true` against the spiking encoder without.\n"
    )
    sources = source("encoder", result) + source("encoder_amd", amd)
    return markdown(head, rows) + note + sources


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
    minutes = result["seconds"] / 60
    tail = f"\n{minutes:.1f} minutes of training and evaluation, but for the last one.\n"
    if others := result.get("other_seeds"):
        seeds = ", ".join(str(run["seed"]) for run in others)
        ends = {g: ", ".join(f"{run['end'][g]:,.0f}" for run in others) for g in others[0]["end"]}
        by_game = "; ".join(f"{game} {end}" for game, end in ends.items())
        tail += f"\nOther seeds ({seeds}) end at: {by_game}.\n"
    return markdown(result["head"], rows) + tail + source("quickstart", result)


def laptop_memory() -> str:
    result = load("laptop_memory")
    rows = [["peak memory with a full replay", f"{result['peak_memory_mb'] / 1e3:.2f} GB"]]
    if (growth := result.get("growth_mb_per_100k_steps")) is not None:
        rows.append(["growth from there, in 100k agent steps", f"{growth / 1e3:.3f} GB"])
    return markdown(["", ""], rows) + source("laptop_memory", result)
