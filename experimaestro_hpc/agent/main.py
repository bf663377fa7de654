"""The agent as a process. In: request frames on standard input. Out: answer frames on standard output.

Started by :data:`.start.BOOTSTRAP`.
"""

from __future__ import annotations

import os
import sys
from typing import IO

from ..errors import ConnectionFailed
from . import temporary
from .frames import Body, read_frame, write_frame
from .service import Service

#: bytes of a request that are read after it has failed; it may have gigabytes to come
_PATIENCE = 16 << 20


def main(root: str, scheduler: str, nonce: str) -> None:
    """Serve requests until standard input ends."""
    # what anything else prints must not get between the frames
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.environ.pop("PYTHONPATH", None)
    service = Service(os.path.realpath(root), scheduler)
    try:
        serve(service, nonce, sys.stdin.buffer, answers)
    except (BrokenPipeError, ConnectionFailed, KeyboardInterrupt):
        pass  # the driver has gone
    finally:
        temporary.end(root)


def serve(service: Service, nonce: str, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests one after the other."""
    write_frame(answers, nonce, {"answer": service.hello()})
    while True:
        request = read_frame(requests, nonce)
        if request is None:
            return
        document, size = request
        body = Body(requests, size) if size else None
        try:
            answer, attached = service.handle(document, body)
        except Exception as error:
            import traceback  # only for what must not happen: it takes longer to load than most requests

            detail = traceback.format_exc()
            what = f"a defect in the agent: {type(error).__name__}: {error}"
            answer, attached = {"error": {"what": what, "kind": "XpmError", "traceback": detail}}, None
        is_through = body is None or body.drain(_PATIENCE)
        if attached is None:
            write_frame(answers, nonce, answer)
        else:
            file, length = attached
            write_frame(answers, nonce, answer, file, length)
            file.close()
        if not is_through:
            return  # the driver sees that nobody reads on, and then this answer
