"""What commands have in common: their options, and how --help shows them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from streamgauge.errors import BadInput
from streamgauge.federate.flags import FLAGS, Flag
from streamgauge.settings import GENERAL, TABLE, Setting, written


class SettingType(click.ParamType[Any, Any]):
    """A flag's value, parsed as the settings table says."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.metavar
        self._parse = setting.parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except BadInput as error:
            self.fail(error.message, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if self.name == "DIR":
            return [CompletionItem(incomplete, type="dir")]
        words = self.name.split("|") if "|" in self.name else []
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


class SettingOption(click.Option):
    """A setting as a flag. In --help it stands under the heading of its group, with its default."""

    def __init__(self, setting: Setting) -> None:
        spelling = setting.flag
        self.group = setting.group
        if setting.metavar == "BOOL":
            super().__init__([f"{spelling}/--no-{spelling[2:]}", setting.name], default=None)
            self._spelling = f"--[no-]{spelling[2:]}"
        else:
            super().__init__([spelling, setting.name], type=SettingType(setting))
            self._spelling = f"{spelling} {setting.metavar}"
        default = written(setting, setting.default)
        self.help = setting.help + (f"  [{default}]" if default else "")

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return self._spelling, self.help or ""


class FederateOption(click.Option):
    """A flag of the federation client, under the heading of its group, with its default."""

    def __init__(self, flag: Flag) -> None:
        names = [f"--{flag.name}", flag.parameter, *([f"-{flag.short}"] if flag.short else [])]
        default = f"  [{flag.default}]" if flag.default else ""
        self.group = flag.group
        if flag.switch:
            super().__init__(names, is_flag=True, help=flag.help)
        else:
            super().__init__(names, multiple=flag.many, metavar=flag.metavar, help=flag.help + default)


class Grouped(click.Command):
    """A command whose --help has its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                groups.setdefault(getattr(param, "group", GENERAL), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class InOrder(click.Group):
    """Lists its commands in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def setting_options(command: click.Command) -> click.Command:
    """One option for each setting, in the table's order, before those of click's own."""
    command.params += [SettingOption(setting) for setting in TABLE]
    return command


def federate_options(command: click.Command) -> click.Command:
    command.params += [FederateOption(flag) for flag in FLAGS]
    return command


class Folder(click.ParamType[Any, Any]):
    """The name of a data folder. Whether it is one is found out when it is used."""

    name = "DIR"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="dir")]


def access_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What shows a server who asks, and whom to trust; as one argument `access`."""
    options = (
        click.option(
            "--token-file", metavar="FILE", help="File with a token. Also STREAMGAUGE_TOKEN, the token itself."
        ),
        click.option("--ca-file", metavar="FILE", help="Certificates, as PEM, that sign those of good servers."),
        click.option("--cert-file", metavar="FILE", help="Certificate to show the server, as PEM."),
        click.option("--key-file", metavar="FILE", help="Private key of --cert-file, where that does not hold it."),
    )

    @functools.wraps(command)
    def with_access(
        token_file: str | None, ca_file: str | None, cert_file: str | None, key_file: str | None, **values: Any
    ) -> Any:
        from streamgauge.commands.server import Access

        access = Access(token_file or "", ca_file or "", cert_file or "", key_file or "")
        return command(**values, access=access)

    for option in reversed(options):
        with_access = option(with_access)
    return with_access


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--server", metavar="URL", help="Server to ask. Also STREAMGAUGE_SERVER."),
        click.option("--data", type=Folder(), help="Data folder. Default: ./streamgauge-data."),
    ):
        command = option(command)
    return command


endpoint_option = click.option(
    "--endpoint", metavar="URL", help="S3 store that is not Amazon's. Also AWS_ENDPOINT_URL."
)
