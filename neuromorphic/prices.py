"""Energy prices of events, each with its source and its grade; what is missing has no price.

Grades, best first: "measured" (on silicon), "derived" (from a measurement), "estimate"
(published estimate), "simulated" (before silicon). A bill is as good as its worst line.
"""

from __future__ import annotations

from dataclasses import dataclass

GRADES = ("measured", "derived", "estimate", "simulated")


@dataclass(frozen=True)
class Price:
    picojoule: float
    grade: str
    source: str

    def __post_init__(self) -> None:
        if self.grade not in GRADES:
            raise ValueError(f"grade {self.grade!r} is none of {GRADES}")


@dataclass(frozen=True)
class PriceTable:
    """prices: event name -> Price. included: events whose cost another price already holds."""

    name: str
    prices: dict[str, Price]
    included: frozenset[str] = frozenset()
    static_milliwatt: Price | None = None  # a chip; here `picojoule` is read as milliwatt
    note: str = ""


_DAVIES = "Davies et al. 2018, IEEE Micro 38(1), table 2"
_STROMATIAS = (
    "Stromatias et al. 2013, IJCNN, 'Power analysis of large-scale, real-time neural networks on "
    "SpiNNaker'"
)
_HOEPPNER = (
    "Hoeppner et al. 2021, arXiv 2103.08392, 'The SpiNNaker 2 processing element architecture for "
    "hybrid digital neuromorphic computing'"
)
_HOROWITZ = "Horowitz 2014, ISSCC, 45 nm"
_ALL_EVENTS = frozenset(
    {
        "neuron_update_driven",
        "neuron_update_idle",
        "neuron_update_pipeline",
        "spike_message",
        "hop_east_west",
        "hop_north_south",
    }
)


def _davies(picojoule: float) -> Price:
    return Price(picojoule, "simulated", _DAVIES)


TABLES: dict[str, PriceTable] = {
    table.name: table
    for table in (
        PriceTable(
            "loihi1",
            {
                "synaptic_op": _davies(23.6),
                "neuron_update_driven": _davies(81.0),
                "neuron_update_idle": _davies(52.0),
                "neuron_update_pipeline": _davies(52.0),
                "spike_message": _davies(1.7),
                "hop_east_west": _davies(3.0),
                "hop_north_south": _davies(4.0),
                "stdp_update": _davies(120.0),
            },
            static_milliwatt=Price(104.0, "derived", "Frady et al. 2020, a measurement"),
        ),
        PriceTable("loihi2", {}, note="no energy per event has been published"),
        PriceTable(
            "truenorth",
            {"synaptic_op": Price(26.0, "measured", "Merolla et al. 2014, Science 345, all in")},
            included=_ALL_EVENTS,
            note="26 pJ holds everything; hops are never added to it",
        ),
        PriceTable(
            "spinnaker1",
            {"synaptic_op": Price(13300.0, "measured", _STROMATIAS)},
            note="software on ARM cores: reviews print 11.3 to 26.6 nJ",
        ),
        PriceTable(
            "spinnaker2",
            {"synaptic_op": Price(450.0, "estimate", _HOEPPNER)},
            note="software on ARM cores: a review prints 10 pJ for the same paper",
        ),
        PriceTable(
            "ac45nm_fp32",
            {"synaptic_op": Price(0.9, "simulated", _HOROWITZ)},
            note="one addition, also where events carry numbers: no memory, no routing, no control",
        ),
        PriceTable(
            "ac45nm_int8",
            {"synaptic_op": Price(0.03, "simulated", _HOROWITZ)},
            note="one addition, also where events carry numbers: no memory, no routing, no control",
        ),
    )
}

# a dense network's multiply-accumulate, arithmetic alone
MAC = {
    "fp32": Price(4.6, "simulated", _HOROWITZ),
    "fp16": Price(1.5, "simulated", _HOROWITZ),
    "int8": Price(0.23, "simulated", _HOROWITZ),
}
