from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamgauge.stats import Stats, Tally


def test_two_servers_in_one_process_count_apart() -> None:
    one, other = Stats(), Stats()
    one.ingested_samples.labels("remote_write").inc(5)
    assert b'streamgauge_ingested_samples_total{source="remote_write"} 5.0' in one.exposition()
    assert b'streamgauge_ingested_samples_total{source="remote_write"}' not in other.exposition()


def test_every_metric_of_ours_has_our_prefix_and_a_help() -> None:
    for family in text_string_to_metric_families(Stats().exposition().decode()):
        assert family.name.startswith(("streamgauge_", "process_")), family.name
        assert family.documentation.endswith(".")


def test_families_are_what_the_text_says() -> None:
    stats = Stats()
    stats.refused.labels("remote_write", "too_old").inc(3)
    stats.ingest_seconds.labels("remote_write").observe(0.02)
    parsed = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(stats.exposition().decode())
        for sample in family.samples
        if not sample.name.endswith("_created") and not sample.name.startswith("process_")
    }
    ours = {
        (name, tuple(sorted(labels))): value
        for family in stats.families()
        for name, labels, value in family.samples
        if not name.startswith("process_")
    }
    assert ours == parsed
    assert {family.name: family.type for family in stats.families()}["streamgauge_refused_total"] == "counter"


def test_other_parts_add_their_own() -> None:
    stats = Stats()
    level = [4.0]
    stats.gauge("head_samples", "Samples in the head.", lambda: level[0])
    stats.counter("flushes", "Flushes of the head.", "result").labels("ok").inc()
    stats.histogram("sync", "A sync of the log.").observe(0.3)
    assert b"streamgauge_head_samples 4.0" in stats.exposition()
    level[0] = 7.0
    assert b"streamgauge_head_samples 7.0" in stats.exposition()
    assert b'streamgauge_flushes_total{result="ok"} 1.0' in stats.exposition()
    assert b"streamgauge_sync_seconds_count 1.0" in stats.exposition()
    with pytest.raises(ValueError, match="head_samples"):
        stats.gauge("head_samples", "Again.", lambda: 0.0)


def test_a_tally_is_entered_when_it_is_asked_for() -> None:
    stats = Stats()
    also = stats.counter("repeats", "Requests that repeat another.")
    tally = Tally(stats, "upload", 200, (also,))
    for number in range(1500):
        tally.add(10, 2, 0.3 if number else 7.0)
    for _ in range(2):
        text = stats.exposition().decode()
        assert 'streamgauge_ingest_requests_total{code="200",source="upload"} 1500.0' in text
        assert 'streamgauge_ingest_request_bytes_total{source="upload"} 15000.0' in text
        assert 'streamgauge_ingested_samples_total{source="upload"} 3000.0' in text
        assert 'streamgauge_ingest_request_duration_seconds_bucket{le="5.0",source="upload"} 1499.0' in text
        assert "streamgauge_repeats_total 1500.0" in text
    tally.add(10, 2, 0.3)
    repeats = next(family for family in stats.families() if family.name == "streamgauge_repeats_total")
    assert repeats.samples[0][2] == 1501
