"""Golden numbers of the episodic memory: kernel, updates, forgetting, gradients, bad input."""

import numpy as np
import pytest
import torch

from errors import UserError
from memory.episodic import EpisodicMemory
from memory.recall import episodic_value


def make(capacity=8, key_dim=2, num_actions=2, neighbours=3, **options):
    return EpisodicMemory(capacity, key_dim, num_actions, neighbours, **options)


def put(memory, keys, actions, values, hashes=None, task=0):
    keys = np.asarray(keys, np.float32)
    hashes = np.arange(len(keys)) if hashes is None else np.asarray(hashes)
    return memory.write(keys, np.asarray(actions), np.asarray(values), hashes, task)


def test_kernel_golden():
    memory = make(delta=1.0)
    put(memory, [[1, 0], [0, 2], [3, 0]], [0, 0, 1], [10.0, 20.0, 5.0])
    read = memory.read(np.zeros((1, 2), np.float32))
    # kernels 1/(1+1) and 1/(4+1): weights 5/7 and 2/7
    np.testing.assert_allclose(read.weights[0, 0], [5 / 7, 2 / 7, 0], rtol=1e-6)
    np.testing.assert_allclose(read.q[0], [90 / 7, 5.0], rtol=1e-6)
    assert read.indices[0].tolist() == [[0, 1, -1], [2, -1, -1]]
    assert read.distances[0, 0, :2].tolist() == [1.0, 4.0]


def test_mean_kernel_and_exact_answer():
    memory = make(kernel="mean", neighbours=2)
    put(memory, [[1, 0], [0, 2], [0, 3]], [0, 0, 0], [1.0, 3.0, 100.0], [7, 8, 9])
    query = np.zeros((1, 2), np.float32)
    assert memory.read(query).q[0, 0] == 2.0
    read = memory.read(query, np.array([9]), exact=True)  # this very state, wherever its key is
    assert read.q[0, 0] == 100.0
    assert read.hits.tolist() == [[True, False]]
    assert read.confidence[0] == 1.0
    with pytest.raises(ValueError, match="hash"):
        memory.read(query, exact=True)


def test_confidence_is_half_at_reach():
    memory = make(reach=0.25)
    put(memory, [[0.5, 0]], [0], [1.0])
    read = memory.read(np.zeros((1, 2), np.float32))
    assert read.confidence[0] == 0.5  # the action without entries does not count
    assert read.action_confidence[0].tolist() == [0.5, 0.0]
    assert memory.read(np.array([[0.5, 0]], np.float32)).confidence[0] == 1.0


def test_equal_keys_have_distance_zero():
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(500, 64)).astype(np.float32)
    for index in ("flat", "ivf", "hnsw"):
        memory = make(500, 64, 1, 3, index=index)
        put(memory, keys, np.zeros(500, int), np.zeros(500))
        read = memory.read(keys[:50])
        assert (read.distances[:, 0, 0] == 0).all()
        assert (read.indices[:, 0, 0] == np.arange(50)).all()


@pytest.mark.parametrize(("update", "expected"), [("nec", 2.0 + 0.5 * (1.0 - 2.0)), ("mfec", 2.0)])
def test_update_rules(update, expected):
    memory = make(update=update, alpha=0.5)
    first = put(memory, [[0, 0]], [1], [2.0], [42])
    second = put(memory, [[1, 1]], [1], [1.0], [42])
    assert len(memory) == 1
    assert first == second
    read = memory.read(np.ones((1, 2), np.float32))
    assert read.q[0, 1] == expected
    assert read.distances[0, 1, 0] == 0  # the key moved with the write
    put(memory, [[1, 1]], [1], [9.0], [42])
    assert memory.read(np.ones((1, 2), np.float32)).q[0, 1] == (9.0 if update == "mfec" else 5.25)


def test_same_key_is_not_the_same_state():
    memory = make()
    put(memory, [[0, 0], [0, 0], [0, 0]], [0, 0, 1], [1.0, 3.0, 7.0], [1, 2, 1])
    assert len(memory) == 3
    assert memory.read(np.zeros((1, 2), np.float32)).q[0].tolist() == [2.0, 7.0]


def test_least_recently_recalled_goes_first():
    memory = make(capacity=4, num_actions=1, neighbours=1)
    slots = put(memory, [[0, 0], [10, 0], [20, 0], [30, 0]], [0] * 4, [0.0] * 4)
    memory.read(np.array([[0, 0]], np.float32))  # the oldest has been recalled
    memory.read(np.array([[10, 0]], np.float32), recall=False)  # does not count
    assert put(memory, [[40, 0]], [0], [1.0], [100]) == slots[1]
    assert put(memory, [[50, 0]], [0], [1.0], [101]) == slots[2]
    put(memory, [[30, 0]], [0], [1.0], [3])  # an update counts as well
    assert put(memory, [[60, 0]], [0], [1.0], [102]) == slots[0]
    assert memory.stats()["evicted"] == 3


def test_quota_keeps_the_old_game():
    memory = make(capacity=100, num_actions=1, neighbours=1, tasks=2)
    for i in range(100):  # alone, the first game may use everything
        put(memory, [[i, 0]], [0], [1.0], [i], task=0)
    assert memory.stats()["size/0"] == 100
    for i in range(1000):
        put(memory, [[i, 1]], [0], [1.0], [i], task=1)
    assert memory.stats()["size/0"] == 50
    assert memory.stats()["size/1"] == 50
    kept = memory.moments(memory.slots_of(0))
    assert sorted(memory._slots.keys[memory.slots_of(0), 0]) == list(range(50, 100))
    assert (kept.tasks == 0).all()


def test_quota_per_action():
    memory = make(capacity=20, num_actions=2, partition="task_action")
    put(memory, np.zeros((10, 2)), [0] * 10, [0.0] * 10)
    put(memory, np.zeros((50, 2)), [1] * 50, [0.0] * 50, np.arange(50) + 100)
    assert np.bincount(memory._slots.actions).tolist() == [10, 10]


def test_shared_scope_splits_one_search():
    memory = make(scope="shared", neighbours=3, index="flat")
    put(memory, [[1, 0], [2, 0], [3, 0], [4, 0]], [0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0])
    read = memory.read(np.zeros((1, 2), np.float32))
    assert read.indices[0].tolist() == [[0, 2, -1], [1, -1, -1]]
    assert read.q[0, 1] == 2.0


def test_gradients_move_encoder_keys_and_values():
    torch.manual_seed(0)
    encoder = torch.nn.Linear(3, 2)
    memory = make(index="ivf")
    rng = np.random.default_rng(0)
    put(memory, rng.normal(size=(8, 2)), [0, 1] * 4, rng.normal(size=8))
    query = encoder(torch.randn(2, 3))
    read = memory.read(query.detach().numpy())
    part = memory.gather(read.indices[np.arange(2), [0, 1]])
    q = episodic_value(query, part.keys, part.values, part.valid)
    np.testing.assert_allclose(q.detach(), read.q[np.arange(2), [0, 1]], rtol=1e-4)
    loss = (q - 10).square().sum()
    loss.backward()
    keys, values = memory._slots.keys.copy(), memory._slots.values.copy()
    memory.apply_gradients(part, 1e-3, 1e-3)
    assert encoder.weight.grad.abs().sum() > 0
    used = np.unique(part.slots[part.slots >= 0])
    assert (memory._slots.keys != keys).any(1)[used].all()
    assert (memory._slots.values != values)[used].all()
    after = memory.read(query.detach().numpy())  # the memory itself answers better now
    assert np.square(after.q[np.arange(2), [0, 1]] - 10).sum() < loss.item()


def test_gradient_formula_and_repeated_slots():
    memory = make(num_actions=1)
    slots = put(memory, [[1, 0]], [0], [2.0])
    part = memory.gather(np.array([[slots[0]], [slots[0]], [-1]]))
    (part.values[:, 0] * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    memory.apply_gradients(part, 1.0, 0.1)
    np.testing.assert_allclose(memory._slots.values[0], 2.0 - 1.1, rtol=1e-6)
    assert memory._slots.keys[0].tolist() == [1, 0]


def test_episodic_value_gradcheck():
    generator = torch.Generator().manual_seed(1)
    query, keys, values = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 1, 3), (2, 4, 5, 3), (2, 4, 5))
    )
    valid = torch.ones(2, 4, 5, dtype=torch.bool)
    valid[0, 0] = False
    assert torch.autograd.gradcheck(
        lambda *args: episodic_value(*args, valid, 0.1), (query, keys, values)
    )
    assert episodic_value(query, keys, values, valid)[0, 0] == 0


def test_versions_drift_and_reembedding():
    memory = make(capacity=64, num_actions=1, index="ivf")
    put(memory, np.zeros((10, 2)), [0] * 10, [0.0] * 10)
    memory.write(np.ones((1, 2)), np.array([0]), np.array([0.0]), np.array([99]), 0, np.array([7]))
    assert memory.advance_version() == 1
    assert memory.stats()["stale"] == 1.0
    put(memory, [[3, 4]], [0], [0.0], [0])  # the same state, seen by the new encoder
    assert memory.stats()["drift"] == 25.0
    seen = []
    while len(slots := memory.stale(3)):
        assert len(slots) <= 3
        assert memory.reembed(slots, np.full((len(slots), 2), 5.0)) > 0
        seen += slots.tolist()
    assert sorted(seen) == list(range(1, 11))
    assert memory.moments(np.array([10, -1])).refs.tolist() == [7, -1]
    read = memory.read(np.full((1, 2), 5, np.float32))
    assert (read.distances[0, 0] == 0).all()


def test_fewer_than_neighbours_and_empty():
    memory = make()
    read = memory.read(np.zeros((3, 2), np.float32))
    assert read.q.tolist() == [[0, 0]] * 3
    assert (read.indices == -1).all()
    assert (read.confidence == 0).all()
    assert (read.weights == 0).all()
    assert np.isnan(memory.audit(np.zeros((1, 2))))
    assert memory.read(np.zeros((0, 2), np.float32)).q.shape == (0, 2)
    assert memory.stale(4).tolist() == []
    put(memory, np.zeros((0, 2)), np.zeros(0, int), [])
    assert len(memory) == 0


def test_bad_input_is_named_and_not_stored():
    memory = make()
    nan = np.array([[0, 0], [0, np.nan]])
    for call, message in [
        (lambda: put(memory, nan, [0, 0], [0.0, 0.0]), "key 1 of 2 is not finite"),
        (lambda: memory.read(nan), "key 1 of 2"),
        (lambda: memory.read(np.zeros((1, 3))), r"shape \[N, 2\], not \[1, 3\]"),
        (lambda: put(memory, [[0, 0]], [2], [0.0]), "action 2 is not one of 2"),
        (lambda: put(memory, [[0, 0]], [-1], [0.0]), "action -1"),
        (lambda: put(memory, [[0, 0]], [0.5], [0.0]), "integers"),
        (lambda: put(memory, [[0, 0]], [0], [np.inf]), "finite"),
        (lambda: put(memory, [[0, 0]], [0], [0.0], [0.5]), "integers"),
        (lambda: put(memory, [[0, 0]], [0], [0.0], task=1), "task 1"),
        (lambda: memory.reembed(np.array([0]), np.zeros((1, 2))), "slot in use"),
        (lambda: make(scope="both"), "scope"),
        (lambda: make(alpha=0.0), "alpha"),
        (lambda: make(tasks=9), "shares"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(UserError, match=r"memory\.index=tree"):
        make(index="tree")
    assert len(memory) == 0


def test_load_refuses_another_shape():
    state = make().state_dict()
    with pytest.raises(ValueError, match="shape"):
        make(capacity=9).load_state_dict(state)
    with pytest.raises(ValueError, match="scope"):
        make(scope="shared").load_state_dict(state)
