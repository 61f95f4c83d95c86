"""A run's folder: what is the user's stays, and two processes are never in it together."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from result_factory import make_result

from hfbench.claim import HOLDER, LOCK, claimed, compared
from hfbench.cli import main
from hfbench.errors import UserError
from hfbench.manifest import MANIFEST, check

HOLD = """
import sys
from pathlib import Path
from hfbench.claim import claimed, compared
folder = Path(sys.argv[1])
with claimed(folder, "run") if sys.argv[2] == "run" else compared([folder]):
    print("held", flush=True)
    sys.stdin.read()
"""
WAYS: dict[str, Callable[[Path], AbstractContextManager[None]]] = {
    "run": lambda folder: claimed(folder, "run"),
    "comparison": lambda folder: compared([folder]),
}


def begin(folder: Path, run: str) -> None:
    with claimed(folder, run):
        make_result(run_id=run).save(folder / "result.json")


def test_a_new_folder_is_made_and_marked(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    begin(folder, "run")
    assert check(folder) == {"run": "run"}
    begin(folder, "run")


def test_a_mistake_before_the_training_leaves_nothing(tmp_path: Path) -> None:
    with claimed(tmp_path / "new", "run"):
        pass
    with claimed(tmp_path, "run"):
        pass
    assert not any(path for path in tmp_path.iterdir() if path.name != LOCK)


def test_a_run_that_never_began_may_be_followed_by_another(tmp_path: Path) -> None:
    """It listed its bad rows; the data were mended, which makes it another run."""
    with claimed(tmp_path, "one"):
        (tmp_path / "bad_rows.jsonl").write_text("{}")
    begin(tmp_path, "two")
    assert check(tmp_path) == {"run": "two"}


@pytest.mark.parametrize(
    "name", ["model/my_only_copy.pt", "state/thesis.txt", "best-ever.safetensors", "notes.md"]
)
def test_files_of_the_user_are_refused_and_stay(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with (
        pytest.raises(UserError, match=f"holds what no run wrote .{name.split('/')[0]}"),
        claimed(tmp_path, "run"),
    ):
        pytest.fail("claimed")
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [name]


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    begin(tmp_path, "one")
    with pytest.raises(UserError, match=r"holds another run \(one"), claimed(tmp_path, "two"):
        pytest.fail("claimed")


@pytest.mark.parametrize("run", ["mine", "other"])
def test_a_folder_without_a_manifest_is_known_by_its_result(tmp_path: Path, run: str) -> None:
    """An earlier version wrote none."""
    make_result(run_id="mine").save(tmp_path / "result.json")
    if run == "mine":
        with claimed(tmp_path, run):
            assert (tmp_path / MANIFEST).is_file()
    else:
        with pytest.raises(UserError, match="holds another run"), claimed(tmp_path, run):
            pytest.fail("claimed")


@pytest.mark.parametrize("way", WAYS)
def test_a_second_process_is_told_who_works_there_until_that_one_is_dead(
    way: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), way]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as holder:  # type: ignore[call-overload]
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"process {holder.pid} on .+, since .+ is working"),
            WAYS[way](tmp_path),
        ):
            pytest.fail("claimed")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with WAYS[way](tmp_path):
        pass


def test_a_comparison_of_runs_claims_what_is_above_them(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "comparison"
    with compared([folder]), claimed(folder / "full_seed0", "run"):
        with pytest.raises(UserError, match="choose another --output"), compared([folder]):
            pytest.fail("claimed")
        with compared([tmp_path / "other"]):
            pass
    assert not folder.exists()  # nothing has begun in it
    assert not (tmp_path / "other").exists()


def test_a_linked_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"), compared([tmp_path]):
        pytest.fail("claimed")
    assert not (tmp_path / "elsewhere").exists()


def test_a_holder_that_is_written_at_this_moment_is_no_file_of_the_user(tmp_path: Path) -> None:
    with claimed(tmp_path, "run"):
        (tmp_path / f".{HOLDER}.7.tmp").touch()
        (tmp_path / MANIFEST).unlink()  # which comes after it
        with pytest.raises(UserError, match="is working in"), claimed(tmp_path, "run"):
            pytest.fail("claimed")


def test_a_lock_of_the_user_stays(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("my own")
    with compared([tmp_path]):
        pass
    assert (tmp_path / ".lock").read_text() == "my own"


@pytest.mark.parametrize("folder", ["n" * 300, "file/inside"])
def test_a_comparison_in_a_folder_that_cannot_be_made_is_a_message(
    folder: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be used"), compared([tmp_path / folder]):
        pytest.fail("claimed")


def test_a_comparison_that_another_makes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("task: mnist_mlp\ndata: {source: bundled/digits}\n")
    with compared([tmp_path]):
        assert main(["compare", "--config", str(config), "--output", str(tmp_path)]) == 2
    assert f"process {os.getpid()} on " in capsys.readouterr().err


@pytest.mark.parametrize("where", ["model", "state/step-000000001-epoch-000001", "result.json"])
def test_links_inside_are_refused(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "run"
    begin(folder, "run")
    (folder / "result.json").rename(folder / "other.json")
    (folder / where).parent.mkdir(exist_ok=True)
    (folder / where).symlink_to(tmp_path)
    with pytest.raises(UserError, match="is a link"), claimed(folder, "run"):
        pytest.fail("claimed")


def test_an_error_inside_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), claimed(tmp_path, "run"):
        raise PermissionError(13, "not about the folder")


@pytest.mark.parametrize("name", [MANIFEST, "result.json"])
def test_one_of_the_two_marks_may_be_damaged(tmp_path: Path, name: str) -> None:
    begin(tmp_path, "mine")
    (tmp_path / name).write_text("{")
    with claimed(tmp_path, "mine"):
        assert check(tmp_path) == {"run": "mine"}


def test_what_killed_writers_left_goes(tmp_path: Path) -> None:
    with claimed(tmp_path, "run"):
        (tmp_path / ".result.json.123.tmp").write_text("half")
        (tmp_path / ".partial-model").mkdir()
        (tmp_path / ".partial-model/config.json").write_text("half")
        (tmp_path / "state").mkdir()
        (tmp_path / "state/.partial-step-000000001-epoch-000001").mkdir()
        (tmp_path / "notes.tmp").write_text("not ours")
    with claimed(tmp_path, "run"):
        left = sorted(path.name for path in tmp_path.iterdir())
    assert set(left) - {LOCK} == {HOLDER, MANIFEST, "notes.tmp", "state"}
    assert not any((tmp_path / "state").iterdir())


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/run", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="cannot be used"), claimed(folder, "run"):
            pytest.fail("claimed")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_a_message(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be used"), claimed(tmp_path / "run", "run"):
        pytest.fail("claimed")
