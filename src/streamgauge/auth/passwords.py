"""Users with passwords, which are known by their bcrypt hashes, as in Prometheus' web configuration.

bcrypt is slow on purpose, 70 ms of a core at its usual cost. So it runs on a thread, one password at a time; what came
of it is remembered, under a keyed hash and never the password; and where many wait already, the next is told to come
again: whoever was let in before still gets in by what is remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import bcrypt

from streamgauge.auth.identity import Identity
from streamgauge.auth.rules import UserRule
from streamgauge.errors import BadInput, Overloaded

MAX_COST = 15
"""A hash of this cost takes 2 s of a core; each more doubles that."""
MAX_PASSWORD_BYTES = 72
"""bcrypt looks at no more. Longer ones are wrong, not cut."""
REMEMBERED = 1_000
"""Right and wrong passwords, each. An entry takes 100 bytes."""
MAX_WAITING = 16
"""Passwords that wait to be verified: a second of a core at the usual cost."""
RETRY_SECONDS = 2

_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)


def check_hash(text: str) -> str:
    """The hash itself. Raises BadInput, without it, when it is none of bcrypt's or would take too long."""
    match = _HASH.fullmatch(text)
    if match is None:
        raise BadInput("this is no bcrypt hash; make one with `htpasswd -nBC 10 USER`")
    if not 4 <= int(match[1]) <= MAX_COST:
        raise BadInput(f"the cost of a bcrypt hash must be between 4 and {MAX_COST}")
    return text


class Remembered:
    """The outcomes of earlier verifications, bounded: right ones are not driven out by a flood of wrong ones."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._right) + len(self._wrong)

    def key(self, hashed: str, password: bytes) -> bytes:
        return hmac.digest(self._key, hashed.encode() + b"\0" + password, hashlib.sha256)

    def get(self, key: bytes) -> bool | None:
        for outcome, known in ((True, self._right), (False, self._wrong)):
            if key in known:
                known.move_to_end(key)
                return outcome
        return None

    def put(self, key: bytes, outcome: bool) -> None:
        known = self._right if outcome else self._wrong
        known[key] = None
        if len(known) > self._size:
            known.popitem(last=False)


class Passwords:
    """Verifies users' passwords. `remembered` may outlive it: what it holds depends on the hashes."""

    def __init__(self, users: Iterable[UserRule], remembered: Remembered) -> None:
        self._users = {
            user.name: (user.hash, Identity(f"user:{user.name}", user.grant.permissions, user.grant.bound))
            for user in users
        }
        cost = max((int(hashed[4:6]) for hashed, _ in self._users.values()), default=10)
        self._nobody = f"$2b${cost:02}${'.' * 53}"  # what an unknown user is compared with, in the same time
        self._remembered = remembered
        self._thread = ThreadPoolExecutor(1, "passwords")
        self._pending: dict[bytes, asyncio.Future[bool]] = {}

    async def identity(self, user: str, password: str) -> Identity | None:
        """Who has this name and password. Raises Overloaded."""
        hashed, identity = self._users.get(user, (self._nobody, None))
        right = await self._verify(hashed, password.encode("utf-8", "surrogatepass"))
        return identity if right else None

    async def _verify(self, hashed: str, password: bytes) -> bool:
        key = self._remembered.key(hashed, password)
        known = self._remembered.get(key)
        if known is not None:
            return known
        pending = self._pending.get(key)
        if pending is None:
            if len(self._pending) >= MAX_WAITING:
                raise Overloaded("too many passwords wait to be verified; try again", RETRY_SECONDS)
            pending = asyncio.get_running_loop().run_in_executor(self._thread, _matches, hashed, password)
            self._pending[key] = pending
            pending.add_done_callback(lambda done: self._verified(key, done))
        return await asyncio.shield(pending)

    def _verified(self, key: bytes, done: asyncio.Future[bool]) -> None:
        del self._pending[key]
        if not done.cancelled() and done.exception() is None:
            self._remembered.put(key, done.result())

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _matches(hashed: str, password: bytes) -> bool:
    same = bcrypt.checkpw(password[:MAX_PASSWORD_BYTES], hashed.encode())
    return same and len(password) <= MAX_PASSWORD_BYTES
