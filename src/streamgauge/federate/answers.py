"""Answers of other servers, put into words."""

from __future__ import annotations

from streamgauge.http.client import Answer
from streamgauge.http.urls import shown_url

_SHOWN_BYTES = 300  # of an answer in the log


def told(answer: Answer, url: str) -> str:
    """What an answer that is no success says, in one line."""
    words = " ".join(answer.body[:_SHOWN_BYTES].decode(errors="replace").split())
    return f"{shown_url(url)} answered {answer.status} {answer.reason}".rstrip() + (f": {words}" if words else "")
