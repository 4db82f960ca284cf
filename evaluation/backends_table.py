"""The comparison of backends as text."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.style import short, two_digits

HEADERS = (
    "game", "backend", "return", "ratio [95 %]", "agreement", "where clear", "ms encoder",
    "ms whole", "spikes", "syn. ops",
)  # fmt: skip


def backends_table(report: Mapping) -> str:
    """Columns of text: one line a game and backend, then the energy of a decision."""
    lines = [HEADERS]
    for game, numbers in report["games"].items():
        for name, backend in numbers["backends"].items():
            lines.append((game, *_cells(name, backend, numbers)))
    out = _columns(lines)
    if report.get("left_out"):
        out.append(f"by the network's values alone, without {' and '.join(report['left_out'])}")
    energy = [line for game, n in report["games"].items() for line in _energy(game, n)]
    if energy:
        out += ["", "energy of a decision on the core, nJ:", *_columns([_HEAD, *energy])]
        out.append("a sum without the unpriced events is a lower bound; static power is left out")
    for game, numbers in report["games"].items():
        if numbers.get("core", {}).get("overflows"):
            out.append(
                f"{game}: {numbers['core']['overflows']:,} overflows on the core (wrapped currents "
                "and clipped membranes): there it does not compute what it was trained for"
            )
    bench = [(game, n["neurobench"]) for game, n in report["games"].items() if "neurobench" in n]
    if bench:
        names = [name for name in bench[0][1] if name not in ("version", "observations")]
        lines = [(game, *(f"{numbers[name]:,.4g}" for name in names)) for game, numbers in bench]
        out += ["", "NeuroBench, a decision:", *_columns([("game", *names), *lines])]
    return "\n".join(out)


def _cells(name: str, backend: Mapping, numbers: Mapping) -> tuple[str, ...]:
    paired = numbers.get("paired", {}).get(name)
    ratio = "-"
    if paired and paired["ratio"]:
        ratio = "{:.3f} [{:.2f}, {:.2f}]".format(*paired["ratio"])
    elif paired:
        ratio = "difference {:+.2f} [{:+.2f}, {:+.2f}]".format(*paired["difference"])
    agreement = ", ".join(f"{100 * a:.2f} %" for a in backend["agreement_while_playing"].values())
    shares = backend["agreement_on_clear_decisions"].values()
    clear = [f"{100 * a:.2f} %" for a in shares if a is not None]
    share = backend["clear_decisions"] / backend["decisions"]
    ms = backend["ms_per_decision"]
    core = numbers["core"] if name == "event_core" else None
    return (
        name,
        two_digits(backend["mean_return"]),
        ratio,
        agreement or "-",
        f"{', '.join(clear)} of {100 * share:.0f} %" if clear else "-",
        f"{ms['encoder']:.3f}",
        f"{ms['whole']:.3f}",
        short(sum(core["spikes"].values())) if core else "-",
        short(core["synaptic_ops"]) if core else "-",
    )


_HEAD = ("game", "price table", "nJ", "grade", "events without a price")


def _energy(game: str, numbers: Mapping) -> list[tuple[str, ...]]:
    if "core" not in numbers:
        return []
    lines = []
    for table, energy in numbers["core"]["energy"].items():
        nanojoule = energy["nanojoule"]
        unpriced = ", ".join(energy["unpriced_events"]) or "none"
        value = "-" if nanojoule is None else f"{nanojoule:,.1f}"
        lines.append((game, table, value, energy["grade"], unpriced))
    dense = numbers["core"]["dense"]
    for kind in ("fp32", "int8"):
        lines.append(
            (game, f"dense twin, {kind}", f"{dense['nanojoule'][kind]:,.1f}", "simulated",
             f"{100 * dense['ops_per_mac']:.1f} % ops per MAC, break-even under "
             f"{100 * dense['break_even'][kind]:.1f} %")
        )  # fmt: skip
    return lines


def _columns(lines: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines]
