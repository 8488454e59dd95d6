"""JSON texts of single values to columns of a type and back, a whole array at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import msgspec
import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Int32s, Int64s
from streamgauge.model.event_source import LeafType
from streamgauge.store.arrow import UInt8s, booleans, bounds_and_data, string_array
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


def scalar(text: str | None) -> Any:
    """With its type given: otherwise Arrow looks for pandas on every call, which takes 0.1 ms where there is none."""
    return pa.scalar(text, pa.string())


def nulls(rows: int, type_: pa.DataType) -> pa.Array[Any]:
    make: Any = pa.nulls  # its overloads know no type that is not known beforehand
    return cast("pa.Array[Any]", make(rows, type_))


def leaf_of(texts: Texts, type_: LeafType) -> tuple[pa.Array[Any], Texts]:
    """The values that a column of this type can hold, null where it cannot, and the texts that it does not hold."""
    values = _PARSERS[type_](texts)
    return values, pc.if_else(pc.is_null(values), texts, scalar(None))


def _bools(texts: Texts) -> pa.Array[Any]:
    right = pc.equal(texts, scalar("true"))
    known = pc.or_(right, pc.equal(texts, scalar("false")))
    return cast("pa.Array[Any]", pc.if_else(known, right, pa.scalar(None, pa.bool_())))


def _ints(texts: Texts) -> pa.Array[Any]:
    fits = pc.match_substring_regex(texts, _INT)
    long = pc.match_substring_regex(texts, _LONG_INT)
    if pc.any(long).as_py():  # digits of one length compare like numbers; -2^63 itself stays text
        fits = pc.or_(fits, pc.and_(long, pc.less_equal(pc.utf8_ltrim(texts, "-"), scalar(str((1 << 63) - 1)))))
    return cast("pa.Array[Any]", _only(texts, fits).cast(pa.int64()))


def _doubles(texts: Texts) -> pa.Array[Any]:
    values = _only(texts, pc.match_substring_regex(texts, _DOUBLE)).cast(pa.float64())
    zero = pc.equal(values, pa.scalar(0.0, pa.float64()))
    too_small = pc.and_(zero, pc.invert(pc.match_substring_regex(texts, _ZERO)))
    lost = pc.or_(pc.invert(pc.is_finite(values)), too_small)
    large = pc.greater(pc.abs(values), pa.scalar(_EXACT_INTEGERS, pa.float64()))
    if pc.any(large).as_py():
        lost = pc.or_(lost, pc.and_(large, pc.invert(pc.match_substring_regex(texts, r"[.eE]"))))
    return cast("pa.Array[Any]", pc.if_else(lost, pa.scalar(None, pa.float64()), values))


def _strings(texts: Texts) -> pa.Array[Any]:
    quoted = pc.starts_with(texts, '"')
    inner = _only(inside(pc.fill_null(_only(texts, quoted), scalar('""'))), quoted)
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
    return pc.if_else(which, texts, scalar(None))


_PARSERS = {LeafType.BOOL: _bools, LeafType.INT: _ints, LeafType.DOUBLE: _doubles, LeafType.TEXT: _strings}


# ---- and back -------------------------------------------------------------------------------------------------------


def leaf_texts(values: pa.Array[Any]) -> Texts:
    """The values of a leaf as JSON."""
    if values.type != ARROW_TYPES[LeafType.TEXT]:
        return cast("Texts", pc.cast(values, pa.string()))
    return _quoted(values, "")


def _quoted(values: pa.Array[Any], start: str) -> Texts:
    """Strings as JSON, each behind `start`."""
    plain = pc.binary_join_element_wise(scalar(f'{start}"'), values, scalar('"'), scalar(""))
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


def escaped(text: str) -> str:
    """For RE2, which takes any ASCII character that is no letter or digit with a backslash before it."""
    return "".join(c if c.isalnum() or not c.isascii() else f"\\{c}" for c in text)


# ---- objects --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A text for some rows, ascending."""

    texts: Texts  # without nulls
    rows: Int64s


def some_of(values: pa.Array[Any]) -> tuple[pa.Array[Any], Int64s]:
    """The values that are not null, and their rows."""
    if values.null_count == 0:
        return values, np.arange(len(values))
    return values.drop_null(), np.flatnonzero(booleans(values.is_valid()))


def leaf_member(name: str, values: pa.Array[Any]) -> Part:
    """The values of a leaf as members of objects: `,"name":value`."""
    some, rows = some_of(values)
    if some.type == ARROW_TYPES[LeafType.TEXT]:
        return Part(_quoted(some, f",{name_text(name)}"), rows)
    return Part(_named(name, leaf_texts(some)), rows)


def text_member(name: str, texts: Texts) -> Part:
    """The same for values that are JSON already."""
    some, rows = some_of(texts)
    return Part(_named(name, cast("Texts", some)), rows)


def _named(name: str, texts: Texts) -> Texts:
    return cast("Texts", pc.binary_join_element_wise(scalar(f",{name_text(name)}"), texts, scalar("")))


def objects_of(members: Sequence[Part], rest: Texts | None, rows: int) -> Texts:
    """Objects of these members and of those in the rests. A rest without members is taken as it is: it need not be an
    object. Where there is neither, `{}`."""
    return _together(members, rest, rows, "{}")


def left_over(members: Sequence[Part], rest: Texts | None, rows: int) -> Texts:
    """The same, with null where there is neither."""
    if not members and rest is None:
        return pa.nulls(rows, pa.string())
    joined = _together(members, rest, rows, "")
    return cast("Texts", pc.if_else(pc.equal(joined, scalar("")), scalar(None), joined))


def _together(members: Sequence[Part], rest: Texts | None, rows: int, nothing: str) -> Texts:
    begun = np.zeros(rows, np.bool_)
    for part in members:
        begun[part.rows] = True
    parts, there = list(members), begun.copy()
    if rest is not None and rest.null_count < rows:
        texts, at = some_of(rest)
        more, alone = begun[at], ~begun[at]
        there[at] = True
        inner = inside(cast("Texts", texts.filter(pa.array(more))))
        parts.append(Part(cast("Texts", pc.binary_join_element_wise(scalar(","), inner, scalar(""))), at[more]))
        parts.append(Part(cast("Texts", texts.filter(pa.array(alone))), at[alone]))
    parts.append(_same("}", np.flatnonzero(begun)))
    parts.append(_same(nothing, np.flatnonzero(~there)))
    bounds, data = _gather(parts, rows)
    data[bounds[:-1][begun]] = ord("{")  # in place of the first comma
    return string_array(bounds, data)


def _same(text: str, rows: Int64s) -> Part:
    return Part(pa.array([text] * len(rows), pa.string()), rows)


def _gather(parts: Sequence[Part], rows: int) -> tuple[Int32s, UInt8s]:
    """The texts of each row, one behind the other in the order of the parts, as bounds and bytes."""
    of = np.concatenate([part.rows for part in parts])
    texts: Any = pa.concat_arrays([part.texts for part in parts])
    ordered = texts.take(pa.array(np.argsort(of, kind="stable")))
    bounds, data = bounds_and_data(ordered)
    ends = np.cumsum(np.bincount(of, minlength=rows))
    return bounds[np.concatenate((np.zeros(1, np.int64), ends))], data.copy()
