"""Cluster tokens for those who may push, and what these are later good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamgauge.auth.authority_stats import AuthorityStats
from streamgauge.auth.bearer import bearer_token
from streamgauge.auth.certificates import common_name, expiry_of, subject_of
from streamgauge.auth.cluster_authority import MAX_ID_BYTES, ClusterIdentity
from streamgauge.auth.cluster_settings import AuthoritySettings
from streamgauge.auth.cluster_tokens import ClusterTokens
from streamgauge.auth.push_authorizer import PushAuthorizer
from streamgauge.auth.receive_credentials import ReceiveCredentials, read_credentials
from streamgauge.auth.signing_keys import SigningKey
from streamgauge.clock import Clock
from streamgauge.errors import Busy, Forbidden, NotFound, StreamgaugeError, UpstreamRefused


@dataclass(frozen=True, slots=True)
class Grant:
    """A cluster token, good for `seconds`. labels: what all series must have that are uploaded with it."""

    token: str
    seconds: int
    labels: Mapping[str, str]


class ClusterAccess:
    """Implements ClusterAuthority."""

    def __init__(
        self,
        settings: AuthoritySettings,
        keys: Sequence[SigningKey],
        authorizer: PushAuthorizer,
        clock: Clock,
        stats: AuthorityStats,
    ) -> None:
        self._settings = settings
        self._tokens = ClusterTokens(keys, clock)
        self._clock = clock
        self._authorizer = authorizer
        self._stats = stats
        self._granted = stats.authorized.labels("receive", "granted")

    async def authorize(self, authorization: str | None, cluster: str) -> Grant:
        """What a client gets that may push for a cluster. Raises what PushAuthorizer does."""
        token = bearer_token(authorization)
        try:
            account = await self._authorizer.account(token, cluster)
        except StreamgaugeError as error:
            raise self._counted("authorize", error) from None
        self._stats.authorized.labels("authorize", "granted").inc()
        settings = self._settings
        labels = dict(sorted({settings.partition_label: cluster, **dict(settings.required_labels)}.items()))
        signed = self._tokens.sign(account, labels, settings.expire_seconds)
        return Grant(signed, settings.expire_seconds, labels)

    def verify(self, authorization: str | None) -> ClusterIdentity:
        return self._tokens.verify(bearer_token(authorization))

    def known(self, authorization: str) -> ClusterIdentity | None:
        """The same where the token was verified before; None where it is not good, or has to be verified."""
        scheme, _, token = authorization.partition(" ")
        return self._tokens.known(token) if scheme.lower() == "bearer" else None

    async def verify_receive(
        self, authorization: str | None, headers: Sequence[tuple[bytes, bytes]], certificate: Mapping[str, Any] | None
    ) -> ClusterIdentity:
        if authorization is None and (told := self._told(headers, certificate)) is not None:
            return told
        credentials = read_credentials(authorization)
        try:
            account = await self._authorizer.confirm(credentials)
        except (NotFound, UpstreamRefused) as error:
            raise self._counted("receive", Forbidden(error.message)) from None
        except StreamgaugeError as error:
            raise self._counted("receive", error) from None
        self.granted()
        return self._named(account, credentials)

    def confirmed(self, authorization: str) -> ClusterIdentity | None:
        """As `verify_receive` by credentials, where they can be confirmed at once; None where these are not good, or
        somebody has to be asked. `granted` counts it."""
        try:
            credentials = read_credentials(authorization)
            account = self._authorizer.confirmed(credentials)
        except StreamgaugeError:
            return None
        return None if account is None else self._named(account, credentials)

    def granted(self) -> None:
        """Somebody who was `confirmed` was let in."""
        self._granted.inc()

    def _named(self, account: str, credentials: ReceiveCredentials) -> ClusterIdentity:
        return ClusterIdentity(account, {self._settings.partition_label: credentials.cluster})

    def _told(
        self, headers: Sequence[tuple[bytes, bytes]], certificate: Mapping[str, Any] | None
    ) -> ClusterIdentity | None:
        """Which cluster it is as a proxy says or a certificate, where one of these is trusted to. Raises Forbidden."""
        settings = self._settings
        try:
            if settings.client_info is not None:
                cluster = settings.client_info.cluster(headers)
            elif settings.certificates and certificate is not None:
                cluster = _named(certificate, self._clock.now_ms())
            else:
                return None
        except Forbidden as error:
            raise self._counted("receive", error) from None
        self.granted()
        return ClusterIdentity(cluster, {settings.partition_label: cluster}, adds=True)

    def _counted(self, path: str, error: StreamgaugeError) -> StreamgaugeError:
        failed = isinstance(error, Busy) and error.status >= 500
        self._stats.authorized.labels(path, "failed" if failed else "refused").inc()
        return error


def _named(certificate: Mapping[str, Any], now: int) -> str:
    """now: ms; one that has expired since the handshake is nobody's."""
    name = common_name(subject_of(certificate)) or ""
    if not name or len(name.encode()) > MAX_ID_BYTES:
        raise Forbidden("the common name of a cluster's certificate is its id, and this one has none that may be")
    if now >= expiry_of(certificate):
        raise Forbidden("the certificate has expired since the connection began")
    return name
