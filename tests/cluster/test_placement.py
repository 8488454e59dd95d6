"""The owner of a key follows from the names of the nodes, and moves only when it must."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.cluster.placement import Ring, owner

NODES = ["instance-0", "instance-1", "instance-2"]
KEYS = [f"cluster-{number}" for number in range(500)]


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("test", 1),
        ("a", 0),
        ("b", 1),
        ("c", 2),
        ("cluster-1", 1),
        ("cluster-2", 0),
        ("cluster-3", 2),
        ("cluster-4", 1),
    ],
)
def test_owners_are_the_references(key: str, number: int) -> None:
    assert owner(key, NODES) == NODES[number]


def test_nobody_owns_where_nobody_is_and_one_owns_all() -> None:
    assert owner("a", []) is None
    assert {owner(key, ["only"]) for key in KEYS} == {"only"}


def test_order_and_repetition_change_nothing() -> None:
    ring, other = Ring(NODES), Ring([*reversed(NODES), NODES[1]])
    assert [ring.owner(key) for key in KEYS] == [other.owner(key) for key in KEYS]


@settings(max_examples=15)
@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=6), st.data())
def test_a_node_that_goes_moves_its_own_keys_alone(nodes: set[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(nodes)))
    before, after = Ring(nodes), Ring(nodes - {gone})
    for key in KEYS[:100]:
        was = before.owner(key)
        assert after.owner(key) != gone
        assert was == gone or after.owner(key) == was


def test_load_is_shared() -> None:
    ring = Ring([f"node-{number}" for number in range(5)])
    loads = Counter(ring.owner(key) for key in KEYS)
    assert len(loads) == 5
    assert max(loads.values()) < 2 * len(KEYS) / 5
