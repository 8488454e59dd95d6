"""Finding out who somebody is, by whichever way they show it."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamgauge.auth.authenticator import Credentials
from streamgauge.auth.identity import EVERYBODY, Identity, Permission
from streamgauge.auth.refused import Refused
from streamgauge.auth.tokens import MAX_TOKEN_BYTES, PREFIX, Tokens, digest_of, looks_signed
from streamgauge.clock import Clock
from streamgauge.errors import Busy

if TYPE_CHECKING:
    from streamgauge.auth.certificates import Certificates
    from streamgauge.auth.jwt_tokens import Issuers
    from streamgauge.auth.passwords import Passwords

FOLDER = Identity("folder", frozenset(Permission))
"""Whoever can read the lock of the data folder: the commands that run beside the server."""


@dataclass(frozen=True, slots=True)
class Configured:
    """What the configuration file says, ready for use. fixed: by the SHA-256 of a token's text."""

    fixed: Mapping[bytes, Identity]
    passwords: Passwords | None = None
    certificates: Certificates | None = None
    issuers: Issuers | None = None

    def close(self) -> None:
        if self.passwords is not None:
            self.passwords.close()
        if self.issuers is not None:
            self.issuers.close()


class Authorities:
    """Implements Authenticator. While nothing is configured and no token was ever made, everybody is let in.

    refused: told the reason of each refusal. `version` rises when somebody who was let in may have to go.
    """

    def __init__(self, clock: Clock, tokens: Tokens, refused: Callable[[str], None]) -> None:
        self._clock = clock
        self._refused = refused
        self._configured: Configured | None = None
        self.tokens = tokens
        self.asks = False  # for tokens, whatever is configured
        self.folder_key = ""
        self.version = 0

    @property
    def open(self) -> bool:
        """Whether everybody is let in."""
        return self._configured is None and not self.asks

    def configure(self, configured: Configured | None) -> None:
        before, self._configured = self._configured, configured
        if before is not None:
            before.close()
        self.changed()

    def close(self) -> None:
        if self._configured is not None:
            self._configured.close()

    def changed(self) -> None:
        """Tokens were revoked, or other keys are in force."""
        self.version += 1

    async def identify(self, credentials: Credentials) -> Identity:
        if self.open:
            return EVERYBODY
        try:
            return self._alive(await self._identify(credentials))
        except Refused as error:
            self._refused(error.reason)
            raise
        except Busy:
            self._refused("busy")
            raise

    def known(self, credentials: Credentials) -> Identity | None:
        """Everybody, where everybody is let in, and who shows one of the tokens whose digests are kept."""
        if self.open:
            return EVERYBODY
        if credentials.folder_key or len(credentials.authorization) != 1:
            return None
        scheme, _, token = credentials.authorization[0].partition(" ")
        if scheme.lower() != "bearer" or len(token) > MAX_TOKEN_BYTES:
            return None
        identity = self._known(token)
        alive = identity is not None and (identity.expires is None or identity.expires > self._clock.now_ms())
        return identity if alive else None

    def _alive(self, identity: Identity) -> Identity:
        if identity.expires is not None and identity.expires <= self._clock.now_ms():
            raise Refused("expired", "the token has expired")
        return identity

    async def _identify(self, credentials: Credentials) -> Identity:
        if credentials.folder_key:
            return self._by_folder_key(credentials.folder_key)
        if len(credentials.authorization) > 1:
            raise Refused("several", "a request has one Authorization header")
        if credentials.authorization:
            return await self._by_header(credentials.authorization[0])
        if credentials.certificate:
            return self._by_certificate(credentials)
        raise Refused("none", "say who you are: with a token (Authorization: Bearer …), or with user and password")

    def _by_folder_key(self, key: str) -> Identity:
        if not self.folder_key or not hmac.compare_digest(key.encode(), self.folder_key.encode()):
            raise Refused("folder_key", "this is not the key that is in the data folder's lock")
        return FOLDER

    async def _by_header(self, value: str) -> Identity:
        scheme, _, rest = value.strip(" \t").partition(" ")
        rest = rest.strip(" \t")
        if len(rest) > MAX_TOKEN_BYTES:
            raise Refused("malformed", f"credentials have {MAX_TOKEN_BYTES} bytes at most")
        if scheme.lower() == "bearer" and rest:
            return await self._by_token(rest)
        if scheme.lower() == "basic" and rest:
            return await self._by_password(*_basic(rest))
        raise Refused("malformed", "this is no Authorization header of a kind that is known here: Bearer or Basic")

    async def _by_token(self, text: str) -> Identity:
        if (identity := self._known(text)) is not None:
            return identity
        issuers = self._configured.issuers if self._configured is not None else None
        if issuers is not None and looks_signed(text):
            return await issuers.identity(text, self._clock.now_ms())
        raise Refused("unknown", "this token is not known here, or was revoked")

    def _known(self, text: str) -> Identity | None:
        """Whose token it is, of those whose digests are kept."""
        if text.startswith(PREFIX) and (identity := self.tokens.identity(text)) is not None:
            return identity
        # By its digest: how long the search takes says nothing of a token.
        return self._configured.fixed.get(digest_of(text)) if self._configured is not None else None

    async def _by_password(self, user: str, password: str) -> Identity:
        """By a token in the password's place, for programs that know passwords only, whatever their user is called."""
        if password.startswith(PREFIX) or looks_signed(password) or self._known(password) is not None:
            return await self._by_token(password)
        passwords = self._configured.passwords if self._configured is not None else None
        identity = await passwords.identity(user, password) if passwords is not None else None
        if identity is None:
            raise Refused("password", "no such user, or not this password")
        return identity

    def _by_certificate(self, credentials: Credentials) -> Identity:
        certificates = self._configured.certificates if self._configured is not None else None
        assert credentials.certificate is not None
        identity = None
        if certificates is not None:
            identity = certificates.identity(credentials.certificate, self._clock.now_ms())
        if identity is None:
            raise Refused("certificate", "the subject of this certificate is not listed here")
        return identity


def _basic(encoded: str) -> tuple[str, str]:
    """User and password (RFC 7617)."""
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise Refused("malformed", "this is no user and password as RFC 7617 has them") from None
    if not colon:
        raise Refused("malformed", "this is no user and password as RFC 7617 has them")
    return user, password
