"""Binary tree of sums: draws a leaf with probability proportional to its value in log2 steps.

`tree` is float64 [2 * leaves], `leaves` a power of two: node 1 is the root, node i has the
children 2i and 2i + 1, leaf j is node leaves + j; node 0 is unused. Every inner node is always
exactly the sum of its two children, so no error builds up however often leaves change, and the
inner nodes can be rebuilt from the leaves bit for bit.

Schaul et al. 2016, Prioritized Experience Replay, appendix B.2.1.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def make_tree(count: int) -> np.ndarray:
    """An all-zero tree with room for `count` leaves."""
    return np.zeros(2 << max(1, (count - 1).bit_length()))


@njit(cache=True)
def set_leaf(tree, leaf, value):
    """Change one leaf and the sums above it."""
    node = len(tree) // 2 + leaf
    tree[node] = value
    while node > 1:
        node >>= 1
        tree[node] = tree[2 * node] + tree[2 * node + 1]


@njit(cache=True)
def rebuild(tree):
    """All sums from the leaves."""
    for node in range(len(tree) // 2 - 1, 0, -1):
        tree[node] = tree[2 * node] + tree[2 * node + 1]


@njit(cache=True)
def find_leaf(tree, mass):
    """The leaf at which the running sum of the leaves passes `mass`, 0 <= mass < tree[1].

    Never a leaf of value 0, also where rounding leads past the last one, as long as tree[1] > 0.
    """
    node, leaves = 1, len(tree) // 2
    while node < leaves:
        node *= 2
        if mass >= tree[node] and tree[node + 1] > 0:
            mass -= tree[node]
            node += 1
    return node - leaves


@njit(cache=True)
def find_leaves(tree, masses, leaves):
    """`find_leaf` for each of masses [B], into leaves [B]."""
    for b in range(len(masses)):
        leaves[b] = find_leaf(tree, masses[b])


@njit(cache=True)
def set_leaves(tree, leaves, values):
    """`set_leaf` for leaves [B] and values [B]; of equal leaves the last counts."""
    for b in range(len(leaves)):
        set_leaf(tree, leaves[b], values[b])
