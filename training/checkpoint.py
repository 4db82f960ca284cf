"""Checkpoints that survive a kill at any moment and write only what has changed.

    checkpoints/<step>/
        state.pt                    everything but the big arrays, loaded with weights_only=True
        replay/frames-00007.npy     one block of a big array
        manifest.json               size and checksum of every file; written last

A checkpoint is made in a folder aside, whose name begins with a dot, and renamed when it is
complete and on the disk. Blocks that have not changed since the last one are hard links to its
files (so a damaged block is damaged in all that share it); never-written blocks are not stored.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from errors import UserError
from memory.blocks import BlockArray
from training.block_files import (
    Damaged,
    read_block,
    read_file,
    sync_folder,
    write_block,
    write_file,
)
from training.packing import empty_arrays, pack, unpack

FORMAT = 1
_TEMPORARY, _REPLACED, _DISCARDED = ".new-", ".old-", ".gone-"  # + step


@dataclass(frozen=True)
class _Saved:
    """What this process knows to be on the disk of one block array."""

    array: weakref.ref[BlockArray]
    versions: np.ndarray
    folder: Path
    files: dict[str, dict[str, int]]


class CheckpointStore:
    """The checkpoints of one run; one process at a time may save.

    Args:
        folder: made at the first save.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep} must be at least 1")
        self.folder, self.keep = Path(folder), keep
        self._known: dict[str, _Saved] = {}
        self._tidy = False

    # -- saving ---------------------------------------------------------------------------------
    def save(self, step: int, state: dict[str, Any]) -> None:
        """Save `state` (see training.packing for what may be in it) as the checkpoint of `step`.

        A checkpoint of the same step is replaced.

        Raises:
            UserError: the disk is full or not writable; what was there stays as it was.
        """
        packed, arrays = pack(state)
        new = self.folder / f"{_TEMPORARY}{step}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clean_up()
            known = self._write(new, step, packed, arrays)
            self._publish(new, step)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            raise UserError(
                f"{self.folder}: the checkpoint of step {step} could not be written "
                f"({error.strerror or error}); free some space there or mend its permissions and "
                f"go on with run={self.folder.parent}, the checkpoints before it are intact"
            ) from error
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        self._known = known
        self._prune()

    def _write(
        self, new: Path, step: int, packed: Any, arrays: dict[str, BlockArray]
    ) -> dict[str, _Saved]:
        new.mkdir()
        buffer = io.BytesIO()
        torch.save(packed, buffer)
        files = {"state.pt": write_file(new / "state.pt", buffer.getbuffer())}
        known = {}
        for name, array in arrays.items():
            (new / name).parent.mkdir(exist_ok=True)
            entries = self._write_blocks(new, name, array)
            files |= entries
            known[name] = _Saved(
                weakref.ref(array), array.versions.copy(), self.folder / str(step), entries
            )
        manifest = _sealed({"format": FORMAT, "step": step, "files": files})
        write_file(new / "manifest.json", json.dumps(manifest, indent=1).encode())
        for folder in {new} | {(new / name).parent for name in arrays}:
            sync_folder(folder)
        return known

    def _write_blocks(self, new: Path, name: str, array: BlockArray) -> dict[str, dict[str, int]]:
        saved, entries = self._known.get(name), {}
        if saved is not None and saved.array() is not array:
            saved = None
        for block in np.flatnonzero(array.versions).tolist():
            file = _block_file(name, block)
            if saved is not None and saved.versions[block] == array.versions[block]:
                try:
                    os.link(saved.folder / file, new / file)
                    entries[file] = saved.files[file]
                    continue
                except OSError:
                    pass  # no hard links here, or the file was removed: write it again
            start, stop = array.bounds(block)
            entries[file] = write_block(new / file, array.array[start:stop])
        return entries

    def _publish(self, new: Path, step: int) -> None:
        final, old = self.folder / str(step), self.folder / f"{_REPLACED}{step}"
        replaces = final.exists()
        if replaces:  # if we die between the two renames, the old one counts again
            os.rename(final, old)
        try:
            os.rename(new, final)
        except OSError:
            if replaces:
                os.rename(old, final)
            raise
        sync_folder(self.folder)
        if replaces:
            shutil.rmtree(old, ignore_errors=True)

    def _clean_up(self) -> None:
        """Remove what an interrupted process has left, once."""
        if self._tidy:
            return
        for path in self.folder.glob(f"{_REPLACED}*"):
            final = self.folder / path.name.removeprefix(_REPLACED)
            if not final.exists():
                os.rename(path, final)
        for prefix in (_TEMPORARY, _REPLACED, _DISCARDED):
            for path in self.folder.glob(f"{prefix}*"):
                shutil.rmtree(path)
        self._tidy = True

    def _prune(self) -> None:
        for step in sorted(self._folders())[: -self.keep]:
            gone = self.folder / f"{_DISCARDED}{step}"
            os.rename(self.folder / str(step), gone)  # never a half-removed checkpoint
            shutil.rmtree(gone, ignore_errors=True)

    # -- loading --------------------------------------------------------------------------------
    def _folders(self) -> dict[int, Path]:
        found = {}
        if self.folder.is_dir():
            names = sorted(p.name for p in self.folder.iterdir())
            for prefix in (_REPLACED, ""):
                for name in names:
                    number = name.removeprefix(prefix)
                    if name.startswith(prefix) and number.isdecimal():
                        found[int(number)] = self.folder / name
        return found

    def latest(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return max(self._folders(), default=None)

    def load(self, step: int | None = None, skip: str | None = None) -> dict[str, Any]:
        """The state of that step, of the newest by default.

        skip: a key of the state whose big arrays stay zero, such as "replay": not read from disk.

        Raises:
            UserError: there is none, it is damaged, or another version of Engram wrote it.
        """
        for last in (False, False, False, True):
            folders = self._folders()
            wanted = max(folders, default=None) if step is None else step
            if wanted not in folders:
                what = "no checkpoint" if wanted is None else f"no checkpoint of step {wanted}"
                there = ", ".join(map(str, sorted(folders)))
                mend = f"choose one of {there}" if there else "train a run first"
                raise UserError(f"{self.folder}: {what}; {mend}")
            folder = folders[wanted]
            begun = _identity(folder)
            try:
                return self._read(folder, wanted, skip)
            except Damaged as error:
                if not last and (begun is None or _identity(folder) != begun):
                    continue  # a run that is going on has saved this step again, or pruned it
                older = max((s for s in folders if s < wanted), default=None)
                mend = "it is the only one: put it back from a copy, or choose another run="
                if older is not None:
                    mend = (
                        f"remove the folder {folder} and give the same command again, the run then "
                        f"goes on from step {older}"
                    )
                raise UserError(f"{error}: {mend}") from error
        raise AssertionError("unreachable")

    def _read(self, folder: Path, step: int, skip: str | None) -> dict[str, Any]:
        file = "manifest.json"
        try:
            files = _read_manifest(folder / file, step)
            file = "state.pt"
            packed = _read_state(folder / file, files)
            arrays, known = empty_arrays(packed), {}
            for name, array in arrays.items():
                if skip is not None and name.startswith(f"{skip}/"):
                    continue
                entries = {}
                for block in np.flatnonzero(array.versions).tolist():
                    file = _block_file(name, block)
                    start, stop = array.bounds(block)
                    entries[file] = _entry(files, file)
                    read_block(folder / file, entries[file], array.array[start:stop])
                known[name] = _Saved(weakref.ref(array), array.versions.copy(), folder, entries)
        except Damaged as error:
            raise Damaged(f"{folder / file} {error}") from error
        self._known = known
        return unpack(packed, arrays)


def _identity(folder: Path) -> int | None:
    """Of this folder, whatever others have its name before and after; None: it is gone."""
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def _block_file(name: str, block: int) -> str:
    return f"{name}-{block:05d}.npy"


def _sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with a checksum of itself."""
    body = {k: v for k, v in manifest.items() if k != "crc32"}
    return body | {"crc32": zlib.crc32(json.dumps(body, sort_keys=True).encode())}


def _read_manifest(path: Path, step: int) -> dict[str, dict[str, int]]:
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Damaged("is missing") from None
    except (OSError, ValueError) as error:
        raise Damaged("cannot be read") from error
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise Damaged("is no manifest")
    if manifest["format"] != FORMAT and manifest == _sealed(manifest):
        raise UserError(
            f"{path}: format {manifest['format']}, this version of Engram reads format {FORMAT}; "
            "go on with the version that wrote it, or start again with another run="
        )
    if manifest != _sealed(manifest) or manifest["step"] != step:
        raise Damaged("has a wrong checksum or step")
    return manifest["files"]


def _entry(files: dict[str, dict[str, int]], file: str) -> dict[str, int]:
    if file not in files:
        raise Damaged("is not in the manifest")
    return files[file]


def _read_state(path: Path, files: dict[str, dict[str, int]]) -> Any:
    content = read_file(path, _entry(files, "state.pt"))
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise Damaged("is no state of this program") from error
