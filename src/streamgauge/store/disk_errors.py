"""What the operating system says about a disk, as errors of ours. Used by `fs`, and by failpoints that play a disk."""

from __future__ import annotations

import errno

from streamgauge.errors import ReadOnly, StorageError, SyncFailed

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC})
_NO_ACCESS = frozenset({errno.EACCES, errno.EPERM})


def storage_error(error: OSError, doing: str) -> StorageError:
    """The error of ours for a failure while `doing` something, such as "write /data/log/1.log"."""
    what = f"cannot {doing}: {error.strerror or error}"
    if error.errno in _NO_ROOM:
        return ReadOnly(
            f"{what}. What was acknowledged is kept and can be read; writes are refused until there is room: "
            "free some space, enlarge the disk or lower the retention"
        )
    if error.errno == errno.EROFS:
        return ReadOnly(
            f"{what}. What is stored can be read; writes are refused until the file system is mounted for writing. "
            "Linux remounts a failing disk read-only: look at the kernel's log"
        )
    if error.errno in _NO_ACCESS:
        return StorageError(f"{what}. Give the user that runs streamgauge the right to do so")
    if error.errno == errno.ENOTDIR:
        return StorageError(f"{what}. A file stands where a folder should be: move it away, or choose another folder")
    return StorageError(f"{what}. What was acknowledged is kept; check the disk and the kernel's log")


def write_error(error: OSError, doing: str) -> StorageError:
    """As `storage_error`, for bytes on their way to the disk: a failure that is not a lack of room is SyncFailed."""
    known = storage_error(error, doing)
    return known if isinstance(known, ReadOnly) else sync_error(error, doing)


def sync_error(error: OSError, doing: str) -> SyncFailed:
    """A failed sync says nothing about which bytes reached the disk, so the write as a whole is void."""
    return SyncFailed(
        f"cannot {doing}: {error.strerror or error}. This write does not count and was not acknowledged; what was "
        "acknowledged before is kept. Send it again; if it goes on failing check the disk and the kernel's log"
    )
