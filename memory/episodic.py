"""The episodic memory: single moments, found by likeness, and what they turned out to be worth.

    memory = EpisodicMemory(capacity=100_000, key_dim=64, num_actions=18, neighbours=50)
    slots = memory.write(keys, actions, returns, hashes, task)
    read = memory.read(key)                           # q [B,A], confidence [B], ...
    part = memory.gather(read.indices[rows, taken])   # torch leaves, for the loss
    episodic_value(query, *part).sum().backward()
    memory.apply_gradients(part, key_rate, value_rate)

One entry is one action in one state, as in the dictionaries of NEC. Two other designs were
weighed. A slot that holds a state with the values of all its actions answers for all actions by
one search, but under play that hardly ever repeats a state nine of ten of its values stay
unknown, and the p nearest *states* hold some three experiences of each action where NEC asks for
p: this cheaper, poorer reading is `scope="shared"` here, without another data structure. One
index per action is what `scope="action"` means; all share the same pool of slots and blocks, so a
read is one call, and an action pays by the root of its own number of entries.
Measured in benchmarks/results/episodic.json.

Legend: B queries, A actions, p neighbours, D key dimensions, N entries, C capacity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from memory import slots as storage
from memory.blocks import BlockArray
from memory.checks import as_actions, as_hashes, as_keys, as_values, choice, positive
from memory.flat import search as exact_search
from memory.index import make_index
from memory.recall import KERNELS, EpisodicRead, descend, split_by_action, weigh

UPDATES = {"nec": storage.MEAN_STEP, "mfec": storage.MAXIMUM}
_SAVED = ("values", "hashes", "actions", "tasks", "pools", "ticks", "born", "versions", "refs")


class Gathered(NamedTuple):
    """Neighbours as torch leaves; gradients of keys and values go back by `apply_gradients`."""

    keys: Tensor  # [...,p,D] float32, requires grad
    values: Tensor  # [...,p] float32, requires grad
    valid: Tensor  # [...,p] bool
    slots: np.ndarray  # [...,p] int64, -1 where not valid


class Moments(NamedTuple):
    """What is known of slots, in the shape they were asked in; -1 where the slot is -1."""

    tasks: np.ndarray
    actions: np.ndarray
    values: np.ndarray  # nan where the slot is -1
    ages: np.ndarray  # ticks (writes and reads) since the entry was made
    versions: np.ndarray
    refs: np.ndarray


class EpisodicMemory:
    """Entries (state, action, value) under keys; see the module's text.

    Args:
        capacity: entries, over all tasks and actions.
        key_dim: D. Keys should have unit length; `delta` and `reach` are squared distances.
        num_actions: A.
        neighbours: p; NEC 50, MFEC 11.
        tasks: number of tasks that share the memory; each is guaranteed capacity // tasks.
        index: flat | ivf | hnsw | auto.
        scope: "action": the p nearest of each action (NEC, MFEC); "shared": the p nearest of
            all, told apart by action; about A times cheaper.
        update: value of a known entry: "nec" v += alpha (R - v), "mfec" v = max(v, R).
        alpha: step of "nec", in (0, 1]. Not published; .1 is the common choice.
        kernel: "inverse" (NEC) or "mean" (MFEC).
        delta: of the kernel, NEC 1e-3.
        reach: squared distance of the nearest neighbour at which the confidence is one half.
        partition: who is guaranteed a share: each "task", or each "task_action" (the papers'
            capacity per action).
        unit_keys: scale keys to unit length again after a gradient step.
        upkeep: entries of the index looked after for each entry written.
    """

    def __init__(
        self,
        capacity: int,
        key_dim: int,
        num_actions: int,
        neighbours: int,
        *,
        tasks: int = 1,
        index: str = "auto",
        scope: str = "action",
        update: str = "nec",
        alpha: float = 0.1,
        kernel: str = "inverse",
        delta: float = 1e-3,
        reach: float = 1e-2,
        partition: str = "task",
        unit_keys: bool = False,
        upkeep: float = 1.0,
    ) -> None:
        pools = tasks * (num_actions if partition == "task_action" else 1)
        for name in ("capacity", "key_dim", "num_actions", "neighbours", "tasks"):
            positive(name, locals()[name])
        positive("alpha", alpha, most=1.0)
        positive("delta", delta)
        positive("reach", reach)
        if capacity < pools:
            raise ValueError(f"capacity {capacity} leaves nothing for each of {pools} shares")
        self.capacity, self.key_dim, self.num_actions = capacity, key_dim, num_actions
        self.neighbours, self.tasks = neighbours, tasks
        self.scope = choice("scope", scope, ("action", "shared"))
        self.partition = choice("partition", partition, ("task", "task_action"))
        self.rule = UPDATES[choice("update", update, UPDATES)]
        self.kernel = KERNELS[choice("kernel", kernel, KERNELS)]
        self.alpha, self.delta, self.reach = alpha, delta, reach
        self.unit_keys, self.upkeep = unit_keys, upkeep
        self.version = 0  # of the encoder whose keys are being written
        self._owed = 0.0  # upkeep not yet done, in entries
        self._cursor = 0  # of `stale`
        self._index_kind = index
        self._quota = np.full(pools, capacity // pools, np.int64)
        self._attach(BlockArray.zeros((capacity, key_dim), np.float32))

    def _attach(self, keys: BlockArray) -> None:
        """Empty slots and index over a key array."""
        self._keys = keys
        self._slots = storage.allocate(keys.array, self.tasks, self.num_actions, self._quota)
        self._groups_each = self.num_actions if self.scope == "action" else 1  # of a task
        self.index = make_index(self._index_kind, keys.array, self._groups_each, self.tasks)

    def __len__(self) -> int:
        return int(self._slots.totals[storage.COUNT])

    def _groups(self, slots: np.ndarray) -> np.ndarray:
        groups = self._slots.tasks[slots] * self._groups_each
        return groups + self._slots.actions[slots] if self.scope == "action" else groups

    def share_among(self, tasks: int) -> None:
        """Divide the capacity among the first `tasks` tasks alone; the others have no share yet."""
        if not 1 <= tasks <= self.tasks:
            raise ValueError(f"{tasks} of the memory's {self.tasks} tasks cannot share it")
        pools = tasks * (len(self._quota) // self.tasks)
        self._quota[:] = 0
        self._quota[:pools] = self.capacity // pools

    def _check_task(self, task: int) -> None:
        if not 0 <= task < self.tasks:
            raise ValueError(f"task {task} is not one of the memory's {self.tasks} tasks")

    # -- writing ------------------------------------------------------------------------------

    def write(
        self,
        keys: np.ndarray,
        actions: np.ndarray,
        values: np.ndarray,
        hashes: np.ndarray,
        task: int,
        refs: np.ndarray | None = None,
    ) -> np.ndarray:
        """Write entries in order; known ones (state hash, action, task) are updated.

        Args:
            keys: [N,D] float32.
            actions: [N] integers.
            values: [N] returns, in units of reward.
            hashes: [N] 64-bit hashes of the states.
            task: whose share they count against.
            refs: [N] int64, the caller's names of the moments; default -1.

        Returns:
            slots [N] int64. If a call writes more than the memory holds, an early entry may be
            gone by the end and its slot be another's.

        Raises:
            ValueError: shapes, non-finite keys or values, unknown action or task.
        """
        keys = as_keys(keys, self.key_dim)
        count = len(keys)
        actions = as_actions(actions, count, self.num_actions)
        values, hashes = as_values(values, count), as_hashes(hashes, count)
        refs = np.full(count, -1, np.int64) if refs is None else as_hashes(refs, count)
        self._check_task(task)
        first = task * (self.num_actions if self.partition == "task_action" else 1)
        step = 1 if self.partition == "task_action" else 0
        pools = first + step * np.arange(self.num_actions)
        slots, moved = np.empty(count, np.int64), np.empty(count, np.bool_)
        storage.upsert(
            self._slots, keys, actions, values, hashes, refs, task, pools, self.version,
            self.rule, self.alpha, slots, moved,
        )  # fmt: skip
        self._moved(slots[moved])
        self._owed += self.upkeep * count
        if self._owed >= 64:  # a visit costs a whole cell, so it is not worth less
            self.index.maintain(int(self._owed))
            self._owed = 0.0
        return slots

    def _moved(self, slots: np.ndarray) -> None:
        """Tell index and checkpoint that these slots have other keys."""
        if len(slots):
            self._keys.touch_rows(slots)
            self.index.put(slots, self._groups(slots))

    # -- reading ------------------------------------------------------------------------------

    def read(
        self,
        keys: np.ndarray,
        hashes: np.ndarray | None = None,
        task: int = 0,
        *,
        exact: bool = False,
        recall: bool = True,
    ) -> EpisodicRead:
        """What similar moments of a task were worth, for each action.

        Args:
            keys: [B,D] float32.
            hashes: [B] 64-bit hashes of the states, to report `hits`.
            task: whose entries answer. What another game's moments were worth says nothing here:
                their returns have another scale, and old keys lie anywhere once the encoder has
                moved on.
            exact: where the very state and action is stored, its value is the answer (MFEC).
            recall: neighbours count as recalled and are kept longer; off for evaluation.

        An empty memory, or an action without entries, gives q 0, confidence 0, indices -1.
        """
        keys = as_keys(keys, self.key_dim)
        self._check_task(task)
        batch, shape = len(keys), (len(keys), self.num_actions)
        slots, distances = self._search(keys, task)
        if self.scope == "shared":
            found, square = slots, distances
            slots = np.empty((*shape, self.neighbours), np.int32)
            distances = np.empty(slots.shape, np.float32)
            split_by_action(found, square, self._slots.actions, slots, distances)
        known = np.full(shape, -1, np.int64)
        if hashes is not None:
            storage.find(self._slots, as_hashes(hashes, batch), task, self.num_actions, known)
        elif exact:
            raise ValueError("an exact answer is found by hash: give the hashes of the states")
        q, trust = np.empty(shape, np.float32), np.empty(shape, np.float32)
        confidence, weights = np.empty(batch, np.float32), np.empty(slots.shape, np.float32)
        s = self._slots
        weigh(
            distances, slots, s.values, known, s.per_action[task], exact, self.kernel, self.delta,
            self.reach, q, confidence, trust, weights,
        )  # fmt: skip
        if recall:
            storage.touch(s.ticks, s.totals, slots.reshape(-1))
        return EpisodicRead(
            q, confidence, slots.astype(np.int64), weights, distances, trust, known >= 0
        )

    def _search(self, keys: np.ndarray, task: int) -> tuple[np.ndarray, np.ndarray]:
        first = task * self._groups_each
        return self.index.search(keys, self.neighbours, first, self._groups_each)

    def audit(self, keys: np.ndarray, task: int = 0) -> float:
        """Recall of the index: share of the true nearest p of each group of a task that it finds.

        Costs an exact scan (2 ms a query at 1e5 entries), so sample. nan while empty.
        """
        keys = as_keys(keys, self.key_dim)
        found, _ = self._search(keys, task)
        true, square = np.empty_like(found), np.empty(found.shape, np.float32)
        groups, first = self._groups(np.arange(len(self))), task * self._groups_each
        exact_search(
            self._slots.keys, groups, len(self), first, keys, self.neighbours, true, square
        )
        match = (true[..., :, None] == found[..., None, :]).any(-1) & (true >= 0)
        count = (true >= 0).sum()
        return float(match.sum() / count) if count else float("nan")

    def tune(self, keys: np.ndarray, task: int = 0, target: float = 0.97) -> float:
        """Audit with a few keys [B,D] and adjust the search's effort towards a recall.

        Called now and then with present keys, it keeps the recall when game or encoder change.
        Quick to look at more, slow to look at less. Returns the recall that was found.
        """
        found = self.audit(keys, task)
        if found < target:
            self.index.adjust(1.15)
        elif found > target + 0.005:
            self.index.adjust(0.95)
        return found

    def moments(self, slots: np.ndarray) -> Moments:
        """Game, action, value, age, key version and caller's ref of slots (any shape)."""
        slots, s = np.asarray(slots), self._slots
        none = slots < 0
        pick = lambda array: np.where(none, -1, array[slots])  # noqa: E731
        values = np.where(none, np.float32(np.nan), s.values[slots])
        ages = np.where(none, -1, s.totals[storage.TICK] - s.born[slots])
        return Moments(pick(s.tasks), pick(s.actions), values, ages, pick(s.versions), pick(s.refs))

    def slots_of(self, task: int) -> np.ndarray:
        """Slots [n] that hold entries of a task."""
        return np.flatnonzero(self._slots.tasks[: len(self)] == task)

    # -- gradients ----------------------------------------------------------------------------

    def gather(self, slots: np.ndarray) -> Gathered:
        """Copies of keys and values of slots [...,p] (from `read`) as torch leaves."""
        slots = np.asarray(slots)
        keys = torch.from_numpy(self._slots.keys[slots])  # -1 reads some row; it is not valid
        values = torch.from_numpy(self._slots.values[slots])
        return Gathered(
            keys.requires_grad_(), values.requires_grad_(), torch.from_numpy(slots >= 0), slots
        )

    def apply_gradients(self, part: Gathered, key_rate: float, value_rate: float) -> None:
        """Descend by the gradients that a backward pass left in `part`; a rate of 0 leaves be.

        A slot that occurs several times gets the sum. The index takes the moved keys in their
        old cells; its upkeep finds them better ones.
        """
        slots = part.slots.reshape(-1)
        key_grad = _gradient(part.keys).reshape(len(slots), self.key_dim)
        value_grad = _gradient(part.values).reshape(-1)
        if not (np.isfinite(key_grad).all() and np.isfinite(value_grad).all()):
            raise ValueError("a gradient of keys or values is not finite")
        s = self._slots
        moves = key_rate != 0 and part.keys.grad is not None
        descend(
            s.keys, s.values, slots, key_grad, value_grad, key_rate, value_rate,
            self.unit_keys and moves,
        )  # fmt: skip
        if moves:
            touched = np.unique(slots[slots >= 0])
            self._keys.touch_rows(touched)
            self.index.refresh(touched, self._groups(touched))

    # -- a moving encoder ---------------------------------------------------------------------

    def advance_version(self) -> int:
        """The encoder has changed: keys written from now on carry the next version."""
        self.version += 1
        return self.version

    def stale(self, limit: int, behind: int = 1) -> np.ndarray:
        """Up to `limit` slots whose keys are at least `behind` versions old, going round.

        Looks at no more than 16 * limit slots, so its cost is bounded; the caller encodes the
        moments named by `moments(slots).refs` and hands the keys to `reembed`.
        """
        positive("limit", limit)
        window = (self._cursor + np.arange(min(16 * limit, len(self)))) % max(len(self), 1)
        old = np.flatnonzero(self._slots.versions[window] <= self.version - behind)[:limit]
        passed = int(old[-1]) + 1 if len(old) == limit else len(window)
        self._cursor = (self._cursor + passed) % max(len(self), 1)
        return window[old]

    def reembed(self, slots: np.ndarray, keys: np.ndarray) -> float:
        """New keys [N,D] for slots [N]; returns the drift, the mean squared displacement."""
        keys, slots = as_keys(keys, self.key_dim), np.asarray(slots, np.int64)
        if slots.shape != keys.shape[:1] or ((slots < 0) | (slots >= len(self))).any():
            raise ValueError("reembed needs one slot in use for each key")
        if not len(slots):
            return 0.0
        s = self._slots
        drift = float(np.square(keys - s.keys[slots]).sum(1, dtype=np.float64).mean())
        s.drift[0] += drift * len(slots)
        s.totals[storage.DRIFTED] += len(slots)
        s.keys[slots], s.versions[slots] = keys, self.version
        self._moved(slots)
        return drift

    # -- figures and state --------------------------------------------------------------------

    def stats(self) -> dict[str, float]:
        """Running figures: sizes, writes, share of known states, drift, share of stale keys."""
        s, t = self._slots, self._slots.totals
        sizes = np.bincount(s.tasks[: len(self)], minlength=self.tasks)
        shared = self._quota[:: len(self._quota) // self.tasks] > 0
        out = {f"size/{task}": float(sizes[task]) for task in np.flatnonzero(shared)}
        written = t[storage.CREATED] + t[storage.UPDATED]
        out |= {
            "size": float(len(self)),
            "evicted": float(t[storage.EVICTED]),
            "hit_rate": float(t[storage.UPDATED] / max(written, 1)),
            "drift": float(s.drift[0] / max(t[storage.DRIFTED], 1)),
            "stale": float((s.versions[: len(self)] < self.version).sum() / max(len(self), 1)),
        }
        return out

    def state_dict(self) -> dict:
        """Everything, index included, so that a restored memory goes on bit for bit.

        The keys are the live block array, meant to be written at once; the rest are copies.
        """
        s, used = self._slots, len(self)
        return {
            "shape": [self.capacity, self.key_dim, self.num_actions, self.tasks],
            "by_task": True,  # its index keeps the tasks apart; earlier ones did not
            "index_kind": type(self.index).__name__,
            "scope": self.scope,
            "partition": self.partition,
            "version": self.version,
            "owed": self._owed,
            "cursor": self._cursor,
            "keys": self._keys,
            "totals": s.totals.copy(),
            "drift": s.drift.copy(),
            "slots": {name: getattr(s, name)[:used].copy() for name in _SAVED},
            "index": self.index.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` gave, into a memory made with the same arguments."""
        mine = {
            "shape": [self.capacity, self.key_dim, self.num_actions, self.tasks],
            "index_kind": type(self.index).__name__,
            "scope": self.scope,
            "partition": self.partition,
        }
        if "by_task" not in state:
            raise KeyError("an episodic memory that did not keep the games apart")
        for name, value in mine.items():
            if state[name] != value:
                raise ValueError(f"the saved memory has {name} {state[name]}, this one {value}")
        self._attach(state["keys"].claim())
        self.version, self._owed = int(state["version"]), float(state["owed"])
        self._cursor = int(state["cursor"])
        s = self._slots
        s.totals[:], s.drift[:] = state["totals"], state["drift"]
        for name, array in state["slots"].items():
            getattr(s, name)[: len(array)] = array
        storage.rebuild(s)
        self.index.load_state_dict(state["index"])


def _gradient(leaf: Tensor) -> np.ndarray:
    """The gradient of a leaf; zeros if the backward pass did not reach it."""
    grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return grad.detach().numpy()
