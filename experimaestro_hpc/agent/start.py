"""How an agent is started. In: a line of JSON, and the package if it is not there. Out: a process that is the agent.

:data:`BOOTSTRAP` is the only code of ours that runs before the package has been shipped.
"""

from __future__ import annotations

import os

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
from experimaestro_hpc.agent.main import main
if "new" in h:
    from experimaestro_hpc.agent.start import compile_hot
    compile_hot(d)
main(w, h["scheduler"], h["nonce"])
"""


def compile_hot(folder: os.PathLike[str] | str) -> None:
    """Compile what every job imports, so that not each of the first ones does it, or all where nothing is cached."""
    import compileall  # for what is done once for each version

    for part in ("config", "runtime"):
        compileall.compile_dir(os.path.join(folder, "experimaestro_hpc", part), quiet=2)
    for name in ("__init__.py", "errors.py"):
        compileall.compile_file(os.path.join(folder, "experimaestro_hpc", name), quiet=2)
