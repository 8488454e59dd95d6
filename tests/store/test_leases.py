import pytest

from streamgauge.store.leases import Leases


def test_what_nobody_holds_goes_at_once() -> None:
    gone: list[str] = []
    Leases().retire("a", lambda: gone.append("a"))
    assert gone == ["a"]


def test_a_retired_name_goes_with_its_last_lease() -> None:
    leases, gone = Leases(), []
    first, second = leases.acquire(["a", "b"]), leases.acquire(["a"])
    leases.retire("a", lambda: gone.append("a"))
    leases.retire("b", lambda: gone.append("b"))
    assert leases.waiting == 2
    first()
    assert gone == ["b"]
    second()
    assert gone == ["b", "a"]
    assert leases.waiting == 0


def test_a_lease_ends_once() -> None:
    leases, gone = Leases(), []
    first, second = leases.acquire(["a"]), leases.acquire(["a"])
    leases.retire("a", lambda: gone.append("a"))
    first()
    first()
    assert gone == []
    second()
    assert gone == ["a"]


def test_a_name_leased_twice_by_one_reader_counts_twice() -> None:
    leases, gone = Leases(), []
    release = leases.acquire(["a", "a"])
    leases.retire("a", lambda: gone.append("a"))
    release()
    assert gone == ["a"]


def test_no_lease_on_what_is_about_to_go() -> None:
    leases, gone = Leases(), []
    release = leases.acquire(["a"])
    leases.retire("a", lambda: gone.append("a"))
    with pytest.raises(AssertionError, match="too old"):
        leases.acquire(["b", "a"])
    release()
    leases.retire("b", lambda: gone.append("b"))
    assert gone == ["a", "b"]
