"""What a core can hold: the limits that the compiler honours.

Loihi 1: Davies et al. 2018; 128 cores in 32 tiles of four. Loihi 2: public figures (up to 8192
neurons and about 192 KB a core, graded spikes); its mesh is not published in detail, so the grid
here is an assumption. Ideal: one core without limits, to see the network alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from errors import require

NO_LIMIT = 1 << 62


@dataclass(frozen=True)
class CoreSpec:
    """Limits of one core and of the mesh it sits in.

    shared_kernels: a convolution stores its kernel once a core, not once a synapse.
    graded_input: spikes carry values; without it a pixel is up to eight binary events, one a bit
    plane, each with its own axon and synapses (exact: sum_k bit_k (w << k) = w x).
    fan_in: synapses of one neuron. output_axons: (neuron, destination core) pairs of one core.
    tiles: mesh columns x rows of routers a chip; `cores` is counted over all `chips`.
    """

    name: str
    neurons: int
    synapse_bytes: int
    input_axons: int
    output_axons: int
    fan_in: int
    weight_bits: int
    graded_input: bool
    shared_kernels: bool
    tiles: tuple[int, int]
    cores_per_tile: int
    cores: int
    chips: int = 1

    def __post_init__(self) -> None:
        for name in ("neurons", "synapse_bytes", "input_axons", "output_axons", "fan_in", "chips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def cores_in_all(self) -> int:
        return self.cores * self.chips

    @property
    def max_synapses(self) -> int:
        """Of a weight. Two drop bits of their sum, which bit planes would each drop on their own
        (see `quantise.py`); it is also how many a weight gets where nothing else is asked for."""
        return 2 if self.graded_input else 1

    @classmethod
    def loihi1(cls, chips: int = 1) -> CoreSpec:
        return cls(
            name="loihi1",
            neurons=1024,
            synapse_bytes=128 * 1024,
            input_axons=4096,
            output_axons=4096,
            fan_in=4096,  # one synapse of a neuron per input axon
            weight_bits=9,
            graded_input=False,
            shared_kernels=False,
            tiles=(8, 4),
            cores_per_tile=4,
            cores=128,
            chips=chips,
        )

    @classmethod
    def loihi2(cls, chips: int = 1) -> CoreSpec:
        return cls(
            name="loihi2",
            neurons=8192,
            synapse_bytes=192 * 1024,
            input_axons=4096,  # not published; Loihi 1's value
            output_axons=4096,  # not published; Loihi 1's value
            fan_in=4096,
            weight_bits=8,
            graded_input=True,
            shared_kernels=True,
            tiles=(6, 5),
            cores_per_tile=4,
            cores=120,
            chips=chips,
        )

    @classmethod
    def ideal(cls) -> CoreSpec:
        return cls(
            name="ideal",
            neurons=NO_LIMIT,
            synapse_bytes=NO_LIMIT,
            input_axons=NO_LIMIT,
            output_axons=NO_LIMIT,
            fan_in=NO_LIMIT,
            weight_bits=8,
            graded_input=True,
            shared_kernels=True,
            tiles=(1, 1),
            cores_per_tile=4096,
            cores=4096,
        )

    @classmethod
    def named(cls, name: str, chips: int = 1) -> CoreSpec:
        """The core of a configuration. Raises UserError: no such core, or not so many chips."""
        makers = {"loihi1": cls.loihi1, "loihi2": cls.loihi2, "ideal": cls.ideal}
        require(name in makers, f"core={name} is not known; use one of {', '.join(makers)}")
        require(chips >= 1, f"chips={chips} must be at least 1")
        if name == "ideal":
            require(chips == 1, f"chips={chips}: core=ideal is without limits; leave chips out")
            return cls.ideal()
        return makers[name](chips)
