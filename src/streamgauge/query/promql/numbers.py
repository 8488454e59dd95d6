"""Numbers as Go prints them, which is how Prometheus shows them."""

from __future__ import annotations

import math

import numpy as np


def go_format(value: float) -> str:
    """The shortest text that reads back as the same number (Go's %g and %v): 0.5, 100000, 1e+06, +Inf, NaN."""
    if special := _special(value):
        return special
    magnitude = abs(value)
    if magnitude and not 1e-4 <= magnitude < 1e6:
        return np.format_float_scientific(value, trim="-", exp_digits=2)
    return plain_format(value)


def plain_format(value: float) -> str:
    """The shortest text that reads back as the same number, without an exponent (Go's FormatFloat 'f', -1)."""
    return _special(value) or np.format_float_positional(value, trim="-")


def open_metrics_format(value: float) -> str:
    """As OpenMetrics writes label values that are numbers: integers with `.0`."""
    text = go_format(value)
    return text if any(mark in text for mark in ".eIN") else text + ".0"


def _special(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return ""
