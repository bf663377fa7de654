"""Settings from the command line: what fits, what does not, and that jobs see the same."""

from __future__ import annotations

import enum
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional, Union

import pytest

from experimaestro_hpc import configure
from experimaestro_hpc.config.configure import VARIABLE
from experimaestro_hpc.errors import XpmError


class Color(enum.Enum):
    RED = 1


@dataclass
class Inner:
    layers: int = 1
    name: str = "small"


@dataclass
class Settings:
    lr: float = 0.5
    steps: int = 10
    fast: bool = False
    path: Path = Path("data")
    color: Optional[Color] = None  # noqa: UP045 - the old spelling works too
    mode: Literal["a", "b"] = "a"
    either: Union[int, str] = 0  # noqa: UP007
    sizes: list[int] = field(default_factory=list)
    model: Inner = field(default_factory=Inner)


@dataclass
class Needy:
    must: int
    inner: Inner


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("lr=0.1", "lr", 0.1),
        ("lr=1", "lr", 1.0),
        ("lr=1e-3", "lr", 0.001),
        ("steps=-3", "steps", -3),
        ("fast=yes", "fast", True),
        ("fast=False", "fast", False),
        ("path=/a b/$(c)=d", "path", Path("/a b/$(c)=d")),
        ("color=RED", "color", Color.RED),
        ("color=none", "color", None),
        ("mode=b", "mode", "b"),
        ("either=7", "either", 7),
        ("either=seven", "either", "seven"),
        ("sizes=[1, 2]", "sizes", [1, 2]),
        ("sizes=3,4", "sizes", [3, 4]),
        ("sizes=", "sizes", []),
        ("model.layers=2", "model", Inner(2)),
        ("model.name=", "model", Inner(1, "")),
    ],
)
def test_what_fits(setting: str, name: str, value: object) -> None:
    found = configure(Settings, [setting])
    assert getattr(found, name) == value
    assert type(getattr(found, name)) is type(value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["lrr=1"], "no setting 'lrr'\n  did you mean 'lr'?"),
        (["zzz=1"], "there are: lr, steps"),
        (["model.layer=1"], "no setting 'model.layer'\n  did you mean 'model.layers'?"),
        (["lr"], "a setting is name=value, not 'lr'"),
        (["=1"], "a setting is name=value"),
        (["lr=fast"], "lr must be float, not 'fast'"),
        (["steps=1.5"], "steps must be int, not '1.5'"),
        (["fast=perhaps"], "fast must be bool"),
        (["color=BLUE"], "color must be Optional"),
        (["mode=c"], "mode must be Literal['a', 'b'], not 'c'"),
        (["sizes=[1, 'x']"], "sizes must be"),
        (["model=big"], "'model' has settings of its own"),
        (["lr.x=1"], "'lr' has no settings of its own"),
        (["model=1", "model.layers=2"], "has a value and settings of its own"),
        (["model.layers=2", "model=1"], "has a value and settings of its own"),
    ],
)
def test_what_does_not_fit(settings: list[str], words: str) -> None:
    with pytest.raises(XpmError) as caught:
        configure(Settings, settings)
    assert words in str(caught.value)
    assert caught.value.exit_status == 2


def test_defaults_and_what_must_be_given() -> None:
    assert configure(Settings, []) == Settings()
    assert configure(Needy, ["must=1"]) == Needy(1, Inner())
    with pytest.raises(XpmError, match="setting 'must' has no value\n  give it: -c must=…"):
        configure(Needy, [])


def test_the_last_of_two_counts() -> None:
    assert configure(Settings, ["lr=1", "lr=2"]).lr == 2


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '["lr=0.25"]')
    assert configure(Settings).lr == 0.25


SCRIPT = """
import sys
from dataclasses import dataclass
from experimaestro_hpc import Param, Task, configure, experiment

@dataclass
class Settings:
    word: str = "default"

settings = configure(Settings)

class Say(Task):
    n: Param[int]
    def execute(self):
        print(settings.word)

with experiment(sys.argv[1], "settings"):
    Say(n=1).submit()
"""


def test_a_job_sees_what_the_laptop_saw(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(SCRIPT)
    argv = ["run", "-c", 'word=it\'s "$(x)"', str(script), "--", str(tmp_path / "work")]
    command = [sys.executable, "-c", "from experimaestro_hpc.cli import main; main()", *argv]
    subprocess.run(command, check=True, timeout=120)
    (log,) = (tmp_path / "work").glob("jobs/study.say/*/say.out")
    assert log.read_text() == 'it\'s "$(x)"\n'


def test_settings_that_nobody_reads(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(SCRIPT.replace("configure(Settings)", "Settings()"))
    argv = ["run", "-c", "word=other", str(script), "--", str(tmp_path / "work")]
    command = [sys.executable, "-c", "from experimaestro_hpc.cli import main; main()", *argv]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2
    assert "nothing reads the setting word=other: the script does not call configure()" in ran.stderr
    assert not list(tmp_path.glob("work/jobs/*"))
