"""Talks to the Hugging Face Hub in a process of its own, which is ended when the hub hangs.

    python -m hfbench.hub.worker < job.json

The job (:class:`Job` as JSON) comes on standard input. Standard output has one JSON object a line:
``{"sent": bytes}`` whenever something new got through, and at the end one of ``{"done": ...}``,
``{"refused": message}`` (a mistake of the user: no retry helps) and ``{"failed": message}`` (the
hub does not answer as it should). The token is found as always by huggingface_hub and never shown.

The client of huggingface_hub 2.4 has no timeouts and sends a commit once, so both are added here.
Large files travel by plain LFS, over the same HTTP client (``HF_HUB_DISABLE_XET`` is set by the
caller), so that one set of timeouts and one count of bytes hold for everything.
"""

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_token,
    set_client_factory,
)
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._http import default_client_factory

TRIES_PER_DEADLINE = 3  # a request may be silent for this part of the deadline
LONGEST_WAIT_SECONDS = 15.0
REPORT_SECONDS = 0.2  # between two lines about bytes
# What a publication of another kind left: it would be loaded instead. Names that are written here,
# in the repository's top folder; whatever else is there belongs to somebody.
STALE = re.compile(
    r"(model|adapter_model)(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|adapter_config\.json"
)
_TRANSIENT_STATUS = {408, 409, 412, 425, 429, 500, 502, 503, 504}

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What the worker is to do."""

    action: Literal["check", "upload"]
    repo_id: str
    private: bool | None  # None: as it is; the hub's default for a new repository
    revision: str | None  # a branch, made where it does not exist
    deadline_seconds: float  # without anything new getting through
    files: dict[str, str] = field(default_factory=dict)  # path in the repository -> local file
    message: str = ""


class AnswerError(Exception):
    """The hub took the files and does not hold them."""


class FailedError(Exception):
    """The hub does not answer as it should, and time is up."""


class RefusedError(Exception):
    """The hub says no, and will say it again."""


class Progress:
    """What got through, each thing once: repeated attempts are no progress."""

    def __init__(self, report: Callable[[int], None]) -> None:
        self.report = report
        self.last = time.monotonic()
        self._answered: set[tuple[str, str]] = set()
        self._most_sent: dict[str, int] = {}
        self._reported = 0.0
        self._lock = threading.Lock()  # the client uploads in several threads

    def watch(self, client: httpx2.Client, timeout_seconds: float) -> None:
        """Count what ``client`` sends, and let no request wait longer, whatever its caller says."""

        def limit(request: httpx2.Request) -> None:
            request.extensions["timeout"] = httpx2.Timeout(timeout_seconds).as_dict()

        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], limit, self._count_body],
            "response": [*hooks["response"], self._note_answer],
        }

    def _count_body(self, request: httpx2.Request) -> None:
        if isinstance(request.stream, httpx2.SyncByteStream):
            request.stream = _CountedStream(
                request.stream, lambda sent: self._note_sent(str(request.url), sent)
            )

    def _note_sent(self, url: str, sent: int) -> None:
        with self._lock:
            if sent > self._most_sent.get(url, 0):
                self._most_sent[url] = sent
                self._advance(force=False)

    def _note_answer(self, response: httpx2.Response) -> None:
        key = (response.request.method, str(response.request.url))
        with self._lock:
            if response.status_code < 400 and key not in self._answered:
                self._answered.add(key)
                self._advance(force=True)

    def _advance(self, *, force: bool) -> None:
        self.last = time.monotonic()
        if force or self.last - self._reported > REPORT_SECONDS:
            self._reported = self.last
            self.report(sum(self._most_sent.values()))


class _CountedStream(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, note: Callable[[int], None]) -> None:
        self.stream, self.note = stream, note

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        for chunk in self.stream:
            yield chunk
            sent += len(chunk)
            self.note(sent)  # the chunk before this one has left

    def close(self) -> None:
        self.stream.close()


def main() -> None:
    job = Job(**json.load(sys.stdin))
    progress = Progress(lambda sent: _say(sent=sent))

    def make_client() -> httpx2.Client:
        client = default_client_factory()
        progress.watch(client, job.deadline_seconds / TRIES_PER_DEADLINE)
        return client

    set_client_factory(make_client)
    _say(sent=0)  # the libraries are loaded: from here on silence is the hub's
    action = check if job.action == "check" else upload
    try:
        _say(done=persist(lambda: action(job), progress, job.deadline_seconds))
    except RefusedError as error:
        _say(refused=str(error))
    except FailedError as error:
        _say(failed=str(error))
    except OSError as error:  # offline mode, a file that is gone
        _say(failed=_one_line(error))


def persist(action: Callable[[], T], progress: Progress, deadline_seconds: float) -> T:
    """Repeat an action with growing waits until nothing new got through for the deadline.

    Raises RefusedError for an answer that stays, FailedError at the deadline.
    """
    wait = 1.0
    while True:
        try:
            return action()
        except Exception as error:
            pause = max(wait, _pause_before_repeating(error))
            if time.monotonic() + pause - progress.last > deadline_seconds:
                raise FailedError(_one_line(_hubs_part(error))) from error
        time.sleep(pause)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def _pause_before_repeating(error: Exception) -> float:
    """The seconds that the hub asks for, 0 where it asks for none.

    Raises RefusedError for an answer that stays, and anything that is not the hub's doing.
    """
    cause = _hubs_part(error)
    if isinstance(cause, HfHubHTTPError):
        if cause.response.status_code not in _TRANSIENT_STATUS:
            raise RefusedError(_explain(cause)) from error
        text = cause.response.headers.get("Retry-After", "")
        return float(text) if text.isdigit() else 0.0
    if isinstance(cause, (httpx2.TransportError, AnswerError, json.JSONDecodeError)):
        return 0.0
    raise error


def _hubs_part(error: BaseException) -> BaseException:
    """What the hub did; the client wraps a failed upload of a large file in a RuntimeError."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return error.__cause__
    return error


def check(job: Job) -> dict[str, Any]:
    """Token, right to write, name and visibility; makes the repository where there is none."""
    api = HfApi()
    if get_token() is None:
        raise RefusedError("there is no token: run `hf auth login`, or set HF_TOKEN")
    user = api.whoami()
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise RefusedError(
            f"the token of {user['name']!r} can only read: make one that may write, at "
            f"{api.endpoint}/settings/tokens"
        )
    _ensure_repository(api, job)
    return {"user": user["name"]}


def upload(job: Job) -> dict[str, Any]:
    """Send the files that differ from those of the repository, then compare all of them."""
    api = HfApi()
    _ensure_repository(api, job)
    if job.revision is not None:
        api.create_branch(job.repo_id, branch=job.revision, exist_ok=True)
    there = _remote_files(api, job)
    changed = [path for path, local in job.files.items() if not _same(there.get(path), local)]
    stale = stale_files(there, job.files)
    if changed or stale:
        api.create_commit(
            job.repo_id,
            [
                *(CommitOperationAdd(path, job.files[path]) for path in changed),
                *(CommitOperationDelete(path) for path in stale),
            ],
            commit_message=job.message,
            revision=job.revision,
        )
        there = _remote_files(api, job)
    wrong = [path for path, local in job.files.items() if not _same(there.get(path), local)]
    if wrong:
        raise AnswerError(
            f"after the upload {', '.join(wrong)} of {job.repo_id} are not what was sent"
        )
    info = api.model_info(job.repo_id, revision=job.revision)
    return {
        "url": f"{api.endpoint}/{job.repo_id}",
        "commit": info.sha,
        "changed": sorted(changed),
        "removed": sorted(stale),
    }


def stale_files(there: Iterable[str], published: Container[str]) -> list[str]:
    """Which paths of a repository are removed when ``published`` are in it."""
    return [path for path in there if path not in published and STALE.fullmatch(path)]


def _ensure_repository(api: HfApi, job: Job) -> None:
    """Make the repository where it does not exist; check visibility and the right to write."""
    try:
        info = api.model_info(job.repo_id)
    except RepositoryNotFoundError:  # or it is private and not ours: then it cannot be made
        api.create_repo(job.repo_id, private=job.private, exist_ok=True)
        info = api.model_info(job.repo_id)
    if job.private is not None and info.private is not None and info.private != job.private:
        is_now, wanted = ("private", "false") if info.private else ("public", "true")
        raise RefusedError(
            f"the repository {job.repo_id} is {is_now} and hub.private={wanted}: leave hub.private "
            "out, change its settings or choose another hub.repo_id"
        )
    api.auth_check(job.repo_id, write=True)


def _remote_files(api: HfApi, job: Job) -> dict[str, RepoFile]:
    tree = api.list_repo_tree(job.repo_id, recursive=True, revision=job.revision)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _same(remote: RepoFile | None, local: str) -> bool:
    """Whether a remote file has the bytes of a local one: by SHA-256 (LFS) or git's SHA-1."""
    if remote is None or remote.size != Path(local).stat().st_size:
        return False
    if remote.lfs is not None:
        with Path(local).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == remote.lfs.sha256
    content = Path(local).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == remote.blob_id


def _explain(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    said = error.server_message or f"{status} {error.response.reason_phrase}"
    if status == 401:
        return f"the hub does not accept the token ({said}): run `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return (
            f"the token may not write there ({said}): choose a hub.repo_id under your own name or "
            "an organisation of yours, or a token with the right to write"
        )
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
