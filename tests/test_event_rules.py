"""Retention rules of events are read as they are written, and what is none is refused."""

import pytest

from streamgauge.errors import BadInput, ConfigError
from streamgauge.event_rules import parse_event_rule, parse_event_rules, split_event_rules

DAY_MS = 86_400_000


def test_rules_are_divided_at_semicolons_outside_of_quotes() -> None:
    text = """payload.a = ';:' : 1d; payload."b;c" > 2: 12h ;"""
    assert split_event_rules(text) == ("payload.a = ';:' : 1d", 'payload."b;c" > 2: 12h')
    first, second = map(parse_event_rule, split_event_rules(text))
    assert (first.condition, first.retention) == ("payload.a = ';:'", DAY_MS * 1_000_000)
    assert (second.condition, second.retention) == ('payload."b;c" > 2', DAY_MS * 500_000)
    assert first.key != second.key
    assert split_event_rules("") == ()


@pytest.mark.parametrize("text", ["payload.a = 1", ": 1d", "payload.a = 1: soon", "payload.a = 'x: 1d", "a = 1: 0"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        split_event_rules(text)


def test_a_rule_is_shorter_than_the_rest() -> None:
    with pytest.raises(ConfigError, match="longer than event_retention, 1d"):
        parse_event_rules(["payload.a = 1: 2d"], DAY_MS)
    assert len(parse_event_rules(["payload.a = 1: 2d"], 0)) == 1


@pytest.mark.parametrize(
    "condition", ["nosuch = 1", "payload.a =", "1 = 1) UNION SELECT 1, 2 FROM events WHERE (1 = 1", "EXISTS (SELECT 1)"]
)
def test_what_is_no_condition_is_refused(condition: str) -> None:
    with pytest.raises(ConfigError, match="event_retention_rules"):
        parse_event_rules([f"{condition}: 1d"], 0)
