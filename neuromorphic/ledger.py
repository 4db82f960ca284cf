"""The ledger: integer counts of every kind of event, and their bill under a price table.

Counts are facts of the program and its input; energy is an opinion about them. So a ledger holds
integers only, and `bill` multiplies them with a table whose lines carry source and grade. An event
that occurred and has no price is listed as unpriced, never taken as free.

    driven, idle    neuron steps with and without input in the T steps of a decision
    pipeline        neuron steps while the layers below fill or the layers above drain: layer l
                    works on frame t at chip step t + l, and a chip updates every neuron each step
    spike_message   one per spike and core that needs it; chip_crossing those that leave the chip
    frame_event     what the host must inject: one for each value of a frame that is not black and
                    each core that reads it (where spikes are not graded: one for each set bit);
                    values that no core reads, in a cropped border, are not sent
    readout_event   what the host must read: one for each spike of the last layer
    loser_reset, noise_drive, reward_signal
                    of a plastic readout: membranes that a winner's spike resets, random drives,
                    rewards broadcast to all synapses
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .prices import GRADES, MAC, TABLES, PriceTable

LAYER_EVENTS = (
    "input_event",
    "synaptic_op",
    "neuron_update_driven",
    "neuron_update_idle",
    "neuron_update_pipeline",
    "spike",
    "current_wrap",
    "membrane_saturation",
)
HOST_EVENTS = ("frame_event", "readout_event")
ROUTE_EVENTS = ("spike_message", "hop_east_west", "hop_north_south", "chip_crossing", *HOST_EVENTS)
LEARNING_EVENTS = (
    "stdp_update",
    "eligibility_update",
    "weight_update",
    "trace_update",
    "reward_signal",
)
READOUT_EVENTS = ("loser_reset", "noise_drive")
OVERFLOWS = ("current_wrap", "membrane_saturation", "weight_clip", "eligibility_clip")
# accidents, or the same thing as another line: they have no cost of their own
NOT_BILLED = frozenset({*OVERFLOWS, "spike", "input_event"})
EVENTS = tuple(
    dict.fromkeys((*LAYER_EVENTS, *ROUTE_EVENTS, *LEARNING_EVENTS, *READOUT_EVENTS, *OVERFLOWS))
)


@dataclass(frozen=True)
class Line:
    event: str
    count: int
    picojoule: float
    grade: str
    source: str


@dataclass(frozen=True)
class Bill:
    """Energy of a ledger. `unpriced`: events that happened and that the table has no price for."""

    table: str
    lines: tuple[Line, ...]
    unpriced: tuple[tuple[str, int], ...]
    decisions: int
    static_milliwatt: float | None
    note: str = ""

    @property
    def picojoule(self) -> float:
        """Sum of the priced lines: a lower bound while `unpriced` is not empty."""
        return sum(line.picojoule for line in self.lines)

    @property
    def picojoule_per_decision(self) -> float:
        return self.picojoule / max(1, self.decisions)

    @property
    def grade(self) -> str:
        """The worst grade among the lines, or "unpriced" where there are none."""
        grades = [line.grade for line in self.lines]
        return max(grades, key=GRADES.index) if grades else "unpriced"


@dataclass(frozen=True)
class BreakEven:
    """Synaptic operations of the spiking network against the MACs of its dense twin.

    ratio: synaptic operations, summed over T, per MAC of the twin that reads the T frames as
    channels and computes every later layer once. limits: the ratio below which spikes cost less
    than a MAC of that number format; both are stated since the FP32 one flatters.
    """

    synaptic_ops: int
    macs: int
    limits: Mapping[str, float]

    @property
    def ratio(self) -> float:
        return self.synaptic_ops / max(1, self.macs)


@dataclass(frozen=True)
class Ledger:
    """Counts of `decisions` decisions. layers: one dict of LAYER_EVENTS a layer; other: the rest.

    macs_per_step: dense multiply-accumulates of each layer for one time step.
    """

    decisions: int
    time_steps: int
    layers: tuple[dict[str, int], ...]
    other: dict[str, int] = field(default_factory=dict)
    macs_per_step: tuple[int, ...] = ()

    def __getitem__(self, event: str) -> int:
        """The count of one event over all layers."""
        if event not in EVENTS:
            raise KeyError(event)
        return sum(layer.get(event, 0) for layer in self.layers) + self.other.get(event, 0)

    def __add__(self, other: Ledger) -> Ledger:
        if (self.time_steps, self.macs_per_step) != (other.time_steps, other.macs_per_step):
            raise ValueError("ledgers of different programs do not add up")
        events = {*self.other, *other.other}
        return Ledger(
            self.decisions + other.decisions,
            self.time_steps,
            tuple({e: a[e] + b[e] for e in a} for a, b in zip(self.layers, other.layers)),
            {e: self.other.get(e, 0) + other.other.get(e, 0) for e in sorted(events)},
            self.macs_per_step,
        )

    def counts(self) -> dict[str, int]:
        """Every event that happened, with its count."""
        return {event: self[event] for event in EVENTS if self[event]}

    @property
    def overflows(self) -> int:
        """Wrapped currents, clipped membranes, weights and eligibilities.

        0 in a sound program; a rule with hard bounds clips the weights that it drives there.
        """
        return sum(self[event] for event in OVERFLOWS)

    def bill(self, table: PriceTable | str) -> Bill:
        """Counts times prices. A table is given whole or by name."""
        if isinstance(table, str):
            if table not in TABLES:
                raise ValueError(f"price table {table!r} is none of {sorted(TABLES)}")
            table = TABLES[table]
        lines, unpriced = [], []
        for event, count in self.counts().items():
            price = table.prices.get(event)
            if price is not None:
                lines.append(Line(event, count, count * price.picojoule, price.grade, price.source))
            elif event not in table.included and event not in NOT_BILLED:
                unpriced.append((event, count))
        static = table.static_milliwatt.picojoule if table.static_milliwatt else None
        return Bill(table.name, tuple(lines), tuple(unpriced), self.decisions, static, table.note)

    def break_even(self, table: PriceTable | str = "loihi1") -> BreakEven:
        """Compare with the dense twin. Raises ValueError where the table has no synaptic price."""
        table = TABLES[table] if isinstance(table, str) else table
        price = table.prices.get("synaptic_op")
        if price is None:
            raise ValueError(f"price table {table.name!r} has no price for a synaptic operation")
        steps = self.time_steps
        once = sum(self.macs_per_step[1:]) + steps * sum(self.macs_per_step[:1])
        return BreakEven(
            self["synaptic_op"],
            once * self.decisions,
            {name: MAC[name].picojoule / price.picojoule for name in ("fp32", "int8")},
        )

    def __str__(self) -> str:
        decisions = max(1, self.decisions)
        rows = [f"{event:24s}{count / decisions:16,.1f}" for event, count in self.counts().items()]
        return "\n".join([f"{'event, per decision':24s}{self.decisions:14d} x", *rows])
