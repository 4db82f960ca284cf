"""The ledger: counts equal a walk over the raster, prices are honest about what they leave out."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from neuromorphic import (
    CoreSpec,
    EventCore,
    LayerSpec,
    NetworkSpec,
    QuantConfig,
    compile_encoder,
)
from neuromorphic.ledger import Ledger
from neuromorphic.prices import TABLES


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)

    def layer(kind, shape, **more):
        out = shape[0]
        return LayerSpec(kind, rng.normal(size=shape), np.zeros(out), np.full(out, 0.8),
                         np.ones(out), **more)  # fmt: skip

    return NetworkSpec(
        [
            layer("conv", (6, 1, 3, 3), stride=(2, 2), padding=(1, 1), input_scale=1 / 255),
            layer("conv", (5, 6, 3, 3), stride=(1, 1)),
            layer("dense", (7, 5 * 3 * 3)),
        ],
        (1, 9, 9),
    )


def count_by_hand(spec, frames, rasters, bit_planes):
    """synaptic operations and driven updates per layer, event by event."""
    shapes = spec.shapes()
    totals = []
    for number, layer in enumerate(spec.layers):
        operations = driven = 0
        source = frames if number == 0 else rasters[number - 1]
        for b in range(len(frames)):
            for t in range(spec.time_steps):
                image = source[b, t].reshape(shapes[number])
                out_c, out_h, out_w = shapes[number + 1]
                reached = np.zeros((out_h, out_w), bool)
                for c, y, x in np.argwhere(image):
                    units = int(image[c, y, x]).bit_count() if bit_planes and number == 0 else 1
                    if layer.kind == "dense":
                        operations += units * out_c
                        reached[:] = True
                        continue
                    for oy in range(out_h):
                        for ox in range(out_w):
                            ky = y + layer.padding[0] - oy * layer.stride[0]
                            kx = x + layer.padding[1] - ox * layer.stride[1]
                            if 0 <= ky < layer.kernel[0] and 0 <= kx < layer.kernel[1]:
                                operations += units * out_c
                                reached[oy, ox] = True
                driven += int(reached.sum()) * out_c
        totals.append((operations, driven))
    return totals


@pytest.mark.parametrize("core", [CoreSpec.loihi2(), CoreSpec.loihi1()])
def test_counts_equal_a_walk_over_all_events(small, core):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (3, 4, 9, 9)).astype(np.uint8)
    frames[rng.random(frames.shape) < 0.7] = 0
    frames[1, 2:] = frames[1, 1]
    frames[2, 3] = 0
    result = EventCore(compile_encoder(small, core, QuantConfig(synapses=1))).run(
        frames, record=True
    )
    rasters = [result.layer_raster(i) for i in range(3)]
    bit_planes = not core.graded_input
    by_hand = count_by_hand(small, frames, rasters, bit_planes)
    ledger = result.ledger
    for number, (operations, driven) in enumerate(by_hand):
        layer = ledger.layers[number]
        neurons = int(np.prod(small.shapes()[number + 1]))
        assert layer["synaptic_op"] == operations
        assert layer["neuron_update_driven"] == driven
        assert layer["neuron_update_idle"] == neurons * 12 - driven
        assert layer["neuron_update_pipeline"] == neurons * 3 * 2
        assert layer["spike"] == int(rasters[number].sum())
    values = sum(int(v).bit_count() for v in frames.ravel()) if bit_planes else (frames > 0).sum()
    assert ledger["frame_event"] == values
    assert ledger["readout_event"] == int(rasters[-1].sum()) > 0  # what the host reads is not free
    assert dict(ledger.bill("loihi1").unpriced)["readout_event"] == ledger["readout_event"]
    assert result.spikes.sum() == ledger["spike"] > 0


@pytest.mark.parametrize(("core", "events"), [("loihi1", 2), ("loihi2", 1)])
def test_golden_frame_events_of_two_cores_with_a_crop(core, events):
    """Of 6 x 6 pixels the inner 4 x 4 are read, by two cores of 3 x 4 each; 3 is two bits."""
    layer = LayerSpec("conv", np.ones((1, 1, 3, 3)), np.zeros(1), np.ones(1), np.ones(1),
                      crop=(1, 1, 1, 1), input_scale=1 / 255)  # fmt: skip
    spec = NetworkSpec([layer], (1, 6, 6), time_steps=2)
    program = compile_encoder(spec, replace(CoreSpec.named(core), neurons=2))
    assert len(program.placement.tiles) == 2
    frames = np.full((2, 6, 6), 3, np.uint8)
    frames[1, 1:5, 1:5] = 0  # the second frame lights the border alone
    ledger = EventCore(program).run(frames).ledger
    assert ledger["frame_event"] == 2 * 12 * events
    assert dict(ledger.bill("loihi1").unpriced) == {"frame_event": 24 * events}
    assert dict(ledger.bill("truenorth").unpriced) == {"frame_event": 24 * events}


@pytest.mark.parametrize("name", ["loihi1", "loihi2"])
def test_frame_events_equal_a_walk_over_the_cores(name):
    """Overlapping tiles in space and channels, strides that skip, frames that change a little."""
    rng = np.random.default_rng(4)
    layer = LayerSpec("conv", rng.normal(size=(6, 2, 3, 2)), np.zeros(6), np.ones(6), np.ones(6),
                      stride=(2, 3), padding=(1, 0), crop=(0, 2, 1, 0),
                      input_scale=1 / 255)  # fmt: skip
    spec = NetworkSpec([layer], (2, 13, 14))
    program = compile_encoder(spec, replace(CoreSpec.named(name), neurons=16))
    frames = rng.integers(0, 256, (3, 4, 2, 13, 14)).astype(np.uint8)
    frames[rng.random(frames.shape) < 0.5] = 0
    frames[1, 1:] = frames[1, :1]
    frames[1, 2, :, 3:5] ^= 7
    expected = 0
    assert len({tile.channels for tile in program.placement.tiles}) > 1
    for tile in program.placement.tiles:
        read = set()
        for y, x in itertools.product(range(*tile.y), range(*tile.x)):
            for i, j in itertools.product(range(3), range(2)):
                row, column = 2 * y - 1 + i, 3 * x + j
                if 0 <= row < 11 and 0 <= column < 13:
                    read.add((row, column + 1))
        for row, column in read:
            for value in frames[..., row, column].ravel():
                expected += int(value).bit_count() if name == "loihi1" else int(value > 0)
    result = EventCore(program).run(frames)
    assert result.ledger["frame_event"] == expected


def one_layer(**counts):
    layer = dict.fromkeys(
        ("input_event", "synaptic_op", "neuron_update_driven", "neuron_update_idle",
         "neuron_update_pipeline", "spike", "current_wrap", "membrane_saturation"), 0,
    )  # fmt: skip
    return Ledger(1, 4, ({**layer, **counts},), {"hop_east_west": 10}, (1000,))


def test_golden_bill():
    ledger = one_layer(synaptic_op=1000, neuron_update_driven=10, neuron_update_idle=100)
    bill = ledger.bill("loihi1")
    assert bill.picojoule == pytest.approx(1000 * 23.6 + 10 * 81 + 100 * 52 + 10 * 3.0)
    assert bill.unpriced == ()
    assert bill.grade == "simulated"
    assert all(line.source and line.grade for line in bill.lines)
    assert bill.static_milliwatt == 104.0


def test_what_has_no_price_is_listed_and_never_free():
    ledger = one_layer(synaptic_op=1000, neuron_update_driven=10)
    bill = ledger.bill("loihi2")
    assert bill.picojoule == 0
    assert bill.grade == "unpriced"
    assert dict(bill.unpriced) == {
        "synaptic_op": 1000, "neuron_update_driven": 10, "hop_east_west": 10,
    }  # fmt: skip
    assert dict(ledger.bill("spinnaker2").unpriced) == {
        "neuron_update_driven": 10, "hop_east_west": 10,
    }  # fmt: skip
    with pytest.raises(ValueError, match="price table"):
        ledger.bill("abacus")


def test_truenorth_never_adds_hops():
    bill = one_layer(synaptic_op=1000, neuron_update_driven=10).bill("truenorth")
    assert bill.picojoule == pytest.approx(26_000)
    assert bill.unpriced == ()


def test_break_even_states_both_number_formats():
    even = one_layer(synaptic_op=100).break_even()
    assert even.limits["fp32"] == pytest.approx(0.195, abs=5e-4)
    assert even.limits["int8"] == pytest.approx(0.00975, abs=5e-5)
    assert even.macs == 4000
    assert even.ratio == pytest.approx(0.025)
    with pytest.raises(ValueError, match="no price"):
        one_layer(synaptic_op=1).break_even("loihi2")


def test_ledgers_add_up(small):
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 256, (4, 4, 9, 9)).astype(np.uint8)
    core = EventCore(compile_encoder(small, CoreSpec.loihi1()))
    parts = [core.run(frames[i]).ledger for i in range(4)]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    assert total == core.run(frames).ledger
    assert total.decisions == 4
    with pytest.raises(ValueError, match="different programs"):
        total + one_layer()


def test_every_price_has_source_and_grade():
    for table in TABLES.values():
        for price in table.prices.values():
            assert re.search(r" (19|20)\d\d, ", price.source)  # a publication and its year
            assert price.picojoule > 0
