"""Imports point down: what each part of the package may know of the others."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "streamgauge"

LEAVES = {"backoff", "errors", "clock", "stats", "durations", "spawn", "model"}
ALLOWED = {
    "backoff": set(),
    "errors": set(),
    "clock": set(),
    "stats": set(),
    "durations": {"errors"},
    "spawn": set(),
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
        "store/catalog_rows.py",
        "store/sqlite_errors.py",
        "commands/importer/reference.py",
        "forward/sqlite.py",
        "forward/cursor.py",
        "forward/remote_write/position.py",
    },
    "psycopg": {"forward/postgres.py"},
    "psutil": {"ingest/host_portable.py", "query/process.py", "query/pool.py", "commands/relay_host.py", "testing/"},
    "prometheus_client": {"stats.py"},
    "uvicorn": {"serve/server.py", "serve/protocol.py"},
    "httptools": {"serve/protocol.py", "http/client.py"},
    "duckdb": {"query/sql/"},
    "msgspec": {"wire/json_values.py", "store/events/"},
    "websockets": {"serve/websocket.py", "client/", "testing/event_server.py"},
    "re2": {"relabel.py"},
    "dns": {"ingest/discovery/dns.py"},
    "jwt": {"auth/", "testing/"},
    "cryptography": {"auth/", "testing/"},
    "pydantic": {
        "auth_config.py",
        "config.py",
        "event_config.py",
        "federation_config.py",
        "prometheus_config.py",
        "relay_config.py",
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


def _imports(path: Path) -> set[str]:
    """Dotted names that a module imports, at the top or within a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in _imports(path):
        if name.startswith("streamgauge.") and part in ALLOWED:
            other = name.split(".")[1]
            assert other == part or other in ALLOWED[part], f"{part} must not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_engine_has_one_home(path: Path) -> None:
    where = path.relative_to(PACKAGE).as_posix()
    for name in _imports(path):
        homes = ENGINES.get(name.split(".")[0])
        assert homes is None or any(where == h or (h.endswith("/") and where.startswith(h)) for h in homes), (
            f"{name} is imported outside its module"
        )


def test_package_initialisers_hold_no_code() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            plain = isinstance(node, ast.Expr | ast.Assign | ast.ImportFrom)
            assert plain, f"{path} has code"
