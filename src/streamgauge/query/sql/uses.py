"""As what a value is wanted, by what stands around it."""

from __future__ import annotations

from streamgauge.query.sql import tree
from streamgauge.query.sql.relations import Use
from streamgauge.query.sql.syntax import Tree

ARITHMETIC = frozenset({"+", "-", "*", "/", "//", "%", "**", "^"})
_NUMERIC = frozenset(
    {
        "abs",
        "approx_quantile",
        "avg",
        "cbrt",
        "ceil",
        "ceiling",
        "corr",
        "covar_pop",
        "covar_samp",
        "exp",
        "favg",
        "floor",
        "fsum",
        "kahan_sum",
        "kurtosis",
        "ln",
        "log",
        "log10",
        "log2",
        "mad",
        "mean",
        "median",
        "pow",
        "power",
        "product",
        "quantile",
        "quantile_cont",
        "quantile_disc",
        "round",
        "sign",
        "skewness",
        "sqrt",
        "stddev",
        "stddev_pop",
        "stddev_samp",
        "sum",
        "sumkahan",
        "to_timestamp",
        "trunc",
        "var_pop",
        "var_samp",
        "variance",
        "regr_slope",
        "regr_intercept",
        "regr_r2",
        "to_days",
        "to_hours",
        "to_microseconds",
        "to_milliseconds",
        "to_minutes",
        "to_seconds",
        "width_bucket",
    }
)
_TEXT = frozenset(
    {
        "~~",
        "!~~",
        "~~*",
        "!~~*",
        "~~~",
        "||",
        "^@",
        "array_length",
        "ascii",
        "base64",
        "char_length",
        "concat",
        "concat_ws",
        "contains",
        "count",
        "editdist3",
        "encode",
        "ends_with",
        "ilike_escape",
        "instr",
        "jaccard",
        "lcase",
        "left",
        "length",
        "levenshtein",
        "like_escape",
        "lower",
        "lpad",
        "ltrim",
        "md5",
        "not_ilike_escape",
        "not_like_escape",
        "position",
        "prefix",
        "regexp_extract",
        "regexp_extract_all",
        "regexp_full_match",
        "regexp_matches",
        "regexp_replace",
        "regexp_split_to_array",
        "repeat",
        "replace",
        "reverse",
        "right",
        "rpad",
        "rtrim",
        "sha1",
        "sha256",
        "split",
        "split_part",
        "starts_with",
        "str_split",
        "string_agg",
        "string_split",
        "strip_accents",
        "strlen",
        "strpos",
        "strptime",
        "substr",
        "substring",
        "suffix",
        "translate",
        "trim",
        "try_strptime",
        "ucase",
        "unicode",
        "upper",
        "url_decode",
        "url_encode",
    }
)
_JSON = frozenset({"json", "to_json", "row_to_json", "from_json", "from_json_strict"})
_INEXACT = 16
"""Digits with which a whole number, such as an identifier, may not be a double."""
_NUMBERS = frozenset({"INTEGER", "NUMERIC", "DOUBLE", "FLOAT", "DECIMAL"})
_NUMERIC_TYPES = frozenset(
    {
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "INT",
        "BIGINT",
        "HUGEINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "UHUGEINT",
        "FLOAT",
        "REAL",
        "DOUBLE",
        "DECIMAL",
        "NUMERIC",
        "INT1",
        "INT2",
        "INT4",
        "INT8",
        "FLOAT4",
        "FLOAT8",
    }
)
_TEXT_TYPES = frozenset({"VARCHAR", "TEXT", "STRING", "CHAR", "BPCHAR"})


def in_function(name: str) -> Use:
    """Of a function's arguments."""
    if name in ARITHMETIC or name in _NUMERIC:
        return Use.NUMERIC
    if name in _TEXT:
        return Use.TEXT
    return Use.JSON if name in _JSON or name.startswith("json_") else Use.NATURAL


def beside(other: Tree) -> Use | None:
    """Of what is compared with `other`. None when that does not say."""
    found = tree.literal(other)
    if found is not None:
        kind, text = found
        if kind == "INTEGER" and len(text) >= _INEXACT:
            return Use.NUMERIC
        if kind in _NUMBERS:
            return Use.NUMBER
        return {"STRING": Use.TEXT, "BOOLEAN": Use.BOOL}.get(kind)
    if other.get("class") == "CAST":
        kind = str(other["type_expr"]["type_name"]).upper()
        if kind in _NUMERIC_TYPES:
            return Use.NUMBER
        return {"BOOLEAN": Use.BOOL, "BOOL": Use.BOOL}.get(kind, Use.TEXT if kind in _TEXT_TYPES else None)
    if other.get("class") == "FUNCTION" and str(other["function_name"]) in ARITHMETIC:
        return _beside_all(tree.arguments(other))
    return None


def _beside_all(others: list[Tree]) -> Use | None:
    """Numbers where all of several are."""
    return Use.NUMBER if others and all(beside(other) is Use.NUMBER for other in others) else None


def among(others: list[Tree]) -> Use | None:
    """Of what is compared with each of `others`."""
    found = {beside(other) for other in others}
    if len(found) == 1:
        return found.pop()
    if found == {Use.NUMBER, Use.NUMERIC}:
        return Use.NUMERIC
    return Use.TEXT if found and found <= {Use.TEXT, Use.NUMBER, Use.NUMERIC, Use.BOOL} else None
