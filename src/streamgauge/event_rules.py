"""Retention of events by condition, as a setting is written: `payload.level = 'DEBUG': 1d; payload.type = 'log': 7d`.

A condition is what follows WHERE in SQL over the view `events`. Each rule is shorter than the retention of all events.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamgauge.durations import format_duration
from streamgauge.errors import BadInput, ConfigError
from streamgauge.retention_rules import divided, with_period

if TYPE_CHECKING:
    from streamgauge.model.arrays import Int64s
    from streamgauge.model.event_source import EventPart
    from streamgauge.store.events.ports import Conditions, EventRule

_RULE = re.compile(r"""((?:[^;'"]|'(?:''|[^'])*'|"(?:""|[^"])*")+)(?:;|$)""")
_HINT = "write CONDITION: DURATION, for example payload.level = 'DEBUG': 1d, and semicolons between several"
_NS = 1_000_000


def split_event_rules(text: str) -> tuple[str, ...]:
    """The rules of a text, one after the other. Raises BadInput."""
    rules: list[str] = []
    for rule in filter(None, divided(text, _RULE, _HINT)):
        parse_event_rule(rule)
        rules.append(rule)
    return tuple(rules)


def parse_event_rule(text: str) -> EventRule:
    """Raises BadInput. Whether the condition is one is not looked at."""
    # Imported only here: every command reads the settings.
    from streamgauge.store.events.ports import EventRule

    condition, retention = with_period(text, "all events", _HINT)
    return EventRule(condition.strip(), retention * _NS)


def parse_event_rules(texts: Sequence[str], retention: int) -> tuple[EventRule, ...]:
    """The rules of a setting, where all else is kept for `retention` ms. Raises ConfigError for a rule that is not
    shorter, and for a condition that is none."""
    rules = tuple(map(parse_event_rule, texts))
    for text, rule in zip(texts, rules, strict=True):
        if retention and rule.retention > retention * _NS:
            raise ConfigError(
                f'event_retention_rules: "{text}" is longer than event_retention, {format_duration(retention)}; raise '
                "event_retention, and add rules for what is to go earlier"
            )
        try:
            check_condition(rule.condition)
        except BadInput as error:
            raise ConfigError(f'event_retention_rules: "{text}": {error.message}') from None
    return rules


def check_condition(condition: str) -> None:
    """Raises BadInput for what is no condition on events."""
    # Imported only here, as below: DuckDB takes 45 MB.
    from streamgauge.query.sql import predicate

    predicate.check_condition(condition)


def fulfilling(part: EventPart, condition: str) -> tuple[Int64s, Int64s]:
    """What the store asks for in its helper process: streams and indexes of the events that fulfil a condition."""
    from streamgauge.query.sql import predicate

    return predicate.fulfilling(part, condition)


def conditions() -> Conditions:
    """The language, for the store."""
    from streamgauge.store.events.ports import Conditions

    return Conditions(check_condition, fulfilling)
