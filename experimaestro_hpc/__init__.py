"""xpm-hpc: experiments as typed Python tasks, from a laptop to a cluster in one go.

The public names are loaded on first use, so that ``import experimaestro_hpc`` costs next to nothing, on the
laptop, on the login node and in each job.
"""

import os

__version__ = "0.1.0"

_HOME = {
    "Config": "config.objects",
    "Task": "config.objects",
    "ResumableTask": "config.objects",
    "Param": "config.declare",
    "Meta": "config.declare",
    "Constant": "config.declare",
    "field": "config.declare",
    "PathGenerator": "config.declare",
    "tag": "config.objects",
    "tags": "config.objects",
    "setmeta": "config.objects",
    "copyconfig": "config.objects",
    "deprecate": "config.objects",
    "LightweightTask": "config.objects",
    "GracefulTimeout": "config.objects",
    "CommandTask": "config.commands",
    "CounterToken": "config.tokens",
    "configure": "config.configure",
    "grid": "config.grid",
    "identifier": "config.identifier",
    "progress": "runtime.progress",
    "tqdm": "runtime.progress",
    "Resources": "resources",
    "XpmError": "errors",
    "RunMode": "config.context",
    "experiment": "driver.experiment",
}

__all__ = [*sorted(_HOME), "__version__"]

TYPE_CHECKING = False  # the name type checkers know, without the cost of importing typing
if TYPE_CHECKING:
    from .config.commands import CommandTask as CommandTask
    from .config.configure import configure as configure
    from .config.context import RunMode as RunMode
    from .config.declare import Constant as Constant
    from .config.declare import Meta as Meta
    from .config.declare import Param as Param
    from .config.declare import PathGenerator as PathGenerator
    from .config.declare import field as field
    from .config.grid import grid as grid
    from .config.identifier import identifier as identifier
    from .config.objects import Config as Config
    from .config.objects import GracefulTimeout as GracefulTimeout
    from .config.objects import LightweightTask as LightweightTask
    from .config.objects import ResumableTask as ResumableTask
    from .config.objects import Task as Task
    from .config.objects import copyconfig as copyconfig
    from .config.objects import deprecate as deprecate
    from .config.objects import setmeta as setmeta
    from .config.objects import tag as tag
    from .config.objects import tags as tags
    from .config.tokens import CounterToken as CounterToken
    from .driver.experiment import experiment as experiment
    from .errors import XpmError as XpmError
    from .resources import Resources as Resources
    from .runtime.progress import progress as progress
    from .runtime.progress import tqdm as tqdm


def __getattr__(name):  # type: ignore[no-untyped-def]
    if name not in _HOME:
        raise AttributeError("module 'experimaestro_hpc' has no attribute %r" % name)
    home = _HOME[name]
    if name == "experiment" and "XPM_HPC_JOB" in os.environ:
        home = "config.script"  # inside a job: a stand-in that stops the script right there
    # __import__ and not importlib, whose import would cost each job a millisecond
    value = getattr(__import__(__name__ + "." + home, fromlist=["_"]), name)
    globals()[name] = value
    return value


def __dir__():  # type: ignore[no-untyped-def]
    return __all__
