"""Tokens that are made at run time: their text, and which of them are good.

sg_<12 hexadecimal digits that name it>_<64 that are the secret, drawn at random>
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Sequence

from streamgauge.auth.identity import Identity, Permission
from streamgauge.auth.rules import Labels
from streamgauge.errors import BadInput, NotFound
from streamgauge.model.token import StoredToken

PREFIX = "sg_"
MAX_TOKEN_BYTES = 8_192
"""Of any credentials. A signed token that names 200 groups has 6 KB."""
MAX_TOKENS = 10_000
"""Of one folder. Each is 300 bytes, and all are written when one is made: 3 MB."""
_TEXT = re.compile(r"sg_([0-9a-f]{12})_[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)


def looks_signed(text: str) -> bool:
    """Whether a text may be a token of another issuer (RFC 7519)."""
    return text.startswith("eyJ") and text.count(".") == 2


def digest_of(text: str) -> bytes:
    """By what a token is known again. A secret of 256 random bits needs no slow hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def new_token(
    name: str, scopes: Iterable[str], labels: Sequence[tuple[str, str]], now: int, expires: int | None
) -> tuple[str, StoredToken]:
    """The text of a new token, and what is kept of it. Times are ms. Raises BadInput."""
    if not _NAME.fullmatch(name):
        raise BadInput("the name of a token is at most 64 letters, digits, dots, hyphens, underscores and @")
    words = parse_scopes(scopes)
    if expires is not None and expires <= now:
        raise BadInput("the token would have expired already")
    number = secrets.token_hex(6)
    text = f"{PREFIX}{number}_{secrets.token_hex(32)}"
    bound = parse_bound(labels)
    return text, StoredToken(number, name, digest_of(text).hex(), words, bound, now, expires)


def parse_scopes(words: Iterable[str]) -> tuple[str, ...]:
    """Names of permissions, each once. Raises BadInput."""
    given = set(words)
    known = [permission.value for permission in Permission]
    for word in sorted(given):
        if word not in known:
            raise BadInput(f'"{word[:64]}" is no scope; there are {", ".join(known)}')
    if not given:
        raise BadInput(f"give at least one scope of {', '.join(known)}")
    return tuple(word for word in known if word in given)


def permissions_of(words: Collection[str]) -> frozenset[Permission]:
    """A word that is none of ours permits nothing."""
    return frozenset(permission for permission in Permission if permission.value in words)


def parse_bound(labels: Iterable[tuple[str, str]]) -> Labels:
    """Labels that somebody is bound to, in order. Raises BadInput."""
    bound = sorted(labels)
    for name, value in bound:
        if not name or name.startswith("__"):
            raise BadInput(f'nobody can be bound to the label "{name[:64]}"')
        if not value:
            raise BadInput(f'the label "{name[:64]}" that somebody is bound to has no value')
    if len({name for name, _ in bound}) < len(bound):
        raise BadInput("somebody can be bound to one value of a label only")
    return tuple(bound)


class Tokens:
    """Those of a folder, in memory. A change makes the next set; whoever made it durable puts it in force."""

    def __init__(self, tokens: Iterable[StoredToken] = ()) -> None:
        self._by_id: dict[str, tuple[StoredToken, Identity]] = {}
        self.replace(tokens)

    def replace(self, tokens: Iterable[StoredToken]) -> None:
        self._by_id = {token.id: (token, _identity(token)) for token in tokens}

    @property
    def all(self) -> tuple[StoredToken, ...]:
        return tuple(token for token, _ in self._by_id.values())

    def identity(self, text: str) -> Identity | None:
        """Whose token a text is, be it past its time or not."""
        match = _TEXT.fullmatch(text)
        entry = self._by_id.get(match[1]) if match else None
        if entry is None or not hmac.compare_digest(entry[0].digest, digest_of(text).hex()):
            return None
        return entry[1]


def added(tokens: Sequence[StoredToken], new: StoredToken) -> tuple[StoredToken, ...]:
    """With a new one. Raises BadInput when its name is taken."""
    if any(token.name == new.name for token in tokens):
        raise BadInput(f'there is a token "{new.name}" already; revoke it, or give the new one another name')
    if len(tokens) >= MAX_TOKENS:
        raise BadInput(f"there are {MAX_TOKENS} tokens already; revoke some")
    return (*tokens, new)


def without(tokens: Sequence[StoredToken], name: str) -> tuple[StoredToken, ...]:
    """Without the one of that name. Raises NotFound."""
    left = tuple(token for token in tokens if token.name != name)
    if len(left) == len(tokens):
        raise NotFound(f'there is no token "{name[:64]}"; `streamgauge token list` shows those there are')
    return left


def _identity(token: StoredToken) -> Identity:
    return Identity(f"token:{token.name}", permissions_of(token.scopes), token.labels, token.expires)
