"""The state of the git repository around a folder, asked so that nothing of the repository runs.

A repository's own configuration can name programs (git-config(1), gitattributes(5), githooks(5)).
Those that ``git status`` would start are closed: the monitor of files, hooks, filters of contents,
the transports that fetch what a partial clone lacks, and whatever submodules configure. Pager,
textconv and external diffs do not start here. Filters of the user's own configuration are closed
too: started in the work tree, they may run or read what lies there.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

GIT_SECONDS = 10.0  # longest wait for git, for instance on a network drive
_CLOSED = (
    "--no-pager",
    "--no-optional-locks",  # nothing is written, so no hook about the index
    *("-c", "core.fsmonitor="),  # empty: off also for versions that take a word for a program
    *("-c", f"core.hooksPath={os.devnull}"),
)
_NO_TRANSPORT = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
_OFF = ("clean=", "process=", "required=false")


def git_state(folder: str | Path = ".") -> dict[str, Any] | None:
    """``{"commit": hash, "dirty": bool}`` of the repository around ``folder``.

    ``dirty``: tracked files were changed or untracked ones added, or a submodule has another
    commit. A file that was touched counts as changed where it differs from what is stored without
    a filter (git-lfs). None without a repository, a commit or git
    itself, and where a filter's name cannot be passed to git to switch it off.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    filters = _filters_off(folder)
    if commit is None or filters is None:
        return None
    status = _git(folder, *filters, "status", "--porcelain", "--ignore-submodules=dirty")
    return None if status is None else {"commit": commit.strip(), "dirty": status != ""}


def _filters_off(folder: str | Path) -> list[str] | None:
    """Options that close each filter.

    None where the name of one has an equals sign, at which the option would end.
    """
    listed = _git(folder, "config", "--list", "--name-only", "-z")
    if listed is None:
        return None
    names = (name for name in listed.split("\0") if name.startswith("filter."))
    drivers = sorted({name.rpartition(".")[0] for name in names})
    if any("=" in driver for driver in drivers):
        return None
    closed = [f"{driver}.{setting}" for driver in drivers for setting in _OFF]
    return [option for setting in closed for option in ("-c", setting)]


def _git(folder: str | Path, *arguments: str) -> str | None:
    """What git prints; None where it fails, is missing or takes too long."""
    try:
        done = subprocess.run(
            ["git", *_CLOSED, *arguments],
            cwd=folder,
            env=os.environ | _NO_TRANSPORT,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # a name may be of any bytes
            timeout=GIT_SECONDS,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
