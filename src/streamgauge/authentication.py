"""Who may come in, put together: the section `auth:` of the configuration, and the tokens of the data folder."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamgauge.auth.authorities import Authorities, Configured
from streamgauge.auth.identity import Identity
from streamgauge.auth.rules import AuthRules, IssuerRule
from streamgauge.auth.tokens import Tokens, added, new_token, without
from streamgauge.clock import Clock
from streamgauge.errors import FormatTooNew, StorageError
from streamgauge.model.token import StoredToken
from streamgauge.stats import Stats
from streamgauge.store.token_file import read_tokens, write_tokens

if TYPE_CHECKING:
    from streamgauge.auth.certificates import Certificates
    from streamgauge.auth.jwt_tokens import Issuer, Issuers
    from streamgauge.auth.passwords import Passwords, Remembered

LOG = logging.getLogger(__name__)


class Authentication:
    """The authorities of one server. Used on the event loop."""

    def __init__(self, data: Path, clock: Clock, stats: Stats) -> None:
        refused = stats.counter(
            "auth_refused", "Requests of whom it could not be told who they are, by the reason.", "reason"
        )
        self.authorities = Authorities(clock, Tokens(), lambda reason: refused.labels(reason).inc())
        self._data = data
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()  # changes of the file
        self._remembered: Remembered | None = None  # passwords that were verified, over reloads

    def load(self) -> None:
        """Read the folder's tokens. If that fails nobody has one, and everybody is asked for one."""
        try:
            tokens = read_tokens(self._data)
        except (StorageError, FormatTooNew) as error:
            LOG.error("%s", error.message)
            tokens = ()
        self.authorities.asks = tokens is not None
        self.authorities.tokens.replace(tokens or ())

    def apply(self, rules: AuthRules | None) -> None:
        """Put what the configuration says into force. Raises ConfigError before anything has changed."""
        self.authorities.configure(None if rules is None else self._configured(rules))

    def close(self) -> None:
        self.authorities.close()

    # ---- tokens -----------------------------------------------------------------------------------------------------

    async def create(
        self, name: str, scopes: Iterable[str], labels: Sequence[tuple[str, str]], expires: int | None
    ) -> tuple[str, StoredToken]:
        """Make a token; its text, which is known to nobody afterwards. expires: ms. Raises BadInput, StorageError."""
        text, token = new_token(name, scopes, labels, self._clock.now_ms(), expires)
        await self._change(lambda tokens: added(tokens, token))
        return text, token

    def tokens(self) -> tuple[StoredToken, ...]:
        return self.authorities.tokens.all

    async def revoke(self, name: str) -> None:
        """From now on it is nobody's. Raises NotFound and StorageError."""
        await self._change(lambda tokens: without(tokens, name))
        self.authorities.changed()

    async def _change(self, change: Callable[[Sequence[StoredToken]], Sequence[StoredToken]]) -> None:
        async with self._one_at_a_time:
            await asyncio.to_thread(read_tokens, self._data)  # what cannot be read is not replaced
            tokens = change(self.authorities.tokens.all)
            await asyncio.to_thread(write_tokens, self._data, tokens)
            self.authorities.tokens.replace(tokens)
            if not self.authorities.asks:
                if self.authorities.open:
                    LOG.info("there is a token now: everybody is asked who they are from now on")
                self.authorities.asks = True
                self.authorities.changed()

    # ---- the configuration ------------------------------------------------------------------------------------------

    # What each way needs is imported with the first that comes that way: most servers need none of it.

    def _configured(self, rules: AuthRules) -> Configured:
        return Configured(
            {
                rule.digest: Identity(f"token:{rule.name}", rule.grant.permissions, rule.grant.bound)
                for rule in rules.tokens
            },
            self._passwords(rules) if rules.users else None,
            self._certificates(rules) if rules.certificates else None,
            self._issuers(rules) if rules.issuers else None,
        )

    def _passwords(self, rules: AuthRules) -> Passwords:
        from streamgauge.auth.passwords import Passwords, Remembered

        self._remembered = self._remembered or Remembered()
        return Passwords(rules.users, self._remembered)

    def _certificates(self, rules: AuthRules) -> Certificates:
        from streamgauge.auth.certificates import Certificates

        return Certificates(rules.certificates)

    def _issuers(self, rules: AuthRules) -> Issuers:
        from streamgauge.auth.jwt_tokens import Issuers

        return Issuers(map(self._issuer, rules.issuers))

    def _issuer(self, rule: IssuerRule) -> Issuer:
        from streamgauge.auth.jwks import KeySet
        from streamgauge.auth.jwt_tokens import Issuer
        from streamgauge.issuer_keys import IssuerKeys

        return Issuer(rule, KeySet(rule.issuer, IssuerKeys(rule).fetch, self._clock, self.authorities.changed))
