"""Text, whole arrays at a time: joining strings, and numbers spelled exactly as Prometheus' HTTP API spells them.

Values follow Go's shortest round-trip formatting (strconv.FormatFloat with precision -1): plain digits from 1e-6 up to
1e21, outside of that an exponent of at least two digits; NaN, +Inf, -Inf. Arrow's cast gives the same shortest digits,
but writes an exponent from 1e10 on, one digit in small exponents, and other words for what is not finite; only those
values are touched again.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import Bools, Floats, Int64s

_ARROW_EXPONENT_FROM = 1e10
_EXPONENT_FROM = 1e21
_EXPONENT_BELOW = 1e-6
_EXACT_INTEGERS_BELOW = 2.0**53


def strings(texts: Iterable[str]) -> pa.StringArray:
    # Without a type pyarrow looks at every value, and tries to import dateutil each time: 45 µs a call.
    return pa.array(list(texts), pa.string())


def join(*parts: pa.StringArray | str) -> pa.StringArray:
    """Join arrays of one length and constants, element by element."""
    return _join(parts, "", "emit_null")


def join_present(parts: Iterable[pa.StringArray], separator: str) -> pa.StringArray:
    """Join arrays of one length, leaving out what is null.

    Every element must be present in one of them at least: Arrow leaves those that are not out of the result.
    """
    return _join(parts, separator, "skip")


def concatenated(texts: pa.StringArray) -> bytes:
    """All the strings of an array, one after the other."""
    _, offsets, data = texts.buffers()
    if offsets is None or data is None:
        return b""
    bounds = np.frombuffer(memoryview(offsets), np.int32)
    begin, end = int(bounds[texts.offset]), int(bounds[texts.offset + len(texts)])
    return data.slice(begin, end - begin).to_pybytes()


def text_bytes(texts: pa.StringArray) -> int:
    """Bytes of all the strings of an array."""
    return int(pc.sum(pc.cast(pc.binary_length(texts), pa.int64())).as_py() or 0)


def value_texts(values: Floats) -> pa.StringArray:
    """The text of each value. `values`: float64[n]."""
    texts: pa.StringArray = _cast(values, pa.string())
    size = np.abs(values)
    small = (size < _EXPONENT_BELOW) & (size > 0)
    ordinary = (size < _ARROW_EXPONENT_FROM) & ~small
    if ordinary.all():
        return texts
    large = (size >= _ARROW_EXPONENT_FROM) & (size < _EXPONENT_FROM)
    whole = large & (size < _EXACT_INTEGERS_BELOW)
    whole[whole] = np.floor(values[whole]) == values[whole]
    if whole.any():
        texts = _replace(texts, whole, _cast(values[whole].astype(np.int64), pa.string()))
    for mask, respell in (
        (large & ~whole, _without_exponent),
        (small, _two_digit_exponent),
        (~np.isfinite(values), _words),
    ):
        if mask.any():
            texts = _replace(texts, mask, respell(texts.filter(pa.array(mask))))
    return texts


def time_texts(times: Int64s) -> pa.StringArray:
    """Times in ms as seconds, with three decimals unless they are whole seconds. `times`: int64[n]."""
    seconds, milliseconds = np.divmod(np.abs(times), 1000)
    texts = join(_cast(seconds, pa.string()), _fractions().take(milliseconds))
    negative = times < 0
    return _replace(texts, negative, join("-", texts.filter(pa.array(negative)))) if negative.any() else texts


@cache
def _fractions() -> pa.StringArray:
    return strings(["", *(f".{milliseconds:03d}" for milliseconds in range(1, 1000))])


def _without_exponent(texts: pa.StringArray) -> pa.StringArray:
    """-1.25e+10 becomes -12500000000: every text has an exponent of 10 to 20."""
    exponents = _cast(pc.utf8_slice_codeunits(texts, -2), pa.int32()).to_numpy()
    digits = pc.replace_substring(pc.utf8_slice_codeunits(texts, 0, -4), ".", "")
    negative: Any = pc.starts_with(texts, "-")
    widths = exponents + 1 + negative.to_numpy(zero_copy_only=False)
    spelled = digits
    for width in np.unique(widths).tolist():
        mask = widths == width
        padded: Any = pc.utf8_rpad(digits.filter(pa.array(mask)), width, "0")
        fraction: Any = pc.utf8_slice_codeunits(padded, width)
        point: Any = pc.if_else(pc.match_like(fraction, "_%"), ".", "")
        spelled = _replace(spelled, mask, join(pc.utf8_slice_codeunits(padded, 0, width), point, fraction))
    return spelled


def _two_digit_exponent(texts: pa.StringArray) -> pa.StringArray:
    return pc.replace_substring_regex(texts, r"e-(\d)$", r"e-0\1")


def _words(texts: pa.StringArray) -> pa.StringArray:
    """What Arrow calls nan, inf and -inf."""
    texts = pc.replace_substring_regex(texts, r"^-?nan$", "NaN")
    texts = pc.replace_substring_regex(texts, r"^inf$", "+Inf")
    return pc.replace_substring_regex(texts, r"^-inf$", "-Inf")


def _join(parts: Iterable[pa.StringArray | str], separator: str, nulls: str) -> pa.StringArray:
    arguments: list[Any] = [pa.scalar(part, pa.string()) if isinstance(part, str) else part for part in parts]
    compute: Any = pc.binary_join_element_wise
    joined: pa.StringArray = compute(*arguments, pa.scalar(separator, pa.string()), null_handling=nulls)
    return joined


def _replace(texts: pa.StringArray, mask: Bools, replacements: pa.StringArray) -> pa.StringArray:
    replaced: pa.StringArray = pc.replace_with_mask(texts, pa.array(mask), replacements)
    return replaced


def _cast(values: Any, to: pa.DataType) -> Any:
    return pc.cast(values if isinstance(values, pa.Array) else pa.array(values), to)
