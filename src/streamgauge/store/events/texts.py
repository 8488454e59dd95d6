"""JSON texts of single values to columns of a type and back, a whole array at a time."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import msgspec
import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Bools
from streamgauge.model.event_source import LeafType
from streamgauge.store.arrow import bounds_and_data, string_array
from streamgauge.store.arrow import compute as pc
from streamgauge.store.events.tree import ARROW_TYPES

Texts: TypeAlias = pa.StringArray
"""JSON in UTF-8, null where there is no value. Below 2 GiB."""

_INT = r"^(?:0|-?[1-9][0-9]{0,17})$"
_LONG_INT = r"^-?[1-9][0-9]{18}$"
_DIGITS = 17
"""Significant digits of a number that a double column takes: so many tell one double from the next. Whoever wrote more
meant more than a double holds."""
_MANTISSAS = [rf"[0-9]{{{k}}}\.[0-9]{{1,{_DIGITS - k}}}" for k in range(1, _DIGITS)]
_DOUBLE = rf"^-?(?:[0-9]{{1,{_DIGITS}}}|0\.0*[0-9]{{1,{_DIGITS}}}|{'|'.join(_MANTISSAS)})(?:[eE][-+]?[0-9]{{1,3}})?$"
_ZERO = r"^-?[0.]+(?:[eE].*)?$"
_EXACT_INTEGERS = float(1 << 53)
_SPECIAL = r'["\\\x00-\x1f]'

_decode_text = msgspec.json.Decoder(str).decode


def nulls(rows: int, type_: pa.DataType) -> pa.Array[Any]:
    make: Any = pa.nulls  # its overloads know no type that is not known beforehand
    return cast("pa.Array[Any]", make(rows, type_))


def leaf_of(texts: Texts, type_: LeafType) -> tuple[pa.Array[Any], Texts]:
    """The values that a column of this type can hold, null where it cannot, and the texts that it does not hold."""
    values = _PARSERS[type_](texts)
    return values, pc.if_else(pc.is_null(values), texts, pa.scalar(None, pa.string()))


def _bools(texts: Texts) -> pa.Array[Any]:
    wrong = pc.if_else(pc.equal(texts, "false"), False, pa.scalar(None, pa.bool_()))
    return cast("pa.Array[Any]", pc.if_else(pc.equal(texts, "true"), True, wrong))


def _ints(texts: Texts) -> pa.Array[Any]:
    fits = pc.match_substring_regex(texts, _INT)
    long = pc.match_substring_regex(texts, _LONG_INT)
    if pc.any(long).as_py():  # digits of one length compare like numbers; -2^63 itself stays text
        fits = pc.or_(fits, pc.and_(long, pc.less_equal(pc.utf8_ltrim(texts, "-"), str((1 << 63) - 1))))
    return cast("pa.Array[Any]", _only(texts, fits).cast(pa.int64()))


def _doubles(texts: Texts) -> pa.Array[Any]:
    values = _only(texts, pc.match_substring_regex(texts, _DOUBLE)).cast(pa.float64())
    lost = pc.or_(
        pc.invert(pc.is_finite(values)),
        pc.and_(pc.equal(values, 0.0), pc.invert(pc.match_substring_regex(texts, _ZERO))),  # too small
    )
    large = pc.greater(pc.abs(values), _EXACT_INTEGERS)
    if pc.any(large).as_py():
        lost = pc.or_(lost, pc.and_(large, pc.invert(pc.match_substring_regex(texts, r"[.eE]"))))
    return cast("pa.Array[Any]", pc.if_else(lost, pa.scalar(None, pa.float64()), values))


def _strings(texts: Texts) -> pa.Array[Any]:
    quoted = pc.starts_with(texts, '"')
    inner = _only(inside(pc.fill_null(_only(texts, quoted), '""')), quoted)
    escaped = pc.and_(quoted, pc.match_substring(texts, "\\"))
    if not pc.any(escaped).as_py():
        return cast("pa.Array[Any]", inner)
    decoded = [_text_or_none(text) for text in texts.filter(pc.fill_null(escaped, False)).to_pylist()]
    mask: pa.BooleanArray = pc.fill_null(escaped, False)
    return cast("pa.Array[Any]", pc.replace_with_mask(inner, mask, pa.array(decoded, pa.string())))


def inside(texts: Texts) -> Texts:
    """Each text without its first and its last byte, which are ASCII. None is null, or shorter than that: the kernel
    would fail."""
    return cast("Texts", pc.binary_slice(texts.cast(pa.binary()), 1, -1).cast(pa.string()))


def _text_or_none(text: str | None) -> str | None:
    try:
        return None if text is None else _decode_text(text)
    except msgspec.DecodeError:  # half of a surrogate pair, which no UTF-8 has
        return None


def _only(texts: Texts, which: Any) -> Any:
    return pc.if_else(which, texts, pa.scalar(None, pa.string()))


_PARSERS = {LeafType.BOOL: _bools, LeafType.INT: _ints, LeafType.DOUBLE: _doubles, LeafType.TEXT: _strings}


# ---- and back -------------------------------------------------------------------------------------------------------


def leaf_texts(values: pa.Array[Any]) -> Texts:
    """The values of a leaf as JSON."""
    if values.type != ARROW_TYPES[LeafType.TEXT]:
        return cast("Texts", pc.cast(values, pa.string()))
    return _quoted(values, "")


def member_texts(name: str, values: pa.Array[Any]) -> Texts:
    """The values of a leaf as parts of an object that has more before it: `,"name":value`."""
    if values.type != ARROW_TYPES[LeafType.TEXT]:
        return member_of(name, leaf_texts(values))
    return _quoted(values, f",{name_text(name)}")


def _quoted(values: pa.Array[Any], start: str) -> Texts:
    """Strings as JSON, each behind `start`."""
    plain = pc.binary_join_element_wise(f'{start}"', values, '"', "")
    if not _may_be_special(values):
        return cast("Texts", plain)
    special = pc.fill_null(pc.match_substring_regex(values, _SPECIAL), False)
    encoded = [start + msgspec.json.encode(value).decode() for value in values.filter(special).to_pylist()]
    return cast("Texts", pc.replace_with_mask(plain, special, pa.array(encoded, pa.string())))


def _may_be_special(values: Any) -> bool:
    """Whether any byte of any value may have to be escaped."""
    _, data = bounds_and_data(values)
    return bool(((data < ord(" ")) | (data == ord('"')) | (data == ord("\\"))).any())


def name_text(name: str) -> str:
    """A member's name as JSON, with the colon."""
    return msgspec.json.encode(name).decode() + ":"


def member_of(name: str, texts: Texts) -> Texts:
    """The same for values that are JSON."""
    return cast("Texts", pc.binary_join_element_wise("," + name_text(name), texts, ""))


def objects_of(members: list[Texts], rows: int) -> tuple[Texts, Bools]:
    """Objects of these parts, and which of them have none."""
    if not members:
        return pa.array(["{}"] * rows, pa.string()), np.ones(rows, np.bool_)
    joined = pc.binary_join_element_wise(*members, "}", "", null_handling="replace", null_replacement="")
    bounds, data = bounds_and_data(joined)
    data = data.copy()
    data[bounds[:-1]] = ord("{")  # in place of the first comma
    objects, empty = string_array(bounds, data), np.diff(bounds) == 1
    if empty.any():
        objects = pc.if_else(pa.array(empty), "{}", objects)
    return objects, empty


def some_objects_of(members: list[Texts], rows: int) -> Texts:
    """The same, null where there is no part."""
    if not members:
        return pa.nulls(rows, pa.string())
    objects, empty = objects_of(members, rows)
    return cast("Texts", pc.if_else(pa.array(empty), pa.scalar(None, pa.string()), objects))
