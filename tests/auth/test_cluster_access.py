"""Which cluster a remote write comes from, where that is told by a certificate or by a proxy."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from streamgauge.auth.authority_stats import AuthorityStats
from streamgauge.auth.client_info import ClientInfo
from streamgauge.auth.cluster_access import ClusterAccess
from streamgauge.auth.cluster_settings import AuthoritySettings
from streamgauge.auth.push_authorizer import Nobody
from streamgauge.auth.signing_keys import generate_key, read_key
from streamgauge.clock import ManualClock
from streamgauge.errors import Forbidden
from streamgauge.stats import Stats
from streamgauge.testing.readings import reading

pytestmark = pytest.mark.anyio

ENDS = "Jan  1 00:00:10 1970 GMT"


def certificate(*names: str) -> dict[str, Any]:
    return {"subject": tuple((("commonName", name),) for name in names), "notAfter": ENDS}


def counts(stats: Stats) -> dict[str, float]:
    name = "streamgauge_cluster_authorizations_total"
    return {result: reading(stats, name, path="receive", result=result) for result in ("granted", "refused")}


def made(settings: AuthoritySettings, clock: ManualClock, stats: Stats) -> ClusterAccess:
    return ClusterAccess(settings, [read_key(generate_key(), "k")], Nobody(), clock, AuthorityStats(stats))


async def test_the_common_name_of_a_certificate_is_the_cluster_until_it_expires() -> None:
    stats, clock = Stats(), ManualClock(now_ms=0)
    access = made(AuthoritySettings(certificates=True), clock, stats)
    identity = await access.verify_receive(None, [], certificate("one"))
    assert (identity.account, identity.labels, identity.adds) == ("one", {"_id": "one"}, True)
    for names in ((), ("one", "two"), ("a" * 256,), ("",)):
        with pytest.raises(Forbidden):
            await access.verify_receive(None, [], certificate(*names))
    clock.jump(10_000)
    with pytest.raises(Forbidden, match="expired"):
        await access.verify_receive(None, [], certificate("one"))
    assert counts(stats) == {"granted": 1, "refused": 5}


async def test_what_a_proxy_says_wrong_is_counted() -> None:
    stats = Stats()
    info = ClientInfo(hashlib.sha256(b"secret").digest(), "X-Secret", "X-Subject")
    access = made(AuthoritySettings(client_info=info, certificates=True), ManualClock(), stats)
    subject = (b"x-subject", b"/CN=one")
    await access.verify_receive(None, [subject, (b"x-secret", b"secret")], None)
    with pytest.raises(Forbidden, match="invalid secret"):
        await access.verify_receive(None, [subject, (b"x-secret", b"other")], certificate("one"))
    assert counts(stats) == {"granted": 1, "refused": 1}
