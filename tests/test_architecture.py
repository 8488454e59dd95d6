"""Imports point down: what each part of the package may know of the others."""

from __future__ import annotations

import ast
import contextlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "streamgauge"

LEAVES = {"backoff", "errors", "clock", "stats", "durations", "spawn", "heap", "model"}
ALLOWED = {
    "backoff": set(),
    "errors": set(),
    "clock": set(),
    "stats": set(),
    "durations": {"errors"},
    "spawn": set(),
    "heap": set(),
    "relabel": {"errors"},
    "http": {"errors", "clock"},
    "model": {"errors"},
    "wire": LEAVES,
    "store": LEAVES,
    "auth": LEAVES | {"http"},
    "cluster": LEAVES,
    "query": LEAVES,
    "backup": LEAVES | {"store"},
    "rpc": {"errors", "http"},
    "ingest": LEAVES | {"wire", "http", "rpc", "relabel", "auth"},
    "forward": LEAVES | {"wire", "http", "relabel"},
    "live": LEAVES | {"wire"},
    "derive": LEAVES | {"ingest", "live"},
    "client": {"wire", "errors"},
    "federate": LEAVES | {"wire", "http"},
    "serve": LEAVES | {"wire", "query", "ingest", "live", "relabel", "auth"},
}
"""`main`, `cli`, `commands` and the like, which are not listed, may see everything."""

ENGINES = {
    "promql_parser": {"query/promql/parser.py"},
    "sqlite3": {
        "store/catalog.py",
        "store/catalog_checksum.py",
        "store/catalog_rows.py",
        "store/sqlite_errors.py",
        "commands/importer/reference.py",
        "forward/sqlite.py",
        "forward/cursor.py",
        "forward/remote_write/position.py",
    },
    "psycopg": {"forward/postgres.py"},
    "psutil": {"ingest/host_portable.py", "query/process.py", "query/pool.py", "commands/relay_host.py", "testing/"},
    "nats": {"forward/live/nats.py"},
    "prometheus_client": {"stats.py"},
    "uvicorn": {"serve/server.py", "serve/protocol.py"},
    "httptools": {"serve/protocol.py", "http/client.py"},
    "duckdb": {"query/sql/"},
    "msgspec": {"wire/json_values.py", "store/events/", "live/projection.py"},
    "websockets": {"serve/websocket.py", "client/", "testing/event_server.py"},
    "re2": {"relabel.py"},
    "google_crc32c": {"wire/crc32c.py"},
    "dns": {"ingest/discovery/dns.py"},
    "jwt": {"auth/", "testing/"},
    "cryptography": {"auth/", "testing/"},
    "pydantic": {
        "auth_config.py",
        "config.py",
        "event_config.py",
        "federation_config.py",
        "host_history_config.py",
        "prometheus_config.py",
        "relay_config.py",
        "live_config.py",
        "scrape_config.py",
    },
    "yaml": {"config.py", "federate/config_file.py", "ingest/discovery/file.py"},
    "bcrypt": {"auth/passwords.py"},
    "grpc": {"serve/rpc/", "rpc/", "client/reader.py"},
    "grpc_health": {"serve/rpc/"},
    "grpc_reflection": {"serve/rpc/"},
    "google": {"serve/rpc/", "testing/"},
}
"""One third-party engine, one module (or folder)."""


def _parsed(path: Path) -> ast.Module:
    """Python 3.11 fails where another thread makes a syntax tree meanwhile, as it does for a traceback."""
    for _ in range(10):
        with contextlib.suppress(SystemError):
            return ast.parse(path.read_bytes())
    return ast.parse(path.read_bytes())


def _imported(path: Path) -> set[str]:
    """Dotted names that a module imports, at the top or within a function."""
    names = set()
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module of the package imports, by its path in the package. Each is parsed once."""
    return {path.relative_to(PACKAGE).as_posix(): _imported(path) for path in sorted(PACKAGE.rglob("*.py"))}


def test_imports_point_down(imports: dict[str, set[str]]) -> None:
    upward = []
    for where, names in imports.items():
        part = where.split("/")[0].removesuffix(".py")
        for name in sorted(names):
            if name.startswith("streamgauge.") and part in ALLOWED:
                other = name.split(".")[1]
                if other != part and other not in ALLOWED[part]:
                    upward.append(f"{where}: {part} must not import {name}")
    assert imports
    assert not upward, "\n".join(upward)


def test_each_engine_has_one_home(imports: dict[str, set[str]]) -> None:
    abroad = []
    for where, names in imports.items():
        for name in sorted(names):
            homes = ENGINES.get(name.split(".")[0])
            if homes is not None and not any(where == h or (h.endswith("/") and where.startswith(h)) for h in homes):
                abroad.append(f"{where}: {name} is imported outside its module")
    assert not abroad, "\n".join(abroad)


def test_package_initialisers_hold_no_code() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        for node in _parsed(path).body:
            plain = isinstance(node, ast.Expr | ast.Assign | ast.ImportFrom)
            assert plain, f"{path} has code"
