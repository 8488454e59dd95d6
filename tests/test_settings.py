"""A flag wins over the environment, which wins over the file, which wins over the default."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from streamgauge.errors import BadInput, ConfigError
from streamgauge.settings import (
    TABLE,
    Settings,
    local_url,
    misspelt_variables,
    parse_address,
    parse_bool,
    parse_tiers,
    resolve,
    shown,
    written,
)


def test_every_setting_has_a_field_and_the_other_way_round() -> None:
    assert {setting.name for setting in TABLE} == {field.name for field in fields(Settings)} - {"given"}


def test_defaults_parse_as_they_are_documented() -> None:
    settings = resolve({}, {}, {})
    assert settings.listen == "127.0.0.1:4318"
    assert settings.retention == 15 * 86_400_000
    assert settings.given == frozenset()


def test_a_misspelt_variable_is_told_and_others_are_left_alone() -> None:
    others = {"STREAMGAUGE_SERVER": "", "STREAMGAUGE_PORT_4318_TCP": "", "STREAMGAUGE_DATA": "", "PATH": ""}
    (told,) = misspelt_variables({**others, "STREAMGAUGE_RETENTON": "3d"})
    assert told == "environment variable STREAMGAUGE_RETENTON is no setting; did you mean STREAMGAUGE_RETENTION?"


def test_order_of_precedence() -> None:
    environment = {"STREAMGAUGE_LISTEN": "127.0.0.1:2", "STREAMGAUGE_RETENTION": "2d"}
    file = {"listen": "127.0.0.1:3", "retention": 3, "data": "from-file"}
    settings = resolve({"listen": "127.0.0.1:1", "retention": None}, environment, file)
    assert (settings.listen, settings.retention, settings.data) == ("127.0.0.1:1", 2 * 86_400_000, "from-file")
    assert settings.given == {"listen", "retention", "data"}


def test_bad_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"STREAMGAUGE_RETENTION.*soon"):
        resolve({}, {"STREAMGAUGE_RETENTION": "soon"}, {})


@pytest.mark.parametrize(
    "text", ["4318", ":4318", "localhost", "host:port", "::1:4318", "h:65536", "h:٣", "h:" + "9" * 5000, ""]
)
def test_refuses_what_is_no_address(text: str) -> None:
    with pytest.raises(BadInput):
        parse_address(text)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:4318", "metrics.example:80"])
def test_accepts_addresses(text: str) -> None:
    assert parse_address(text) == text


@pytest.mark.parametrize("name", ["query_timeout", "query_lookback", "query_max_bytes", "write_max_bytes"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    """It would refuse everything."""
    with pytest.raises(ConfigError, match="is not more than 0"):
        resolve({}, {f"STREAMGAUGE_{name.upper()}": "0"}, {})


def test_resolutions_ascend_and_divide_a_day() -> None:
    minute, day = 60_000, 86_400_000
    assert parse_tiers("5m:90d, 1h:2y") == ((5 * minute, 90 * day), (60 * minute, 730 * day))
    assert parse_tiers("1d:5y") == ((day, 5 * 365 * day),)
    assert parse_tiers("off") == parse_tiers("") == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("5m", "not RESOLUTION:DURATION"),
        ("5m:soon", "not a duration"),
        ("7m:90d", "does not divide a day"),
        ("30s:90d", "spans of a minute or more"),
        ("2d:90d", "does not divide a day"),
        ("0:90d", "does not divide a day"),
        ("1h:2y,5m:90d", "not a multiple"),
        ("5m:90d,5m:2y", "not a multiple"),
        ("10m:90d,15m:2y", "not a multiple"),
        ("5m:90d,1h:90d", "not kept longer"),
        ("5m:0", "not kept longer"),
    ],
)
def test_resolutions_that_make_no_sense_are_refused(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        parse_tiers(text)


def test_booleans() -> None:
    assert parse_bool("Yes") is True
    assert parse_bool("off") is False
    with pytest.raises(BadInput):
        parse_bool("perhaps")


def test_documentation_names_every_setting_with_its_default_and_meaning() -> None:
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")
    for setting in TABLE:
        assert f"`{setting.name}`" in page, f"{setting.name} is not documented"
        assert setting.help in page, f"the meaning of {setting.name} is not the one of the table"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:4318", "http://127.0.0.1:4318"),
        ("0.0.0.0:1", "http://127.0.0.1:1"),
        ("[::]:1", "http://[::1]:1"),
        ("[fe80::1]:1", "http://[fe80::1]:1"),
        ("192.0.2.7:80", "http://192.0.2.7:80"),
    ],
)
def test_an_address_is_reached_from_this_machine(address: str, url: str) -> None:
    assert local_url(address) == url


def test_values_are_shown_as_they_are_written() -> None:
    settings = resolve({"allow_host": ("a", "b")}, {}, {})
    shown_values = {setting.name: shown(settings, setting.name) for setting in TABLE}
    assert shown_values["retention"] == "15d"
    assert shown_values["query_max_bytes"] == "2GB"
    assert shown_values["self_monitoring"] == "true"
    assert shown_values["allow_host"] == "a,b"
    for setting in TABLE:
        if setting.metavar not in ("BOOL",) and shown_values[setting.name]:
            assert setting.parse(shown_values[setting.name]) == getattr(settings, setting.name)


def test_documentation_gives_the_default_of_every_setting() -> None:
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")
    for setting in TABLE:
        assert f"| `{setting.name}` | {written(setting, setting.default) or 'none'} |" in page, setting.name
