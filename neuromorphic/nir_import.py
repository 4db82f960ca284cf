"""Import from NIR: our own files give the same spikes back, foreign ones what they really say.

A graph must be one chain of [Scale] -> Conv2d | Flatten -> Affine | Linear -> LIF | IF. Anything
else, and anything that the core cannot do (soft resets cannot even be seen in NIR; v_reset, v_leak
other than 0, delays, pooling, recurrence) is refused with one line, not dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from errors import UserError

from .lif import BIAS_EXPONENT_MAX, BIAS_MANTISSA_MAX, DECAY_ONE, VTH_MAX
from .nir_export import FORMAT
from .quantise import QuantConfig, QuantLayer, QuantNetwork, neuron_integers, quantise
from .spec import LayerSpec, NetworkSpec
from .weights import EXPONENT_MAX

TOLERANCE = 1e-6  # relative, between what the nodes and our metadata say


@dataclass(frozen=True)
class Defaults:
    """What a foreign file does not say. dt in seconds; time_steps of one decision; quant: how its
    weights are rounded (by default as for a core with graded input)."""

    dt: float | None = None
    time_steps: int = 4
    quant: QuantConfig | None = None


def import_nir(path: Path | str, defaults: Defaults | None = None) -> QuantNetwork:
    """The network in file `path`, ready for `compile_encoder`; `.spec` is its float form.

    Files of `export_nir` bring their integers, so spikes are the same; each is checked against the
    float parameter that it stands for, so that a file edited in one place only is refused where
    the two are further apart than rounding goes (a level). Others are quantised here, need
    `defaults.dt`, and take pixels of 0 to 255: trained on 0 to 1, they begin with a Scale of 1/255.
    Raises UserError: damaged, foreign, edited, or not expressible on the core.
    """
    import nir

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such NIR file; export one with out={path.name}")
    try:
        graph = nir.read(str(path))
    except Exception as error:  # h5py and nir raise all kinds of errors on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: damaged or not a NIR file ({reason}); export it again") from None
    try:
        return _Reader(graph, defaults or Defaults()).network()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{path}: damaged NIR file ({reason}); export it again") from None


class _Reader:
    """One file's graph on its way to a network."""

    def __init__(self, graph, defaults: Defaults):
        self.graph, self.defaults = graph, defaults
        self.metadata = {key: _plain(value) for key, value in graph.metadata.items()}
        self.own = self.metadata.get("format") == FORMAT
        self.layers: list[LayerSpec] = []
        self.integers: list[dict | None] = []

    def network(self) -> QuantNetwork:
        chain = self._chain()
        for key, said in (("reset", "hard"), ("discretisation", "forward euler")):
            if self.metadata.get(key, said) != said:
                raise UserError(
                    f"{key} '{self.metadata[key]}' is not supported; the core does '{said}'"
                )
        dt = self.metadata.get("dt", self.defaults.dt)
        if dt is None or not float(dt) > 0:
            raise UserError("the file does not say its time step; give dt= in seconds")
        self._layers(chain, float(dt))
        input_shape = tuple(int(n) for n in self.graph.nodes[chain[0]].input_type["input"])
        if len(input_shape) == 1:
            input_shape = (*input_shape, 1, 1)
        spec = NetworkSpec(
            self.layers,
            input_shape,
            int(self.metadata.get("time_steps", self.defaults.time_steps)),
            self.metadata.get("input", "frames"),
            self.metadata.get("latent_order", "chw"),
        )
        if not self.own:
            return quantise(spec, self.defaults.quant)
        config = QuantConfig(
            int(self.metadata["weight_bits"]),
            self.metadata["scale_per"],
            float(self.metadata["headroom"]),
            self.metadata.get("rounding", "nearest"),
            int(self.metadata.get("synapses", 1)),
        )
        layers = tuple(
            _quantised(number, layer, integers, config)
            for number, (layer, integers) in enumerate(zip(spec.layers, self.integers), 1)
        )
        return QuantNetwork(layers, spec, config)

    def _chain(self) -> list[str]:
        """Names of the nodes from input to output. Raises UserError unless they form one chain."""
        after: dict[str, str] = {}
        for source, target in self.graph.edges:
            if source in after:
                raise UserError(f"node '{source}' feeds several nodes; the core runs chains only")
            after[source] = target
        if len(set(after.values())) != len(after):
            raise UserError("a node has several inputs (recurrence?); the core runs chains only")
        starts = [n for n, node in self.graph.nodes.items() if type(node).__name__ == "Input"]
        if len(starts) != 1:
            raise UserError(f"the graph has {len(starts)} inputs; the core takes one")
        chain = [starts[0]]
        while chain[-1] in after:
            chain.append(after[chain[-1]])
            if len(chain) > len(self.graph.nodes):
                raise UserError("the graph has a cycle; the core runs chains only")
        if len(chain) != len(self.graph.nodes):
            left = sorted(set(self.graph.nodes) - set(chain))
            raise UserError(f"nodes {left} are not connected; the core runs chains only")
        return chain

    def _layers(self, chain: list[str], dt: float) -> None:
        synapses, scale, scaled = None, 1.0, None  # scaled: the Scale node that waits for its layer
        for name in chain:
            node = self.graph.nodes[name]
            kind = type(node).__name__
            if kind in ("Input", "Output", "Flatten"):
                if kind == "Flatten" and synapses is not None:
                    raise UserError(f"node '{name}' comes between synapses and neurons")
            elif kind == "Scale":
                if synapses is not None or not np.ptp(node.scale) == 0 or scaled is not None:
                    raise UserError(f"node '{name}': only one constant Scale before a layer works")
                scale, scaled = float(np.ravel(node.scale)[0]), name
            elif kind in ("Conv2d", "Affine", "Linear"):
                if synapses is not None:
                    raise UserError(
                        f"node '{name}': two layers of synapses without neurons between"
                    )
                synapses = _synapses(name, node, kind)
            elif kind in ("LIF", "IF"):
                if synapses is None:
                    raise UserError(f"node '{name}': neurons without synapses before them")
                self._add(name, node, kind, synapses, scale, dt)
                synapses, scale, scaled = None, 1.0, None
            else:
                raise UserError(
                    f"node '{name}' is a {kind}, which the core cannot run; "
                    "use Conv2d, Affine or Linear with LIF or IF neurons"
                )
        if synapses is not None or not self.layers:
            raise UserError("the graph does not end in a layer of LIF neurons")
        if scaled is not None:
            raise UserError(f"node '{scaled}': a Scale without a layer after it")

    def _add(self, name: str, node, kind: str, synapses: dict, scale: float, dt: float) -> None:
        """One layer from its synapses and neurons."""
        values = {
            key: np.asarray(getattr(node, key), np.float64)
            for key in ("r", "v_threshold", "v_reset")
        }
        if values["v_threshold"].ndim == 0:
            raise UserError(f"node '{name}': scalar parameters; export them as vectors")
        for key in ("v_reset", "v_leak"):
            if np.any(np.asarray(getattr(node, key, 0.0))):
                raise UserError(
                    f"node '{name}': {key} other than 0 cannot be expressed on the core"
                )
        if kind == "LIF":
            tau = np.asarray(node.tau, np.float64)
            if not ((tau >= dt * (1 - TOLERANCE)) & np.isfinite(tau)).all():
                raise UserError(
                    f"node '{name}': tau below dt={dt} or not finite; check the unit of dt"
                )
            leak = _per_channel(name, "tau", np.clip(1 - dt / tau, 0, 1))
            gain = _per_channel(name, "r", values["r"] * dt / tau)
        else:
            gain = _per_channel(name, "r", values["r"] * dt)
            leak = np.ones_like(gain)
        threshold = _per_channel(name, "v_threshold", values["v_threshold"])
        integers = (
            {key: _plain(value) for key, value in node.metadata.items()} if self.own else None
        )
        if integers is not None:
            exact = np.asarray(integers["leak"], np.float64)
            if exact.shape != leak.shape or not np.allclose(exact, leak, 0, TOLERANCE):
                raise UserError(
                    f"node '{name}': its tau and its metadata disagree; export it again"
                )
            if not np.allclose(gain, 1.0, TOLERANCE, 0):
                raise UserError(
                    f"node '{name}': its r and its metadata disagree (r must be "
                    f"{'tau / dt' if kind == 'LIF' else '1 / dt'}); export it again"
                )
            leak, gain = exact, np.ones_like(gain)
        elif np.allclose(gain, 1.0, TOLERANCE, 0):
            gain = np.ones_like(gain)
        weight, crop = synapses["weight"], (0, 0, 0, 0)
        if integers is not None and synapses["kind"] == "conv":
            crop = tuple(int(n) for n in integers["crop"])
            weight = _without_border(name, weight, crop)
        if len(gain) != len(weight):
            raise UserError(f"node '{name}': {len(gain)} channels after {len(weight)} outputs")
        self.layers.append(
            LayerSpec(
                kind=synapses["kind"],
                weight=weight * gain.reshape(-1, *[1] * (weight.ndim - 1)),
                bias=synapses["bias"] * gain,
                leak=leak,
                threshold=threshold,
                stride=synapses["stride"],
                padding=synapses["padding"],
                input_scale=scale,
                crop=crop,
            )
        )
        self.integers.append(integers)


def _plain(value: object) -> object:
    """HDF5 gives strings back as bytes and numbers as numpy scalars."""
    if isinstance(value, bytes):
        return value.decode("utf8")
    return value.item() if isinstance(value, np.generic) else value


def _per_channel(name: str, key: str, values: np.ndarray) -> np.ndarray:
    """[C, ...] to [C]. Raises UserError where a channel's neurons differ."""
    flat = values.reshape(len(values), -1)
    if flat.shape[1] > 1 and not np.allclose(flat, flat[:, :1], TOLERANCE, 0):
        raise UserError(f"node '{name}': {key} differs within a channel, which the core cannot do")
    return flat[:, 0].copy()


def _without_border(name: str, weight: np.ndarray, crop: tuple) -> np.ndarray:
    """The kernel inside the zeros that stand for a crop."""
    top, bottom, left, right = crop
    height, width = weight.shape[2:]
    if len(crop) != 4 or min(crop) < 0 or top + bottom >= height or left + right >= width:
        raise UserError(f"node '{name}': its crop and its kernel disagree; export it again")
    inner = weight[:, :, top : height - bottom, left : width - right]
    if np.count_nonzero(weight) != np.count_nonzero(inner):
        raise UserError(f"node '{name}': its crop and its kernel disagree; export it again")
    return inner


def _synapses(name: str, node, kind: str) -> dict:
    weight = np.asarray(node.weight, np.float64)
    if kind != "Conv2d":
        bias = np.asarray(node.bias, np.float64) if kind == "Affine" else np.zeros(len(weight))
        return {"kind": "dense", "weight": weight, "bias": bias, "stride": 1, "padding": 0}
    dilation = np.broadcast_to(np.asarray(node.dilation), (2,))
    if int(np.asarray(node.groups)) != 1 or (dilation != 1).any():
        raise UserError(f"node '{name}': groups and dilation other than 1 cannot run on the core")
    if isinstance(node.padding, (str, bytes)):
        padding = _plain(node.padding)
        stride = np.broadcast_to(np.asarray(node.stride), (2,))
        if padding == "same" and ((stride != 1).any() or not all(k % 2 for k in weight.shape[2:])):
            raise UserError(f"node '{name}': padding 'same' needs odd kernels and stride 1")
        padding = [k // 2 if padding == "same" else 0 for k in weight.shape[2:]]
    else:
        padding = np.broadcast_to(np.asarray(node.padding), (2,))
    return {
        "kind": "conv",
        "weight": weight,
        "bias": np.asarray(node.bias, np.float64),
        "stride": tuple(int(n) for n in np.broadcast_to(np.asarray(node.stride), (2,))),
        "padding": tuple(int(n) for n in padding),
    }


def _quantised(number: int, spec: LayerSpec, integers: dict, config: QuantConfig) -> QuantLayer:
    """The integers of our own file, checked against the float parameters beside them."""
    arrays = {
        key: np.asarray(integers[key], np.int64)
        for key in ("bias_mantissa", "bias_exponent", "dv", "vth")
    }
    scale = np.asarray(integers["scale"], np.float64)
    weight = np.asarray(integers["weight_levels"])
    exponent = int(integers["weight_exponent"])
    _check_ranges(number, spec, {**arrays, "scale": scale}, weight, exponent, config)
    with np.errstate(all="ignore"):  # an absurd float has no integer, so it differs all the same
        derived = neuron_integers(spec, scale, exponent, config)
    for said, keys in (
        ("bias", ("bias_mantissa", "bias_exponent")), ("leak", ("dv",)), ("v_threshold", ("vth",)),
    ):  # fmt: skip
        if not all(np.array_equal(arrays[key], derived[key]) for key in keys):
            raise UserError(
                f"layer {number}: its {said} and the {', '.join(keys)} of its metadata disagree; "
                "export it again"
            )
    return QuantLayer(
        kind=spec.kind,
        weight=weight,
        exponent=exponent,
        stride=spec.stride,
        padding=spec.padding,
        weight_bits=config.weight_bits,
        crop=spec.crop,
        synapses=config.synapses,
        scale=scale,
        **arrays,
    )


def _check_ranges(
    number: int,
    spec: LayerSpec,
    arrays: dict[str, np.ndarray],
    weight: np.ndarray,
    exponent: int,
    config: QuantConfig,
) -> None:
    """Shapes and formats of a file's integers, and its weights. Raises UserError."""
    ranges = {
        "bias_mantissa": (-BIAS_MANTISSA_MAX - 1, BIAS_MANTISSA_MAX),
        "bias_exponent": (0, BIAS_EXPONENT_MAX),
        "dv": (0, DECAY_ONE - 1),
        "vth": (0, VTH_MAX),
        "scale": (np.finfo(np.float64).tiny, np.finfo(np.float64).max),
    }
    for key, (low, high) in ranges.items():
        array = arrays[key]
        if array.shape != (spec.out_channels,) or not ((array >= low) & (array <= high)).all():
            raise UserError(
                f"layer {number}: the {key} of its metadata and the core's format disagree "
                f"({spec.out_channels} values in {low:g}..{high:g}); export it again"
            )
    sound = weight.shape == spec.weight.shape and config.least_exponent <= exponent <= EXPONENT_MAX
    sound &= weight.dtype == (np.int8 if config.synapses == 1 else np.int16)
    sound &= bool((np.abs(weight.astype(np.int64)) <= config.level_max).all())
    if sound:
        unit = arrays["scale"].reshape(-1, *[1] * (weight.ndim - 1)) * 2.0 ** (
            exponent + 1 - config.fine_bits
        )
        error = np.abs(weight * unit - spec.weight * spec.input_scale)
        furthest = 0.5 if config.rounding == "nearest" else 1.0  # levels
        sound = bool((error <= unit * (furthest + TOLERANCE)).all())
    if not sound:
        raise UserError(
            f"layer {number}: its weight and the weight_levels of its metadata disagree; export it "
            "again"
        )
