"""The Prometheus text format, written: what /federate answers.

Specification: https://prometheus.io/docs/instrumenting/exposition_formats/ and, for quoted names,
https://prometheus.io/docs/instrumenting/escaping_schemes/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from streamgauge.model.arrays import Floats, Int64s, stale_mask
from streamgauge.model.frame import LabelColumn, LabelFrame

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CONTENT_TYPE_QUOTED = "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"

_CHUNK_ROWS = 4096
_PLAIN_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_PLAIN_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_PLAIN_TYPES = frozenset(("counter", "gauge"))
"""Types whose samples carry the metric's own name. Those of a histogram or a summary do not, and stand alone here."""


def encode(
    labels: LabelFrame,
    times: Int64s,
    values: Floats,
    types: Mapping[str, str],
    external_labels: Mapping[str, str],
    quoted: bool = False,
) -> Iterator[bytes]:
    """One line a series, ordered by metric name, each metric after its TYPE line.

    times: ms, one a row of `labels`, as are `values`. Stale markers, which the format cannot express, and series
        without a metric name are left out.
    external_labels: added to each series that does not have them.
    quoted: the reader understands quoted names (CONTENT_TYPE_QUOTED); for others, characters outside the old alphabet
        become underscores.
    """
    names = labels.columns.get("__name__")
    if names is None:
        return
    rows = np.flatnonzero((names.codes >= 0) & ~stale_mask(values))
    rank = np.argsort(np.argsort(np.array(names.values.to_pylist(), object), kind="stable"), kind="stable")
    rows = rows[np.argsort(rank[names.codes[rows]], kind="stable")]
    write_metric = _metric_writer(quoted)
    metric = ""
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        lines: list[str] = []
        inner = _label_texts(labels.without(["__name__"]).take(chunk), external_labels, quoted)
        stamps = times[chunk].tolist()
        for row, text, stamp, value in zip(chunk.tolist(), inner, stamps, values[chunk].tolist(), strict=True):
            name = names.text(row)
            if name != metric:
                metric = name
                kind = types.get(name, "untyped")
                shown = write_metric(name, "")
                lines.append(f"# TYPE {shown} {kind if kind in _PLAIN_TYPES else 'untyped'}\n")
            lines.append(f"{write_metric(name, text)} {number(value)} {stamp}\n")
        yield "".join(lines).encode()


def number(value: float) -> str:
    """A value in the shortest form that reads back as the same number."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    return text.removesuffix(".0")


def escape(value: str) -> str:
    """A label's value as it stands between double quotes."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _metric_writer(quoted: bool) -> Callable[[str, str], str]:
    """A function of (metric name, its labels' text) that gives the beginning of a line."""

    def write(name: str, inner: str) -> str:
        if _PLAIN_METRIC.fullmatch(name):
            return f"{name}{{{inner}}}" if inner else name
        if not quoted:
            plain = re.sub(r"[^a-zA-Z0-9_:]", "_", name)
            plain = f"_{plain}" if plain[0].isdigit() else plain
            return f"{plain}{{{inner}}}" if inner else plain
        own = f'"{escape(name)}"'
        return f"{{{own},{inner}}}" if inner else (f"{{{own}}}")

    return write


def _label_texts(labels: LabelFrame, external: Mapping[str, str], quoted: bool) -> Iterator[str]:
    """name="value",… of each row. Each distinct pair is spelled once, not once a row."""
    columns = dict(labels.columns)
    missing = [name for name in external if name not in columns]
    parts = [_pairs(name, columns[name], external.get(name, ""), quoted) for name in sorted(columns)] + [
        [_pair(name, external[name], quoted)] * labels.rows for name in sorted(missing)
    ]
    if not parts:
        return iter([""] * labels.rows)
    return (",".join(filter(None, row)) for row in zip(*parts, strict=True))


def _pairs(name: str, column: LabelColumn, default: str, quoted: bool) -> list[str]:
    """name="value" of each row; `default` is the value of rows that do not have the label."""
    used, codes = np.unique(column.codes, return_inverse=True)
    texts = [_pair(name, str(column.values[int(code)].as_py()) if code >= 0 else default, quoted) for code in used]
    return [texts[code] for code in codes.tolist()]


def _pair(name: str, value: str, quoted: bool) -> str:
    if not value:
        return ""
    if not _PLAIN_LABEL.fullmatch(name):
        if quoted:
            name = f'"{escape(name)}"'
        else:
            name = re.sub(r"[^a-zA-Z0-9_]", "_", name)
            name = f"_{name}" if name[0].isdigit() else name
    return f'{name}="{escape(value)}"'
