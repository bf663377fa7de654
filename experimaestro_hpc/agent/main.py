"""The agent as a process. In: request frames on standard input. Out: answer frames on standard output.

Started by :data:`BOOTSTRAP`, the only code of ours that runs before the package has been shipped.
"""

from __future__ import annotations

import compileall
import os
import sys
import traceback
from typing import IO

from ..errors import ConnectionFailed
from . import look
from .frames import Body, read_frame, write_frame
from .service import Service

#: bytes of a request that are read after it has failed; it may have gigabytes to come
_PATIENCE = 16 << 20
#: Runs in whatever Python the login shell finds, so that it must be read by old ones too. It takes one line of JSON
#: (workdir, hash of the package, nonce, scheduler), asks for the package if it is not there yet, and becomes the agent.
BOOTSTRAP = r"""
import sys
if sys.version_info < (3, 9): sys.exit(97)
import json, os
h = json.loads(sys.stdin.buffer.readline().decode())
o = sys.stdout.buffer
def say(d):
    b = json.dumps(d).encode()
    o.write(b"\x1expm-hpc " + h["nonce"].encode() + b" %d 0\n" % len(b) + b); o.flush()
try:
    w = os.path.expandvars(os.path.expanduser(h["workdir"]))
    if "$" in w or not os.path.isabs(w):
        say({"error": "the workdir %r is %r here: a variable is not set, or it is not absolute" % (h["workdir"], w)})
        sys.exit(0)
    d = os.path.join(w, ".xpm", "lib", h["hash"])
    if not os.path.isdir(d):
        import io, shutil, tempfile, zipfile
        os.makedirs(os.path.dirname(d), exist_ok=True)
        say({"need": True})
        z = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
        t = tempfile.mkdtemp(dir=os.path.dirname(d))
        zipfile.ZipFile(io.BytesIO(z)).extractall(t)
        os.chmod(t, 0o755)
        try: os.rename(t, d)
        except OSError: shutil.rmtree(t)
        h["new"] = True
except Exception as e:
    say({"error": "%s: %s" % (type(e).__name__, e)}); sys.exit(0)
sys.path.insert(0, d)
from experimaestro_hpc.agent.main import compile_hot, main
if "new" in h: compile_hot(d)
main(w, h["scheduler"], h["nonce"])
"""


def compile_hot(folder: os.PathLike[str] | str) -> None:
    """Compile what every job imports, so that not each of the first ones does it, or all where nothing is cached."""
    for part in ("config", "runtime"):
        compileall.compile_dir(os.path.join(folder, "experimaestro_hpc", part), quiet=2)
    for name in ("__init__.py", "errors.py"):
        compileall.compile_file(os.path.join(folder, "experimaestro_hpc", name), quiet=2)


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
        look.end(root)


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
