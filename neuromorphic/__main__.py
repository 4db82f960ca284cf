"""Compile a trained encoder for a core, or export it as a NIR graph.

    python -m neuromorphic compile run=runs/x [core=loihi1|loihi2|ideal] [chips=1] [out=place.png]
    python -m neuromorphic export run=runs/x out=encoder.nir [dt=0.001]
    both: [weight_bits=8] [synapses=1|2] [scale=channel|layer] [step=<checkpoint>]

Weights have two synapses where the core can do that (not loihi1, whose input is not graded).

`compile` prints the placement (neurons, synapse bytes, axons, hops of each core) and draws it, or
refuses and names the limit, the layer and the mend. `export` reads its own file again and checks
that it gives the same spikes.

This file is a command line, as train.py is: it alone of the package may import `training`, which
knows how to load a run.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from errors import UserError, exit_status, require

if TYPE_CHECKING:
    from neuromorphic.quantise import QuantConfig

COMMON = ("run", "step", "weight_bits", "synapses", "scale")
KEYS = {"compile": (*COMMON, "core", "chips", "out"), "export": (*COMMON, "out", "dt")}
CHECKED = 64  # decisions on which an exported file must give the same spikes


def main(argv: Sequence[str]) -> int:
    if not argv or any(a in ("-h", "--help") for a in argv):
        print(__doc__)
        return 0 if argv else 2
    return exit_status(lambda: work(*parse(argv)))


def work(command: str, options: dict[str, str]) -> None:
    {"compile": compile_run, "export": export_run}[command](options)


def parse(argv: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The command and its key=value options."""
    command, *rest = argv
    require(command in KEYS, f"'{command}' is no command; use one of {', '.join(KEYS)}")
    options = {}
    for word in rest:
        key, equals, value = word.partition("=")
        require(bool(equals and value), f"'{word}' is not of the form key=value")
        require(
            key in KEYS[command],
            f"{command} has no key '{key}'; use one of {', '.join(KEYS[command])}",
        )
        require(key not in options, f"{key}= is given twice")
        options[key] = value
    require("run" in options, f"{command} needs run=, the folder of a trained run")
    return command, options


def compile_run(options: dict[str, str]) -> None:
    from neuromorphic.compile import compile_encoder
    from neuromorphic.limits import CoreSpec
    from neuromorphic.report import draw_placement, placement_table

    core = CoreSpec.named(options.get("core", "loihi2"), integer(options, "chips", 1))
    quant = quant_config(options, core.max_synapses)
    name = f"placement_{core.name}_synapses{quant.synapses}.png"
    out = Path(options.get("out", name))
    require(out.suffix == ".png", f"out={out}: the picture is a .png")
    folder, encoder = trained_encoder(options)
    if "out" not in options:
        out = folder / "report" / name
    program = compile_encoder(encoder, core, quant)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_placement(program, out)
    except OSError as error:
        raise UserError(
            f"out={out}: cannot be written ({error.strerror}); choose another out="
        ) from None
    print(placement_table(program))
    print(f"picture: {out}")


def export_run(options: dict[str, str]) -> None:
    from neuromorphic.compile import network_of
    from neuromorphic.nir_export import DEFAULT_DT, export_nir
    from neuromorphic.nir_import import import_nir

    require("out" in options, "export needs out=, the file to write, such as out=encoder.nir")
    path = Path(options["out"])
    network = network_of(trained_encoder(options)[1], quant_config(options, synapses=2))
    export_nir(network, path, number(options, "dt", DEFAULT_DT))
    spikes = check_same_spikes(network, import_nir(path))
    print(
        f"{path}: {path.stat().st_size:,} bytes, {len(network.layers)} layers; read again, all "
        f"{spikes:,} spikes of {CHECKED} decisions are the same"
    )


def check_same_spikes(network: object, again: object) -> int:
    """Spikes of both networks on generated frames. Raises UserError where one differs."""
    from neuromorphic.compile import compile_encoder
    from neuromorphic.core import EventCore
    from neuromorphic.limits import CoreSpec

    spec = network.spec
    rng = np.random.default_rng(0)
    shape = (CHECKED, spec.time_steps, *spec.frame_shape)
    frames = rng.integers(0, 256, shape).astype(np.uint8)
    frames[rng.random(shape) < rng.random((CHECKED, *[1] * (len(shape) - 1)))] = 0  # dark to bright
    one, two = (
        EventCore(compile_encoder(n, CoreSpec.ideal())).run(frames, record=True)
        for n in (network, again)
    )
    require(
        np.array_equal(one.raster, two.raster),
        "the exported file gives other spikes when it is read again: do not use it, and report it",
    )
    return int(one.spikes.sum())


def trained_encoder(options: dict[str, str]) -> tuple[Path, object]:
    """The run's folder, and the encoder that acts in its newest (or the named) checkpoint."""
    from training.loading import load_run

    run = load_run(Path(options["run"]), integer(options, "step", None))
    network = run.agent.acting_network
    require(hasattr(network, "encoder"), f"run={options['run']}: its agent has no encoder")
    return run.path, network.encoder


def quant_config(options: dict[str, str], synapses: int) -> QuantConfig:
    """How weights are rounded; `synapses` a weight where the options do not say."""
    from neuromorphic.quantise import QuantConfig

    scale = options.get("scale", "channel")
    require(scale in ("channel", "layer"), f"scale={scale} is neither channel nor layer")
    return QuantConfig(
        integer(options, "weight_bits", 8), scale, synapses=integer(options, "synapses", synapses)
    )


def integer(options: dict[str, str], key: str, default: int | None) -> int | None:
    value = number(options, key, default)
    require(value is None or value == int(value), f"{key}={options.get(key)} is not a whole number")
    return None if value is None else int(value)


def number(options: dict[str, str], key: str, default: float | None) -> float | None:
    if key not in options:
        return default
    try:
        value = float(options[key])
    except ValueError:
        value = math.nan
    require(math.isfinite(value), f"{key}={options[key]} is not a number")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
