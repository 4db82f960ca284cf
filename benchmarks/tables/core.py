"""The spike-event core."""

from __future__ import annotations

from benchmarks.tables.markdown import load, markdown, source


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
