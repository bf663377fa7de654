"""Logging of the libraries that the driver uses. In: nothing. Out: loggers that say only what matters."""

from __future__ import annotations

import logging

_LIBRARIES = ("fabric", "filelock", "invoke", "paramiko")


def quiet_libraries() -> None:
    """A script's ``logging.basicConfig(level=DEBUG)`` is about its own messages.

    The libraries' errors are told by us; a level that the user has set for one of them stays.
    """
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)
