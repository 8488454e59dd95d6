"""By whichever way somebody comes."""

from __future__ import annotations

import base64
from collections import Counter

import pytest

from streamgauge.auth.authenticator import Credentials
from streamgauge.auth.authorities import FOLDER, Authorities, Configured
from streamgauge.auth.identity import EVERYBODY, Identity, Permission
from streamgauge.auth.refused import CHALLENGES, Refused
from streamgauge.auth.tokens import MAX_TOKEN_BYTES, Tokens, digest_of, new_token
from streamgauge.clock import ManualClock

pytestmark = pytest.mark.anyio

FIXED = Identity("token:fixed", frozenset({Permission.WRITE}))


class Kit:
    def __init__(self, clock: ManualClock) -> None:
        self.text, token = new_token("made", ["read"], [], clock.now_ms(), clock.now_ms() + 10_000)
        self.refused: Counter[str] = Counter()
        self.authorities = Authorities(clock, Tokens([token]), lambda reason: self.refused.update([reason]))
        self.authorities.asks = True
        self.authorities.configure(Configured({digest_of("a fixed token"): FIXED, digest_of("fixed"): FIXED}))

    async def name(self, *authorization: str, key: str = "") -> str:
        credentials = Credentials(authorization, folder_key=key)
        known = self.authorities.known(credentials)
        identity = await self.authorities.identify(credentials)
        assert known in (None, identity)
        return identity.name

    async def why(self, *authorization: str, key: str = "") -> str:
        assert self.authorities.known(Credentials(authorization, folder_key=key)) is None
        with pytest.raises(Refused) as raised:
            await self.name(*authorization, key=key)
        assert raised.value.challenges == CHALLENGES
        assert self.refused[raised.value.reason] > 0
        for value in authorization:
            assert len(value) < 8 or value not in raised.value.message
        return raised.value.reason


@pytest.fixture
def kit(clock: ManualClock) -> Kit:
    return Kit(clock)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_the_scheme_is_written_in_any_case_and_spaced_as_one_likes(kit: Kit) -> None:
    for scheme in ("Bearer ", "bearer ", "BEARER   ", " Bearer "):
        assert await kit.name(f"{scheme}{kit.text}") == "token:made"
    assert await kit.name("Bearer fixed ") == "token:fixed"


async def test_a_token_that_is_kept_here_is_known_at_once(kit: Kit, clock: ManualClock) -> None:
    made = Credentials([f"bearer {kit.text}"])
    assert kit.authorities.known(Credentials(["Bearer fixed"])) == FIXED
    assert kit.authorities.known(made) == await kit.authorities.identify(made)
    clock.jump(10_000)
    assert kit.authorities.known(made) is None
    kit.authorities.asks = False
    kit.authorities.configure(None)
    assert kit.authorities.known(Credentials()) == EVERYBODY
    assert not kit.refused


async def test_a_token_may_stand_in_the_place_of_a_password(kit: Kit) -> None:
    for user in ("", "x", "alice", "größe"):
        assert await kit.name(basic(user, kit.text)) == "token:made"
        assert await kit.name(basic(user, "fixed").replace("Basic", "bASIC")) == "token:fixed"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "none"),
        (["Bearer fixed", "Bearer fixed"], "several"),
        ([""], "malformed"),
        (["Bearer"], "malformed"),
        (["Bearer "], "malformed"),
        (["Bearerfixed"], "malformed"),
        (["Bearer\tfixed"], "malformed"),
        (["fixed"], "malformed"),
        (["Digest username=x"], "malformed"),
        (["Basic !!!"], "malformed"),
        (["Basic " + base64.b64encode(b"no colon").decode()], "malformed"),
        (["Basic " + base64.b64encode(b"\xff:\xff").decode()], "malformed"),
        (["Bearer " + "x" * (MAX_TOKEN_BYTES + 1)], "malformed"),
        (["Bearer Fixed"], "unknown"),
        (["Bearer fixed, Bearer fixed"], "unknown"),
        (["Bearer sg_000000000000_" + "0" * 64], "unknown"),
        (["Bearer eyJhbGciOiJub25lIn0.e30."], "unknown"),
        ([basic("alice", "wrong")], "password"),
        ([basic("alice", "sg_wrong")], "unknown"),
    ],
)
async def test_what_is_not_good_is_refused_and_counted_by_its_reason(kit: Kit, values: list[str], reason: str) -> None:
    assert await kit.why(*values) == reason


async def test_a_token_ends_when_its_time_is_up(kit: Kit, clock: ManualClock) -> None:
    await clock.advance(9.999)
    assert await kit.name(f"Bearer {kit.text}") == "token:made"
    await clock.advance(0.001)
    assert await kit.why(f"Bearer {kit.text}") == "expired"


async def test_the_key_of_the_folder_permits_everything_and_a_wrong_one_nothing(kit: Kit) -> None:
    assert await kit.why(key="guess") == "folder_key"  # there is none yet
    kit.authorities.folder_key = "the key"
    assert await kit.name(key="the key") == FOLDER.name
    assert await kit.why("Bearer fixed", key="the keY") == "folder_key"


async def test_a_certificate_that_is_not_listed(kit: Kit) -> None:
    with pytest.raises(Refused) as raised:
        await kit.authorities.identify(Credentials(certificate={"subject": ()}))
    assert raised.value.reason == "certificate"


async def test_everybody_is_let_in_until_something_is_configured_or_a_token_was_made(clock: ManualClock) -> None:
    authorities = Authorities(clock, Tokens(), lambda reason: None)
    assert await authorities.identify(Credentials(("Bearer nonsense",))) is EVERYBODY
    authorities.asks = True
    with pytest.raises(Refused):
        await authorities.identify(Credentials())
    authorities.asks = False
    before = authorities.version
    authorities.configure(Configured({}))
    assert authorities.version > before
    with pytest.raises(Refused):
        await authorities.identify(Credentials())


def test_no_secret_is_in_a_repr(kit: Kit) -> None:
    assert "fixed" not in repr(Credentials(("Bearer fixed",), folder_key="fixed"))
