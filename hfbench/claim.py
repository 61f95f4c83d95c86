"""The folder of a run is the run's own, and one process's at a time.

A run writes into a folder that is new, empty or its own, which a manifest marks. While a process
works there it holds a lock of the operating system, which ends with the process however that ends.
No large library is loaded.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from hfbench.disk import write_whole
from hfbench.errors import UserError
from hfbench.manifest import MANIFEST, DamagedError, read_manifest, seal
from hfbench.results import BAD_ROWS_FILE, RESULT_FILE, RunResult

# What keeps others out, and whose it is, for people.
LOCK, HOLDER = ".hfbench.lock", ".hfbench.holder.json"
_ANYBODYS = (LOCK, HOLDER, BAD_ROWS_FILE)  # what a run that never began leaves
_UNUSABLE = (
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
)
# What killed writers leave: of hfbench.disk.write_whole, and of folders and files of ours.
_HOLDER_IS_WRITTEN = re.compile(rf"\.{re.escape(HOLDER)}\.\d+\.tmp")  # by another process now
_LEFT_BEHIND = re.compile(r"\..+\.\d+\.tmp|\.partial-.+")


@contextmanager
def claimed(folder: Path, run: str) -> Iterator[None]:
    """Within, ``folder`` exists, is marked as the one of ``run`` and is this process's alone.

    What killed writers left in it is removed.

    Raises UserError for a folder with files that no run wrote, of another run, with a link in it,
    or in which another process works; and where it cannot be made.
    """
    new = not os.path.exists(folder)
    with ExitStack() as stack:
        with _usable(folder, "output_dir"):
            folder.mkdir(parents=True, exist_ok=True)
            _check(folder, run)  # before anything is written
            stack.enter_context(locked(folder, "output_dir"))
            _check(folder, run)  # another process may have been faster
            _tidy(folder)
            if owner_of(folder, by_result=False) != run:
                seal(folder, {"run": run}, names=())
        try:
            yield
        finally:
            _leave(folder, new)


@contextmanager
def compared(folders: Iterable[Path]) -> Iterator[None]:
    """Within, no other comparison makes runs below these folders; made where they are missing.

    A new one that is still empty goes.
    """
    with ExitStack() as stack:
        for folder in sorted(folders):  # in the order of any other comparison
            with _usable(folder, "--output"):
                if not folder.exists():
                    folder.mkdir(parents=True)
                    stack.callback(_remove_empty, folder)
                stack.enter_context(locked(folder, "--output"))
            stack.callback((folder / LOCK).unlink, missing_ok=True)
        yield


@contextmanager
def _usable(folder: Path, option: str) -> Iterator[None]:
    """Within, a folder that cannot be made or written is a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        raise UserError(
            f"{option}={str(folder)!r} cannot be used: {error.strerror}; choose another"
        ) from error


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it holds runs, or another process begins there
        folder.rmdir()


def owner_of(folder: Path, *, by_result: bool = True) -> str | None:
    """The run whose folder this is, by its manifest or else by its result; None: neither tells."""
    try:
        run: str = read_manifest(folder)["about"]["run"]
        return run
    except DamagedError:
        if not by_result:
            return None
    try:
        return RunResult.load(folder / RESULT_FILE).run_id
    except UserError:  # missing, or damaged too
        return None


def _has_begun(folder: Path) -> bool:
    """Whether a run wrote more than its mark and a list of bad rows: no mistake stopped it."""
    return any(path.name == RESULT_FILE or path.is_dir() for path in folder.iterdir())


def _leave(folder: Path, new: bool) -> None:
    """Take the mark away where no run has begun, and a ``new`` folder that is empty then."""
    if not _has_begun(folder):
        for name in (MANIFEST, HOLDER, LOCK):
            (folder / name).unlink(missing_ok=True)
        if new:
            _remove_empty(folder)


def _check(folder: Path, run: str) -> None:
    """Raise UserError unless the folder is empty or the one of ``run``, without links."""
    owner = owner_of(folder)
    if owner not in (None, run) and _has_begun(folder):
        raise UserError(
            f"{str(folder)!r} holds another run ({owner}, with other settings, data or "
            "checkpoint): choose another output_dir or remove that folder"
        )
    names = (path.name for path in folder.iterdir())
    others = sorted(n for n in names if n not in _ANYBODYS and not _HOLDER_IS_WRITTEN.fullmatch(n))
    if owner is None and others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise UserError(
            f"{str(folder)!r} holds what no run wrote ({shown}), and stays as it is: choose a new "
            "or an empty output_dir"
        )
    _refuse_links(folder)


def _refuse_links(folder: Path) -> None:
    for inside, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(inside, name)
            if path.is_symlink():
                raise UserError(
                    f"{str(path)!r} is a link, and nothing is written through links: remove it, or "
                    "choose another output_dir"
                )


@contextmanager
def locked(folder: Path, option: str) -> Iterator[None]:
    """Within, no other run, or comparison of runs below it, is in ``folder``, which exists.

    The system frees the lock of a process that is gone. Raises UserError where another one has it;
    ``option`` is how the user names the folder.
    """
    holder = folder / HOLDER
    if (folder / LOCK).is_symlink():
        raise UserError(
            f"{str(folder / LOCK)!r} is a link, and nothing is written through links: remove it, "
            f"or choose another {option}"
        )
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / LOCK).acquire(timeout=0))
        except Timeout as error:
            raise UserError(
                f"{_who(holder)} is working in {str(folder)!r}: wait until it has ended, or choose "
                f"another {option}"
            ) from error
        now = datetime.now(UTC).astimezone().isoformat(sep=" ", timespec="seconds")
        values = {"host": socket.gethostname(), "pid": os.getpid(), "since": now}
        write_whole(holder, json.dumps(values))
        stack.callback(holder.unlink, missing_ok=True)
        yield


def _who(holder: Path) -> str:
    try:
        values = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {values['pid']} on {values['host']}, since {values['since']},"
    except (OSError, ValueError):  # it has just begun, or just ended
        return "another process"


def _tidy(folder: Path) -> None:
    for path in (*folder.iterdir(), *folder.glob("*/*")):
        if _LEFT_BEHIND.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
