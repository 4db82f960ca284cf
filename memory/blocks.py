"""A big array that knows which of its blocks have changed: a checkpoint writes only those."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCK_BYTES = 8 << 20  # a checkpoint rewrites at least one block, and a file is one block


class BlockArray:
    """A numpy array, cut along its first axis into blocks with a version counter each.

    Whoever writes rows calls `touch` afterwards. Version 0 says that nothing was ever written:
    the block is all zeros, needs no memory yet and is not stored.

    Attributes:
        array: the data, any plain dtype, at least one axis.
        block_rows: rows in a block; the last block may have fewer.
        versions: int64 [blocks].
    """

    def __init__(self, array: np.ndarray, block_rows: int, *, unclaimed: bool = False) -> None:
        if array.ndim < 1 or array.dtype.hasobject or array.dtype.fields is not None:
            raise TypeError(f"a block array needs axes and a plain dtype, not {array.dtype}")
        if not array.flags.c_contiguous or block_rows < 1:
            raise ValueError("a block array is C-contiguous and its blocks have at least one row")
        self.array, self.block_rows = array, block_rows
        self.versions = np.zeros(-(-len(array) // block_rows), np.int64)
        self._unclaimed = unclaimed

    @classmethod
    def zeros(
        cls, shape: Sequence[int], dtype: np.typing.DTypeLike, block_bytes: int = BLOCK_BYTES
    ) -> BlockArray:
        """All zeros; memory is taken from the system only where something is written."""
        array = np.zeros(shape, dtype)  # calloc: untouched pages cost nothing
        row_bytes = max(1, array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)))
        return cls(array, max(1, block_bytes // row_bytes))

    def bounds(self, block: int) -> tuple[int, int]:
        """First row of a block and the row after its last."""
        start = block * self.block_rows
        return start, min(start + self.block_rows, len(self.array))

    def touch(self, start: int, stop: int) -> None:
        """Rows [start, stop) were written."""
        if stop > start:
            self.versions[start // self.block_rows : (stop - 1) // self.block_rows + 1] += 1

    def touch_rows(self, rows: np.ndarray) -> None:
        """These rows [R] were written."""
        self.versions[np.unique(np.asarray(rows) // self.block_rows)] += 1

    def claim(self) -> BlockArray:
        """For `load_state_dict`: this array itself if it came from a file and nobody has it yet,
        else a copy, so that two owners never write to the same memory."""
        if self._unclaimed:
            self._unclaimed = False
            return self
        copy = BlockArray(np.zeros(self.array.shape, self.array.dtype), self.block_rows)
        for block in np.flatnonzero(self.versions):
            start, stop = self.bounds(int(block))
            copy.array[start:stop] = self.array[start:stop]
        copy.versions[:] = self.versions
        return copy
