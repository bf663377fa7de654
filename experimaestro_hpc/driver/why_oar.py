"""Why a job waits in OAR. In: what OAR says of it, by its own names. Out: a sentence, and what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..schedulers.oar import without_karma

#: what OAR's messages mean, and what helps; the first that fits is taken
MESSAGES = (
    (
        r"dependency with the job \d+",
        "it waits for other jobs, and OAR cannot tell yet when they end",
        "",
    ),
    (
        "no_matching_slot|matching resources|cannot find enough resources|no resource",
        "none of the resources that are up now can give what it asks for",
        "see which there are: oarnodes --sql {properties}; or ask for less, or check resource and property in the"
        " launcher file",
    ),
    ("quota", "your jobs, or those of your project, use as much as they may", "it starts when one of them ends"),
    ("tokens", "it waits for a licence", ""),
    ("container", "it waits for the job that is its container", "see it: oarstat -fj on the number in OAR's words"),
    ("reservation", "it is a reservation", "see: oarstat -fj {native}"),
)


def why_waiting(words: Mapping[str, str], native: str) -> tuple[str, str]:
    """Why a job waits, and what helps or "".

    :param words: as the scheduler's ``explain`` gives them

    >>> why_waiting({"state": "Hold"}, "17")
    ('it is held', 'release it on the cluster: oarresume 17')
    """
    state, message = words.get("state", ""), words.get("message", "")
    sentence, advice = "it waits", ""
    if state == "Hold":
        sentence, advice = "it is held", f"release it on the cluster: oarresume {native}"
    elif state in ("toLaunch", "Launching"):
        sentence = "it is being started"
    elif "unknown" in words.get("dependencies", ""):
        sentence = f"it waits for a job that OAR does not know ({words['dependencies']}), so it can never start"
        advice = "kill it and run the script again"
    elif words.get("dependencies"):
        sentence = f"it waits for other jobs ({words['dependencies']})"
    elif is_postponed(words.get("types", ""), words.get("scheduledStart", "")):
        sentence = "it may start only later: a pause before a new attempt"
    else:
        hit = next((one for one in MESSAGES if re.search(one[0], without_karma(message), re.IGNORECASE)), None)
        if hit:
            sentence, advice = hit[1:]
            advice = advice.format(native=native, properties=f'"{words.get("properties", "")}"')
        elif words.get("scheduledStart"):
            sentence = "other jobs have the resources that it needs"
        elif "Karma" not in message:
            sentence = "OAR has not looked at it yet"
    if without_karma(message) and state != "Hold":
        sentence += f" ({message})"
    if words.get("scheduledStart") and not words.get("dependencies"):
        sentence += f"; expected to start at {words['scheduledStart']}"
    asked = ", ".join(f"{name}={words[name]}" for name in ("queue", "project", "wanted_resources") if words.get(name))
    return sentence + (f"; asked for {asked}" if asked else ""), advice


def is_postponed(types: str, start: str) -> bool:
    """Whether one of a job's types is what makes it start later, at ``start``.

    >>> is_postponed("besteffort, postpone=2030-01-01 00:00:00", "2030-01-01 00:00:01")
    True
    """
    found = re.search(r"postpone=(\d+-\d+-\d+(?: \d+:\d+)?)", types)
    return bool(found and start.startswith(found.group(1)))
