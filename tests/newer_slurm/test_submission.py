"""What a newer Slurm takes and refuses, in its own words."""

from __future__ import annotations

import pytest
from newer import command, until

from experimaestro_hpc.errors import SubmissionError


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"partition": "nope"}, "Invalid partition name"),
        ({"resources": "gpu * 9"}, "Requested node configuration is not available"),
        ({"resources": "mem=900G"}, "Memory specification can not be satisfied"),
        ({"account": "nope"}, "Invalid account"),
        ({"constraint": "nope"}, "Invalid feature specification"),
        ({"nodelist": "nope"}, "Invalid node name"),
        ({"nonsense": "1"}, "unrecognized option"),
        ({"indexes": (99_999_999,)}, "Invalid job array specification"),
        # the older one takes that for a dependency that is satisfied
        ({"after": ["99999"]}, "Job dependency problem"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_is_refused_for_good(submit, wishes, words):
    with pytest.raises(SubmissionError, match=words):
        submit("true", **wishes)


def test_an_array_and_its_logs(submit, slurm):
    natives = submit('echo "this is $SLURM_ARRAY_TASK_ID"', indexes=(0, 3))
    base = natives[0].partition("_")[0]
    assert natives == [f"{base}_0", f"{base}_3"]
    until(lambda: ended(slurm, natives), "the array to end")
    folder = next(path for path in submit.place.iterdir() if (path / "3.log").exists())
    assert (folder / "0.log").read_text() == "this is 0\n"
    assert (folder / "3.log").read_text() == "this is 3\n"


@pytest.mark.parametrize("name", ["two words", "it's", 'a "b"', "$(touch pwned)", "100%j", "猫", "a\nb"])
def test_names_that_a_shell_would_take_apart(submit, name):
    submit('echo "$PWD" >here; mv here there', directory=name)
    there = submit.place / name / "there"
    until(there.exists, "the job to end")
    assert there.read_text() == f"{submit.place / name}\n"
    assert not (submit.place / "pwned").exists()


def test_a_submission_whose_reply_was_lost_is_found(submit):
    one, many = submit.prepare("true"), submit.prepare("true", indexes=(1, 4), hold=True)
    slurm = submit.slurm
    assert slurm.find(one) is None
    natives, elements = slurm.submit(one), slurm.submit(many)
    assert (slurm.find(one), slurm.find(many)) == (natives, elements)
    until(
        lambda: command("sacct", "-n", "-X", "-P", "-o", "End", f"--name={one.name}").startswith("20"), "the accounts"
    )
    # as one would be that the controller has forgotten
    commands = ["sacct", "-n", "-X", "-P", "-o", "JobID", f"--name={one.name}"]
    assert command(*commands).split() == natives
    slurm.cancel(elements)


def test_what_cannot_be_cancelled_any_more_is_no_error(submit, slurm):
    (native,) = submit("true")
    until(lambda: ended(slurm, [native]), "the job to end")
    slurm.cancel([native, "99999"])


def test_jobs_are_cancelled_whether_they_wait_or_run(submit, slurm):
    (running,) = submit("sleep 3600")
    waiting = submit("true", after=[running], indexes=(0, 1))
    until(lambda: slurm.query([running])[running].state == "running", "the job to run")
    assert {one.state for one in slurm.query(waiting).values()} == {"queued"}
    slurm.cancel([*waiting, running])
    until(lambda: ended(slurm, [running]), "the job to end")
    assert slurm.query([running])[running].reason == "cancelled"


def ended(slurm, natives):
    found = slurm.query(natives)
    return set(found) == set(natives) and all(status.state == "ended" for status in found.values())
