"""`streamgauge check-config`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from streamgauge.config import load_config
from streamgauge.settings import resolve


def check_config_file(file: str) -> None:
    """Print warnings on stderr and one closing line; raises ConfigError for a bad file."""
    config = load_config(Path(file), os.environ)
    resolve({}, os.environ, config.own)
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
    count = len(config.warnings)
    click.echo(f"{file}: good" + (f", with {count} warning{'s' * (count != 1)}" if count else ""))
