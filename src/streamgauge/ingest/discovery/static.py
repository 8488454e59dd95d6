"""Targets that stand in the configuration itself."""

from __future__ import annotations

from collections.abc import Sequence

from streamgauge.ingest.discovery.groups import Found, Group


class StaticDiscovery:
    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups

    async def run(self, found: Found) -> None:
        found(self._groups)
