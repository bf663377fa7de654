"""Why a job is as it is. In: what the agent says of it. Out: a sentence, and what to do. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..workspace.words import duration, first_line, short
from .why_oar import why_waiting

#: what Slurm's reasons for waiting mean, and what helps; the longest prefix that fits is taken
WAITS = {
    "Priority": ("other jobs come before it in the queue", ""),
    "Resources": ("it is among the next, and waits until enough cores, memory or GPUs are free", ""),
    "Dependency": ("it waits for its parents", ""),
    "DependencyNeverSatisfied": ("a parent failed, so it can never start", "see the parent: xpm-hpc jobs why"),
    "BeginTime": ("it may start only later: a pause before a new attempt", ""),
    "JobHeldUser": ("it is held", "release it on the cluster: scontrol release {native}"),
    "JobHeldAdmin": (
        "it is held by an administrator, or Slurm has held it after a failure to start it",
        "ask the site's support, or kill it and run the script again",
    ),
    "launch failed requeued held": (
        "it could not be started on its node, and Slurm holds it",
        "release it on the cluster: scontrol release {native}; or kill it and run the script again",
    ),
    "job requeued in held state": (
        "it was put back into the queue and is held",
        "release it on the cluster: scontrol release {native}",
    ),
    "PartitionTimeLimit": (
        "it asks for more time than its partition gives, so it will never start",
        "ask for a shorter duration, or another partition",
    ),
    "PartitionNodeLimit": (
        "it asks for more nodes than its partition gives, so it will never start",
        "ask for fewer nodes, or another partition",
    ),
    "PartitionDown": ("its partition takes jobs and starts none now", "ask the site's support when it opens"),
    "PartitionInactive": ("its partition is closed", "kill it, and choose another partition"),
    "ReqNodeNotAvail": ("nodes that it needs are down, or reserved for others", "see the nodes: sinfo -R"),
    "Nodes_required_for_job_are_DOWN": (
        "the nodes that it could run on are down, drained or reserved",
        "see the nodes: sinfo -R",
    ),
    "NodeDown": ("a node that it needs is down", "see the nodes: sinfo -R"),
    "BadConstraints": ("no node can give what it asks for", "check constraints and GPUs in the launcher file"),
    "Reservation": ("it waits for its reservation to begin", ""),
    "Licenses": ("it waits for a licence", ""),
    "JobArrayTaskLimit": ("as many elements of its array run as may at once", ""),
    "QOSMaxJobs": ("as many of your jobs run as this QOS allows at once", "it starts when one of them ends"),
    "QOSMax": ("your jobs use as much as this QOS allows one user", "it starts when one of them ends; or ask for less"),
    "QOSGrp": ("all jobs of this QOS together use as much as they may", "it starts when others end"),
    "QOSUsageThreshold": ("your usage is over what this QOS allows", ""),
    "QOS": ("a limit of its QOS", "see: sacctmgr show qos"),
    "AssocMax": ("your jobs use as much as your account allows", "it starts when one of them ends; or ask for less"),
    "AssocGrp": ("the jobs of your account together use as much as they may", "it starts when others end"),
    "Assoc": ("a limit of your account", "see: sacctmgr show assoc user=$USER"),
    "MaxGRESPerAccount": ("the jobs of your account use as many GPUs as they may", "it starts when others end"),
    "InvalidAccount": ("its account is not valid", "check account in the launcher file"),
    "InvalidQOS": ("its QOS is not valid", "check qos in the launcher file"),
    "Prolog": ("its node is being prepared", ""),
    "None": ("Slurm has not looked at it yet", ""),
}
#: what the reasons of failed jobs mean, and what helps
FAILURES = {
    "exit": (
        "the task itself failed",
        "see its log: xpm-hpc jobs logs --err {id}; once its code is mended, run the script again",
    ),
    "timeout": (
        "it ran into its time limit",
        "ask for a longer duration, or submit with retry={{'timeout': {{'duration': 'x2'}}}}; a ResumableTask goes on"
        " by itself",
    ),
    "out_of_memory": (
        "it needed more memory than it asked for",
        "ask for more, or submit with retry={{'out_of_memory': {{'mem': 'x2'}}}}",
    ),
    "preempted": ("another job took its place", "submit with retry={{'preempted': 'inf'}}, or run the script again"),
    "node_fail": ("its node failed", "run the script again, or submit with retry={{'node_fail': 3}}"),
    "cancelled": ("somebody cancelled it", "run the script again to have it"),
    "dependency": ("a job that it needs failed", ""),
    "launch": ("it could not be started", "see its log: xpm-hpc jobs logs --err {id}"),
    "lost": ("the scheduler lost sight of it and it left no marker", "run the script again"),
}


class Why(NamedTuple):
    """An explanation.

    :ivar sentence: why the job is as it is
    :ivar advice: what to do, or ""
    """

    sentence: str
    advice: str


def why(job: str, known: Mapping[str, Any], now: float | None = None) -> Why:
    """Explain the state of a job.

    :param known: ``state``, ``words`` (the scheduler's, by its own names), ``parents`` (the states of those that have
        not ended well) and ``cause`` (who failed first), as the agent's operation ``explain`` gives them
    :param now: seconds since 1970
    """
    state: Mapping[str, Any] = known["state"]
    name = state["state"]
    names = {"id": short(job), "native": state.get("native_id")}
    if name == "done":
        return Why(_run(state, "it ran", state.get("ended")), "")
    if name == "failed":
        return _of_failure(job, known, names)
    if name == "running":
        return Why(_run(state, "it has run", now or time.time()), "")
    if name == "unscheduled":
        words = state.get("detail") or "it was never submitted"
        return Why(str(words), "run the script again, or watch it with: xpm-hpc jobs --watch")
    if known["parents"] and name == "waiting":
        listed = [f"{short(parent)} ({_brief(of)})" for parent, of in list(known["parents"].items())[:5]]
        more = len(known["parents"]) - len(listed)
        return Why(f"it waits for {', '.join(listed)}" + (f" and {more} more" if more > 0 else ""), "")
    now = now or time.time()
    if known.get("scheduler") == "oar":
        sentence, advice = why_waiting(known["words"], str(names["native"]))
        since = f"; submitted {duration(now - state['submitted'])} ago" if state.get("submitted") else ""
        return Why(sentence + since, advice)
    return _of_waiting(state, known["words"], names, now)


def _run(state: Mapping[str, Any], verb: str, until: float | None) -> str:
    """Where a job ran and for how long, as far as that is known."""
    took = f" for {duration(until - state['started'])}" if until and state.get("started") else ""
    return f"{verb} on {state.get('host') or 'a node'}{took}"


def _brief(state: Mapping[str, Any]) -> str:
    return f"{state['state']}, {state['reason']}" if state.get("reason") else str(state["state"])


def _of_failure(job: str, known: Mapping[str, Any], names: Mapping[str, Any]) -> Why:
    state = known["state"]
    sentence, advice = FAILURES.get(state.get("reason", "exit"), ("it failed", ""))
    failed = [parent for parent, of in known["parents"].items() if of["state"] == "failed"]
    cause = known.get("cause") or next(iter(failed), "")
    if state.get("reason") == "dependency" and cause:
        advice = f"{'' if cause in failed else 'the first to fail was another; '}see: xpm-hpc jobs why {short(cause)}"
    message = first_line(str(state.get("message") or ""))
    if "No module named" in message:
        advice = (
            "install it in the environment of its jobs: see [environment] in the launcher file, docs/environments.md"
        )
    return Why(f"{sentence}: {message}" if message else sentence, advice.format(**names))


def _of_waiting(state: Mapping[str, Any], words: Mapping[str, str], names: Mapping[str, Any], now: float) -> Why:
    reason = str(words.get("Reason") or state.get("detail") or "")
    known = max(
        (one for one in WAITS if reason.replace("_", " ").startswith(one.replace("_", " "))), key=len, default=""
    )
    sentence, advice = WAITS.get(known, ("it waits", ""))
    if reason and reason != "None":
        sentence += f" ({reason})"
    if state.get("submitted"):
        sentence += f"; submitted {duration(now - state['submitted'])} ago"
    if words.get("StartTime") and known in ("Priority", "Resources", "BeginTime"):
        sentence += f"; expected to start at {words['StartTime'].replace('T', ' ')}"
    asked = ", ".join(f"{name}={words[name]}" for name in ("Partition", "QOS", "ReqTRES", "TimeLimit") if name in words)
    return Why(sentence + (f"; asked for {asked}" if asked else ""), advice.format(**names))
