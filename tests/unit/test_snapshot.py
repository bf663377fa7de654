"""The code that travels with the jobs: which files belong to it, and when it is the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experimaestro_hpc.driver import snapshot as snapshot_module
from experimaestro_hpc.driver.jobs import JobMaker
from experimaestro_hpc.driver.snapshot import Snapshot, take_snapshot
from experimaestro_hpc.errors import WorkspaceError, XpmError


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "protocol.file.allow=always"]
    argv = ["git", "-C", str(folder), *who, "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}\n")


def repository(folder: Path, *names: str) -> Path:
    """A git repository with these files committed."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init")
    write(folder, *names)
    git(folder, "add", "-A", "--", *names)
    git(folder, "commit", "--allow-empty", "-m", "first")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Not the top of what pytest gives, so that there is something around it."""
    folder = tmp_path / "my project"
    folder.mkdir()
    return folder


def names(taken: Snapshot) -> list[str]:
    assert list(taken.files) == sorted(taken.files)
    return list(taken.files)


# --- In a git repository


@pytest.mark.parametrize("name", ["proj ", " proj", "proj\n", "proj\n\n", "proj\t"])
def test_a_project_whose_name_ends_with_white_space(tmp_path, name):
    project = repository(tmp_path / name, "main.py", "lib/part.py")
    taken = take_snapshot(project / "lib" / "part.py")
    assert (taken.root, names(taken), taken.import_paths[0]) == (project, ["lib/part.py", "main.py"], "lib")


def test_a_file_that_vanishes_meanwhile(project, monkeypatch):
    repository(project, "main.py", "other.py")
    read = Path.read_bytes

    def removed(path: Path) -> bytes:
        (project / "other.py").unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", removed)
    with pytest.raises(WorkspaceError, match=r"other\.py: the project's code cannot be read: No such file"):
        take_snapshot(project / "main.py")


def test_a_folder_of_another_user_beside_the_script(without_git, monkeypatch):
    """As beside a script in ``/tmp``; root may enter them all, so it is told otherwise."""
    write(without_git, "main.py", "theirs/__init__.py")
    is_file = Path.is_file

    def refused(path: Path) -> bool:
        if path.parent.name == "theirs":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    assert names(take_snapshot(without_git / "main.py")) == ["main.py"]


def test_xpmignore_of_names_that_are_no_text(without_git):
    write(without_git, "main.py")
    (without_git / os.fsdecode(b"\xff.txt")).touch()
    (without_git / ".xpmignore").write_bytes(b"\xff.txt\n")
    assert names(take_snapshot(without_git / "main.py")) == ["main.py"]


def test_a_folder_in_the_place_of_a_file_of_ours(without_git):
    (without_git / ".xpmignore").mkdir()
    write(without_git, "main.py")
    with pytest.raises(WorkspaceError, match=r"\.xpmignore: the project's code cannot be read: Is a directory"):
        take_snapshot(without_git / "main.py")


def test_what_git_tracks_and_what_it_neither_tracks_nor_ignores(project):
    repository(project, "main.py", "pkg/__init__.py", "pkg/data.json", "gone.py", ".gitignore")
    (project / ".gitignore").write_text("*.log\n/data/\n")
    write(project, "new.py", "pkg/new.txt", "run.log", "data/large.bin", "staged.py")
    git(project, "add", "staged.py")
    (project / "gone.py").unlink()
    assert names(take_snapshot(project / "main.py")) == [
        ".gitignore",
        "main.py",
        "new.py",
        "pkg/__init__.py",
        "pkg/data.json",
        "pkg/new.txt",
        "staged.py",
    ]


def test_the_script_itself_travels_even_when_git_ignores_it(project):
    repository(project, "lib.py")
    (project / ".git" / "info" / "exclude").write_text("mine.py\n")
    write(project, "mine.py")
    assert names(take_snapshot(project / "mine.py")) == ["lib.py", "mine.py"]


def test_the_root_is_the_repository_and_the_scripts_folder_is_imported_from(project):
    repository(project, "lib.py", "experiments/a/main.py")
    taken = take_snapshot(project / "experiments" / "a" / "main.py")
    assert (taken.root, taken.import_paths) == (project.resolve(), ("experiments/a",))
    assert names(taken) == ["experiments/a/main.py", "lib.py"]


def test_what_is_on_the_path_is_imported_from(project, monkeypatch, tmp_path):
    repository(project, "src/lib.py", "main.py")
    entries = [str(project / "src"), str(project), str(tmp_path), str(project / "none"), str(project / "main.py")]
    monkeypatch.setattr(sys, "path", entries)
    assert take_snapshot(project / "main.py").import_paths == (".", "src")


def test_submodules_and_repositories_inside(project, tmp_path):
    other = repository(tmp_path / "other", "sub.py", "deep/er.py")
    repository(project, "main.py")
    git(project, "submodule", "add", str(other), "libs/other")
    git(project, "commit", "-m", "submodule")
    repository(project / "nested", "inner.py")
    write(project / "libs" / "other", "new.py")
    assert names(take_snapshot(project / "main.py")) == [
        ".gitmodules",
        "libs/other/deep/er.py",
        "libs/other/new.py",
        "libs/other/sub.py",
        "main.py",
        "nested/inner.py",
    ]


def test_a_submodule_that_was_not_fetched(project, tmp_path):
    other = repository(tmp_path / "other", "sub.py")
    repository(project, "main.py")
    git(project, "submodule", "add", str(other), "sub")
    git(project, "commit", "-m", "submodule")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", str(project), str(clone))
    assert names(take_snapshot(clone / "main.py")) == [".gitmodules", "main.py"]


def test_caches_and_environments_are_left_out_whatever_git_says(project):
    repository(project, "main.py", "__pycache__/main.cpython-311.pyc", "lib.pyc")
    write(
        project,
        ".venv/lib/x.py",
        "node_modules/x.js",
        "pkg/__pycache__/y.py",
        ".mypy_cache/x.json",
        "my-env/pyvenv.cfg",
        "my-env/lib/python3/site.py",
    )
    assert names(take_snapshot(project / "main.py")) == ["main.py"]


@pytest.mark.parametrize(
    "name",
    [
        "with space.py",
        'quo"te.py',
        "new\nline.py",
        "\u732b.py",
        "-x.py",
        os.fsdecode(b"latin-\xe9.py"),
        "back\\slash.py",
        "t\tab.py",
    ],
)
def test_strange_names(project, name):
    repository(project, "main.py")
    (project / name).write_text("x")
    assert set(names(take_snapshot(project / "main.py"))) == {"main.py", name}
    git(project, "add", "-A")
    assert set(names(take_snapshot(project / "main.py"))) == {"main.py", name}


def test_commit_and_dirt(project):
    repository(project, "main.py")
    commit = git(project, "rev-parse", "HEAD").strip()
    taken = take_snapshot(project / "main.py")
    assert (taken.commit, taken.is_dirty) == (commit, False)
    (project / "main.py").write_text("changed")
    assert take_snapshot(project / "main.py").is_dirty
    git(project, "commit", "-am", "second")
    taken = take_snapshot(project / "main.py")
    assert (taken.commit != commit, taken.is_dirty) == (True, False)


def test_a_repository_without_a_commit(project):
    git(project, "init")
    write(project, "main.py")
    taken = take_snapshot(project / "main.py")
    assert (names(taken), taken.commit) == (["main.py"], "")


def test_a_script_that_is_reached_by_a_link(project, tmp_path):
    repository(project, "main.py", "lib.py")
    (tmp_path / "shortcut.py").symlink_to(project / "main.py")
    (tmp_path / "folder").symlink_to(project)
    expected = take_snapshot(project / "main.py")
    assert take_snapshot(tmp_path / "shortcut.py") == expected
    assert take_snapshot(tmp_path / "folder" / "main.py") == expected


# --- Without git


@pytest.fixture(params=["no repository", "no git"])
def without_git(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, project: Path) -> Path:
    if request.param == "no git":
        git(project, "init")
        monkeypatch.setenv("PATH", "/nowhere")
    return project


@pytest.mark.parametrize("is_home", [False, True])
def test_beside_the_script_small_files_and_packages(without_git, monkeypatch, is_home):
    """A script may lie in the home directory itself: then only Python code is anybody's business."""
    if is_home:
        monkeypatch.setenv("HOME", str(without_git))
    write(
        without_git,
        "main.py",
        "helper.py",
        "words.c",
        "pkg/__init__.py",
        "pkg/deep/data.json",
        "pkg/__pycache__/x.pyc",
        "thesis/draft.tex",
        ".ssh/id_rsa",
        ".netrc",
        "no_package/module.py",
    )
    for name, size in (("limit.bin", snapshot_module.SMALL), ("large.bin", snapshot_module.SMALL + 1)):
        with (without_git / name).open("wb") as file:
            file.truncate(size)
    taken = take_snapshot(without_git / "main.py")
    others = [] if is_home else ["limit.bin", "words.c"]
    assert names(taken) == sorted(["helper.py", "main.py", "pkg/__init__.py", "pkg/deep/data.json", *others])
    assert taken.data == (() if is_home else ("large.bin",))
    assert (taken.root, taken.commit, taken.is_dirty) == (without_git, "", False)


def test_what_the_script_has_imported_from_below(without_git, monkeypatch):
    write(without_git, "main.py", "sources/lib_of_a_test.py", "sources/other.py")
    monkeypatch.syspath_prepend(str(without_git / "sources"))
    __import__("lib_of_a_test")
    try:
        taken = take_snapshot(without_git / "main.py")
    finally:
        del sys.modules["lib_of_a_test"]
    assert names(taken) == ["main.py", "sources/lib_of_a_test.py"]
    assert taken.import_paths == (".", "sources")


# --- Left out


@pytest.mark.parametrize("is_repository", [True, False])
def test_a_workspace_inside_the_project_is_no_code(project, is_repository, tmp_path):
    if is_repository:
        git(project, "init")
    write(project, "main.py", "work/jobs/test.a/12/job.sh", "work/__init__.py", "workbench.py")
    (tmp_path / "link").symlink_to(project / "work")
    for folder in (project / "work", tmp_path / "link"):
        assert names(take_snapshot(project / "main.py", [folder])) == ["main.py", "workbench.py"]


@pytest.mark.parametrize("is_repository", [True, False])
@pytest.mark.parametrize("script", ["main.py", "deep/main.py"])
def test_a_workspace_that_is_the_project_itself(project, is_repository, script):
    """``python main.py .``"""
    if is_repository:
        git(project, "init")
    write(project, script, "jobs/test.a/12/job.sh", "experiments/x/experiment.json", ".xpm/code/12/main.py")
    assert names(JobMaker(project, project / script).snapshot) == [script if is_repository else "main.py"]


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("data", ["main.py", "pkg/big/x.csv"]),
        ("data/", ["main.py", "pkg/big/x.csv"]),
        ("*.csv", ["data/y.bin", "main.py"]),
        ("pkg/big", ["data/x.csv", "data/y.bin", "main.py"]),
        ("pkg/big/", ["data/x.csv", "data/y.bin", "main.py"]),
        ("pkg/*", ["data/x.csv", "data/y.bin", "main.py"]),
        ("big", ["data/x.csv", "data/y.bin", "main.py"]),
        ("data/y.bin", ["data/x.csv", "main.py", "pkg/big/x.csv"]),
        ("# data", ["data/x.csv", "data/y.bin", "main.py", "pkg/big/x.csv"]),
        ("  data  \n\n*.csv", ["main.py"]),
        ("dat", ["data/x.csv", "data/y.bin", "main.py", "pkg/big/x.csv"]),
        ("ata/x.csv", ["data/x.csv", "data/y.bin", "main.py", "pkg/big/x.csv"]),
    ],
)
def test_xpmignore(project, pattern, left):
    repository(project, "main.py", "data/x.csv", "data/y.bin", "pkg/big/x.csv")
    (project / ".xpmignore").write_text(f"{pattern}\n")
    assert names(take_snapshot(project / "main.py")) == [".xpmignore", *left]


def test_a_project_that_is_too_large_is_told_with_its_largest_files(project, monkeypatch):
    monkeypatch.setattr(snapshot_module, "MAX_SIZE", 5 << 20)
    repository(project, "main.py")
    for number in range(7):
        with (project / f"data{number}.bin").open("wb") as file:
            file.truncate((number + 1) << 20)
    with pytest.raises(XpmError) as caught:
        take_snapshot(project / "main.py")
    assert caught.value.what == "the project has 28 MB of files, more than the 5 MB that travel with jobs"
    assert caught.value.where == str(project)
    assert ".gitignore or .xpmignore" in caught.value.hint
    listed = caught.value.hint.splitlines()[1:]
    assert [line.split() for line in listed] == [[str(n + 1), "MB", f"data{n}.bin"] for n in (6, 5, 4, 3, 2)]
    (project / ".xpmignore").write_text("*.bin\n")
    assert names(take_snapshot(project / "main.py")) == [".xpmignore", "main.py"]


# --- Links


def test_links_inside_the_project_travel_as_links(project):
    repository(project, "main.py", "pkg/__init__.py")
    (project / "alias.py").symlink_to("main.py")
    (project / "folder").symlink_to("pkg")
    (project / "pkg" / "up.py").symlink_to("../main.py")
    (project / "broken.py").symlink_to("nowhere.py")
    expected = ["alias.py", "broken.py", "folder", "main.py", "pkg/__init__.py", "pkg/up.py"]
    assert names(take_snapshot(project / "main.py")) == expected


def test_links_out_of_the_project_travel_as_what_they_point_to(project, tmp_path):
    """The other side would refuse them: files go as files, folders of data and what is broken do not go."""
    repository(project, "main.py")
    (tmp_path / "shared.py").write_text("shared")
    (tmp_path / "data").mkdir()
    (project / "shared.py").symlink_to("../shared.py")
    (project / "absolute.py").symlink_to(tmp_path / "shared.py")
    (project / "own.py").symlink_to(project / "main.py")
    (project / "data").symlink_to(tmp_path / "data")
    (project / "broken.py").symlink_to("/nowhere/x.py")
    taken = take_snapshot(project / "main.py")
    assert names(taken) == ["absolute.py", "main.py", "own.py", "shared.py"]
    (tmp_path / "shared.py").write_text("changed")
    assert take_snapshot(project / "main.py").digest != taken.digest


# --- The same code


def digest_of(project: Path) -> str:
    return take_snapshot(project / "main.py").digest


def test_the_same_files_have_the_same_digest_wherever_they_are(project, tmp_path):
    write(project, "main.py", "pkg/__init__.py", "pkg/x.txt")
    (project / "pkg" / "link").symlink_to("x.txt")
    os.utime(project / "main.py", (1, 1))
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    os.utime(copy / "main.py", (2, 2))
    assert digest_of(project) == digest_of(copy)
    git(copy, "init")
    git(copy, "add", "-A")
    assert digest_of(project) == digest_of(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda project: (project / "main.py").write_text("changed"),
        lambda project: (project / "lib.py").chmod(0o755),
        lambda project: (project / "lib.py").rename(project / "bil.py"),
        lambda project: (project / "lib.py").unlink(),
        lambda project: (project / "new.py").touch(),
        lambda project: [(project / "lib.py").unlink(), (project / "lib.py").symlink_to("main.py")],
        lambda project: [(project / "link.py").unlink(), (project / "link.py").symlink_to("main.py")],
        lambda project: [(project / "link.py").unlink(), (project / "link.py").write_text("lib.py")],
    ],
)
def test_any_change_changes_the_digest(project, change):
    write(project, "main.py", "lib.py")
    (project / "link.py").symlink_to("lib.py")
    before = digest_of(project)
    assert digest_of(project) == before
    change(project)
    assert digest_of(project) != before


def test_contents_cannot_be_moved_between_files_unnoticed(project):
    (project / "main.py").write_text("a")
    (project / "n.py").write_text("b")
    before = digest_of(project)
    (project / "main.py").write_text("ab")
    (project / "n.py").write_text("")
    assert digest_of(project) != before
