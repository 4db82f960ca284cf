"""Cutting and placing: every neuron has one place, no limit is passed, refusals are clear."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from errors import UserError
from neuromorphic import (
    CompileError,
    CoreSpec,
    EventCore,
    LayerSpec,
    NetworkSpec,
    QuantConfig,
    compile_encoder,
)
from neuromorphic.compile import recompile
from neuromorphic.report import draw_placement, placement_rows, placement_table


def conv(out, reads, kernel, stride, rng, first=False):
    weight = rng.normal(size=(out, reads, kernel, kernel))
    return LayerSpec("conv", weight, np.zeros(out), np.full(out, 0.9), np.ones(out),
                     stride=(stride, stride), input_scale=1 / 255 if first else 1.0)  # fmt: skip


def dense(out, reads, rng):
    weight = rng.normal(size=(out, reads))
    return LayerSpec("dense", weight, np.zeros(out), np.full(out, 0.9), np.ones(out))


@pytest.fixture(scope="module")
def der():
    rng = np.random.default_rng(0)
    return NetworkSpec([conv(32, 1, 5, 5, rng, True), conv(64, 32, 5, 5, rng)], (1, 84, 84))


@pytest.fixture(scope="module")
def nature():
    rng = np.random.default_rng(0)
    layers = [conv(32, 1, 8, 4, rng, True), conv(64, 32, 4, 2, rng), conv(64, 64, 3, 1, rng)]
    return NetworkSpec([*layers, dense(512, 3136, rng)], (1, 84, 84))


def used_inputs(layer, tile, input_shape):
    """The inputs one tile reads, and its synapses, counted one by one."""
    if layer.kind == "dense":
        return int(np.prod(input_shape)), int(np.prod(input_shape)) * tile.neurons
    inputs, synapses = set(), 0
    kh, kw = layer.weight.shape[2:]
    for y, x in itertools.product(range(*tile.y), range(*tile.x)):
        for i, j in itertools.product(range(kh), range(kw)):
            place = (
                y * layer.stride[0] - layer.padding[0] + i,
                x * layer.stride[1] - layer.padding[1] + j,
            )
            if 0 <= place[0] < input_shape[1] and 0 <= place[1] < input_shape[2]:
                inputs.add(place)
                synapses += input_shape[0]
    return len(inputs) * input_shape[0], synapses * (tile.channels[1] - tile.channels[0])


@pytest.mark.parametrize("core", [CoreSpec.loihi1(), CoreSpec.loihi2(), CoreSpec.ideal()])
@pytest.mark.parametrize("name", ["der", "nature"])
def test_tiles_cover_every_neuron_once_within_the_limits(name, core, request):
    spec = request.getfixturevalue(name)
    if core.name == "loihi1" and name == "nature":
        core = CoreSpec.loihi1(chips=2)
    program = compile_encoder(spec, core, QuantConfig(synapses=1))
    shapes = spec.shapes()
    owners = [np.zeros(shape, int) for shape in shapes[1:]]
    for tile in program.placement.tiles:
        box = (slice(*tile.channels), slice(*tile.y), slice(*tile.x))
        owners[tile.layer - 1][box] += 1
        assert tile.neurons == owners[tile.layer - 1][box].size
        for limit in ("neurons", "synapse_bytes", "input_axons", "output_axons", "fan_in"):
            assert getattr(tile, limit) <= getattr(core, limit), (limit, tile)
    assert all((owner == 1).all() for owner in owners)
    cores = [tuple(r) for r in program.placement.routers]
    assert max(cores.count(c) for c in set(cores)) <= core.cores_per_tile
    assert len(cores) <= core.cores_in_all


def test_demands_are_what_counting_one_by_one_gives(der):
    core = CoreSpec.loihi1()
    program = compile_encoder(der, core)
    for tile in program.placement.tiles:
        layer = program.network.layers[tile.layer - 1]
        inputs, synapses = used_inputs(layer, tile, der.shapes()[tile.layer - 1])
        planes = 8 if tile.layer == 1 else 1
        assert tile.input_axons == inputs * planes
        assert tile.synapse_bytes == synapses * planes  # 8-bit weights
        assert tile.fan_in == int(np.prod(layer.weight.shape[1:])) * planes


def test_the_nature_encoder_needs_what_the_arithmetic_says(nature):
    """21.6k neurons: at least 22 cores of Loihi 1; the dense layer's 1.6 MB: at least 13."""
    program = compile_encoder(nature, CoreSpec.loihi1(chips=4))
    tiles = program.placement.tiles
    assert sum(t.neurons for t in tiles) == 32 * 400 + 64 * 81 + 64 * 49 + 512
    assert len(tiles) >= 22
    assert sum(t.layer == 4 for t in tiles) >= 13
    # 12,800 outputs pass the input axons of one core: the second layer is cut in space
    second = [t for t in tiles if t.layer == 2]
    assert all(t.input_axons < 32 * 400 for t in second)


def test_routes_count_messages_and_hops_of_every_spike(der):
    """The ledger's messages and hops against a walk over all spikes and all tiles."""
    core = CoreSpec.loihi1()
    program = compile_encoder(der, core)
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (2, 4, 84, 84)).astype(np.uint8)
    result = EventCore(program).run(frames, record=True)
    raster = result.layer_raster(0).sum((0, 1))  # [C, H, W]
    messages = east_west = north_south = 0
    place = program.placement
    for i, source in enumerate(place.tiles):
        for j, target in enumerate(place.tiles):
            if (source.layer, target.layer) != (1, 2):
                continue
            ys = range(max(source.y[0], target.y[0] * 5), min(source.y[1], target.y[1] * 5))
            xs = range(max(source.x[0], target.x[0] * 5), min(source.x[1], target.x[1] * 5))
            if not len(ys) or not len(xs):
                continue
            count = int(
                raster[slice(*source.channels), ys.start : ys.stop, xs.start : xs.stop].sum()
            )
            messages += count
            east_west += count * abs(int(place.routers[i][0] - place.routers[j][0]))
            north_south += count * abs(int(place.routers[i][1] - place.routers[j][1]))
    ledger = result.ledger
    assert messages > 0
    assert (ledger["spike_message"], ledger["hop_east_west"], ledger["hop_north_south"]) == (
        messages, east_west, north_south,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "value", "layer"),
    [
        ("synapse_bytes", 700, 2), ("input_axons", 700, 2),
        ("fan_in", 700, 2), ("cores", 3, None),
    ],
)  # fmt: skip
def test_refusals_name_the_limit_the_layer_and_the_mend(der, limit, value, layer):
    with pytest.raises(CompileError) as caught:
        compile_encoder(der, replace(CoreSpec.loihi2(), **{limit: value}))
    assert caught.value.limit == limit
    assert caught.value.mend in str(caught.value)
    assert "\n" not in str(caught.value)
    if layer:
        assert caught.value.layer == layer


def test_fewer_cores_per_resource_when_limits_are_looser(der):
    tight = compile_encoder(der, CoreSpec.loihi1())
    loose = compile_encoder(der, CoreSpec.loihi2())
    assert len(compile_encoder(der, CoreSpec.ideal()).placement.tiles) == 2
    assert len(loose.placement.tiles) < len(tight.placement.tiles)


def test_placement_is_deterministic_and_no_worse_than_the_snake(nature):
    from neuromorphic.placement import snake

    one, two = (
        compile_encoder(nature, CoreSpec.loihi2(), QuantConfig(synapses=1)) for _ in range(2)
    )
    np.testing.assert_array_equal(one.placement.routers, two.placement.routers)

    def cost(routers):
        distance = np.abs(routers[:, None] - routers[None]).sum(-1)
        return int((one.placement.traffic * distance).sum())

    plain = snake(one.core, len(one.placement.tiles))
    assert cost(one.placement.routers) <= cost(plain)
    assert sorted(map(tuple, one.placement.routers)) == sorted(map(tuple, plain))


def test_recompiling_keeps_the_place_and_takes_the_weights(der):
    program = compile_encoder(der, CoreSpec.loihi2())
    rng = np.random.default_rng(9)
    other = NetworkSpec([conv(32, 1, 5, 5, rng, True), conv(64, 32, 5, 5, rng)], (1, 84, 84))
    moved = recompile(program, other)
    assert moved.placement is program.placement
    frames = rng.integers(0, 256, (4, 84, 84)).astype(np.uint8)
    fresh = EventCore(compile_encoder(other, CoreSpec.loihi2())).run(frames)
    np.testing.assert_array_equal(EventCore(moved).run(frames).latent, fresh.latent)
    with pytest.raises(ValueError, match="shape"):
        recompile(program, NetworkSpec([conv(8, 1, 5, 5, rng, True)], (1, 84, 84)))


def test_wrong_frames_and_wrong_encoders_are_refused(der):
    core = EventCore(compile_encoder(der, CoreSpec.loihi2()))
    for bad in (np.zeros((3, 84, 84), np.uint8), np.zeros((4, 84, 84), np.float32),
                np.zeros((4, 80, 84), np.uint8), np.zeros(7, np.uint8)):  # fmt: skip
        with pytest.raises(UserError, match="compiled for uint8"):
            core.run(bad)
    with pytest.raises(UserError, match="cannot run on the event core"):
        compile_encoder(object())
    with pytest.raises(UserError, match="core=loihi9"):
        CoreSpec.named("loihi9")


def test_an_encoders_own_list_of_layers_is_compiled():
    rng = np.random.default_rng(3)

    class Encoder:
        leak = np.full(4, 0.8)

        def layers_spec(self):
            one = SimpleNamespace(
                kind="conv", weight=rng.normal(size=(4, 1, 5, 5)), bias=np.zeros(4), stride=5,
                padding=0, crop=4, in_size=75, input_scale=1 / 255, leak=self.leak,
                threshold=np.ones(4),
            )  # fmt: skip
            two = SimpleNamespace(
                kind="conv", weight=rng.normal(size=(6, 4, 5, 5)), bias=np.zeros(6), stride=5,
                padding=0, crop=0, in_size=15, input_scale=1.0, leak=np.full(6, 0.8),
                threshold=np.ones(6),
            )  # fmt: skip
            return [one, two]

    program = compile_encoder(Encoder(), CoreSpec.ideal())
    spec = program.network.spec
    assert spec.shapes() == [(1, 84, 84), (4, 15, 15), (6, 3, 3)]
    assert spec.layers[0].crop == (4, 5, 4, 5)
    assert spec.latent_order == "hwc"
    # what lies outside the crop is not seen
    frames = np.zeros((4, 84, 84), np.uint8)
    frames[:, 4:79, 4:79] = rng.integers(0, 256, (4, 75, 75))
    other = frames.copy()
    other[:, :4], other[:, :, 79:] = 200, 50
    core = EventCore(program)
    np.testing.assert_array_equal(core.run(frames).latent, core.run(other).latent)
    raster = core.run(frames, record=True).layer_raster(1)[0].sum(0)  # [C, H, W]
    np.testing.assert_array_equal(core.run(frames).latent, raster.transpose(1, 2, 0).ravel())
    relu = Encoder()
    relu.leak = None
    with pytest.raises(UserError, match=r"encoder\.kind=spiking"):
        compile_encoder(relu)


def test_an_unaligned_view_of_frames_is_read_rightly(der):
    rng = np.random.default_rng(2)
    store = rng.integers(0, 256, 4 * 84 * 84 + 3).astype(np.uint8)
    view = store[3:].reshape(4, 84, 84)
    core = EventCore(compile_encoder(der, CoreSpec.loihi2()))
    np.testing.assert_array_equal(core.run(view).latent, core.run(view.copy()).latent)


def test_table_and_picture(der, tmp_path):
    program = compile_encoder(der, CoreSpec.loihi1())
    table = placement_table(program)
    assert len(table.splitlines()) == len(program.placement.tiles) + 3
    assert "8,768 neurons" in table
    rows = placement_rows(program)
    assert sum(row["neurons"] for row in rows) == 8768
    # the last one's chips would make a picture wider than a file can be; one of them is in use
    for core in (CoreSpec.loihi1(), CoreSpec.ideal(), CoreSpec.loihi2(chips=1000)):
        figure = draw_placement(compile_encoder(der, core), tmp_path / f"{core.name}.png")
        assert (tmp_path / f"{core.name}.png").stat().st_size > 3000
        # no word is cut off
        inside = figure.get_tightbbox(figure.canvas.get_renderer())  # inches
        assert inside.x0 >= 0
        assert inside.y0 >= 0
        assert (inside.max <= figure.get_size_inches()).all()


def test_a_weight_has_as_many_synapses_as_the_core_can_do(der):
    """Bit planes would drop bits plane by plane where a weight has two synapses."""
    assert QuantConfig().synapses == 2
    for core, most in ((CoreSpec.loihi1(), 1), (CoreSpec.loihi2(), 2), (CoreSpec.ideal(), 2)):
        assert compile_encoder(der, core).network.config.synapses == most
    with pytest.raises(CompileError, match=r"bit planes.*set synapses=1") as caught:
        compile_encoder(der, CoreSpec.loihi1(), QuantConfig(synapses=2))
    assert (caught.value.limit, caught.value.layer) == ("synapses of a weight", 1)
    with pytest.raises(CompileError, match="bit planes"):
        compile_encoder(compile_encoder(der).network, CoreSpec.loihi1())


def test_the_highest_bit_plane_must_have_an_exponent():
    """One input a neuron: weights so coarse that those of bit 7 need the exponent 8."""
    pixel = LayerSpec("conv", np.ones((1, 1, 1, 1)), np.zeros(1), np.ones(1), np.ones(1),
                      input_scale=1 / 255)  # fmt: skip
    spec = NetworkSpec([pixel], (1, 4, 4))
    assert compile_encoder(spec, CoreSpec.loihi2(), QuantConfig(synapses=1)).placement.tiles
    with pytest.raises(CompileError, match=r"exponent 8 and a loihi1 core has -8\.\.7") as caught:
        compile_encoder(spec, CoreSpec.loihi1())
    assert caught.value.limit == "weight exponent"
    two = LayerSpec("conv", np.ones((1, 1, 2, 2)), np.zeros(1), np.ones(1), np.ones(1),
                    input_scale=1 / 255)  # fmt: skip
    program = compile_encoder(NetworkSpec([two], (1, 4, 4)), CoreSpec.loihi1())
    assert program.network.layers[0].stored_exponent + 7 <= 7
    with pytest.raises(CompileError, match="weight exponent"):
        recompile(program, NetworkSpec([replace(two, weight=[[[[1, 0], [0, 0]]]])], (1, 4, 4)))


def test_an_ideal_core_has_no_chips():
    assert CoreSpec.named("loihi1", 3).cores_in_all == 384
    with pytest.raises(UserError, match="chips=3: core=ideal"):
        CoreSpec.named("ideal", 3)
    with pytest.raises(UserError, match="chips=0 must be"):
        CoreSpec.named("loihi2", 0)
