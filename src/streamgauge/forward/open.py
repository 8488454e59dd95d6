"""A destination's outlet, by its kind."""

from __future__ import annotations

from streamgauge.forward.destination import JsonFilesTarget, Outlet, PostgresTarget, SqliteTarget
from streamgauge.forward.json_files import JsonFilesOutlet
from streamgauge.forward.sqlite import SqliteOutlet


def open_outlet(target: SqliteTarget | PostgresTarget | JsonFilesTarget) -> Outlet:
    """Raises DeliveryFailed."""
    match target:
        case SqliteTarget():
            return SqliteOutlet(target)
        case JsonFilesTarget():
            return JsonFilesOutlet(target)
        case PostgresTarget():
            from streamgauge.forward.postgres import PostgresOutlet

            return PostgresOutlet(target)


def check_target(target: SqliteTarget | PostgresTarget | JsonFilesTarget) -> None:
    """Raises DeliveryFailed for a destination that cannot be used whatever happens: its driver is missing."""
    if isinstance(target, PostgresTarget):
        from streamgauge.forward.postgres import check_driver

        check_driver()
