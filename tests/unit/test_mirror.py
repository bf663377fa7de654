"""The laptop's workspace mirrors the cluster's: what goes up, what comes down, and in which order."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experimaestro_hpc.agent import unpack as unpack_module
from experimaestro_hpc.agent.layout import Layout
from experimaestro_hpc.agent.unpack import unpack
from experimaestro_hpc.config.objects import Task
from experimaestro_hpc.driver import ship
from experimaestro_hpc.driver.client_here import LocalClient
from experimaestro_hpc.driver.elsewhere import staying
from experimaestro_hpc.driver.jobs import place_of
from experimaestro_hpc.driver.launcher import Connector, Launcher, Mirror
from experimaestro_hpc.driver.mirror import lacking, pack, pull, write_here
from experimaestro_hpc.driver.monitor import Monitor
from experimaestro_hpc.driver.plan import PlannedJob
from experimaestro_hpc.driver.refresh import forget_ends
from experimaestro_hpc.driver.snapshot import take_snapshot
from experimaestro_hpc.driver.submission import Submission, SubmissionErrorForAll
from experimaestro_hpc.driver.transfer import send_code, send_up
from experimaestro_hpc.errors import ConnectionFailed, SubmissionError, WorkspaceError

A, B, C = (f"test.say/{digit * 8}" for digit in "abc")


class Pair:
    """A laptop's workspace and a cluster's, and a session between them."""

    def __init__(self, root: Path, mirror: Mirror) -> None:
        self.laptop, self.cluster = Layout(root / "laptop"), Layout(root / "cluster")
        self.client = LocalClient(self.cluster.root, "local", ship.Shipment("0", {}))
        launcher = Launcher("gate", "local", "~/xpm", Connector("ssh", "gate"), mirror=mirror)
        self.session: Any = SimpleNamespace(
            is_here=False,
            layout=self.laptop,
            launcher=launcher,
            client=self.client,
            shipment=SimpleNamespace(folder=".xpm/lib/0"),
            place="gate (local on gate)",
        )

    def there(self, job: str, **files: str | bytes) -> None:
        """Write files of a job on the cluster; ``__`` in a name is a slash, ``_`` a dot."""
        for name, content in files.items():
            path = self.cluster.job(job) / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def here(self, job: str) -> dict[str, bytes]:
        folder = self.laptop.job(job)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path, Mirror(pull=("metrics/**",), max_pull=1000))


# --- Up


def test_pack(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "main.py").write_text("main")
    (project / "run").write_text("run")
    (project / "run").chmod(0o755)
    (project / "link.py").symlink_to("main.py")
    (tmp_path / "out.py").write_text("out")
    (project / "out.py").symlink_to("../out.py")
    (project / "more.py").symlink_to(project / "main.py")
    snapshot = take_snapshot(project / "main.py")
    files = {f"jobs/{A}/job.sh": "echo \udcff", f"jobs/{A}/params.json": "{}"}
    box = tmp_path / "box"
    with pack(files, snapshot)[0] as stream:
        names = unpack(stream, box)
    assert names == [*files, *(f"code/{name}" for name in ("link.py", "main.py", "more.py", "out.py", "run"))]
    assert (box / "jobs" / A / "job.sh").read_bytes() == b"echo \xff"
    assert (box / "code/link.py").is_symlink()
    assert not (box / "code/out.py").is_symlink()
    assert [(box / "code" / name).read_text() for name in ("link.py", "more.py", "out.py")] == [
        "main",
        "main",
        "out",
    ]
    modes = {name: stat.S_IMODE((box / name).stat().st_mode) for name in names}
    assert {name for name, mode in modes.items() if mode & 0o100} == {f"jobs/{A}/job.sh", "code/run"}
    with pack(files, None)[0] as stream:
        assert unpack(stream, tmp_path / "without") == list(files)


def test_write_here(pair):
    write_here(pair.session, {f"jobs/{A}/job.sh": "echo \udcff", f"jobs/{A}/job.json": "{}"})
    assert pair.here(A) == {"job.sh": b"echo \xff", "job.json": b"{}"}


# --- Down


def test_what_comes_back(pair):
    pair.there(
        A,
        job_json="{}",
        say_out="x" * 5000,
        say_err="",
        say_done="{}",
        job_sh="echo",
        model_bin="m",
        metrics__loss_csv="1",
        metrics__large_csv="x" * 1001,
    )
    assert pull(pair.session, [A]) == 6
    assert set(pair.here(A)) == {"job.json", "say.out", "say.err", "say.done", "job.sh", "metrics/loss.csv"}
    assert pair.here(A)["say.out"] == b"x" * 5000
    assert pull(pair.session, [A]) == 0


def test_what_is_new_comes_back(pair):
    pair.there(A, job_json="{}", say_out="one\n")
    assert pull(pair.session, [A]) == 2
    pair.there(A, say_out="one\ntwo\n", say_done="{}")
    assert pull(pair.session, [A]) == 2
    assert pair.here(A) == {"job.json": b"{}", "say.out": b"one\ntwo\n", "say.done": b"{}"}


LOG = os.urandom(500_000)


def bytes_of(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bring back what is new of job A; how many bytes came."""
    read: list[int] = []

    def counted(stream: Any, *rest: Any, **more: Any) -> list[str]:
        data = stream.read()
        read.append(len(data))
        return unpack(io.BytesIO(data), *rest, **more)

    monkeypatch.setattr("experimaestro_hpc.driver.mirror.unpack", counted)
    pull(pair.session, [A])
    assert not [path for path in pair.laptop.root.rglob(".*") if path.is_file()]
    return sum(read)


@pytest.mark.parametrize("added", [b"more", os.urandom(5_000_000)], ids=["little", "much"])
def test_of_a_log_that_has_grown_only_what_was_added_comes(pair, monkeypatch, added):
    pair.there(A, job_json="{}", say_out=LOG)
    assert bytes_of(pair, monkeypatch) > len(LOG)
    pair.there(A, say_out=LOG + added)
    assert bytes_of(pair, monkeypatch) < len(added) + 20_000
    assert pair.here(A)["say.out"] == LOG + added
    assert bytes_of(pair, monkeypatch) == 0
    pair.there(A, say_out=LOG + added + b"end", say_done="{}")
    assert bytes_of(pair, monkeypatch) < 20_000
    assert pair.here(A)["say.out"] == LOG + added + b"end"


@pytest.mark.parametrize("now", [b"another one", LOG[1:] + b"some more", LOG[:400_000], b""])
def test_a_log_that_was_begun_anew_comes_whole(pair, monkeypatch, now):
    pair.there(A, job_json="{}", say_out=LOG)
    pull(pair.session, [A])
    pair.there(A, say_out=now)
    assert bytes_of(pair, monkeypatch) > len(now)
    assert pair.here(A)["say.out"] == now


def test_a_log_that_is_another_one_here_meanwhile(pair):
    pair.there(A, job_json="{}", say_out=LOG)
    pull(pair.session, [A])
    pair.there(A, say_out=LOG + b"more")
    receive = pair.client.receive

    def meanwhile(*arguments: Any, **more: Any) -> Any:
        (pair.laptop.job(A) / "say.out").write_bytes(LOG[::-1])
        return receive(*arguments, **more)

    pair.client.receive = meanwhile
    with pytest.raises(WorkspaceError, match="changed meanwhile"):
        pull(pair.session, [A])
    pair.client.receive = receive
    pull(pair.session, [A])
    assert pair.here(A)["say.out"] == LOG + b"more"
    assert not list(pair.laptop.root.rglob("*.xpm-part"))


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["**"], {"model.bin", "metrics/large.csv"}),
        (["*.bin"], {"model.bin"}),
        (["metrics/large*"], {"metrics/large.csv"}),
        ([], set()),
    ],
)
def test_what_is_asked_for_comes_whatever_its_size(pair, patterns, names):
    pair.there(A, model_bin="m" * 5000, metrics__large_csv="x" * 5000)
    assert pull(pair.session, [A], patterns) == len(names)
    assert pair.here(A).keys() == names


def test_many_jobs_are_one_request(pair):
    for number in range(30):
        pair.there(f"test.say/{number:08}", say_out=str(number), say_done="{}")
    assert pull(pair.session, [f"test.say/{number:08}" for number in range(30)]) == 60
    assert pair.client.round_trips == 1


def test_nothing_is_asked_where_nothing_is_to_come(pair):
    assert pull(pair.session, []) == 0
    pair.session.is_here = True
    assert pull(pair.session, [A]) == 0
    assert pair.client.round_trips == 0


def test_a_job_of_which_nothing_is_there(pair):
    assert pull(pair.session, [A, B]) == 0


class Cut(io.RawIOBase):
    """A connection that ends after some bytes."""

    def __init__(self, stream: Any, left: int) -> None:
        self.stream, self.left = stream, left

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.stream.read(min(size, 64, self.left) if size >= 0 else self.left)
        self.left -= len(data)
        if not data:
            raise ConnectionFailed("the connection ended in the middle of an answer")
        return data


def test_a_job_that_looks_done_is_all_there(tmp_path):
    """The connection is lost somewhere on the way: whatever has come, the marker comes after all the rest."""
    seen = set()
    for cut in range(0, 14000, 450):
        pair = Pair(tmp_path / str(cut), Mirror(pull=("metrics/**", "*.json")))
        files = {name: os.urandom(700) for name in ("job_json", "say_out", "metrics__loss", "zzz_json")}
        pair.there(A, **files, say_done="{}")
        receive = pair.client.receive

        def cut_off(
            operation: str, take: Callable[[Any], Any], *, receive: Any = receive, cut: int = cut, **arguments: Any
        ) -> Any:
            return receive(operation, lambda stream: take(Cut(stream, cut)), **arguments)

        pair.client.receive = cut_off  # type: ignore[method-assign]
        try:
            pull(pair.session, [A])
        except (ConnectionFailed, WorkspaceError):
            seen.add("lost")
        here = pair.here(A) if pair.laptop.job(A).exists() else {}
        assert not [name for name in here if name.endswith(".tmp")]
        assert all(len(content) == 700 for name, content in here.items() if name != "say.done")
        if "say.done" in here:
            assert len(here) == 5
            seen.add("done")
    assert seen == {"lost", "done"}


def test_nothing_from_the_cluster_gets_out_of_the_workspace(pair, tmp_path):
    """A link that somebody has put into the laptop's workspace is not followed."""
    (tmp_path / "precious").mkdir()
    (pair.laptop.root / "jobs").mkdir(parents=True)
    (pair.laptop.root / "jobs" / "test.say").symlink_to(tmp_path / "precious")
    pair.there(A, job_json="{}")
    with pytest.raises(WorkspaceError, match="leaves the folder"):
        pull(pair.session, [A])
    assert list((tmp_path / "precious").iterdir()) == []


# --- A round of submission


class Say(Task):
    """Has never had another name."""


class Maker:
    """Makes files of jobs."""

    snapshot: Any = SimpleNamespace(digest="0f", files=(), root=Path(), data=("corpus.csv",))

    @staticmethod
    def files(job: Any, lib: str, stage: Any = None) -> dict[str, str]:
        record = json.dumps({"id": job.id, "lib": lib})
        return {f"jobs/{job.id}/{name}": record for name in ("params.json", "job.json", "job.sh")}

    @staticmethod
    def recipe(launcher: Any) -> None:
        return None

    @staticmethod
    def sent_with(job: Any) -> dict[str, str]:
        return {}

    @staticmethod
    def array_script(first: Any, elements: Any, lib: str, stage: Any = None) -> str:
        return " ".join(elements.values())


class Client:
    """Answers as it is told, and notes what it was asked."""

    def __init__(self, survey: dict[str, str], submit: dict[str, Any]) -> None:
        self.answers: dict[str, Any] = {
            "survey": {
                "states": {job: {"state": state} for job, state in survey.items()},
                "has_code": False,
                "largest_array": 1000,
            },
            "submit": {"natives": {}, "refused": {}, "held": {}, "unknown": {}, "attached": [], **submit},
        }
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.sent: list[str] = []

    def begin(self) -> None:
        """As if it were connected."""

    def call(self, operation: str, *, body: Any = None, size: int = 0, **arguments: Any) -> Any:
        self.calls.append((operation, arguments))
        if body is not None:
            self.box = Path(os.environ["HOME"]) / f"box{len(self.calls)}-{id(self)}"
            self.sent = unpack(body, self.box)
        return self.answers[operation]

    def receive(self, operation: str, take: Any, **arguments: Any) -> Any:
        self.calls.append((operation, arguments))
        return {}


def round_of(pair: Pair, client: Client, *jobs: str, earlier: tuple[str, ...] = (), **parents: str) -> Submission:
    """``b="a"``: b needs a."""
    pair.session.client = client
    needs = {f"test.say/{name * 8}": (f"test.say/{parent * 8}",) for name, parent in parents.items()}

    def job(id_: str) -> Any:
        planned = PlannedJob(id_, needs.get(id_, ()), "same")
        return SimpleNamespace(id=id_, name="say", planned=lambda: planned, task=Say())

    maker: Any = Maker()
    return Submission(
        pair.session, maker, "mine", {one: job(one) for one in jobs}, {one: job(one) for one in earlier}, list
    )


@pytest.fixture
def monitor() -> Monitor:
    return Monitor({}, {}, io.StringIO())


def said(monitor: Monitor) -> str:
    assert isinstance(monitor.out, io.StringIO)
    return monitor.out.getvalue()


def test_two_requests_however_many_jobs(pair, monitor):
    client = Client({A: "done", B: "unscheduled", C: "unscheduled"}, {"natives": {B: "17_0", C: "17_1"}})
    round_of(pair, client, A, B, C).run(monitor)
    assert [name for name, _ in client.calls] == ["survey", "submit", "fetch"]
    (group,) = client.calls[1][1]["groups"]
    assert (group["jobs"], group["parents"]) == ({"0": B, "1": C}, {B: [], C: []})
    assert group["label"] == "say"
    assert f"batches/{group['token']}/array.sh" in client.sent
    assert {name.rpartition("/")[0] for name in client.sent if name.startswith("jobs/")} == {f"jobs/{B}", f"jobs/{C}"}
    assert client.calls[2][1]["jobs"].keys() == {A}
    assert said(monitor) == (
        "experiment mine: 3 jobs on gate (local on gate): 2 to run, 1 done before\n"
        "  not sent, as larger than 1 MB and so no code: corpus.csv\n"
    )
    assert monitor.states == {A: {"state": "done"}}


def test_what_was_sent_is_here_too_and_nothing_is_left_of_an_earlier_attempt(pair, monitor):
    """Otherwise ``xpm-hpc jobs`` would go on showing the old failure."""
    for name, content in (("say.failed", "{}"), ("progress.json", "{}"), ("say.out", "old")):
        path = pair.laptop.job(A) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    client = Client({A: "failed"}, {"natives": {A: "17"}})
    round_of(pair, client, A).run(monitor)
    assert pair.here(A).keys() == {"params.json", "job.json", "job.sh"}
    assert pair.laptop.record(A)["native_id"] == "17"


def test_nothing_is_shown_of_an_earlier_attempt_that_is_tried_again(pair):
    ended = {"id": A, "host": "c1", "started": 1.0, "ended": 18.4, "exit_code": 1, "batch": "t1", "launcher": "gate"}
    files = {
        "job.json": json.dumps(ended),
        "say.failed": "{}",
        "progress.json": "{}",
        "say.1.err": "kept",
        "say.err": "",
    }
    for name, content in files.items():
        path = pair.laptop.job(A) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    forget_ends(pair.session, [A])
    assert pair.here(A).keys() == {"job.json", "say.1.err"}
    assert pair.laptop.record(A) == {"id": A, "batch": "t1", "launcher": "gate"}


def test_the_files_of_a_job_take_the_place_of_a_link_to_a_former_result_that_is_gone(pair):
    pair.laptop.job(A).parent.mkdir(parents=True)
    pair.laptop.job(A).symlink_to("nowhere")
    write_here(pair.session, {f"jobs/{A}/job.json": "{}"})
    assert pair.here(A) == {"job.json": b"{}"}


def test_who_gets_jobs_is_known_before_they_are_sent(pair, monitor):
    """Otherwise a lost answer would leave nothing to ask anybody about, and the next launcher would get them too."""
    (pair.laptop.job(A)).mkdir(parents=True)
    (pair.laptop.job(A) / "say.failed").write_text("{}")
    (pair.laptop.job(A) / "job.json").write_text('{"launcher": "another"}')

    class Cut(Client):
        def call(self, operation: str, **arguments: Any) -> Any:
            if operation == "submit":
                raise ConnectionFailed("the connection was lost", where="host gate")
            return super().call(operation, **arguments)

    with pytest.raises(ConnectionFailed):
        round_of(pair, Cut({A: "failed", B: "unscheduled"}, {}), A, B).run(monitor)
    assert pair.here(A).keys() == pair.here(B).keys() == {"params.json", "job.json", "job.sh"}


@pytest.mark.parametrize(
    ("state", "stays"),
    [
        ({"state": "queued"}, True),
        ({"state": "done"}, True),
        ({"state": "unscheduled", "detail": "its submission was not confirmed"}, True),
        ({"state": "unscheduled"}, False),
        ({"state": "failed"}, False),
    ],
)
def test_what_stays_with_the_launcher_that_had_it(pair, monkeypatch, state, stays):
    """A and B went there, B has ended; C is new."""
    asked: list[Any] = []
    launcher = SimpleNamespace(name="gate")
    client = SimpleNamespace(call=lambda _operation, jobs: asked.extend(jobs) or {"states": dict.fromkeys(jobs, state)})
    for job in (A, B):
        pair.laptop.job(job).mkdir(parents=True)
        (pair.laptop.job(job) / "job.json").write_text('{"launcher": "gate"}')
    (pair.laptop.job(B) / "say.failed").write_text("{}")
    monkeypatch.setattr("experimaestro_hpc.driver.elsewhere.launcher_named", lambda _name: launcher)
    jobs: Any = dict.fromkeys((A, B, C), SimpleNamespace(launcher=pair.session.launcher))
    found = staying(pair.laptop, jobs, lambda _launcher: SimpleNamespace(client=client))  # type: ignore[arg-type]
    assert (found, asked) == ({A: launcher} if stays else {}, [A])


def test_what_somebody_else_has_submitted_meanwhile_keeps_its_files(pair, monitor):
    (pair.laptop.job(B)).mkdir(parents=True)
    theirs = json.dumps({"theirs": 1, "launcher": place_of(pair.session.launcher)})
    (pair.laptop.job(B) / "job.json").write_text(theirs)
    client = Client({A: "unscheduled", B: "unscheduled", C: "unscheduled"}, {"natives": {A: "17"}, "attached": [B, C]})
    round_of(pair, client, A, B, C).run(monitor)
    assert pair.here(B) == {"job.json": theirs.encode()}
    assert pair.here(C).keys() == {"params.json", "job.json", "job.sh"}, "nothing of it is here: ours are the same"


def test_nobody_is_asked_about_what_is_done_and_here(pair, monitor, tmp_path):
    client = Client({A: "done", B: "done"}, {})
    round_of(pair, client, A, B).run(monitor)  # what comes back by itself is noted here for the first time
    assert [name for name, _ in client.calls] == ["survey", "fetch"]
    (settings,) = (pair.laptop.internal / "mirror").iterdir()
    later = tmp_path / "later"
    later.touch()
    while later.stat().st_ctime <= settings.stat().st_ctime:  # the file system's clock ticks slowly
        later.touch()
    for job in (A, B):
        marker = pair.laptop.job(job) / "say.done"
        marker.parent.mkdir(parents=True)
        marker.write_text('{"state": "done", "ended": 7}')
    client = Client({}, {})
    round_of(pair, client, B, earlier=(A,), B="A").run(monitor)
    assert client.calls == []
    assert "1 job on gate (local on gate): 1 done before" in said(monitor)
    assert monitor.states == {job: {"state": "done", "ended": 7} for job in (A, B)}
    client = Client({A: "done", B: "done", C: "done"}, {})
    round_of(pair, client, A, B, C).run(monitor)
    assert [name for name, _ in client.calls] == ["survey", "fetch"], "C is not here"
    assert client.calls[1][1]["jobs"].keys() == {C}


def test_nothing_to_do(pair, monitor):
    client = Client({A: "done", B: "running"}, {})
    round_of(pair, client, A, B).run(monitor)
    assert [name for name, _ in client.calls] == ["survey", "fetch"]
    assert "1 under way, 1 done before" in said(monitor)


def test_everything_is_refused(pair, monitor):
    client = Client({A: "unscheduled", B: "unscheduled"}, {"refused": {A: "no such partition", B: "its parent"}})
    with pytest.raises(SubmissionErrorForAll, match="no such partition") as caught:
        round_of(pair, client, A, B, b="a").run(monitor)
    assert isinstance(caught.value, SubmissionError)
    assert caught.value.exit_status == 2
    assert "nothing was submitted: 2 jobs refused" in caught.value.hint


@pytest.mark.parametrize(
    ("later", "words", "goes_on"),
    [
        ("unknown", "without an answer", "this goes on while somebody watches them"),
        ("held", "not submitted yet", "they follow when others end"),
    ],
)
def test_what_is_not_submitted_yet_is_told_and_is_no_error(pair, monitor, later, words, goes_on):
    """Whoever watches the jobs goes on with it."""
    client = Client({A: "unscheduled", B: "unscheduled"}, {later: {A: "the reason", B: "its parent"}})
    round_of(pair, client, A, B, b="a").run(monitor)
    assert f"  2 jobs {words}: the reason; {goes_on}\n" in said(monitor)


def test_an_array_is_not_larger_than_the_cluster_allows(pair, monitor):
    client = Client(dict.fromkeys((A, B, C), "unscheduled"), {"natives": {A: "17_0", B: "17_1", C: "18"}})
    client.answers["survey"]["largest_array"] = 2
    round_of(pair, client, A, B, C).run(monitor)
    assert [one["jobs"] for one in client.calls[1][1]["groups"]] == [{"0": A, "1": B}, {"0": C}]


@pytest.mark.parametrize("attached", [True, False])
def test_some_are_refused(pair, monitor, attached):
    states = {A: "queued" if attached else "unscheduled", B: "unscheduled"}
    answer = {"refused": {B: "no such partition"}, "natives": {} if attached else {A: "17"}}
    round_of(pair, Client(states, answer), A, B).run(monitor)
    assert "  test.say/bbbbbbbb was refused: no such partition\n" in said(monitor)


def test_jobs_of_an_earlier_round_are_looked_at_and_not_counted(pair, monitor):
    client = Client({A: "running", B: "unscheduled"}, {"natives": {B: "18"}})
    round_of(pair, client, B, earlier=(A,), b="a").run(monitor)
    assert client.calls[0][1]["jobs"] == [A, B]
    assert [(one["jobs"], one["parents"]) for one in client.calls[1][1]["groups"]] == [({"0": B}, {B: [A]})]
    assert "experiment mine: 1 job on" in said(monitor)


def test_generate_only_writes_and_leaves_alone_what_was_submitted(pair):
    """Without its record a job that runs would be submitted a second time."""
    record = pair.laptop.job(A) / "job.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"batch": "t", "attempt": 3}')
    client = Client({}, {})
    round_of(pair, client, A, B).generate()
    assert (client.calls, record.read_text()) == ([], '{"batch": "t", "attempt": 3}')
    assert pair.here(B).keys() == {"params.json", "job.json", "job.sh"}


# --- What need not be asked for


def settle(pair: Pair) -> None:
    """Note the settings, and wait until what comes is later: the file system's clock ticks slowly."""
    lacking(pair.session, [])
    since = max(path.stat().st_ctime for path in (pair.laptop.internal / "mirror").iterdir())
    later = pair.laptop.internal / "later"
    later.touch()
    while later.stat().st_ctime <= since:
        later.touch()


def test_a_job_that_is_here_is_not_asked_about_again(pair):
    settle(pair)
    pair.there(A, job_json="{}", say_done="{}", metrics__loss="1")
    pair.there(B, job_json="{}")
    assert pull(pair.session, [A, B]) == 4
    trips = pair.client.round_trips
    assert pull(pair.session, [A]) == 0
    assert pair.client.round_trips == trips
    pair.there(B, say_failed="{}")
    assert pull(pair.session, [A, B]) == 1
    (pair.laptop.job(A) / "metrics/loss").unlink()
    assert pull(pair.session, [A], ["**"]) == 1, "what is asked for is looked at"


def test_a_job_that_came_under_other_settings_is_asked_about(pair):
    pair.there(A, job_json="{}", say_done="{}", metrics__loss="1", model_bin="m")
    assert pull(pair.session, [A]) == 3
    pair.session.launcher = replace(pair.session.launcher, mirror=Mirror(pull=("*.bin",), max_pull=1000))
    settle(pair)
    assert pull(pair.session, [A]) == 1
    assert pair.here(A)["model.bin"] == b"m"
    trips = pair.client.round_trips
    assert pull(pair.session, [A]) == 0
    assert pair.client.round_trips == trips, "its marker had come before, and yet"


# --- Between this machine and the cluster, in pieces


class CutClient:
    """Loses the connection in the middle of a body, once."""

    def __init__(self, client: Any, end: int) -> None:
        self.client, self.end = client, end
        self.sent = 0
        self.calls: list[str] = []

    def call(self, operation: str, *, body: Any = None, size: int = 0, **arguments: Any) -> Any:
        self.calls.append(operation)
        if body is None:
            return self.client.call(operation, **arguments)
        data = body.read()
        self.sent = len(data)
        if len(data) > self.end > 0:
            end, self.end = self.end, 0
            return self.client.call(operation, body=Lost(data[:end]), size=size, **arguments)
        return self.client.call(operation, body=io.BytesIO(data), size=size, **arguments)


class Lost(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise ConnectionFailed("the connection ended in the middle of an answer")
        return data


def made_here(pair: Pair) -> dict[str, bytes]:
    folder = pair.laptop.job(A)
    folder.mkdir(parents=True)
    files = {"large": os.urandom(9 << 20), "other": os.urandom(5 << 20), "small": b"s", "say.done": b"{}"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "link").symlink_to("small")
    (folder / "out").symlink_to("/nowhere")
    (folder / "empty").mkdir()
    return files


@pytest.mark.parametrize("end", [1000, 6 << 20, 11 << 20])
def test_results_that_were_cut_on_their_way_up_go_on(pair, end):
    files = made_here(pair)
    pair.session.client = client = CutClient(pair.client, end)
    with pytest.raises(ConnectionFailed):
        send_up(pair.session, [A])
    assert not pair.cluster.job(A).exists()
    whole = client.sent
    assert send_up(pair.session, [A]) == [A]
    assert client.sent <= whole - end + (1 << 19)
    assert client.calls == ["prepare", "place"] * 2
    there = pair.cluster.job(A)
    assert {name: (there / name).read_bytes() for name in files} == files
    assert (there / "link").readlink() == Path("small")
    assert (there / "empty").is_dir()
    assert {path.name for path in there.iterdir()} == {*files, "link", "empty"}
    assert list((pair.cluster.internal / "incoming").iterdir()) == []


def test_a_file_that_changed_between_two_attempts_is_sent_anew(pair):
    made_here(pair)
    pair.session.client = CutClient(pair.client, 6 << 20)
    with pytest.raises(ConnectionFailed):
        send_up(pair.session, [A])
    data = os.urandom(9 << 20)
    (pair.laptop.job(A) / "large").write_bytes(data)
    assert send_up(pair.session, [A]) == [A]
    assert (pair.cluster.job(A) / "large").read_bytes() == data


def test_two_who_send_the_same_at_once(pair):
    made_here(pair)
    first = pair.client.call("prepare", token="same")
    other = LocalClient(pair.cluster.root, "local", ship.Shipment("0", {}))
    second = other.call("prepare", token="same")
    assert first["token"] == "same" != second["token"]


@pytest.mark.parametrize("token", ["", "../x", "a/b", ".", "x\0"])
def test_a_token_that_is_none(pair, token):
    with pytest.raises(WorkspaceError, match="is no token"):
        pair.client.call("prepare", token=token)


def test_large_code_goes_by_itself_and_goes_on(pair, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "main.py").write_text("main")
    snapshot = take_snapshot(project / "main.py")
    assert not send_code(pair.session, snapshot), "small code travels with the jobs"
    data = os.urandom(9 << 20)
    (project / "weights").write_bytes(data)
    large: Any = SimpleNamespace(root=project, files=("main.py", "weights"), digest="0f")
    pair.session.client = client = CutClient(pair.client, 8 << 20)
    with pytest.raises(ConnectionFailed):
        send_code(pair.session, large)
    assert not pair.cluster.code("0f").exists()
    assert send_code(pair.session, large)
    assert client.sent < 3 << 20
    assert (pair.cluster.code("0f") / "weights").read_bytes() == data


def test_code_that_has_vanished_before_it_was_sent(pair, tmp_path):
    (tmp_path / "main.py").write_text("main")
    gone: Any = SimpleNamespace(root=tmp_path, files=("main.py", "gone.py"), digest="0f")
    with pytest.raises(WorkspaceError, match=r"gone\.py: a file of the project cannot be sent: No such file"):
        send_code(pair.session, gone)


def test_a_full_disk_leaves_nothing_behind(pair, monkeypatch):
    made_here(pair)
    write = unpack_module._write
    room = [8 << 20]

    def until_full(handle: int, data: bytes) -> None:
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        write(handle, data)

    monkeypatch.setattr(unpack_module, "_write", until_full)
    with pytest.raises(WorkspaceError, match="No space left on device"):
        send_up(pair.session, [A])
    assert not pair.cluster.job(A).exists()
    assert list((pair.cluster.internal / "incoming").iterdir()) == []
    monkeypatch.undo()
    assert send_up(pair.session, [A]) == [A]
    pair.there(B, model_bin=os.urandom(9 << 20))
    room[0] = 8 << 20
    monkeypatch.setattr(unpack_module, "_write", until_full)
    with pytest.raises(WorkspaceError, match="cannot be written on this machine: No space left"):
        pull(pair.session, [B], ["**"])
    assert list(pair.laptop.job(B).iterdir()) == []


def test_ten_thousand_small_files(pair):
    folder = pair.cluster.job(A)
    for part in range(100):
        (folder / "many" / str(part)).mkdir(parents=True)
        for number in range(100):
            (folder / "many" / str(part) / f"{number}.txt").write_text(str(number))
    assert pull(pair.session, [A], ["**"]) == 10_000
    here = pair.laptop.job(A) / "many"
    assert sorted(path.read_text() for path in (here / "7").iterdir()) == sorted(map(str, range(100)))
    assert pull(pair.session, [A], ["**"]) == 0
    (folder / "many/7/7.txt").write_text("new")
    assert pull(pair.session, [A], ["**"]) == 1


@pytest.mark.parametrize("patterns", [None, ["**"]])
def test_a_file_that_does_not_come_is_told_and_the_others_come(pair, capsys, patterns):
    pair.there(A, job_json="{}", metrics__busy="x", metrics__loss="1")
    busy = pair.cluster.job(A) / "metrics/busy"
    count = iter(range(1, 1000))
    pread = os.pread

    def changing(handle: int, size: int, offset: int) -> bytes:
        if os.path.samestat(os.fstat(handle), busy.stat()):
            os.utime(busy, (1, next(count)))
        return pread(handle, size, offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experimaestro_hpc.agent.pack.os.pread", changing)
        if patterns is None:
            assert pull(pair.session, [A]) == 2
            assert "metrics/busy: it changed while it was read" in capsys.readouterr().err
        else:
            with pytest.raises(WorkspaceError, match="did not come; the others did"):
                pull(pair.session, [A], patterns)
    assert pair.here(A).keys() == {"job.json", "metrics/loss"}
    assert pull(pair.session, [A], patterns) == 1


def test_what_was_cut_waits_until_it_is_asked_for_again(pair, monkeypatch):
    """Other files of the job may come meanwhile."""
    data = os.urandom(9 << 20)
    pair.there(A, job_json="{}", model_bin=data, metrics__loss="1")
    receive = pair.client.receive

    def cut_off(operation: str, take: Callable[[Any], Any], **arguments: Any) -> Any:
        return receive(operation, lambda stream: take(Lost(stream.read(6 << 20))), **arguments)

    monkeypatch.setattr(pair.client, "receive", cut_off)
    with pytest.raises(ConnectionFailed):
        pull(pair.session, [A], ["*.bin"])
    monkeypatch.undo()
    (part,) = pair.laptop.job(A).glob(".*.xpm-part")
    inode = part.stat().st_ino
    assert pull(pair.session, [A]) == 1
    assert part.exists()
    assert pull(pair.session, [A], ["*.bin"]) == 1
    assert (pair.laptop.job(A) / "model.bin").stat().st_ino == inode
    assert (pair.laptop.job(A) / "model.bin").read_bytes() == data


@pytest.mark.parametrize(("patterns", "age"), [(["**"], 0), (None, 8 * 86400)])
def test_what_is_left_of_a_file_that_is_gone_goes(pair, patterns, age):
    pair.there(A, job_json="{}")
    folder = pair.laptop.job(A)
    folder.mkdir(parents=True)
    part = folder / f".{'0' * 24}.xpm-part"
    part.write_bytes(b"x" * 5000)
    os.utime(part, (part.stat().st_mtime - age,) * 2)
    pull(pair.session, [A], patterns)
    assert pair.here(A).keys() == {"job.json"}
