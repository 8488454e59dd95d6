"""Whom a command asks: a server, or a folder that none holds."""

from __future__ import annotations

import os
from pathlib import Path

import click

from streamgauge.commands.client import server_of
from streamgauge.commands.server import DEFAULT_SERVER, NO_ACCESS, Access, Server, named_server
from streamgauge.settings import BY_NAME, ENVIRONMENT_PREFIX
from streamgauge.store.folder import require_data_folder

SERVER_VARIABLE = f"{ENVIRONMENT_PREFIX}SERVER"


def place_of(
    server: str | None, data: str | None, may_be_new: bool = False, access: Access = NO_ACCESS
) -> Server | Path:
    """A server, or a data folder that no server holds: what the flags name, else what the environment names,
    else a folder or a server in the usual place. may_be_new: the folder need not be there, or may be empty.

    Raises click.UsageError, BadInput, NotFound, FolderInUse and StorageError.
    """
    if server is not None and data is not None:
        raise click.UsageError("give --server or --data, not both")
    if server is None and data is None:
        server = os.environ.get(SERVER_VARIABLE)
        data = os.environ.get(BY_NAME["data"].variable) if server is None else None
    if server is None and data is None and Path(BY_NAME["data"].default).is_dir():
        data = BY_NAME["data"].default
    if data is None:
        return named_server(server or DEFAULT_SERVER, access)
    folder = Path(data)
    if not may_be_new:
        require_data_folder(folder)
    return server_of(folder, access) or folder
