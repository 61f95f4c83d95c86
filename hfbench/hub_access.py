"""Which names are the Hugging Face Hub's, and what goes wrong on the way there, in one message."""

import functools
import os
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import constants, errors
from safetensors import SafetensorError

from hfbench.conversion import did_you_mean
from hfbench.disk import disk_problem
from hfbench.errors import HubUnreachableError, UserError

BUNDLED = "bundled/"  # before the names of what the package holds
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
CONNECT_SECONDS = 5.0  # longest wait for the hub to accept a connection

Kind = Literal["checkpoint", "data set", "trained model"]
HubAnswer = Literal["answers", "silent", "switched off", "not tried"]

# what was asked for -> where its revision was given
_REVISION_KEYS: Mapping[Kind, str] = {
    "checkpoint": "model.revision",
    "data set": "data.revision",
    "trained model": "--revision",
}

_UNREACHABLE = (
    errors.OfflineModeIsEnabled,
    errors.LocalEntryNotFoundError,
    errors.HfHubHTTPError,
    httpx2.HTTPError,
    ConnectionError,
    TimeoutError,
)


def bundled_name(name: str, *, key: str, choices: Collection[str]) -> str | None:
    """What follows ``bundled/`` in ``key=name``; None for other names.

    Raises UserError when it is none of ``choices``.
    """
    if not name.startswith(BUNDLED):
        return None
    if name.removeprefix(BUNDLED) not in choices:
        known = ", ".join(BUNDLED + choice for choice in choices)
        hint = did_you_mean(name, [BUNDLED + choice for choice in choices])
        raise UserError(f"{key}={name!r} is not bundled{hint}; choose: {known}")
    return name.removeprefix(BUNDLED)


def local_path(
    name: str, *, key: str, choices: Collection[str], suffixes: Collection[str] = ()
) -> Path | None:
    """The file or folder that ``key=name`` names; None for a name of the hub.

    Raises UserError when there is none and the hub has no such names either: more than one
    slash, a leading ``.``, ``/`` or ``~``, one of ``suffixes`` at the end.
    """
    path = Path(name).expanduser()
    if name and path.exists():
        return path
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if not name or looks_local or path.suffix.lower() in suffixes:
        known = ", ".join(BUNDLED + choice for choice in choices)
        raise UserError(
            f"{key}={name!r} does not exist; write a local path or a hub name (owner/name)"
            + (f", or one of {known}" if known else "")
        )
    return None


@contextmanager
def hub_errors(kind: Kind, name: str) -> Iterator[None]:
    """Turn what the Hugging Face libraries raise while loading ``name`` into our two errors.

    Raises HubUnreachableError when the hub does not answer and nothing is cached; UserError for
    an unknown, gated or private repository, an unknown revision and unreadable files. Anything
    else passes unchanged.
    """
    if not name.startswith(BUNDLED) and not Path(name).expanduser().exists():
        _go_offline_without_hub()
    try:
        yield
    except (UserError, HubUnreachableError):
        raise
    except Exception as error:
        translated = _translate(error, kind, name)
        if translated is None:
            raise
        raise translated from error


def _translate(error: BaseException, kind: Kind, name: str) -> Exception | None:
    causes = _causes(error)
    if problem := next(filter(None, map(disk_problem, causes)), None):
        return UserError(problem)
    repository = f"{kind} {name!r}"
    bundled = "" if kind == "trained model" else " or bundled/<name>"
    if _find(causes, errors.GatedRepoError) or "is a gated dataset" in str(error):
        page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'data set' else ''}{name}"
        return UserError(
            f"{repository} is gated: accept its conditions on {page}, then log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    if _find(causes, errors.RevisionNotFoundError):
        return UserError(f"{repository} has no such revision: change {_REVISION_KEYS[kind]}")
    if _find(causes, errors.RepositoryNotFoundError) or _named(causes, "DatasetNotFoundError"):
        return UserError(
            f"{repository} is neither a local folder nor on {constants.ENDPOINT}: check the "
            "spelling; for a private one log in with `hf auth login` or set HF_TOKEN"
        )
    if _find(causes, errors.HFValidationError):
        return UserError(
            f"{repository} is neither an existing local path nor a hub name; write a local path, "
            f"owner/name{bundled}"
        )
    if _find(causes, errors.RemoteEntryNotFoundError):
        return UserError(f"{repository} lacks a file: {error}")
    refused = [c for c in causes if isinstance(c, errors.HfHubHTTPError)]
    if any(c.response.status_code in (401, 403) for c in refused):
        return UserError(
            f"{repository}: {constants.ENDPOINT} refuses the access; log in with `hf auth login` "
            "or set HF_TOKEN to a valid token"
        )
    if _find(causes, _UNREACHABLE) or "couldn't connect to" in str(error).lower():
        switch = ", or unset HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else ""
        return HubUnreachableError(
            f"{repository} is not on this machine and {constants.ENDPOINT} does not answer. Use a "
            f"local path{bundled}, or set HF_ENDPOINT to a mirror{switch}"
        )
    if isinstance(error, SafetensorError):
        return UserError(f"{repository}: its safetensors file is broken ({error}); fetch it again")
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what led to it, the first cause last."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def _find(causes: list[BaseException], kinds: type | tuple[type, ...]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)


def _named(causes: list[BaseException], name: str) -> bool:
    """By name, so that this module does not import datasets."""
    return any(type(cause).__name__ == name for cause in causes)


def try_hub() -> HubAnswer:
    """Whether anything accepts connections at the hub, in at most ``CONNECT_SECONDS``.

    Behind a proxy the hub cannot be tried directly, so nothing is concluded there.
    """
    hub = urllib.parse.urlparse(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        return "switched off"
    if hub.hostname is None or (
        hub.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(hub.hostname)
    ):
        return "not tried"
    port = hub.port or {"http": 80}.get(hub.scheme, 443)
    try:
        socket.create_connection((hub.hostname, port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return "silent"
    return "answers"


@functools.cache
def _go_offline_without_hub() -> None:
    """Switch the libraries to their offline mode when nothing accepts connections at the hub.

    Otherwise the client tries every file six times (23 seconds) before it looks into its cache.
    """
    if try_hub() == "silent":
        constants.HF_HUB_OFFLINE = True
        if "datasets" in sys.modules:  # it copies the constant when it is imported
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True
