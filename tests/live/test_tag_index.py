from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.live.tag_index import TagIndex

TAGS = st.frozensets(st.sampled_from("abcde"), min_size=1)


@settings(max_examples=50)
@given(st.lists(st.tuples(TAGS, st.integers(0, 3)), unique=True, max_size=12), st.data())
def test_it_finds_what_looking_at_all_finds(added: list[tuple[frozenset[str], int]], data: st.DataObject) -> None:
    index = TagIndex[int]()
    for wanted, owner in added:
        index.add(wanted, owner)
        index.add(wanted, owner)  # twice is once
    left = list(added)
    for one in data.draw(st.lists(st.sampled_from(added), unique=True) if added else st.just([])):
        index.remove(*one)
        left.remove(one)
    for tags in data.draw(st.lists(TAGS, max_size=3)):
        assert index.fulfilled(tags) == {owner for wanted, owner in left if wanted <= tags}
    for one in left:
        index.remove(*one)
    assert not index._under
    assert not index._places


def test_few_stand_under_a_tag_that_all_have() -> None:
    index = TagIndex[int]()
    for number in range(1000):
        index.add(frozenset({"metrics", f"host:{number}"}), number)
    assert len(index._under.get("metrics", ())) <= 1
    assert index.fulfilled({"metrics", "host:7", "cpu"}) == {7}
