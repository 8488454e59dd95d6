"""What is said of a URL."""

from __future__ import annotations

import pytest

from streamgauge.errors import FetchFailed
from streamgauge.http.urls import shown_url, split_url, user_of


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://h:1/metrics", "http://h:1/metrics"),
        ("https://user:sesame@h/x#sesame", "https://h/x"),
        ("http://h/x?token=sesame&y=&sesame", "http://h/x?token=…&y=…&…"),
        ("http://h/" + "x" * 1000, "http://h/" + "x" * 191),
    ],
)
def test_secrets_are_not_shown(url: str, text: str) -> None:
    assert shown_url(url) == text


@pytest.mark.parametrize("url", ["http://u:sesame@[::1/?t=sesame", "http://u:sesame@h\u2100x/"])
def test_nor_are_those_of_what_is_no_url(url: str) -> None:
    with pytest.raises(FetchFailed, match="is no URL") as raised:
        split_url(url)
    assert "sesame" not in raised.value.message


@pytest.mark.parametrize(
    ("url", "user"),
    [("http://h/", None), ("http://u@h/", ("u", "")), ("http://u%40x:p%3Aq@h/", ("u@x", "p:q"))],
)
def test_user_and_password(url: str, user: tuple[str, str] | None) -> None:
    assert user_of(split_url(url)) == user
