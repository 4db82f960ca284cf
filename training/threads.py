"""The one place that sets thread counts and the allocator's habits."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

# glibc gives freed blocks above this size back to the kernel, and the next tensor of that size pays
# a page fault per 4 KiB. Keeping them halves a training step of small networks on a CPU. [measured]
_KEEP_BYTES = 1 << 30
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks. Returns False where the C library has no such call."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES))


def release_freed_memory() -> None:
    """Give the holes in the heap back to the system, in milliseconds; nothing without glibc.

    Where blocks of many sizes come and go, as with a world model, glibc (before 2.38 its aligned
    blocks do not fit where they were) would grow by up to a megabyte an update. [measured]
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def available_cores() -> int:
    """Cores this process may use, not those the host has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def configure_threads(learner_threads: int) -> None:
    """Set the threads of torch and faiss (they share an OpenMP runtime or have one each).

    The emulators' threads are set where they are made, by `device.emulator_threads`.
    """
    keep_freed_memory()
    # Adam's second moments of silent weights decay into denormal numbers, on which a CPU is many
    # times slower: they took a quarter of a training step. [measured]
    torch.set_flush_denormal(True)
    torch.set_num_threads(learner_threads)
    os.environ["OMP_NUM_THREADS"] = str(learner_threads)  # for a faiss that is imported later
    if "faiss" in sys.modules:
        import faiss

        faiss.omp_set_num_threads(learner_threads)
    if torch.get_num_threads() != learner_threads:
        raise RuntimeError(
            f"torch runs {torch.get_num_threads()} threads, {learner_threads} were set"
        )
