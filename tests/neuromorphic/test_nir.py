"""NIR: round trips keep every spike; foreign and damaged files get one clear line."""

from itertools import pairwise

import h5py
import nir
import numpy as np
import pytest

from errors import UserError
from neuromorphic import CoreSpec, EventCore, LayerSpec, NetworkSpec, QuantConfig, compile_encoder
from neuromorphic.compile import network_of
from neuromorphic.nir_export import export_nir
from neuromorphic.nir_import import Defaults, import_nir


def layer(rng, kind, shape, leak=None, **more):
    out = shape[0]
    fan_in = int(np.prod(shape[1:]))
    leak = rng.uniform(0, 0.999, out) if leak is None else np.full(out, leak)
    return LayerSpec(
        kind,
        rng.normal(size=shape) * 3 / np.sqrt(fan_in),
        rng.normal(size=out) * 0.1,
        leak,
        rng.uniform(0.3, 1.2, out),
        **more,
    )


@pytest.fixture
def network():
    rng = np.random.default_rng(0)
    layers = [
        layer(rng, "conv", (6, 2, 3, 3), stride=(2, 2), padding=(1, 1), input_scale=1 / 255),
        layer(rng, "conv", (5, 6, 1, 2), leak=1.0, crop=(1, 0, 0, 0)),
        layer(rng, "dense", (9, 5 * 4 * 4)),
        layer(rng, "dense", (4, 9), input_scale=0.37),
    ]
    return NetworkSpec(layers, (2, 9, 9), time_steps=5, latent_order="hwc")


def frames_for(spec):
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (4, spec.time_steps, *spec.input_shape)).astype(np.uint8)


def rasters(encoder, frames):
    program = compile_encoder(encoder, CoreSpec.ideal())
    result = EventCore(program).run(frames, record=True)
    return [result.layer_raster(i) for i in range(len(program.network.layers))]


@pytest.mark.parametrize(
    "config", [QuantConfig(synapses=1), QuantConfig(5, "layer", 0.5, synapses=1), QuantConfig()]
)
@pytest.mark.parametrize("dt", [1e-3, 0.7, 1e-9])
def test_a_round_trip_gives_every_spike_back(network, tmp_path, config, dt):
    path = tmp_path / "encoder.nir"
    export_nir(network, path, dt=dt, quant=config)
    back = import_nir(path)
    frames = frames_for(network)
    before = rasters(network_of(network, config), frames)
    for one, two in zip(before, rasters(back, frames)):
        np.testing.assert_array_equal(one, two)
    assert sum(r.sum() for r in before) > 100
    for old, new in zip(network.layers, back.spec.layers):
        for name in ("weight", "bias", "leak", "threshold"):
            np.testing.assert_array_equal(getattr(old, name), getattr(new, name))
    assert (back.spec.time_steps, back.spec.latent_order) == (5, "hwc")
    assert back.config == config


def test_a_network_that_sees_changes_comes_back(tmp_path):
    rng = np.random.default_rng(2)
    first = layer(rng, "conv", (4, 3, 3, 3), input_scale=1 / 255)
    network = NetworkSpec([first], (3, 9, 9), input="frames_and_changes")
    export_nir(network, tmp_path / "encoder.nir")
    back = import_nir(tmp_path / "encoder.nir")
    assert (back.spec.input, back.spec.frame_shape) == ("frames_and_changes", (9, 9))
    frames = rng.integers(0, 256, (4, 4, 9, 9)).astype(np.uint8)
    before, after = rasters(network_of(network), frames)[0], rasters(back, frames)[0]
    np.testing.assert_array_equal(before, after)
    assert before.sum() > 100


def test_a_crop_is_written_as_zeros_around_the_kernel(tmp_path):
    rng = np.random.default_rng(4)
    crop = layer(rng, "conv", (3, 1, 3, 3), stride=(2, 2), input_scale=1 / 255, crop=(2, 1, 1, 2))
    spec = NetworkSpec([crop], (1, 12, 12))
    path = tmp_path / "crop.nir"
    export_nir(spec, path)
    weight = nir.read(str(path)).nodes["conv_1"].weight
    assert weight.shape == (3, 1, 6, 6)
    np.testing.assert_array_equal(weight[:, :, 2:5, 1:4], crop.weight)
    frames = frames_for(spec)
    widened = NetworkSpec(
        [LayerSpec("conv", weight, crop.bias, crop.leak, crop.threshold, (2, 2), (0, 0), 1 / 255)],
        (1, 12, 12),
    )
    for other in (import_nir(path), widened):
        np.testing.assert_array_equal(rasters(spec, frames)[0], rasters(other, frames)[0])
    assert import_nir(path).spec.layers[0].crop == (2, 1, 1, 2)


def test_parameters_are_vectors_and_the_reset_is_hard(network, tmp_path):
    path = tmp_path / "encoder.nir"
    export_nir(network, path, dt=1e-3)
    graph = nir.read(str(path))
    lif = graph.nodes["lif_1"]
    assert lif.tau.shape == lif.v_threshold.shape == lif.v_reset.shape == (6, 5, 5)
    assert not lif.v_reset.any()
    np.testing.assert_allclose(lif.r, lif.tau / 1e-3)
    assert graph.metadata["dt"] == 1e-3
    assert graph.metadata["reset"] in ("hard", b"hard")
    assert type(graph.nodes["lif_2"]).__name__ == "IF"


def write(tmp_path, nodes, edges=None, metadata=None):
    names = list(nodes)
    graph = nir.NIRGraph(nodes, edges or list(pairwise(names)), metadata=metadata or {})
    path = tmp_path / "foreign.nir"
    nir.write(str(path), graph)
    return path


def foreign_nodes(**change):
    """A dense LIF layer as another library would write it."""
    values = {
        "tau": np.full(3, 2e-3), "r": np.ones(3), "v_leak": np.zeros(3),
        "v_threshold": np.ones(3), "v_reset": np.zeros(3),
    }  # fmt: skip
    values.update(change)
    weight = np.array([[1.0, 0.5], [2.0, -1.0], [0.1, 0.2]])
    return {
        "input": nir.Input(input_type={"input": np.array([2])}),
        "fc": nir.Linear(weight=weight),
        "lif": nir.LIF(**values),
        "output": nir.Output(output_type={"output": np.array([3])}),
    }


def test_a_foreign_file_is_read_for_what_it_says(tmp_path):
    path = write(tmp_path, foreign_nodes())
    back = import_nir(path, Defaults(dt=1e-3, time_steps=3))
    only = back.spec.layers[0]
    np.testing.assert_allclose(only.leak, 0.5)
    # R dt / tau = 1/2 is folded into the weights, not dropped
    np.testing.assert_allclose(only.weight, [[0.5, 0.25], [1.0, -0.5], [0.05, 0.1]])
    with pytest.raises(UserError, match="time step; give dt="):
        import_nir(path)
    one = import_nir(path, Defaults(dt=1e-3, quant=QuantConfig(synapses=1)))
    assert (back.config.synapses, one.config.synapses) == (2, 1)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"v_reset": np.full(3, -0.5)}, "v_reset"),
        ({"v_leak": np.full(3, 0.1)}, "v_leak"),
        ({"tau": np.full(3, 1e-6)}, "tau below dt"),
        ({"tau": np.full(3, np.inf)}, "tau"),
        ({"v_threshold": np.full(3, -1.0)}, "threshold"),
    ],
)
def test_what_the_core_cannot_do_is_refused(tmp_path, change, word):
    path = write(tmp_path, foreign_nodes(**change))
    with pytest.raises(UserError, match=word) as caught:
        import_nir(path, Defaults(dt=1e-3))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_structures_are_refused(tmp_path):
    nodes = foreign_nodes()
    recurrent = [("input", "fc"), ("fc", "lif"), ("lif", "output"), ("lif", "fc")]
    path = tmp_path / "recurrent.nir"
    nir.write(str(path), nir.NIRGraph(nodes, recurrent, type_check=False))
    with pytest.raises(UserError, match=r"recurrent\.nir"):
        import_nir(path, Defaults(dt=1e-3))
    nodes = foreign_nodes()
    cuba = nir.CubaLIF(*(np.ones(3) for _ in range(5)))
    last = nodes.pop("output")
    trailing = {**nodes, "gain": nir.Scale(scale=np.full(3, 7.0)), "output": last}
    with pytest.raises(UserError, match="'gain': a Scale without a layer after it"):
        import_nir(write(tmp_path, trailing), Defaults(dt=1e-3))
    nodes = foreign_nodes()
    with pytest.raises(UserError, match="CubaLIF"):
        import_nir(write(tmp_path, {**nodes, "lif": cuba}), Defaults(dt=1e-3))
    with pytest.raises(UserError, match="soft"):
        import_nir(write(tmp_path, foreign_nodes(), metadata={"reset": "soft"}), Defaults(dt=1e-3))


def test_damaged_files_get_one_line(network, tmp_path):
    path = tmp_path / "encoder.nir"
    export_nir(network, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"not a NIR file at all", whole[: len(whole) // 2], whole[:40]]
    for _ in range(25):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 30):
            broken[place] = rng.integers(256)
        damaged.append(bytes(broken))
    refused = []
    for content in damaged:
        path.write_bytes(content)
        try:
            import_nir(path)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) >= 4
    assert all("\n" not in line and str(path) in line for line in refused)
    with pytest.raises(UserError, match="no such NIR file"):
        import_nir(tmp_path / "missing.nir")


def test_tampered_integers_are_noticed(network, tmp_path):
    path = tmp_path / "encoder.nir"
    for name, value in (("weight_levels", 3), ("vth", 1 << 17), ("leak", 0.123)):
        export_nir(network, path)
        with h5py.File(path, "r+") as file:
            dataset = file["node/nodes/lif_1/metadata"][name]
            dataset[0] = value
        with pytest.raises(UserError, match="disagree"):
            import_nir(path)


@pytest.mark.parametrize(
    ("dataset", "edit", "said"),
    [
        ("lif_1/v_threshold", lambda x: 10 * x, "layer 1: its v_threshold and the vth"),
        ("lif_4/v_threshold", lambda x: 10 * x, "layer 4: its v_threshold and the vth"),
        ("conv_1/bias", lambda x: x + 5, "layer 1: its bias and the bias_mantissa"),
        ("dense_3/bias", lambda x: x + 1e300, "layer 3: its bias and the bias_mantissa"),
        ("conv_1/weight", lambda x: 1.1 * x, "layer 1: its weight and the weight_levels"),
        ("scale_1/scale", lambda x: 2 * x, "layer 1: its weight and the weight_levels"),
        ("lif_1/r", lambda x: 3 * x, "node 'lif_1': its r and"),
        ("lif_2/r", lambda x: 3 * x, "node 'lif_2': its r and"),  # leak 1: an IF node
        ("lif_1/tau", lambda x: 2 * x, "node 'lif_1': its tau and"),
        ("lif_1/metadata/dv", lambda x: 0 * x, "layer 1: its leak and the dv"),
        ("lif_3/metadata/vth", lambda x: x + 1, "layer 3: its v_threshold and the vth"),
        ("lif_3/metadata/bias_mantissa", lambda x: -x, "layer 3: its bias and the bias_mantissa"),
        ("lif_3/metadata/bias_exponent", lambda x: x + 9, "layer 3: the bias_exponent"),
        ("lif_3/metadata/scale", lambda x: 0 * x, "layer 3: the scale"),
        ("lif_3/metadata/scale", lambda x: np.nan * x, "layer 3: the scale"),
    ],
)
def test_a_file_edited_in_one_place_is_refused(network, tmp_path, dataset, edit, said):
    # the last layer's threshold uses all 17 bits: ten times it must not pass for clipped
    last = network.layers[-1]
    far = LayerSpec("dense", last.weight, last.bias, last.leak, 100 * last.threshold)
    spec = NetworkSpec([*network.layers[:-1], far], (2, 9, 9), time_steps=5)
    path = tmp_path / "encoder.nir"
    export_nir(spec, path)
    import_nir(path)
    with h5py.File(path, "r+") as file:
        values = file[f"node/nodes/{dataset}"]
        values[...] = edit(values[...])
    with pytest.raises(UserError, match="disagree") as caught:
        import_nir(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_nir_cannot_say_is_refused(tmp_path):
    rng = np.random.default_rng(3)
    path = tmp_path / "x.nir"
    oblong = NetworkSpec([layer(rng, "conv", (2, 1, 2, 3))], (1, 6, 6))
    with pytest.raises(UserError, match="square"):
        export_nir(oblong, path)
    mixed = layer(rng, "conv", (2, 1, 2, 2))
    mixed = LayerSpec("conv", mixed.weight, mixed.bias, [1.0, 0.5], mixed.threshold)
    with pytest.raises(UserError, match="layer 1: NIR cannot mix"):
        export_nir(NetworkSpec([mixed], (1, 6, 6)), path)
    with pytest.raises(UserError, match=r"cannot be written \(No such file or directory\); choose"):
        export_nir(
            NetworkSpec([layer(rng, "conv", (2, 1, 2, 2))], (1, 6, 6)), tmp_path / "no" / "x.nir"
        )
    assert not path.exists()
