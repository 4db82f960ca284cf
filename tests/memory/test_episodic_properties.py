"""Random histories of the episodic memory against a model that does everything the slow way.

Keys are small whole numbers, so that squared distances are exact and ties are common.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.episodic import EpisodicMemory

DIM, ACTIONS, TASKS, NEIGHBOURS, DELTA = 3, 3, 2, 4, 0.5


class Model:
    """Dictionaries, full sorts, float64. Entry: [key, value, tick, slot]."""

    def __init__(self, capacity, per_action, rule):
        self.capacity, self.per_action, self.rule = capacity, per_action, rule
        self.entries, self.tick = {}, 0

    def pool(self, name):
        return (name[2], name[1]) if self.per_action else name[2]

    def write(self, key, action, value, state, task):
        self.tick += 1
        name = (state, action, task)
        if name in self.entries:
            entry = self.entries[name]
            old = np.float32(entry[1])
            new = max(old, value) if self.rule == "mfec" else old + np.float32(0.25) * (value - old)
            entry[0], entry[1], entry[2] = key, new, self.tick
            return entry[3]
        slot = len(self.entries)
        if slot == self.capacity:
            slot = self.evict(self.pool(name))
        self.entries[name] = [key, np.float32(value), self.tick, slot]
        return slot

    def evict(self, pool):
        pools = range(TASKS)
        if self.per_action:
            pools = [(task, action) for task in range(TASKS) for action in range(ACTIONS)]
        sizes = {p: sum(self.pool(name) == p for name in self.entries) for p in pools}
        if sizes[pool] < self.capacity // len(sizes) or not sizes[pool]:
            pool = max((p for p in pools if sizes[p]), key=lambda p: sizes[p])
        mine = [name for name in self.entries if self.pool(name) == pool]
        victim = min(mine, key=lambda name: (self.entries[name][2], self.entries[name][3]))
        return self.entries.pop(victim)[3]

    def read(self, key, task, recalled):
        rows = []
        for action in range(ACTIONS):
            mine = [e for name, e in self.entries.items() if name[1:] == (action, task)]
            near = sorted((float(np.square(np.subtract(e[0], key)).sum()), e[3], e) for e in mine)
            near = near[:NEIGHBOURS]
            kernel = [1 / (d + DELTA) for d, _, _ in near]
            q = sum(k * float(e[1]) for k, (_, _, e) in zip(kernel, near)) / (sum(kernel) or 1)
            rows.append((q, [slot for _, slot, _ in near]))
            recalled += [e for _, _, e in near]
        return rows


whole = st.integers(-3, 3)
keys = st.tuples(whole, whole, whole)
entry = st.tuples(
    keys,
    st.integers(0, ACTIONS - 1),
    st.integers(-8, 8),
    st.integers(0, 25),  # few states, so that many writes are updates
)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"), st.integers(0, TASKS - 1), st.lists(entry, min_size=1, max_size=12)
        ),
        st.tuples(
            st.just("read"),
            st.integers(0, TASKS - 1),
            st.booleans(),
            st.lists(keys, min_size=1, max_size=3),
        ),
        st.just(("reload",)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("index", ["flat", "ivf"])
@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    steps=steps,
    capacity=st.integers(6, 40),
    per_action=st.booleans(),
    rule=st.sampled_from(["nec", "mfec"]),
)
def test_histories_agree_with_the_model(index, steps, capacity, per_action, rule):
    def fresh():
        return EpisodicMemory(
            capacity, DIM, ACTIONS, NEIGHBOURS, tasks=TASKS, index=index, update=rule,
            alpha=0.25, delta=DELTA, partition="task_action" if per_action else "task",
        )  # fmt: skip

    memory, model = fresh(), Model(capacity, per_action, rule)
    for kind, *args in steps:
        if kind == "write":
            task, rows = args
            key, action, value, state = (np.array(column) for column in zip(*rows))
            # a salt makes the hashes look like hashes
            got = memory.write(key, action, value, state * 0x9E3779B97F4A7C1 + 5, task)
            want = [model.write(k, a, np.float32(v), s, task) for k, a, v, s in rows]
            assert got.tolist() == want
        elif kind == "read":
            task, recall, queries = args
            read = memory.read(np.array(queries, np.float32), task=task, recall=recall)
            recalled = []
            for b, query in enumerate(queries):
                for action, (q, near) in enumerate(model.read(query, task, recalled)):
                    found = read.indices[b, action]
                    assert found[found >= 0].tolist() == near
                    assert read.q[b, action] == pytest.approx(q, abs=1e-4)
            if recall:
                model.tick += 1
                for item in recalled:
                    item[2] = model.tick
        else:
            saved, memory = memory.state_dict(), fresh()
            memory.load_state_dict(saved)
    assert len(memory) == len(model.entries)
    for (_, action, task), (key, value, _, slot) in model.entries.items():
        got = memory.moments(np.array([slot]))
        assert (got.actions[0], got.tasks[0]) == (action, task)
        assert got.values[0] == value
        assert tuple(memory._slots.keys[slot]) == key
