"""Why somebody is not let in."""

from __future__ import annotations

from streamgauge.errors import Unauthorized

CHALLENGES = ('Bearer realm="streamgauge"', 'Basic realm="streamgauge", charset="UTF-8"')
"""Ways to come in. A browser asks for a password because of the second."""


class Refused(Unauthorized):
    """`reason` is the word that it is counted under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, CHALLENGES)
        self.reason = reason
