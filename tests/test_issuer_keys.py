"""Fetching an issuer's keys, from a real HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from streamgauge.auth.identity import Permission
from streamgauge.auth.jwks import INTERVAL_SECONDS, MAX_BYTES, KeySet
from streamgauge.auth.jwt_tokens import Issuer, Issuers
from streamgauge.auth.refused import Refused
from streamgauge.auth.rules import Grant, IssuerRule
from streamgauge.clock import ManualClock
from streamgauge.errors import ConfigError, FetchFailed, NotReady
from streamgauge.issuer_keys import DISCOVERY, IssuerKeys
from streamgauge.testing.signer import Signer, key_set

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Site:
    """Answers with what `pages` has for a path."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body, headers = site.pages.get(self.path, (404, b"", {}))
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def put(self, path: str, body: bytes, status: int = 200, **headers: str) -> None:
        self.pages[path] = (status, body, headers)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def rule(site: Site, **more: str) -> IssuerRule:
    return IssuerRule(site.url, ("sg",), ("RS256",), Grant(frozenset({Permission.READ})), **more)


async def test_keys_by_their_url_rotate_and_outlive_an_outage(site: Site) -> None:
    clock, old, new = ManualClock(), Signer("old"), Signer("new")
    site.put("/keys", key_set(old))
    wanted = rule(site, jwks_url=f"{site.url}/keys")
    issuers = Issuers([Issuer(wanted, KeySet(site.url, IssuerKeys(wanted).fetch, clock))])
    claims = {"iss": site.url, "aud": "sg", "sub": "a", "exp": clock.now_ms() // 1000 + 9_999}

    async def name(signer: Signer) -> str:
        return (await issuers.identity(signer.sign(claims), clock.now_ms())).name

    assert await name(old) == f"jwt:{site.url}:a"
    site.put("/keys", key_set(old, new))
    await clock.advance(INTERVAL_SECONDS)
    assert await name(new) == f"jwt:{site.url}:a"
    site.put("/keys", b"", 500)
    await clock.advance(INTERVAL_SECONDS)
    with pytest.raises(Refused):
        await name(Signer("unknown"))
    assert await name(old) == await name(new)


async def test_an_outage_from_the_beginning_is_no_fault_of_the_token(site: Site) -> None:
    wanted = rule(site, jwks_url=f"{site.url}/keys")
    with pytest.raises(NotReady):
        await KeySet(site.url, IssuerKeys(wanted).fetch, ManualClock()).key("k", "RS256")


async def test_the_issuer_says_where_they_are(site: Site) -> None:
    site.put(DISCOVERY, json.dumps({"issuer": site.url, "jwks_uri": f"{site.url}/there"}).encode())
    site.put("/there", b'{"keys": []}')
    assert await IssuerKeys(rule(site)).fetch() == b'{"keys": []}'


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://other.example", "jwks_uri": "{url}/there"},
        {"issuer": "{url}", "jwks_uri": "http://keys.example/there"},
        {"issuer": "{url}", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "{url}", "jwks_uri": 7},
        {"issuer": "{url}"},
        [],
    ],
)
async def test_what_an_issuer_says_is_not_believed_blindly(site: Site, document: object) -> None:
    site.put(DISCOVERY, json.dumps(document).replace("{url}", site.url).encode())
    site.put("/there", b'{"keys": []}')
    with pytest.raises(FetchFailed):
        await IssuerKeys(rule(site)).fetch()


async def test_answers_are_bounded_and_redirects_not_followed(site: Site) -> None:
    wanted = IssuerKeys(rule(site, jwks_url=f"{site.url}/keys"))
    site.put("/elsewhere", b'{"keys": []}')
    site.put("/keys", b"", 302, location=f"{site.url}/elsewhere")
    with pytest.raises(FetchFailed, match="302"):
        await wanted.fetch()
    site.put("/keys", b" " * (MAX_BYTES + 1))
    with pytest.raises(FetchFailed):
        await wanted.fetch()


async def test_keys_in_a_file(tmp_path: Path, site: Site) -> None:
    (tmp_path / "keys").write_bytes(b"{}")
    assert await IssuerKeys(rule(site, jwks_file=str(tmp_path / "keys"))).fetch() == b"{}"
    with pytest.raises(ConfigError, match="cannot be read"):
        await IssuerKeys(rule(site, jwks_file=str(tmp_path / "none"))).fetch()
