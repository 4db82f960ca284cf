"""Episodic memory and the agents that act on it."""

from __future__ import annotations

from benchmarks.tables.markdown import load, markdown, source


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
    agents = [a for a in ("reactive", "episodic", "mfec", "nec", "nec_often") if a in held]

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
    names = {"nec_often": "`nec`, an update a step"}
    head = ["return at 100k agent steps", *(names.get(a, f"`{a}`") for a in agents)]
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
