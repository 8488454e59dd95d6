from pathlib import Path

import numpy as np

from streamgauge.model.labels import key_of
from streamgauge.store.cardinality import cardinality
from streamgauge.store.index import SeriesIndex
from streamgauge.store.index_view import ViewCache
from streamgauge.store.leases import Leases
from streamgauge.store.shm import SharedMemory


def test_the_largest_of_each_kind_over_living_series(tmp_path: Path) -> None:
    memory = SharedMemory(tmp_path)
    index = SeriesIndex(memory, Leases())
    for number in range(12):
        labels = {"__name__": "up" if number < 7 else "größe", "n": str(number)}
        index.resolve(key_of(labels if number % 4 else {**labels, "job": "node"}))
    index.prune(np.array([0, 11], np.uint32))
    found = cardinality(ViewCache().open(index.snapshot()), 2)
    assert found.series == 10
    assert found.label_pairs == 2 + 10 + 1
    assert found.metrics == [("up", 6), ("größe", 4)]
    assert found.values == [("n", 10), ("__name__", 2)]
    assert found.bytes == [("__name__", 6 * 2 + 4 * 7), ("n", 9 + 2)]
    assert found.pairs == [("__name__=up", 6), ("__name__=größe", 4)]
    assert cardinality(ViewCache().open(index.snapshot()), 4).pairs[2:] == [("job=node", 2), ("n=1", 1)]
    memory.close()


def test_an_empty_index_has_nothing(tmp_path: Path) -> None:
    memory = SharedMemory(tmp_path)
    found = cardinality(ViewCache().open(SeriesIndex(memory, Leases()).snapshot()), 10)
    assert (found.series, found.label_pairs, found.metrics, found.pairs) == (0, 0, [], [])
    memory.close()
