"""What a series may be called, and what that costs whoever is asked to store it."""

from __future__ import annotations

import pytest

from streamgauge.errors import BadInput
from streamgauge.model.labels import MAX_LABEL_VALUE_BYTES, MAX_SERIES_BYTES, labels_of, series_key


def test_a_series_may_have_one_value_of_the_greatest_length() -> None:
    key = series_key([(b"__name__", b"up"), (b"x", b"v" * MAX_LABEL_VALUE_BYTES)])
    assert labels_of(key) == {"__name__": "up", "x": "v" * MAX_LABEL_VALUE_BYTES}


def test_labels_that_are_too_long_together_are_refused_before_they_are_joined() -> None:
    """In remote write 2.0 a kilobyte of references to one symbol would make a key of 16 MB, for each series anew."""
    value = b"v" * MAX_LABEL_VALUE_BYTES
    with pytest.raises(BadInput, match=f"the limit is {MAX_SERIES_BYTES}"):
        series_key((b"x%d" % number, value) for number in range(200))
