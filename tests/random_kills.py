"""A training that is killed at random moments until it has ended, again and again.

    python tests/random_kills.py FOLDER KILLS

prints as JSON what became of it. This process has loaded the libraries and computes nothing: each
start of the run is a child of it, as fast as a run can start.
"""

import json
import os
import random
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hfbench.config import load_config
from hfbench.errors import UserError
from hfbench.run import run
from hfbench.training import fit

STEPS = 40
BEFORE_SECONDS, WITHIN_SECONDS = 2.0, 0.6  # after the start, after the first step; at most
FULL_DISK_EVERY = 8  # starts
LARGEST_FILE = 30_000  # bytes, on a full disk: a result and the weights fit, the optimiser's do not


def settings(folder: Path) -> list[str]:
    return [
        "data.source=bundled/digits",
        "network.widths=[64]",
        "network.dropout=0.1",
        "training.batch_size=32",
        f"training.max_steps={STEPS}",
        "training.save_steps=1",
        f"output_dir={folder}",
    ]


def child(folder: Path, announce: int, full: bool) -> None:
    """Train and end this process; every saved step is announced once its state is there."""
    own_save, own_resume = fit._Loop.save, fit._Loop.resume

    def save(loop: Any) -> None:
        own_save(loop)
        os.write(announce, f"saved {loop.progress.step}\n".encode())

    def resume(loop: Any) -> None:
        own_resume(loop)
        os.write(announce, f"resumed {loop.progress.step}\n".encode())
        if full:
            limits = (LARGEST_FILE, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    fit._Loop.save, fit._Loop.resume = save, resume  # type: ignore[method-assign]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(folder.parent / "errors.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    code = 1
    try:
        run(load_config(None, settings(folder), task="mnist_mlp"))
        code = 0
    except UserError as error:
        code = 2 if "larger than is allowed" in str(error) else 1
    finally:
        os._exit(code)


def start(
    folder: Path, seconds: float, *, full: bool = False, within: bool = False
) -> tuple[int, list[tuple[str, int]]]:
    """The child's exit code (-9 when it was killed), and what it announced.

    ``seconds``: until it is killed, after its start or, ``within``, after its training began.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        child(folder, writing, full)
    os.close(writing)
    end, text = time.monotonic() + (60.0 if within else seconds), b""
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            os.kill(process, signal.SIGKILL)
            end = time.monotonic() + 60
            continue
        if not (some := os.read(reading, 1 << 16)):
            break
        if within and not text:
            end = time.monotonic() + seconds
        text += some
    os.close(reading)
    _, status = os.waitpid(process, 0)
    lines = [line.split() for line in text.decode().splitlines()]
    return os.waitstatus_to_exitcode(status), [(word, int(step)) for word, step in lines]


def trained(folder: Path) -> tuple[bytes, Any]:
    result = json.loads((folder / "result.json").read_text())
    return (folder / "model/model.safetensors").read_bytes(), (
        result["history"],
        result["test_metrics"],
    )


def main(base: Path, kills: int) -> dict[str, Any]:
    chance = random.Random(0)
    code, _ = start(base / "undisturbed", 300.0)
    assert code == 0
    expected = trained(base / "undisturbed")
    found = {"kills": 0, "full_disks": 0, "starts": 0, "trainings": 0, "different": 0}
    found |= {"most_saves_lost": 0, "killed_after_a_save": 0}
    last = 0  # the step whose state was announced last
    while found["kills"] < kills or not found["trainings"]:
        folder = base / f"training{found['trainings']}"
        found["starts"] += 1
        full = found["starts"] % FULL_DISK_EVERY == 0
        within = chance.random() < 0.75
        seconds = chance.uniform(0.0, WITHIN_SECONDS if within else BEFORE_SECONDS)
        if full or found["kills"] >= kills:  # a full disk ends it by itself
            seconds = 300.0
        code, said = start(folder, seconds, full=full, within=within)
        assert code in (0, 2, -signal.SIGKILL), code
        assert code != 2 or full
        assert not full or all(word != "saved" for word, _ in said), "the disk was not full"
        found["kills"] += code == -signal.SIGKILL
        found["full_disks"] += code == 2
        for word, step in said:
            if word == "resumed":
                # One state may be there of which the killed process could not speak any more.
                found["most_saves_lost"] = max(found["most_saves_lost"], last - step)
            last = step
        found["killed_after_a_save"] += code == -signal.SIGKILL and bool(last)
        if code == 0:
            found["different"] += trained(folder) != expected
            found["trainings"] += 1
            last = 0
    return found


if __name__ == "__main__":
    began = time.monotonic()
    result = main(Path(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps(result | {"seconds": round(time.monotonic() - began)}))
