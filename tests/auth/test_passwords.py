"""Users with passwords."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import bcrypt
import pytest

from streamgauge.auth.identity import Permission
from streamgauge.auth.passwords import MAX_WAITING, Passwords, Remembered, check_hash
from streamgauge.auth.rules import Grant, UserRule
from streamgauge.errors import BadInput, Overloaded

pytestmark = pytest.mark.anyio

GRANT = Grant(frozenset({Permission.READ}), (("team", "a"),))
LONG = "x" * 72


def rule(name: str, password: str, cost: int = 4) -> UserRule:
    return UserRule(name, bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode(), GRANT)


@pytest.fixture
def remembered() -> Remembered:
    return Remembered(size=3)


@pytest.fixture
def passwords(remembered: Remembered) -> Iterator[Passwords]:
    made = Passwords([rule("alice", "secret"), rule("bob", LONG)], remembered)
    yield made
    made.close()


async def test_the_right_password_tells_who_it_is_and_no_other_does(passwords: Passwords) -> None:
    for _ in range(2):  # the second time by what is remembered
        identity = await passwords.identity("alice", "secret")
        assert identity is not None
        assert (identity.name, identity.bound) == ("user:alice", (("team", "a"),))
        for user, password in [("alice", "Secret"), ("alice", ""), ("bob", "secret"), ("carol", "secret")]:
            assert await passwords.identity(user, password) is None


async def test_a_password_is_not_cut_at_the_length_that_bcrypt_looks_at(passwords: Passwords) -> None:
    assert await passwords.identity("bob", LONG) is not None
    assert await passwords.identity("bob", f"{LONG}y") is None
    assert await passwords.identity("bob", f"{LONG[:-1]}\0") is None


async def test_what_is_remembered_is_bounded_and_holds_no_password(
    passwords: Passwords, remembered: Remembered
) -> None:
    await passwords.identity("alice", "secret")
    for n in range(6):
        await passwords.identity("alice", f"wrong {n}")
    assert len(remembered) == 4  # the right one, and three wrong ones
    assert "secret" not in repr(vars(remembered))


async def test_a_flood_waits_for_one_thread_and_is_turned_away_but_not_who_was_in_before() -> None:
    passwords = Passwords([rule("alice", "secret", 8)], Remembered())
    try:
        await passwords.identity("alice", "secret")
        flood = [passwords.identity("alice", f"guess {n}") for n in range(MAX_WAITING + 20)]
        waiting = [asyncio.ensure_future(each) for each in flood]
        await asyncio.sleep(0)
        assert await passwords.identity("alice", "secret") is not None
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert outcomes[:MAX_WAITING] == [None] * MAX_WAITING
        assert all(isinstance(outcome, Overloaded) for outcome in outcomes[MAX_WAITING:])
    finally:
        passwords.close()


async def test_the_same_password_is_verified_once_for_all_who_bring_it(
    passwords: Passwords, remembered: Remembered
) -> None:
    found = await asyncio.gather(*(passwords.identity("alice", "secret") for _ in range(MAX_WAITING * 3)))
    assert None not in found
    assert len(remembered) == 1


async def test_an_unknown_user_is_compared_with_a_hash_of_the_dearest_cost() -> None:
    passwords = Passwords([rule("alice", "a", 4), rule("bob", "b", 6)], Remembered())
    assert passwords._nobody.startswith("$2b$06$")
    assert await passwords.identity("nobody", "a") is None
    passwords.close()


@pytest.mark.parametrize(
    "text", ["", "secret", "$2b$10$short", "$2b$03$" + "." * 53, "$2b$16$" + "." * 53, "$1$abc$" + "." * 53]
)
def test_what_is_no_hash_or_too_dear_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(BadInput) as raised:
        check_hash(text)
    assert not text or text not in raised.value.message
