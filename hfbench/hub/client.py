"""The side of the worker's caller: starts it, shows its progress, ends it when the hub hangs."""

import json
import os
import queue
import subprocess
import threading
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from hfbench.config import HubConfig
from hfbench.errors import NotPublishedError, UserError
from hfbench.orphans import helper
from hfbench.training.progress import progress_options

CHECK_SECONDS = 8.0  # of silence before training; a mistake is answered at once
START_SECONDS = 20.0  # for the worker to import the hub's client on a busy machine


def check_push(hub: HubConfig) -> None:
    """Find out before training whether publishing will be possible.

    Raises:
        UserError: the token, the right to write, the name or the visibility is wrong.
        NotPublishedError: the hub does not answer; it may by the end of the training.
    """
    _work("check", hub, deadline_seconds=min(CHECK_SECONDS, hub.deadline_seconds))


def upload(hub: HubConfig, files: dict[str, Path], message: str) -> dict[str, Any]:
    """Make the repository hold ``files`` (path in it -> local file); only what differs travels.

    Returns:
        ``url``, ``commit``, ``changed`` and ``removed`` (paths). All files are compared by their
        hashes afterwards.

    Raises:
        UserError: the hub refuses.
        NotPublishedError: nothing new got through for ``hub.deadline_seconds``.
    """
    return _work("upload", hub, deadline_seconds=hub.deadline_seconds, files=files, message=message)


def _work(
    action: str,
    hub: HubConfig,
    *,
    deadline_seconds: float,
    files: dict[str, Path] | None = None,
    message: str = "",
) -> dict[str, Any]:
    paths = files or {}
    job = {
        "action": action,
        "repo_id": hub.repo_id,
        "private": hub.private,
        "revision": hub.revision,
        "deadline_seconds": deadline_seconds,
        "files": {name: str(path) for name, path in paths.items()},
        "message": message,
    }
    # Only LFS goes through the HTTP client whose silence is watched.
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    worker = subprocess.Popen(
        helper("hfbench.hub.worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []
    assert worker.stdin is not None  # all three are pipes
    assert worker.stdout is not None
    assert worker.stderr is not None
    threading.Thread(target=_read, args=(worker.stdout, lines), daemon=True).start()
    threading.Thread(target=errors.extend, args=(worker.stderr,), daemon=True).start()
    try:
        worker.stdin.write(json.dumps(job))
        worker.stdin.close()
        size = sum(path.stat().st_size for path in paths.values())
        found = _follow(lines, deadline_seconds, size, title=f"publish {hub.repo_id}")
    finally:
        worker.kill()
        worker.wait()
    if found is None:
        raise RuntimeError("the upload ended without an answer:\n" + "".join(errors))
    if "refused" in found:
        raise UserError(f"hub.repo_id={hub.repo_id}: {found['refused']}")
    if "failed" in found:
        raise NotPublishedError(f"the hub did not take {hub.repo_id}: {found['failed']}")
    done: dict[str, Any] = found["done"]
    return done


def _follow(
    lines: "queue.Queue[str | None]", deadline_seconds: float, size: int, *, title: str
) -> dict[str, Any] | None:
    """The worker's last word; None if it ended without one."""
    patience = deadline_seconds + START_SECONDS
    options = progress_options(is_main_process=size > 0)
    with tqdm(total=size, desc=title, unit="B", unit_scale=True, **options) as bar:
        while True:
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                return {"failed": f"nothing got through for {deadline_seconds:g} seconds"}
            if line is None:
                return None
            said: dict[str, Any] = json.loads(line)
            if "sent" not in said:
                return said
            patience = deadline_seconds
            bar.update(said["sent"] - bar.n)


def _read(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
