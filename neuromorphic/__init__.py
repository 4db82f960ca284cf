"""The substrate: the spiking encoder as an integer program on a simulated spike-event core."""

from .compile import CoreProgram, compile_encoder, recompile
from .core import CoreResult, EventCore
from .ledger import Bill, Ledger
from .limits import CoreSpec
from .nir_export import export_nir
from .nir_import import import_nir
from .prices import TABLES, Price, PriceTable
from .quantise import QuantConfig, QuantNetwork, quantise
from .spec import CompileError, LayerSpec, NetworkSpec

__all__ = [
    "TABLES",
    "Bill",
    "CompileError",
    "CoreProgram",
    "CoreResult",
    "CoreSpec",
    "EventCore",
    "LayerSpec",
    "Ledger",
    "NetworkSpec",
    "Price",
    "PriceTable",
    "QuantConfig",
    "QuantNetwork",
    "compile_encoder",
    "export_nir",
    "import_nir",
    "quantise",
    "recompile",
]
