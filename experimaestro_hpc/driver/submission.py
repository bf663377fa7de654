"""One round of submission to one launcher. In: new jobs. Out: each of them done, attached to or submitted.

Two requests, however many jobs: what is known, then everything at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..agent.adopt import adopt
from ..agent.environments import is_builder
from ..errors import SubmissionError
from ..runtime.files import write_json
from ..workspace.words import count_of, first_line, short
from .building import build, note
from .former import find_former
from .jobs import Job, JobMaker, place_of
from .mirror import lacking, pack, pull, write_here
from .monitor import Monitor
from .plan import Plan, PlannedJob, make_plan, with_done_here
from .refresh import forget_ends
from .script import Stage
from .session import Session
from .snapshot import SMALL
from .stage import stage_of
from .transfer import send_code, send_up


class Submission:
    """Submits jobs to one launcher.

    :param jobs: the new jobs, by id
    :param earlier: jobs of earlier rounds that these need
    :param make_whole: brings all results of jobs that ran elsewhere to this machine; returns those that it could
    """

    def __init__(
        self,
        session: Session,
        maker: JobMaker,
        experiment: str,
        jobs: Mapping[str, Job],
        earlier: Mapping[str, Job],
        make_whole: Callable[[list[str]], list[str]],
    ) -> None:
        self.session = session
        self.maker = maker
        self.experiment = experiment
        self.jobs = jobs
        self.all = {**earlier, **jobs}
        self.make_whole = make_whole
        self.stage: Stage | None = None

    def run(self, monitor: Monitor) -> None:
        """Ask, plan, submit, and tell what was done.

        :raises SubmissionError: the scheduler refuses all of it
        :raises XpmError: the cluster cannot be reached or used
        """
        session, launcher = self.session, self.session.launcher
        planned = [job.planned() for job in self.all.values()]  # before any connection: what is wrong shows here
        if not session.is_here and self._reuse_all(planned, monitor):
            return
        session.client.begin()  # goes on while the code is looked at
        snapshot = self.maker.snapshot
        recipe = self.maker.recipe(launcher)
        python = "" if launcher.environment.setup or recipe else launcher.python
        known = session.client.call(
            "survey",
            jobs=list(self.all),
            code=snapshot.digest,
            python=python,
            environment=recipe.digest if recipe else "",
        )
        if launcher.mirror.nodes == "staged":
            self.stage = stage_of(launcher, session.client.hello(), session.shipment.folder, self.maker.code)
        known["states"].update(self._adopt(known["states"]))
        states, lacking = with_done_here(planned, known["states"], self._done_elsewhere(), self.make_whole)
        if session.is_here:
            self._make_parents_whole(make_plan(planned, states, known["largest_array"]))
        elif lacking:
            monitor.say(f"  sending {len(lacking)} results of other places to {session.place}")
            send_up(session, lacking)
        plan = make_plan(planned, states, known["largest_array"])
        self._tell(plan, monitor)
        if plan.submit and snapshot.data and not session.is_here:
            some = ", ".join(snapshot.data[:5]) + (", …" if len(snapshot.data) > 5 else "")
            monitor.say(f"  not sent, as larger than {SMALL >> 20} MB and so no code: {some}")
        if recipe is not None and launcher.environment.build == "login":
            note(session.layout.root, recipe, launcher.name, known["has_environment"])
            if plan.submit and not known["has_environment"]:
                build(session, recipe, monitor.say)
                note(session.layout.root, recipe, launcher.name, True)
        if plan.submit:
            self._submit(plan, not known["has_code"], monitor)
        if not session.is_here:  # the first time that this workspace hears of them: another one has submitted them
            for job in (job for job in plan.attach if not session.layout.record(job)):
                write_here(session, self.maker.files(self.all[job], session.shipment.folder, self.stage))
                self._note_native(job, states[job].get("native_id"))
        pull(session, plan.reuse)
        monitor.states.update({job: {**states[job], "state": "done"} for job in plan.reuse})

    def _reuse_all(self, planned: Sequence[PlannedJob], monitor: Monitor) -> bool:
        """Whether all jobs are done and their files are here, so that there is nothing to ask anybody about."""
        session = self.session
        wanted = [job for job in self.all if not is_builder(job)]
        done = {} if lacking(session, wanted) else self._done_elsewhere()
        if not done.keys() >= set(wanted):
            return False
        states = {**{job: {"state": "done"} for job in self.all}, **done}
        plan = make_plan(planned, states)
        self._tell(plan, monitor)
        monitor.states.update({job: states[job] for job in plan.reuse})
        return True

    def _submit(self, plan: Plan, with_code: bool, monitor: Monitor) -> None:
        session = self.session
        files, groups = self._files(plan)
        own = {name: text for name, text in files.items() if name.startswith("jobs/")}
        new = set() if session.is_here else self._note_launcher(own, plan.submitted)
        with_code = with_code and not send_code(session, self.maker.snapshot)
        body, size = pack(files, self.maker.snapshot if with_code else None)
        with body:
            answer = session.client.call(
                "submit",
                token=secrets.token_hex(6),
                groups=groups,
                code=self.maker.snapshot.digest,
                body=body,
                size=size,
            )
        if not session.is_here:
            there = new | {f"jobs/{job}" for job in answer["attached"] if session.layout.record(job)}
            write_here(session, {name: text for name, text in own.items() if name.rpartition("/")[0] not in there})
            forget_ends(session, [job for later in ("natives", "held", "unknown") for job in answer[later]])
            for job, native in answer["natives"].items():
                self._note_native(job, native)
        for later, what, goes_on in (
            ("unknown", "without an answer", "this goes on while somebody watches them"),
            ("held", "not submitted yet", "they follow when others end"),
        ):
            if answer[later]:
                words = first_line(next(iter(answer[later].values())))
                monitor.say(f"  {count_of(answer[later])} {what}: {words}; {goes_on}")
        refused: dict[str, str] = answer["refused"]
        if refused and not answer["natives"] and not answer["held"] and not plan.attach:
            pull(session, refused)
            words = next(iter(refused.values()))
            raise SubmissionErrorForAll(
                words,
                where=f"launcher {session.launcher.name}",
                hint=f"nothing was submitted: {count_of(refused)} refused; check {session.launcher.path}",
            )
        for job, words in refused.items():
            monitor.say(f"  {short(job)} was refused: {first_line(words)}")

    def _note_launcher(self, files: Mapping[str, str], jobs: Sequence[str]) -> set[str]:
        """Note here who gets the jobs before they are sent: when the answer is lost, it is known whom to ask.

        :returns: the folders of those that somebody else had before, or nobody
        """
        layout, place = self.session.layout, place_of(self.session.launcher)
        new = {f"jobs/{job}" for job in jobs if layout.record(job).get("launcher") != place}
        write_here(self.session, {name: text for name, text in files.items() if name.rpartition("/")[0] in new})
        for job in jobs:
            Path(f"{layout.stem(job)}.failed").unlink(missing_ok=True)  # its end is open again
        return new

    def _adopt(self, states: Mapping[str, Any]) -> dict[str, Any]:
        """The states of jobs that were done under the names of deprecated classes or parameters."""
        new = {id_: job.task for id_, job in self.all.items() if states[id_]["state"] != "done"}
        former = find_former(self.session.layout, new)
        if not former:
            return {}
        if not self.session.is_here:
            adopt(self.session.layout, former)
        found: dict[str, Any] = self.session.client.call("adopt", former=former)["states"]
        return found

    def _make_parents_whole(self, plan: Plan) -> None:
        """Of parents that ran elsewhere this machine may have only what was mirrored."""
        needed = {one for group in plan.submit for parents in group.parents.values() for one in parents}
        records = {one: self.session.layout.record(one) for one in needed - set(plan.submitted)}
        self.make_whole([one for one, record in records.items() if record.get("scheduler") != "local"])

    def _done_elsewhere(self) -> dict[str, dict[str, Any]]:
        """The markers of the jobs that are done as far as this machine knows, and ran with another launcher."""
        markers = {job: self.session.layout.marker(job) for job in self.all if not is_builder(job)}
        return {job: marker for job, marker in markers.items() if marker and marker["state"] == "done"}

    def _note_native(self, job: str, native: object) -> None:
        """So that a job is known for a submitted one when the cluster cannot be asked."""
        record = self.session.layout.record(job)
        write_json(str(self.session.layout.job(job) / "job.json"), {**record, "native_id": native})

    def generate(self) -> None:
        """Write the files of all jobs on this machine and submit nothing; those that were submitted keep theirs."""
        submitted = [job for job in self.all if self.session.layout.record(job).get("batch")]
        plan = make_plan([job.planned() for job in self.all.values()], {job: {"state": "done"} for job in submitted})
        files = self._files(plan)[0]
        write_here(self.session, {name: text for name, text in files.items() if name.startswith("jobs/")})

    def _files(self, plan: Plan) -> tuple[dict[str, str], list[dict[str, object]]]:
        """The files of a plan's jobs and arrays by name, and the groups to submit."""
        lib = self.session.shipment.folder
        files: dict[str, str] = {}
        groups: list[dict[str, object]] = []
        for group in plan.submit:
            token = secrets.token_hex(6)
            first = self.all[group.jobs[0]]
            for job in group.jobs:
                files.update(self.maker.files(self.all[job], lib, self.stage))
                files.update(self.maker.sent_with(self.all[job]))
            if len(group.jobs) > 1:
                files[f"batches/{token}/array.sh"] = self.maker.array_script(first, group.elements, lib, self.stage)
            groups.append(
                {
                    "token": token,
                    "label": first.name,
                    "jobs": {str(index): job for index, job in group.elements.items()},
                    "parents": {job: list(parents) for job, parents in group.parents.items()},
                }
            )
        return files, groups

    def _tell(self, plan: Plan, monitor: Monitor) -> None:
        place = self.session.place
        monitor.say(f"experiment {self.experiment}: {count_of(self.jobs)} on {place}: {self._summary(plan)}")

    def _summary(self, plan: Plan) -> str:
        """How many of the new jobs, and of earlier ones that run again, are to run, under way, or done."""
        counts = (
            (len(plan.submitted), "to run"),
            (len(self.jobs.keys() & set(plan.attach)), "under way"),
            (len(self.jobs.keys() & set(plan.reuse)), "done before"),
        )
        return ", ".join(f"{count} {what}" for count, what in counts if count) or "nothing to do"


class SubmissionErrorForAll(SubmissionError):
    """The scheduler refuses everything: the launcher file is wrong rather than a job."""

    exit_status = 2
