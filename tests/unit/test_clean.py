"""What no live job needs goes, and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from experimaestro_hpc.agent.clean import GRACE, clean
from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.agent.lock import submission_lock
from experimaestro_hpc.agent.service import Service
from experimaestro_hpc.cli import cli
from experimaestro_hpc.driver import ship

OLD, USED = "0a" * 16, "1b" * 16


def put(root: Path, name: str, text: str = "x" * 5000, old: bool = True) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for one in (path, path.parent) if old else ():
        os.utime(one, (1, 1))
    return path


def job(layout: Layout, name: str, marker: str = "", **record: Any) -> str:
    id_ = f"test.say/{name * 8}"
    put(layout.root, f"jobs/{id_}/job.json", json.dumps({"id": id_, **record}))
    put(layout.root, f"jobs/{id_}/job.sh", f"PYTHONPATH=.xpm/lib/{USED} .xpm/env/{USED}/bin/python")
    if marker:
        put(layout.root, f"jobs/{id_}/say.{marker}", "{}")
    return id_


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A workspace with a thing of each kind that a live job would need, and one that none does."""
    layout = Layout(tmp_path)
    for folder in ("code", "lib", "env"):
        put(layout.internal, f"{folder}/{OLD}/main.py")
        put(layout.internal, f"{folder}/{USED}/main.py")
    put(layout.internal, "batches/t111/receipt.json", json.dumps({"state": "submitted"}))
    put(layout.internal, "batches/bbbb/receipt.json", json.dumps({"state": "submitted", "script": "cccc"}))
    put(layout.internal, "batches/cccc/array.sh", "array")
    put(layout.internal, "incoming/dddd/jobs/x")
    os.utime(layout.internal / "incoming/dddd", (1, 1))
    for folder in ("code", "lib", "env"):
        os.utime(layout.internal / folder / OLD, (1, 1))
    return layout


ALL = [
    *(f"{folder}/{digest}" for folder in ("code", "lib", "env") for digest in (OLD, USED)),
    *("batches/t111", "batches/bbbb", "batches/cccc", "incoming/dddd"),
]
UNNEEDED = ["code/" + OLD, "lib/" + OLD, "env/" + OLD, "batches/t111", "incoming/dddd"]


def cleaned(layout: Layout, **options: Any) -> list[str]:
    before = [name for name in ALL if (layout.internal / name).exists()]
    found = clean(layout, **{"dry_run": False, **options})
    assert all(one["bytes"] >= 4096 for one in found)
    names = [one["path"].removeprefix(".xpm/") for one in found]
    for name in before:
        assert (layout.internal / name).exists() == (name not in names or bool(options.get("dry_run")))
    assert not (layout.internal / "trash").exists()
    return names


def test_without_a_live_job_everything_goes(layout):
    for marker in ("done", "failed"):
        job(layout, marker[0], marker, batch="bbbb", code=f".xpm/code/{USED}")
    job(layout, "c", code=f".xpm/code/{USED}")  # never submitted
    assert sorted(cleaned(layout)) == sorted(ALL)
    assert cleaned(layout) == []


def test_what_a_live_job_needs_stays(layout):
    job(layout, "a", batch="bbbb", code=f".xpm/code/{USED}")
    job(layout, "b", "done", batch="t111", code=f".xpm/code/{OLD}")
    assert sorted(cleaned(layout)) == sorted(UNNEEDED)


def test_dry_run_removes_nothing(layout):
    assert sorted(cleaned(layout, dry_run=True)) == sorted(ALL)
    assert sorted(cleaned(layout)) == sorted(ALL)


@pytest.mark.parametrize(
    ("state", "named_by", "stays"),
    [
        ("held", "a live job", True),
        ("submitting", "a live job", True),
        ("submitting", "an ended job", True),  # the scheduler may have taken it
        ("held", "an ended job", False),
        ("held", "nobody", False),
        ("submitting", "nobody", False),
    ],
)
def test_batches_that_are_to_be_submitted_stay(layout, state, named_by, stays):
    put(layout.internal, "batches/t111/receipt.json", json.dumps({"state": state}))
    if named_by != "nobody":
        job(layout, "a", "failed" if named_by == "an ended job" else "", batch="t111")
    assert ("batches/t111" not in cleaned(layout)) == stays


def test_a_batch_that_no_record_names_yet_stays_for_a_while(layout):
    put(layout.internal, "batches/t111/receipt.json", json.dumps({"state": "submitting"}), old=False)
    assert "batches/t111" not in cleaned(layout)


def test_the_environments_of_what_is_held_no_more_go(layout):
    for token in ("t111", "t222", "t333", "t444.7.7.tmp"):
        put(layout.internal, f"held/{token}", json.dumps({"SECRET": "x"}), old=False)
    job(layout, "a", "failed", batch="t111")
    job(layout, "b", batch="t222")
    assert [name for name in cleaned(layout) if name.startswith("held/")] == [
        "held/t111",
        "held/t333",
        "held/t444.7.7.tmp",
    ]
    assert [path.name for path in (layout.internal / "held").iterdir()] == ["t222"]


def test_what_was_just_used_stays(layout):
    os.utime(layout.internal / "code" / OLD)
    put(layout.internal, "lib/tmpxyz/half", old=False)
    put(layout.internal, f"env/{OLD}/.complete", old=False)
    names = cleaned(layout)
    assert not {"code/" + OLD, "env/" + OLD, "lib/tmpxyz"} & set(names)
    assert {"code/" + OLD, "env/" + OLD, "lib/tmpxyz"} <= set(cleaned(layout, grace=-1.0))


@pytest.mark.parametrize("lock", ["incoming/dddd.lock", f"env/{OLD}/.lock"])
def test_what_somebody_writes_to_stays(layout, lock):
    path = put(layout.internal, lock)
    name = lock.removesuffix(".lock").rstrip("/")
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert name not in [one["path"].removeprefix(".xpm/") for one in clean(layout, dry_run=True)]
    assert name in [one["path"].removeprefix(".xpm/") for one in clean(layout, dry_run=True)]


def test_nothing_is_removed_while_a_submission_is_going_on(layout):
    service = Service(str(layout.root), "local")
    with submission_lock(layout):
        cleaning = threading.Thread(target=service.clean)
        cleaning.start()
        cleaning.join(0.3)
        assert cleaning.is_alive()
        assert all((layout.internal / name).exists() for name in ALL)
    cleaning.join(30)
    assert not (layout.internal / "code" / OLD).exists()


def test_what_a_survey_has_said_is_there_stays_for_the_submission(layout):
    service = Service(str(layout.root), "local")
    assert service.survey([], code=OLD)["has_code"]
    service.clean()
    assert (layout.internal / "code" / OLD).is_dir()


def test_an_environment_that_a_survey_has_found_stays_for_the_submission(layout):
    put(layout.internal, "env/abc/.complete")
    assert "env/abc" in cleaned(layout, dry_run=True)
    assert Service(str(layout.root), "local").survey([], environment="abc")["has_environment"]
    assert "env/abc" not in cleaned(layout)


def test_a_removal_that_was_cut_is_finished(layout):
    put(layout.internal, "trash/0123-abc/main.py", old=False)
    assert "trash/0123-abc" in cleaned(layout)


def test_a_job_whose_code_is_gone_is_not_tried_again(layout):
    id_ = job(layout, "a", "failed", batch="bbbb", code=f".xpm/code/{USED}")
    service = Service(str(layout.root), "local")
    service.clean()
    answer, _ = service.handle({"op": "retry", "arguments": {"jobs": [id_]}}, None)
    assert "has been removed" in answer["error"]["what"]
    assert "run its script again" in answer["error"]["hint"]


def test_a_package_that_is_in_use_is_noted(tmp_path):
    shipment = ship.build()
    ship.install(shipment, tmp_path)
    os.utime(tmp_path / shipment.folder, (1, 1))
    ship.install(shipment, tmp_path)
    assert clean(Layout(tmp_path), dry_run=True, grace=GRACE) == []


# --- The command


def run(layout: Layout, *options: str, input: str = "") -> Any:
    return CliRunner().invoke(cli, ["clean", "--workdir", str(layout.root), *options], input=input)


def test_the_command_shows_and_asks_for_yes(layout):
    shown = run(layout, "--dry-run")
    assert shown.exit_code == 0
    assert "code snapshot" in shown.output
    refused = run(layout)
    assert refused.exit_code == 2
    assert "say --yes" in refused.output
    assert all((layout.internal / name).exists() for name in ALL)
    done = run(layout, "--yes")
    assert done.exit_code == 0
    assert "freed" in done.output
    assert not any((layout.internal / name).exists() for name in ALL)
    assert "nothing to remove" in run(layout, "--yes").output


def test_the_command_in_json(layout):
    assert run(layout, "--json").exit_code == 2
    would = json.loads(run(layout, "--json", "--dry-run").output)
    assert (len(would["would_remove"]), would["removed"]) == (len(ALL), [])
    did = json.loads(run(layout, "--json", "--yes").output)
    assert did["would_remove"] == []
    assert [one["path"] for one in did["removed"]] == [one["path"] for one in would["would_remove"]]
    assert {one["place"] for one in did["removed"]} == {"here"}
