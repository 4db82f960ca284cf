"""Files of a checkpoint: written through to the disk, checked by size and checksum when read.

The checksum is CRC-32 (zlib's): several GB/s, and it finds what disks and interrupted copies do.
It is no protection against forgery; that is not needed, since nothing that is read is executed.
"""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 1 << 20  # bytes read at once; also how much of a file is in the cache when it is summed


class Damaged(Exception):
    """The file is not what its manifest says; the message says in what way."""


def npy_header(array: np.ndarray) -> bytes:
    """What an .npy file begins with."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue()


def write_file(path: Path, *parts: Any) -> dict[str, int]:
    """Write a new file from buffers and force it to the disk; returns its size and checksum."""
    crc = size = 0
    with open(path, "xb", buffering=0) as file:
        for part in parts:
            view = memoryview(part).cast("B")
            crc, size = zlib.crc32(view, crc), size + len(view)
            while len(view):
                view = view[file.write(view) :]
        os.fsync(file.fileno())
    return {"bytes": size, "crc32": crc}


def write_block(path: Path, rows: np.ndarray) -> dict[str, int]:
    """Write C-contiguous rows as .npy."""
    return write_file(path, npy_header(rows), rows.reshape(-1).view(np.uint8))


def read_file(path: Path, entry: dict[str, int]) -> bytes:
    """The file's bytes. Raises Damaged."""
    content = bytearray(entry["bytes"])
    _read_into(path, entry, b"", memoryview(content))
    return bytes(content)


def read_block(path: Path, entry: dict[str, int], rows: np.ndarray) -> None:
    """Fill C-contiguous rows from an .npy file of just this shape and dtype. Raises Damaged.

    The header is compared, not interpreted.
    """
    _read_into(path, entry, npy_header(rows), memoryview(rows.reshape(-1).view(np.uint8)))


def _read_into(path: Path, entry: dict[str, int], header: bytes, target: memoryview) -> None:
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry["bytes"] or size != len(header) + len(target):
                raise Damaged(f"has {size} bytes instead of {entry['bytes']}")
            if file.read(len(header)) != header:
                raise Damaged("begins with a wrong header")
            crc, done = zlib.crc32(header), 0
            while done < len(target):
                count = file.readinto(target[done : done + CHUNK])
                if not count:
                    raise Damaged("ends too early")
                crc = zlib.crc32(target[done : done + count], crc)
                done += count
    except FileNotFoundError:
        raise Damaged("is missing") from None
    except OSError as error:
        raise Damaged(f"cannot be read ({error.strerror})") from error
    if crc != entry["crc32"]:
        raise Damaged("has a wrong checksum")


def sync_folder(path: Path) -> None:
    """Force the folder's list of names to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
