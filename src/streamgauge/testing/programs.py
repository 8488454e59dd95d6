"""Third-party programs that tests run beside ours."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def find_program(name: str) -> str | None:
    """Where a program is: on the path, beside the interpreter, where pip puts those that come as packages, or where
    Debian puts PostgreSQL's."""
    folders = [Path(sys.executable).parent, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, folders)))


def required(name: str) -> str:
    """Of a test that is marked peer(name), which is skipped without it."""
    found = find_program(name)
    assert found is not None, f"{name} is not installed"
    return os.fspath(found)
