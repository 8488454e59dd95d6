"""What becomes of an error in work that nobody waits for."""

from __future__ import annotations

import logging

from streamgauge.errors import Overloaded, StorageError

LOG = logging.getLogger(__name__)


def reported(error: Exception, what: str) -> StorageError:
    """Say that something failed that will be tried again; a bug of ours must not end what every writer relies on."""
    if isinstance(error, StorageError | Overloaded):
        LOG.error("%s: %s", what, error.message)
        return error if isinstance(error, StorageError) else StorageError(error.message)
    LOG.error("%s: %r", what, error, exc_info=error)
    return StorageError(repr(error))
