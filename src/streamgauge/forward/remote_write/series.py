"""From the id of a series to what is sent of it: external labels, relabelling, encoding, once for each series."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from streamgauge.errors import BadInput
from streamgauge.model.arrays import UInt32s
from streamgauge.model.labels import key_of, labels_of, split_key
from streamgauge.relabel import Relabelling
from streamgauge.wire.remote_write_encode import Encoder, Pairs, SeriesForm

MAX_BYTES = 64 << 20
"""Of forms that are kept: those of some 150,000 series. Ids are never given again, so none goes stale."""


class Unsent(enum.StrEnum):
    """Why samples of a series are not sent."""

    RELABELLED = "relabelled"
    GONE = "series_gone"
    UNWRITABLE = "unwritable"


class KnownSeries:
    """Used on one thread at a time. keys_of: None for a series that is gone."""

    def __init__(
        self,
        keys_of: Callable[[UInt32s], list[bytes | None]],
        encoder: Encoder,
        external: Mapping[str, str],
        relabelling: Relabelling,
    ) -> None:
        self._keys_of = keys_of
        self._encoder = encoder
        self._external = external
        self._external_pairs = {name.encode(): value.encode() for name, value in external.items() if value}
        self._relabelling = relabelling
        self._young: dict[int, SeriesForm | Unsent] = {}
        self._old: dict[int, SeriesForm | Unsent] = {}
        self._bytes = 0  # of the young

    def forms(self, ids: UInt32s) -> list[SeriesForm | Unsent]:
        """Valid together, until the next call."""
        if self._encoder.full:
            self._encoder.clear()
            self._young, self._old, self._bytes = {}, {}, 0
        listed = ids.tolist()
        found = list(map(self._young.get, listed))
        missing = [row for row, form in enumerate(found) if form is None]
        if missing:
            new = []
            for row in missing:
                form = found[row] = self._old.get(listed[row])
                if form is None:
                    new.append(row)
                else:
                    self._keep(listed[row], form)
            for row, key in zip(new, self._keys_of(ids[new]) if new else [], strict=True):
                form = found[row] = Unsent.GONE if key is None else self._make(key)
                if form is not Unsent.GONE:
                    self._keep(listed[row], form)
        return [form for form in found if form is not None]

    def _keep(self, series: int, form: SeriesForm | Unsent) -> None:
        self._young[series] = form
        self._bytes += form.size if isinstance(form, SeriesForm) else 100
        if self._bytes > MAX_BYTES // 2:
            self._old, self._young, self._bytes = self._young, {}, 0

    def _make(self, key: bytes) -> SeriesForm | Unsent:
        if not self._relabelling:
            return self._form(sorted((self._external_pairs | dict(split_key(key))).items()))
        labels = self._relabelling.apply({**self._external, **labels_of(key)})
        if not labels:
            return Unsent.RELABELLED
        try:
            pairs = split_key(key_of(labels))
        except BadInput:  # a rule made something of it that no server would take
            return Unsent.RELABELLED
        return self._form(pairs)

    def _form(self, pairs: Pairs) -> SeriesForm | Unsent:
        try:
            return self._encoder.form(pairs)
        except BadInput:
            return Unsent.UNWRITABLE
