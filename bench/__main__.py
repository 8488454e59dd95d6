"""Runs the benchmarks and prints the table of ratios."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench import (
    client,
    disk,
    events,
    forward,
    imports,
    ingest,
    middleware,
    pushes,
    queries,
    relays,
    scrape,
    small,
    tail,
    timeseries,
    year,
)
from bench.report import Row, machine, print_table

BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "write": ingest.run,
    "import": imports.run,
    "scrape": scrape.run,
    "pushes": pushes.run,
    "forward": forward.run,
    "disk": disk.run,
    "rate": queries.run,
    "instant": small.one_among_many,
    "together": small.together,
    "memory": small.memory,
    "start": small.start_up,
    "year": year.run,
    "events": events.run,
    "tail": tail.run,
    "client": client.run,
    "relays": relays.run,
    "grpc-insert": timeseries.insert,
    "grpc-poll": timeseries.poll,
    "middleware": middleware.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(BENCHMARKS)}; default: all")
    names = parser.parse_args().names or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name}")
    print(machine())
    rows: list[Row] = []
    for name in names:
        rows += BENCHMARKS[name]()
    print_table(rows)


main()
