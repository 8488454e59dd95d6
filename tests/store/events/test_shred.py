"""Payloads that were divided into columns come together again as what they were, whatever they are."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamgauge.model.event_source import LeafType, Node
from streamgauge.store.events.assemble import payload_texts
from streamgauge.store.events.shred import MAX_DIVIDED_BYTES, Shredder, sample
from streamgauge.store.events.texts import leaf_of
from streamgauge.store.events.tree import MAX_COLUMNS, MAX_DEPTH, node_of, struct_type
from streamgauge.testing.json_texts import SCALARS, VALUES, meaning
from streamgauge.testing.thorough import examples


def payloads(*texts: str | bytes) -> pa.LargeBinaryArray:
    return pa.array([text.encode() if isinstance(text, str) else text for text in texts], pa.large_binary())


def log_line(number: int) -> str:
    http = f'"http":{{"status":{200 + number % 7},"path":"/x/{number}"}}'
    query = f'"table":"t{number % 5}","ms":{number / 8},"cached":{"true" if number % 3 else "false"}'
    return f'{{"ts":"2026-01-01T00:00:{number % 60:02}","level":"INFO",{http if number % 2 else query}}}'


def shredder_for(texts: pa.LargeBinaryArray, node: Node | None = None) -> Shredder:
    return Shredder(sample(texts), node)


def assert_kept(texts: pa.LargeBinaryArray, shredder: Shredder | None = None) -> pa.StructArray:
    shredder = shredder or shredder_for(texts)
    column = shredder.shred(texts)
    column.validate(full=True)
    assert column.type == struct_type(shredder.node)
    assert node_of(column.type) == shredder.node
    assert column.null_count == 0
    back = payload_texts(column)
    assert len(back) == len(texts)
    for got, expected in zip(back.to_pylist(), texts.to_pylist(), strict=True):
        assert meaning(got) == meaning(expected), f"{expected!r} became {got!r}"
    return column


# ---- any JSON -------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(VALUES, max_size=12))
@example(['{"a":1,"a":{"b":2}}', '{"a":{"b":"x"}}', '{"a":null}'])
@example(['{"a":-0}', '{"a":-0.0}', '{"a":1.5}'])
@example([r'{"\ud800":1}', '{"a":1}', '{"a":2}'])
@example(['{"a":{}}', '{"a":[]}', '{"a":{}}', "{}", "5"])
def test_any_payload_is_kept(texts: list[str]) -> None:
    assert_kept(payloads(*texts))


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=8), st.lists(VALUES, max_size=8))
def test_payloads_of_another_kind_than_was_expected_are_kept(like: list[str], texts: list[str]) -> None:
    assert_kept(payloads(*texts), shredder_for(payloads(*like)))


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=8), st.lists(VALUES, max_size=8))
def test_a_tree_that_comes_from_elsewhere_is_filled(other: list[str], texts: list[str]) -> None:
    node = shredder_for(payloads(*other)).node
    assert_kept(payloads(*texts), shredder_for(payloads(*texts), node))


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(SCALARS, max_size=10), st.sampled_from(LeafType))
def test_a_column_takes_a_text_or_leaves_it(texts: list[str], type_: LeafType) -> None:
    values, left = leaf_of(pa.array(texts, pa.string()), type_)
    assert [
        (value is None) != (text is None) for value, text in zip(values.to_pylist(), left.to_pylist(), strict=True)
    ] == [True] * len(texts)


def test_deep_nesting_is_kept() -> None:
    deep = '{"a":' * 10_000 + "1" + "}" * 10_000
    column = shredder_for(payloads(deep, '{"a":{"a":1}}')).shred(
        payloads('{"a":{"a":1}}', deep, "[" * 9_000 + "]" * 9_000)
    )
    assert payload_texts(column).to_pylist()[1:] == [deep, "[" * 9_000 + "]" * 9_000]
    nested = '{"a":' * 40 + '"x"' + "}" * 40
    depth, node = 0, assert_kept(payloads(nested, nested)).type
    while "a" in node.names:
        depth, node = depth + 1, node.field("a").type
    assert depth == MAX_DEPTH


def test_a_large_payload_is_kept_whole() -> None:
    large = '{"a":"' + "x" * MAX_DIVIDED_BYTES + '"}'
    column = assert_kept(payloads('{"a":"b"}', large, '{"a":"c"}'))
    assert column.field("a").to_pylist() == ["b", None, "c"]
    assert column.field("$rest").to_pylist() == [None, large, None]


# ---- what gets a column ---------------------------------------------------------------------------------------------


def test_common_members_become_columns_and_rare_ones_do_not() -> None:
    texts = [f'{{"n":{n},"http":{{"status":{200 + n},"ok":true}},"s":"x","f":{n}.5}}' for n in range(400)]
    texts[7] = '{"n":"seven","rare":[1],"http":"none","s":null}'
    texts[8] = '{"n":8,"http":{"status":"eight","new":1},"f":1}'
    column = assert_kept(payloads(*texts))
    assert shredder_for(payloads(*texts)).node == Node(
        {"n": LeafType.INT, "s": LeafType.TEXT, "f": LeafType.DOUBLE},
        {"http": Node({"status": LeafType.INT, "ok": LeafType.BOOL})},
    )
    seven, eight = column[7].as_py(), column[8].as_py()
    assert json.loads(seven.pop("$rest")) == {"n": "seven", "rare": [1], "http": "none", "s": None}
    assert seven == {"n": None, "s": None, "f": None, "http": None}
    assert json.loads(eight["http"].pop("$rest")) == {"status": "eight", "new": 1}
    assert eight == {
        "n": 8, "s": None, "f": 1.0, "$rest": None,
        "http": {"status": None, "ok": None},
    }  # fmt: skip


def test_names_that_differ_in_case_only_get_one_column() -> None:
    """DuckDB would not know one from the other."""
    texts = payloads(*['{"Level":1,"level":"x"}'] * 3, '{"level":"y"}')
    assert assert_kept(texts).type.names == ["level", "$rest"]


@pytest.mark.parametrize("name", ["", "$rest", "$REST", 'a"b', "a\\b", "a\nb", "x" * 300])
def test_a_name_that_no_column_can_have_stays_text(name: str) -> None:
    column = assert_kept(payloads(*[json.dumps({name: 1, "b": 2})] * 3))
    assert column.type.names == ["b", "$rest"]


def test_numbers_share_a_column_where_some_have_decimals() -> None:
    mixed = [f'{{"d":{n / 4:g}}}' for n in range(100)]
    assert shredder_for(payloads(*mixed)).node.leaves == {"d": LeafType.DOUBLE}
    assert assert_kept(payloads(*mixed)).field("$rest").null_count == 100
    rarely = [f'{{"d":{n}}}' for n in range(1000)] + ['{"d":0.5}']
    assert shredder_for(payloads(*rarely)).node.leaves == {"d": LeafType.INT}
    assert assert_kept(payloads(*rarely)).field("$rest").null_count == 1000


def test_columns_are_bounded() -> None:
    wide = json.dumps({f"n{n}": n for n in range(2 * MAX_COLUMNS)})
    assert len(shredder_for(payloads(wide, wide)).node.leaves) == MAX_COLUMNS
    assert_kept(payloads(wide, wide))


def test_made_up_logs_have_columns_for_all() -> None:
    texts = payloads(*(log_line(number) for number in range(3_000)))
    column = assert_kept(texts)
    assert column.field("$rest").null_count == len(texts)
    assert column.field("http").null_count > 0


def test_half_of_the_values_of_another_type_is_no_trouble() -> None:
    texts = [f'{{"v":{n}}}' if n % 2 else f'{{"v":"t{n}"}}' for n in range(1000)] + ['{"v":{"w":1}}'] * 200
    column = assert_kept(payloads(*texts))
    assert column.field("$rest").null_count in (500, 700)


def test_payloads_of_many_shapes_have_columns_for_all() -> None:
    """Then most columns of a payload are empty."""
    texts = [json.dumps({f"k{n % 50}_{m}": n * m if m % 2 else f"v{n}" for m in range(20)}) for n in range(1500)]
    column = assert_kept(payloads(*texts, "7", '{"k0_0":1,"o":{}}'))
    assert len(column.type) > 900
    assert column.field("$rest").null_count == 1500
