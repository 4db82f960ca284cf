"""The spike-event core: runs a compiled program on frames, decision by decision.

    program = compile_encoder(encoder, CoreSpec.loihi2())
    core = EventCore(program)
    result = core.run(observation)          # uint8 [T, H, W] or a batch [B, T, H, W]
    result.latent, result.spikes, result.ledger

A decision starts with all membranes at zero, so results do not depend on what ran before; the
core keeps the last image only to save work (see `kernels.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from errors import UserError

from .compile import CoreProgram
from .kernels import STATISTICS, run_program
from .ledger import Ledger
from .program import CHANNELS, NEURONS, POSITIONS
from .spec import with_changes


@dataclass(frozen=True, eq=False)
class CoreResult:
    """latent int32 [B, L] or [L]: spikes of the last layer or, where they are graded, the sum of
    what they carry; spikes int64 [B, layers] or [layers]: counts per decision.

    neuron_spikes: int32 [neurons], summed over the batch, in the core's order.
    """

    latent: np.ndarray
    spikes: np.ndarray
    neuron_spikes: np.ndarray
    statistics: np.ndarray = field(repr=False)  # int64 [layers, STATISTICS]
    decisions: int
    program: CoreProgram = field(repr=False)
    raster: np.ndarray | None = field(default=None, repr=False)

    @property
    def ledger(self) -> Ledger:
        """Every event of these decisions; computed when asked for."""
        return self.program.ledger(self.statistics, self.neuron_spikes, self.decisions)

    def layer_raster(self, number: int) -> np.ndarray:
        """Spikes of layer `number` (from 0), or what they carry, as uint8 [B, T, C, H, W]; needs
        run(record=True)."""
        if self.raster is None:
            raise ValueError("no raster was recorded; call run(frames, record=True)")
        row = self.program.flat.layout[number]
        channels, height, width = self.program.network.spec.shapes()[number + 1]
        start, count = row[NEURONS], row[POSITIONS] * row[CHANNELS]
        shape = (*self.raster.shape[:2], height, width, channels)
        return self.raster[..., start : start + count].reshape(shape).transpose(0, 1, 4, 2, 3)


def pack(dtype: type, *parts: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Arrays, or zeros where a length is given, in one buffer, and the bounds between them."""
    arrays = [
        np.zeros(p, dtype) if isinstance(p, int) else np.asarray(p, dtype).ravel() for p in parts
    ]
    bounds = np.cumsum([0] + [len(a) for a in arrays])
    return np.concatenate(arrays), bounds.astype(np.int64)


class EventCore:
    """The simulated core. Deterministic and single-threaded; not for use by several threads."""

    def __init__(self, program: CoreProgram):
        self.program = program
        flat = self.flat = program.flat
        layout = flat.layout
        self._padded = -(-flat.inputs // 8) * 8
        self._shape = np.array(layout.shape)
        static = (
            *pack(
                np.int64,
                layout, flat.pair_ptr, flat.window_ptr, flat.reach_ptr, flat.rest_count,
                flat.rest_clips, flat.event_units,
            ),
            *pack(
                np.int32,
                flat.pair_out, flat.pair_tap, flat.window_input, flat.window_row, flat.reach_out,
                flat.bias, flat.threshold, flat.rest_v, program.latent_index(), flat.input_cores,
                flat.payload_shift,
            ),
        )  # fmt: skip
        widest = int((layout[:, POSITIONS] * layout[:, CHANNELS]).max()) + 8
        longest = int(np.diff(flat.window_ptr).max()) + 1
        places = int(layout[0, POSITIONS])
        # events, entered, rows, received | v, drive, spikes twice, values, mail | ...
        state64 = pack(np.int64, places, 1, longest, flat.places)
        # ... | of graded spikes: mail, spikes twice, sums | ...
        one = int(program.network.spec.graded)
        state32 = pack(
            np.int32, flat.neurons, flat.neurons, widest, widest, longest, flat.mail,
            one * flat.mail, one * widest, one * widest, one * flat.neurons,
        )  # fmt: skip
        # ... | last image, fired, touched, live, counts; the first two are read by eight as well
        state8, bounds8 = pack(
            np.uint8,
            self._padded, flat.neurons, flat.places, flat.places, flat.neurons,
            -2 * flat.places % 8,
        )  # fmt: skip
        wide = flat.weights.dtype != np.int8
        narrow = np.zeros(int(layout[:, CHANNELS].max()), np.int32 if wide else np.int16)
        self._arrays = (
            self._shape, flat.weights, flat.keep, flat.rest_spikes, *static,
            *state64, *state32, narrow, state8, state8.view(np.uint64), bounds8,
        )  # fmt: skip

    def run(self, frames: np.ndarray, record: bool = False) -> CoreResult:
        """Decide for frames uint8 [T, H, W], [T, C, H, W] or a batch of them, oldest first.
        Changes, where the program reads them, are made here.

        record: keep every spike of every layer and step. Raises UserError for other frames.
        """
        batch, single = self._batch(frames)
        flat, layers = self.flat, len(self.flat.layout)
        decisions = len(batch)
        last_row = flat.layout[-1]
        latent = np.zeros((decisions, int(last_row[POSITIONS] * last_row[CHANNELS])), np.int32)
        layer_spikes = np.zeros((decisions, layers), np.int64)
        neuron_spikes = np.zeros(flat.neurons, np.int32)
        statistics = np.zeros((layers, STATISTICS), np.int64)
        shape = (decisions, flat.time_steps, flat.neurons) if record else (0, 0, 0)
        raster = np.zeros(shape, np.uint8)
        run_program(
            batch, batch.view(np.uint64), *self._arrays,
            latent, layer_spikes, neuron_spikes, statistics, raster,
        )  # fmt: skip
        if single:
            latent, layer_spikes = latent[0], layer_spikes[0]
        return CoreResult(
            latent, layer_spikes, neuron_spikes, statistics, decisions, self.program,
            raster if record else None,
        )  # fmt: skip

    def _batch(self, frames: np.ndarray) -> tuple[np.ndarray, bool]:
        """frames as contiguous uint8 [B, T, padded inputs], and whether they were one decision."""
        spec = self.program.network.spec
        frames = np.asarray(frames)
        flat_one = one = (spec.time_steps, *spec.frame_shape)
        if spec.input_shape[0] == 1:  # the channel may be given, too
            one = (spec.time_steps, *spec.input_shape)
        many = frames.shape[1:] in (one, flat_one)  # of one step and one channel, it is both
        single = not many and frames.shape in (one, flat_one)
        if frames.dtype != np.uint8 or not (single or many):
            raise UserError(
                f"frames are {frames.dtype} {frames.shape}; the core was compiled for uint8 "
                f"{flat_one} or a batch of them: check frame_stack and frame size"
            )
        if spec.sees_changes:
            frames = with_changes(frames)
        batch = np.ascontiguousarray(frames).reshape(-1, spec.time_steps, self.flat.inputs)
        if self._padded != self.flat.inputs:
            padded = np.zeros((*batch.shape[:2], self._padded), np.uint8)
            padded[..., : self.flat.inputs] = batch
            batch = padded
        elif batch.__array_interface__["data"][0] % 8:
            batch = batch.copy()  # eight-byte words are read
        return batch, single
