"""Retention per selector as a setting is written: `{job="debug"}: 1d, up: 30d`, the first that matches a series counts.

Each is shorter than the retention of everything else, which decides when whole blocks go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from streamgauge.durations import format_duration, parse_duration
from streamgauge.errors import BadInput, ConfigError

if TYPE_CHECKING:
    from streamgauge.store.retention import RetentionRule

_RULE = re.compile(
    r"""(?P<selector>(?:[^{},"'`]|\{(?:[^{}"'`]|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)*\})+)(?:,|$)"""
)
_HINT = """write SELECTOR: DURATION, for example {job="debug"}: 1d, and commas between several"""


def split_rules(text: str) -> tuple[str, ...]:
    """The rules of a text, one after the other, each checked. Raises BadInput."""
    rules: list[str] = []
    for rule in divided(text, _RULE, _HINT):
        parse_rule(rule)
        rules.append(rule)
    return tuple(rules)


def divided(text: str, rule: re.Pattern[str], hint: str) -> Iterator[str]:
    """What the first group of `rule` matches in a text, one by one. Raises BadInput where it does not match."""
    at = 0
    while at < len(text):
        found = rule.match(text, at)
        if found is None:
            raise BadInput(f'"{text[at : at + 64]}" is no retention rule; {hint}')
        yield found[1].strip()
        at = found.end()


def with_period(text: str, others: str, hint: str) -> tuple[str, int]:
    """What a rule is about, and for how many ms that is kept. `others`: what is kept longer. Raises BadInput."""
    what, _, period = text.rpartition(":")
    if not what.strip():
        raise BadInput(f'"{text[:64]}" is no retention rule; {hint}')
    retention = parse_duration(period.strip())
    if not retention:
        raise BadInput(f'"{text[:64]}": a rule can only keep shorter than the retention of {others}, not for ever')
    return what, retention


def parse_rule(text: str) -> RetentionRule:
    """Raises BadInput."""
    # Imported only here: hardly anybody has rules, and every command reads the settings.
    from streamgauge.query.promql.parser import parse_selector
    from streamgauge.store.retention import RetentionRule

    selector, retention = with_period(text, "everything else", _HINT)
    return RetentionRule(parse_selector(selector), retention)


def parse_rules(texts: Sequence[str], retention: int) -> tuple[RetentionRule, ...]:
    """The rules of a setting, where everything else is kept for `retention` ms. Raises ConfigError for a rule that is
    not shorter."""
    rules = tuple(map(parse_rule, texts))
    for text, rule in zip(texts, rules, strict=True):
        if retention and rule.retention > retention:
            raise ConfigError(
                f'retention_rules: "{text}" is longer than retention, {format_duration(retention)}, after which whole '
                "blocks go; raise retention, and add rules for what is to go earlier"
            )
    return rules
