"""Checkpoints: what goes in comes out, and nothing that happens in between loses the last one."""

import errno
import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

import training.block_files
import training.checkpoint
from errors import UserError
from memory import BlockArray, ReplayBuffer
from training.checkpoint import CheckpointStore, _sealed


def blocks(rows=64, block_rows=8):
    return BlockArray(np.zeros((rows, 16), np.uint8), block_rows)


def write(array, start, stop, value):
    array.array[start:stop] = value
    array.touch(start, stop)


def saved_inodes(folder):
    return {p.name: p.stat().st_ino for p in folder.glob("replay/*.npy")}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def test_every_kind_of_value_survives(folder):
    rng = np.random.default_rng(3)
    array = blocks()
    write(array, 8, 20, 7)
    state = {
        "rng": rng.bit_generator.state,  # 128-bit integers
        "numbers": [1, -(1 << 300), 2.5, float("inf"), True, None, "text", (1, (2,))],
        "tensors": {"a": torch.arange(6).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)},
        "arrays": {
            "uint64": np.array([2**64 - 1, 0], np.uint64),
            "bool": np.array([[True, False]]),
            "float": np.array([np.nan, 1.5], np.float16),
            "empty": np.zeros((0, 3), np.int32),
            "nothing": np.array(5.0),
            3: np.arange(10)[::3],
        },
        "scalars": [np.uint64(2**63), np.float32(1.5), np.bool_(True)],
        "replay": {"frames": array},
        "memory": {"games": [{"keys": blocks()}]},
    }
    CheckpointStore(folder, 1).save(7, state)
    assert not any(p.name.startswith("games") for p in (folder / "7" / "memory").iterdir())
    back = CheckpointStore(folder, 1).load()
    assert back["rng"] == state["rng"]
    assert back["numbers"] == state["numbers"]
    assert [type(v) for v in back["numbers"]] == [type(v) for v in state["numbers"]]
    for name, tensor in state["tensors"].items():
        assert back["tensors"][name].dtype == tensor.dtype
        assert torch.equal(back["tensors"][name], tensor)
    for name, value in state["arrays"].items():
        assert back["arrays"][name].dtype == value.dtype
        np.testing.assert_array_equal(back["arrays"][name], value)
        assert back["arrays"][name].flags.writeable
    assert [(type(v), v) for v in back["scalars"]] == [(type(v), v) for v in state["scalars"]]
    np.testing.assert_array_equal(back["replay"]["frames"].array, array.array)
    assert sorted(p.name for p in (folder / "7" / "replay").iterdir()) == [
        "frames-00001.npy",
        "frames-00002.npy",
    ]
    stored = np.load(folder / "7" / "replay" / "frames-00001.npy", allow_pickle=False)
    np.testing.assert_array_equal(stored, array.array[8:16])
    generator = np.random.default_rng(0)
    generator.bit_generator.state = back["rng"]
    assert generator.integers(1 << 60) == rng.integers(1 << 60)


@pytest.mark.parametrize(
    "value", [object(), b"bytes", {1, 2}, np.array([object()]), {2.5: 1}, {"__ndarray__": 1}]
)
def test_names_the_place_of_what_cannot_be_saved(folder, value):
    with pytest.raises(TypeError, match=r"state\['agent'\]\['x'\]"):
        CheckpointStore(folder, 1).save(0, {"agent": {"x": value}})
    assert not folder.exists()


def test_a_view_does_not_drag_its_whole_along(folder):
    CheckpointStore(folder, 1).save(0, {"row": torch.zeros(1 << 20)[:4]})
    assert (folder / "0" / "state.pt").stat().st_size < 10_000


def test_unchanged_blocks_are_linked_and_changed_ones_written(folder):
    store, array = CheckpointStore(folder, 3), blocks()
    write(array, 0, 30, 1)
    store.save(1, {"replay": {"frames": array}})
    write(array, 17, 18, 2)
    write(array, 40, 41, 3)
    store.save(2, {"replay": {"frames": array}})
    one, two = saved_inodes(folder / "1"), saved_inodes(folder / "2")
    assert sorted(two) == [f"frames-0000{b}.npy" for b in (0, 1, 2, 3, 5)]
    assert {name for name in one if one[name] == two[name]} == {
        f"frames-0000{b}.npy" for b in (0, 1, 3)
    }
    for step, rows in ((1, {17: 1, 40: 0}), (2, {16: 1, 17: 2, 40: 3})):
        back = CheckpointStore(folder, 3).load(step)["replay"]["frames"].array
        assert {r: back[r, 0] for r in rows} == rows


def test_links_go_on_after_a_restart_but_not_to_another_array(folder):
    array = blocks()
    write(array, 0, 64, 1)
    CheckpointStore(folder, 5).save(1, {"replay": {"frames": array}})
    store = CheckpointStore(folder, 5)
    loaded = store.load()["replay"]["frames"].claim()
    write(loaded, 0, 1, 5)
    store.save(2, {"replay": {"frames": loaded}})
    one, two = saved_inodes(folder / "1"), saved_inodes(folder / "2")
    assert [one[n] == two[n] for n in sorted(one)] == [False] + [True] * 7
    other = blocks()  # same versions, other content
    write(other, 0, 64, 9)
    store.save(3, {"replay": {"frames": other}})
    assert (CheckpointStore(folder, 5).load(3)["replay"]["frames"].array == 9).all()
    # the array that was loaded and one that was written go different ways from the same versions
    again = CheckpointStore(folder, 5)
    branch = again.load(1)["replay"]["frames"].claim()
    write(branch, 0, 1, 6)
    again.save(4, {"replay": {"frames": branch}})
    assert CheckpointStore(folder, 5).load(4)["replay"]["frames"].array[0, 0] == 6
    assert CheckpointStore(folder, 5).load(2)["replay"]["frames"].array[0, 0] == 5


def test_without_hard_links_everything_is_written(folder, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    store, array = CheckpointStore(folder, 2), blocks()
    write(array, 0, 30, 1)
    store.save(1, {"replay": {"frames": array}})
    store.save(2, {"replay": {"frames": array}})
    assert not set(saved_inodes(folder / "1").values()) & set(saved_inodes(folder / "2").values())
    assert (store.load(2)["replay"]["frames"].array[:30] == 1).all()


def test_keeps_the_last_ones(folder):
    store, array = CheckpointStore(folder, 2), blocks()
    write(array, 0, 8, 4)
    assert store.latest() is None
    for step in (5, 20, 100):
        store.save(step, {"step": step, "replay": {"frames": array}})
    assert sorted(p.name for p in folder.iterdir()) == ["100", "20"]
    assert store.latest() == 100
    assert store.load(20)["step"] == 20
    assert (store.load()["replay"]["frames"].array[:8] == 4).all()


def test_the_same_step_again_replaces(folder):
    store, array = CheckpointStore(folder, 2), blocks()
    write(array, 0, 64, 1)
    store.save(5, {"n": 1, "replay": {"frames": array}})
    before = saved_inodes(folder / "5")
    write(array, 0, 1, 2)
    store.save(5, {"n": 2, "replay": {"frames": array}})
    assert [p.name for p in folder.iterdir()] == ["5"]
    assert sum(before[n] == i for n, i in saved_inodes(folder / "5").items()) == 7
    assert CheckpointStore(folder, 2).load()["n"] == 2


def test_a_kill_between_the_two_renames_loses_nothing(folder):
    store = CheckpointStore(folder, 2)
    store.save(5, {"n": 1})
    os.rename(folder / "5", folder / ".old-5")
    (folder / ".new-5").mkdir()
    again = CheckpointStore(folder, 2)
    assert again.latest() == 5
    assert again.load()["n"] == 1
    again.save(6, {"n": 2})
    assert sorted(p.name for p in folder.iterdir()) == ["5", "6"]


@pytest.mark.parametrize("then", ["replaced", "pruned"])
def test_a_checkpoint_that_changes_while_it_is_read_is_read_again(folder, monkeypatch, then):
    """A run that goes on saves beside whoever looks at it."""
    running, reader, first = CheckpointStore(folder, 1), CheckpointStore(folder, 1), []
    running.save(1, {"a": torch.zeros(8)})
    read = training.checkpoint._read_state

    def meanwhile(path, files):
        if not first:
            first.append(path)
            running.save(1 if then == "replaced" else 2, {"a": torch.ones(8)})
        return read(path, files)

    monkeypatch.setattr(training.checkpoint, "_read_state", meanwhile)
    assert torch.equal(reader.load()["a"], torch.ones(8))
    assert first


def test_leftovers_are_removed(folder):
    CheckpointStore(folder, 2).save(5, {"n": 1})
    for name in (".new-7", ".old-5", ".gone-3"):
        (folder / name).mkdir()
        (folder / name / "state.pt").write_bytes(b"half")
    store = CheckpointStore(folder, 2)
    assert store.latest() == 5
    store.save(7, {"n": 2})
    assert sorted(p.name for p in folder.iterdir()) == ["5", "7"]


@pytest.mark.parametrize("fail_at", range(1, 6))
def test_a_full_disk_loses_nothing(folder, monkeypatch, fail_at):
    store, array = CheckpointStore(folder, 1), blocks()
    write(array, 0, 30, 1)
    store.save(1, {"n": 1, "replay": {"frames": array}})
    write(array, 0, 30, 2)
    calls = []

    def fsync(descriptor, real=os.fsync):
        calls.append(descriptor)
        if len(calls) == fail_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(training.block_files.os, "fsync", fsync)
    with pytest.raises(UserError, match=r"checkpoints: .*No space left on device"):
        store.save(2, {"n": 2, "replay": {"frames": array}})
    assert [p.name for p in folder.iterdir()] == ["1"]
    back = CheckpointStore(folder, 1).load()
    assert back["n"] == 1
    assert (back["replay"]["frames"].array[:30] == 1).all()
    calls.extend([0] * 10)
    store.save(2, {"n": 2, "replay": {"frames": array}})  # there is room again
    assert (CheckpointStore(folder, 1).load()["replay"]["frames"].array[:30] == 2).all()


def damage(path, how):
    if how == "remove":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[:-10] if how == "cut" else content)


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
@pytest.mark.parametrize("file", ["state.pt", "manifest.json", "replay/frames-00001.npy"])
def test_damage_is_named_with_its_mend(folder, file, how):
    store, array = CheckpointStore(folder, 2), blocks()
    for step in (1, 2):
        write(array, 0, 30, step)
        store.save(step, {"replay": {"frames": array}})
    damage(folder / "2" / file, how)
    with pytest.raises(UserError, match=r"remove the folder .*2 and .* from step 1") as caught:
        CheckpointStore(folder, 2).load()
    assert str(folder / "2" / file) in str(caught.value)
    assert "\n" not in str(caught.value)
    back = CheckpointStore(folder, 2).load(1)
    assert (back["replay"]["frames"].array[:30] == 1).all()


def test_every_single_flipped_byte_of_the_manifest_is_noticed(folder):
    CheckpointStore(folder, 1).save(1, {"n": 1})
    path = folder / "1" / "manifest.json"
    content = path.read_bytes()
    for i in range(len(content)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :])
        with pytest.raises(UserError):
            CheckpointStore(folder, 1).load()


def test_a_foreign_format_is_refused(folder):
    CheckpointStore(folder, 1).save(1, {"n": 1})
    path = folder / "1" / "manifest.json"
    path.write_text(json.dumps(_sealed(json.loads(path.read_text()) | {"format": 99})))
    with pytest.raises(UserError, match=r"manifest\.json: format 99"):
        CheckpointStore(folder, 1).load()


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickled_object_is_never_executed(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CheckpointStore(folder, 1).save(1, {"n": 1})
    path, manifest = folder / "1" / "state.pt", folder / "1" / "manifest.json"
    torch.save({"n": Malicious()}, path)
    path_entry = training.block_files.write_file(tmp_path / "copy", path.read_bytes())
    content = json.loads(manifest.read_text())
    content["files"]["state.pt"] = path_entry
    manifest.write_text(json.dumps(_sealed(content)))
    with pytest.raises(UserError, match=r"state\.pt"):
        CheckpointStore(folder, 1).load()
    assert not (tmp_path / "executed").exists()


def test_nothing_to_load(folder):
    with pytest.raises(UserError, match="no checkpoint"):
        CheckpointStore(folder, 1).load()
    CheckpointStore(folder, 1).save(3, {})
    with pytest.raises(UserError, match=r"step 4; choose one of 3"):
        CheckpointStore(folder, 1).load(4)


def save_for_ever(folder, replaces):
    """The child that is killed: row r of the array shows the step at which it was written."""
    store, rng = CheckpointStore(folder, 2), np.random.default_rng(os.getpid())
    step = 0
    array = blocks(rows=256, block_rows=8)
    if store.latest() is not None:
        state = store.load()
        step, array = state["step"], state["replay"]["frames"].claim()
    while True:
        step += 1
        for row in rng.integers(256, size=3):
            write(array, row, row + 1, step % 256)
        expected = array.array[:, 0].astype(int).tolist()
        for _ in range(2 if replaces else 1):  # the second replaces the first
            store.save(step, {"step": step, "expected": expected, "replay": {"frames": array}})


@pytest.mark.parametrize("replaces", [False, True])
def test_a_kill_at_any_moment_leaves_the_last_checkpoint(folder, replaces):
    context, rng, reached = multiprocessing.get_context("fork"), np.random.default_rng(0), 0
    store = CheckpointStore(folder, 2)
    for _ in range(12):
        child = context.Process(target=save_for_ever, args=(folder, replaces))
        child.start()
        deadline = time.monotonic() + 60
        while (store.latest() or 0) <= reached:  # however slow the machine is: it is at work
            assert time.monotonic() < deadline
            assert child.is_alive()
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.06))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        state = CheckpointStore(folder, 2).load()
        assert state["step"] == store.latest() > reached
        assert state["replay"]["frames"].array[:, 0].tolist() == state["expected"]
        reached = state["step"]


def test_a_replay_comes_back_from_the_disk(folder):
    rng = np.random.default_rng(0)
    replay = ReplayBuffer(60, 1, 2, frame_shape=(2, 3))
    obs = rng.integers(1, 256, size=(1, 4, 2, 3), dtype=np.uint8)
    store = CheckpointStore(folder, 2)
    for t in range(100):
        replay.add(obs, [t % 18], [t], [False], [False], [t == 0], 0)
        obs = np.roll(obs, -1, 1)
        obs[:, 3] = rng.integers(1, 256, size=(2, 3))
        if t % 30 == 29:
            store.save(t, {"replay": replay.state_dict()})
    store.save(100, {"replay": replay.state_dict()})
    copy = ReplayBuffer(60, 1, 2, frame_shape=(2, 3))
    copy.load_state_dict(CheckpointStore(folder, 2).load()["replay"])
    for r in (replay, copy):
        r.add(obs, [1], [1], [False], [False], [False], 0)
    a, b = (r.sample(64, 2, np.random.default_rng(1)) for r in (replay, copy))
    for x, y in zip(a, b):
        np.testing.assert_array_equal(x, y)


def test_claiming_twice_gives_two_arrays(folder):
    array = blocks()
    write(array, 0, 8, 1)
    CheckpointStore(folder, 1).save(1, {"replay": {"frames": array}})
    loaded = CheckpointStore(folder, 1).load()["replay"]["frames"]
    first, second = loaded.claim(), loaded.claim()
    assert first is loaded
    first.array[0] = 9
    assert second.array[0, 0] == 1
    assert second.versions.tolist() == first.versions.tolist()


def test_arrays_of_one_key_can_be_left_on_the_disk(tmp_path):
    arrays = {key: BlockArray(np.arange(12, dtype=np.int32), 4) for key in ("replay", "memory")}
    store = CheckpointStore(tmp_path, 1)
    for array in arrays.values():
        array.touch(0, 12)
    store.save(1, {key: {"a": array} for key, array in arrays.items()})
    state = CheckpointStore(tmp_path, 1).load(skip="replay")
    assert not state["replay"]["a"].array.any()
    np.testing.assert_array_equal(state["memory"]["a"].array, np.arange(12))
