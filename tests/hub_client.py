"""The real huggingface_hub client in a process of its own, where it is online.

It reads its environment when it is imported, and the tests' own process has imported it offline.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback_hub import ACCOUNTS, client_environment

LONGEST_SECONDS = 120.0
WRITE, READ, FINE_GRAINED, BOB = (account.token for account in ACCOUNTS)
REPO = "alice/model"
CARD = "---\nlibrary_name: transformers\ntags:\n- tiny\n---\n# A model\n"


@dataclass(frozen=True)
class Outcome:
    """What a call came to, as far as it can be sent between processes."""

    seconds: float
    value: Any = None
    error: str | None = None  # the exception's class
    bases: tuple[str, ...] = ()
    status: int | None = None  # of the hub's answer, where the exception carries it
    message: str = ""


def _observe(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    start = time.monotonic()
    try:
        value = call(*arguments)
    except Exception as error:  # every failure is an outcome to look at
        return Outcome(
            time.monotonic() - start,
            error=type(error).__name__,
            bases=tuple(base.__name__ for base in type(error).__mro__),
            status=getattr(getattr(error, "response", None), "status_code", None),
            message=str(error),
        )
    return Outcome(time.monotonic() - start, value)


@dataclass(frozen=True)
class HubClient:
    """Calls run one after the other in one process; they and their arguments are pickled."""

    pool: ProcessPoolExecutor
    xet: bool

    def observe(self, call: Callable[..., Any], *arguments: Any) -> Outcome:
        return self.pool.submit(_observe, call, arguments).result(timeout=LONGEST_SECONDS)

    def run(self, call: Callable[..., Any], *arguments: Any) -> Any:
        outcome = self.observe(call, *arguments)
        assert outcome.error is None, f"{outcome.error}: {outcome.message}"
        return outcome.value


@contextmanager
def started_client(home: Path, *, xet: bool) -> Iterator[HubClient]:
    """With `xet` files travel as hf_xet sends them, which is the default; without as LFS files."""
    variables = {
        **client_environment(home, url="http://127.0.0.1:9"),  # each call names its hub
        "HF_HUB_DISABLE_XET": "0" if xet else "1",
        "HF_HUB_VERBOSITY": "critical",
    }
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            pool.submit(os.getpid).result(timeout=LONGEST_SECONDS)  # starts the process
        yield HubClient(pool, xet)


def write_model(folder: Path) -> Path:
    """A folder to publish: text, and LFS files by name, by size and by content."""
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text("{}")
    (folder / "sub/notes.txt").write_text("a note")
    rng = np.random.default_rng(0)  # floats compress in groups of four bytes, noise does not
    weights = rng.normal(size=20_000).astype(np.float32).tobytes() + rng.bytes(80_000)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "large.txt").write_bytes(b"0123456789" * 1_000_001)
    (folder / "binary.dat").write_bytes(b"a\x00b")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# ---- calls, to be run in the client's process


def api(url: str, token: str | None) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=url, token=token or False)


def call(url: str, token: str | None, method: str, *arguments: Any, **options: Any) -> Any:
    """Any method of HfApi."""
    return getattr(api(url, token), method)(*arguments, **options)


def create(url: str, token: str, repo: str = REPO, private: bool = False) -> str:
    return str(api(url, token).create_repo(repo, private=private, exist_ok=True))


def push(url: str, token: str, folder: Path, repo: str = REPO, revision: str | None = None) -> str:
    """The id of the commit."""
    pushed = api(url, token).upload_folder(
        repo_id=repo, folder_path=folder, revision=revision, commit_message="A push"
    )
    return str(pushed.oid)


def pull(
    url: str, token: str | None, folder: Path, repo: str = REPO, revision: str | None = None
) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(
        repo, revision=revision, endpoint=url, token=token or False, cache_dir=folder
    )


def pull_file(url: str, token: str | None, folder: Path, path: str, repo: str = REPO) -> str:
    from huggingface_hub import hf_hub_download

    return hf_hub_download(repo, path, endpoint=url, token=token or False, cache_dir=folder)


def commit(
    url: str, token: str, changes: dict[str, bytes | None], parent: str | None = None
) -> str:
    """One commit of small files; None deletes a file, or a folder when its name ends with /."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations = [
        CommitOperationDelete(path) if content is None else CommitOperationAdd(path, content)
        for path, content in changes.items()
    ]
    made = api(url, token).create_commit(
        REPO, operations, commit_message="A commit", parent_commit=parent
    )
    return str(made.oid)


def files(url: str, token: str) -> dict[str, str | None]:
    """Path -> sha256 of an LFS file, None for a file in git."""
    tree = api(url, token).list_repo_tree(REPO, recursive=True)
    return {
        entry.path: entry.lfs.sha256 if entry.lfs else None
        for entry in tree
        if hasattr(entry, "size")
    }


def commit_in_parallel(url: str, token: str, names: list[str]) -> None:
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: commit(url, token, {name: b"x"}), names))


def with_timeout(seconds: float, function: Any, *arguments: Any) -> Any:
    """Bound every wait, those too for which the client says `timeout=None`."""
    import httpx2
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory, hf_request_event_hook

    def bound(request: httpx2.Request) -> None:
        request.extensions["timeout"] = httpx2.Timeout(seconds).as_dict()

    def bounded_client() -> httpx2.Client:
        hooks = {"request": [hf_request_event_hook, bound]}
        return httpx2.Client(event_hooks=hooks, follow_redirects=True)

    set_client_factory(bounded_client)
    try:
        return function(*arguments)
    finally:
        set_client_factory(default_client_factory)


def make_branch(url: str, token: str, name: str) -> None:
    api(url, token).create_branch(REPO, branch=name, exist_ok=True)


def branches(url: str, token: str) -> dict[str, str]:
    listed = api(url, token).list_repo_refs(REPO).branches
    return {branch.name: branch.target_commit for branch in listed}


def model_names(url: str, token: str | None) -> list[str]:
    return [found.id for found in api(url, token).list_models(author="alice")]


def may_write(url: str, token: str, repo: str) -> None:
    api(url, token).auth_check(repo, write=True)
