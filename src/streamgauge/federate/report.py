"""The privacy report: what would leave this machine, label by label, and what would not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from streamgauge.federate.transforms import Reason, Transformed, Transforms
from streamgauge.wire import snappy_frames
from streamgauge.wire.metric_family import Histogram, Summary
from streamgauge.wire.metric_family_protobuf import encode

EXAMPLES = 5
"""Values of a label that are shown."""


@dataclass(slots=True)
class LabelUse:
    """What is pushed of one label. values: how often each occurs, as it leaves. metrics: names of the families."""

    name: str
    anonymized: bool
    added: bool  # by --label
    values: dict[str, int] = field(default_factory=dict)
    metrics: set[str] = field(default_factory=set)

    @property
    def examples(self) -> list[str]:
        return sorted(self.values)[:EXAMPLES]


@dataclass(frozen=True, slots=True)
class Report:
    """families: names of metrics with the number of series. described: those of them that have a help text. removed:
    by reason and name. renamed: old and new names. unused: labels that are to be anonymised and do not occur. Sizes are
    in bytes."""

    scraped: int
    scraped_bytes: int
    pushed: int
    encoded_bytes: int
    compressed_bytes: int
    labels: list[LabelUse]
    families: dict[str, int]
    described: list[str]
    removed: dict[tuple[Reason, str], int]
    renamed: dict[str, str]
    unused: list[str]


def make_report(done: Transformed, scraped_bytes: int, transforms: Transforms, names: Iterable[str]) -> Report:
    """names: of the families as they were scraped."""
    uses: dict[str, LabelUse] = {}
    families: dict[str, int] = {}
    for family in done.families:
        families[family.name] = families.get(family.name, 0) + len(family.metrics)
        for metric in family.metrics:
            pairs = [(name, value or "") for name, value in metric.labels]
            if isinstance(metric.value, Summary | Histogram):
                parts = metric.value.quantiles if isinstance(metric.value, Summary) else metric.value.buckets
                pairs += [("quantile" if isinstance(metric.value, Summary) else "le", f"{at:g}") for at, _ in parts]
            for name, value in pairs:
                use = uses.get(name)
                if use is None:
                    use = uses[name] = LabelUse(name, name in transforms.anonymize, name in transforms.labels)
                use.values[value] = use.values.get(value, 0) + 1
                use.metrics.add(family.name)
    content = encode(done.families)
    scraped_names = set(names)
    return Report(
        scraped=done.scraped,
        scraped_bytes=scraped_bytes,
        pushed=done.left,
        encoded_bytes=len(content),
        compressed_bytes=len(snappy_frames.encode(content)),
        labels=[uses[name] for name in sorted(uses)],
        families=dict(sorted(families.items())),
        described=sorted({family.name for family in done.families if family.help}),
        removed=dict(sorted(done.removed.items(), key=lambda item: (item[0][0].name, item[0][1]))),
        renamed={old: new for old, new in sorted(transforms.renames.items()) if old in scraped_names},
        unused=sorted(transforms.anonymize - uses.keys()),
    )
