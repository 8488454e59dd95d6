"""Where an issuer's keys come from: a URL, a file, or what the issuer itself says (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from streamgauge.auth.jwks import MAX_BYTES
from streamgauge.auth.rules import IssuerRule
from streamgauge.auth_config import is_safe
from streamgauge.errors import ConfigError, FetchFailed
from streamgauge.http.client import HttpClient, Resolver
from streamgauge.http.options import USER_AGENT, HttpOptions, Secret, Tls, TlsContexts

SECONDS = 10.0
"""For all that is fetched: who brings a token of a key that is new waits for it."""
DISCOVERY = "/.well-known/openid-configuration"
_HEADERS = {"user-agent": USER_AGENT, "accept": "application/json", "accept-encoding": "gzip"}


class IssuerKeys:
    def __init__(self, rule: IssuerRule) -> None:
        self._rule = rule

    async def fetch(self) -> bytes:
        """The document with the keys. Raises FetchFailed and ConfigError."""
        if self._rule.jwks_file:
            return await asyncio.to_thread(_read, Path(self._rule.jwks_file))
        tls = Tls(ca=Secret(file=self._rule.ca_file))
        resolver = Resolver()
        client = HttpClient(HttpOptions(tls=tls, follow_redirects=False), TlsContexts(tls), resolver)
        try:
            async with asyncio.timeout(SECONDS):
                return await _get(client, self._rule.jwks_url or await self._discovered(client))
        except TimeoutError:
            raise FetchFailed(f"no whole answer within {SECONDS:g} s") from None
        finally:
            client.close()
            resolver.close()

    async def _discovered(self, client: HttpClient) -> str:
        issuer = self._rule.issuer
        try:
            document: Any = json.loads(await _get(client, issuer.rstrip("/") + DISCOVERY))
            named, url = document["issuer"], document["jwks_uri"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise FetchFailed("what the issuer says of itself makes no sense") from None
        if named != issuer or not isinstance(url, str) or not is_safe(url):
            raise FetchFailed("the issuer calls itself otherwise, or has its keys where others could change them")
        return url


async def _get(client: HttpClient, url: str) -> bytes:
    answer = await client.get(url, _HEADERS, MAX_BYTES)
    if answer.status != 200:
        raise FetchFailed(f"the answer was {answer.status} {answer.reason}".rstrip())
    return answer.body


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
