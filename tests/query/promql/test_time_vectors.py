"""Finding the series that share a time vector."""

from __future__ import annotations

import numpy as np

from streamgauge.model.arrays import Int64s
from streamgauge.model.source import Samples
from streamgauge.query.promql.time_vectors import group_by_times, matrix, same_times


def samples_of(vectors: list[list[int]]) -> Samples:
    times = np.array([time for vector in vectors for time in vector], np.int64)
    return Samples(np.cumsum([0, *map(len, vectors)]), times, times.astype(np.float64))


def lists(groups: list[Int64s]) -> list[list[int]]:
    return [group.tolist() for group in groups]


def test_series_of_equal_times_form_a_group() -> None:
    first, second, alone = [0, 10, 20], [3, 13, 23], [5, 10, 25]
    groups, rest = group_by_times(samples_of([first, second, first, [], alone, second, first]), steps=1, smallest=8)
    assert lists(groups) == [[0, 2, 6], [1, 5]]
    assert rest.tolist() == [4]


def test_groups_too_small_to_be_worth_it_are_left_to_the_rest() -> None:
    first, second = [0, 10, 20], [3, 13, 23]
    groups, rest = group_by_times(samples_of([first, second, first, second, first]), steps=1, smallest=12)
    assert lists(groups) == [[0, 2, 4]]
    assert rest.tolist() == [1, 3]


def test_everything_is_rest_where_nothing_is_worth_it() -> None:
    groups, rest = group_by_times(samples_of([[1], [1], []]), steps=1, smallest=100)
    assert groups == []
    assert rest.tolist() == [0, 1]


def test_no_series() -> None:
    groups, rest = group_by_times(samples_of([]), steps=1, smallest=0)
    assert groups == []
    assert len(rest) == 0


def test_a_comparison_tells_apart_what_the_probes_do_not() -> None:
    vector = list(range(0, 1_000, 10))
    delayed = [time + (time == 30) for time in vector]
    samples = samples_of([vector, delayed, vector])
    groups, _ = group_by_times(samples, steps=1, smallest=1)
    assert lists(groups) == [[0, 1, 2]]
    assert same_times(samples, groups[0], np.array(vector)).tolist() == [True, False, True]


def test_a_matrix_of_adjoining_rows_is_a_view() -> None:
    column = np.arange(12)
    adjoining = matrix(column, np.array([3, 6, 9]), 3)
    assert np.shares_memory(adjoining, column)
    assert adjoining.tolist() == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert matrix(column, np.array([0, 9]), 3).tolist() == [[0, 1, 2], [9, 10, 11]]
