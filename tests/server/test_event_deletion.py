"""Deleting events by a condition, as it is typed."""

from __future__ import annotations

from collections.abc import Callable

from streamgauge.testing.server import ServerProcess, run_command

StartServer = Callable[..., ServerProcess]


def test_delete_events_says_how_many_and_deletes_with_and_without_a_server(start_server: StartServer) -> None:
    server = start_server("--enable-admin-api")
    assert server.request("POST", "/", b'{"level":"debug"}{"level":"error"}{"level":"info","n":1}').text == "3"
    assert typed(server, "level = 'error'") == (
        f"{server.url}: 1 event where payload.level = 'error'\nDeleted 1 event. It is off the disk.\n"
    )
    server.stop()
    said = typed(server, "level <> 'error'")
    assert said.endswith("Deleted 2 events. They are off the disk.\n")
    assert "nothing to delete" in typed(server, "level <> 'error'")


def typed(server: ServerProcess, condition: str) -> str:
    command = ("delete", "events", "--where", f"payload.{condition}", "--data", str(server.data), "--yes")
    done = run_command(*command)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
