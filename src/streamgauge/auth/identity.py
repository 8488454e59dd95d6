"""Who somebody is to the server, and what that permits."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from streamgauge.model.view import View


class Permission(enum.Enum):
    """What a request needs: to see stored data, to add to it, or to change the server and what is stored."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Identity:
    """name: how lists and logs call them, and whose the streams are that they write. bound: labels, in order of their
    names, which all series have that they write or read; somebody bound reads their own streams only. expires: ms, from
    when on they are nobody; None: never."""

    name: str
    permissions: frozenset[Permission]
    bound: tuple[tuple[str, str], ...] = ()
    expires: int | None = None

    @property
    def view(self) -> View:
        return View(self.bound, self.name if self.bound else None)


EVERYBODY = Identity("", frozenset(Permission))
"""Whoever reaches a server that has no authentication."""
