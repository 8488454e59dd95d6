"""Names of shared memory: whose it is, and whether its owner lives.

Every name begins with "sg", eight digits of the store's id and six drawn when the owner starts. The id belongs to the
folder and not to its path: of two containers that see the same /dev/shm each may call its folder /data. A copy of a
folder has the same id, so that alone does not tell a leftover: on Linux each owner also has an empty file,
`<prefix>owner`, which it holds locked (flock) for as long as it lives, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

if sys.platform != "win32":
    import fcntl

TRACKED = "shared_memory"
LINUX_FOLDER = Path("/dev/shm")
_OWNER = "owner"
_DRAWN_BYTES = 3


class Claim:
    """A prefix that nobody else has: 18 characters. `release` it when nothing with it is left."""

    def __init__(self, store_id: str) -> None:
        self._fd: int | None = None
        self.prefix = self._draw(store_id)
        if sys.platform.startswith("linux"):
            while not self._own():
                self.prefix = self._draw(store_id)

    def release(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(FileNotFoundError):
                self._owner.unlink()
            resource_tracker.unregister(f"/{self._owner.name}", TRACKED)
            os.close(self._fd)
            self._fd = None

    @staticmethod
    def _draw(store_id: str) -> str:
        return f"{store_prefix(store_id)}{secrets.token_hex(_DRAWN_BYTES)}-"

    @property
    def _owner(self) -> Path:
        return LINUX_FOLDER / f"{self.prefix}{_OWNER}"

    def _own(self) -> bool:
        """False when the prefix is taken, or a start that looks for leftovers was quicker than our lock."""
        try:
            fd = os.open(self._owner, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except FileExistsError:
            return False
        if not _lock(fd) or os.fstat(fd).st_nlink == 0:
            os.close(fd)
            return False
        resource_tracker.register(f"/{self._owner.name}", TRACKED)
        self._fd = fd
        return True


def store_prefix(store_id: str) -> str:
    """With what all names of a store begin, whoever owns them."""
    return f"sg{store_id[:8]}-"


def remove_leftovers(store_id: str) -> int:
    """Remove what killed servers of this store left behind, and say how many segments that was.

    Linux only: elsewhere segments cannot be listed, and the killed server's resource tracker (macOS) or the operating
    system (Windows) removes them.
    """
    if not sys.platform.startswith("linux"):
        return 0
    removed = 0
    for prefix, names in _found(store_id).items():
        owner = LINUX_FOLDER / f"{prefix}{_OWNER}"
        with _dead(owner) as dead:
            for name in names if dead else ():
                with contextlib.suppress(OSError):  # the killed server's tracker may be at it too
                    (LINUX_FOLDER / name).unlink()
                    removed += name != owner.name
    return removed


def _found(store_id: str) -> dict[str, list[str]]:
    """Names by their owners' prefixes."""
    size = len(store_prefix(store_id)) + 2 * _DRAWN_BYTES + 1
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in LINUX_FOLDER.glob(f"{store_prefix(store_id)}*"):
        found[path.name[:size]].append(path.name)
    return found


@contextlib.contextmanager
def _dead(owner: Path) -> Iterator[bool]:
    """Whether an owner is no more. Its file is made before anything else of it, and goes last."""
    try:
        fd = os.open(owner, os.O_RDWR)
    except FileNotFoundError:
        yield True
        return
    except OSError:  # of another user
        yield False
        return
    try:
        yield _lock(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
