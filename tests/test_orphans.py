"""Helpers end with the process that they help; nobody has to read why a process ends."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from signalled import living, started

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

UPLOAD = """
from pathlib import Path
from hfbench.config import HubConfig
from hfbench.hub.client import upload
upload(HubConfig(repo_id="a/b"), {"x": Path(__import__("sys").executable)}, "")
"""
VERIFY = """
import sys
from pathlib import Path
from hfbench.verification import verify
verify(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def helps(module: str, process: int) -> bool:
    """Also while it imports."""
    return module.encode() in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")


def outlives(command: list[str], module: str, more: dict[str, str], settle: float) -> float:
    """Seconds for which a helper lives after its parent was killed; it would never end itself."""
    with started(command, more=more) as process:
        patience = time.monotonic() + 60
        while not any(helps(module, found) for found in living(process.pid)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < patience
            time.sleep(0.02)
        time.sleep(settle)
        assert any(helps(module, found) for found in living(process.pid))
        process.kill()
        killed = time.monotonic()
        while living(process.pid) and time.monotonic() < killed + 15:
            time.sleep(0.02)
        return time.monotonic() - killed


def test_an_upload_ends_with_its_command() -> None:
    """While a hub that never answers holds it."""
    with socket.create_server(("127.0.0.1", 0)) as hub:
        url = f"http://127.0.0.1:{hub.getsockname()[1]}"
        online = {"HF_ENDPOINT": url, "HF_TOKEN": "hf_x", "HF_HUB_OFFLINE": "0"}
        assert outlives(["-c", UPLOAD], "hfbench.hub.worker", online, 4.0) < 5


@pytest.mark.parametrize("settle", [0.0, 4.0])
def test_the_check_of_a_saved_model_ends_with_its_command(tmp_path: Path, settle: float) -> None:
    """While it imports, and while a pipe that nobody writes to holds it."""
    os.mkfifo(tmp_path / "check")
    command = ["-c", VERIFY, str(tmp_path), str(tmp_path / "check")]
    assert outlives(command, "hfbench.verification", {}, settle) < 5


SIGNALLED = """
import os, signal, sys, time
from hfbench import interrupts, orphans
from hfbench.exits import guarded
interrupts.answer_interrupts()
interrupts.ONE_PRESS_SECONDS, orphans.GRACE_SECONDS = 0, 0.5
def ask():
    os.kill(os.getpid(), signal.SIGTERM)
def work():
    if sys.argv[1] == "once":
        ask()
    with interrupts.signals_wait():
        if sys.argv[1] == "twice":
            ask()
            ask()
        orphans._end_when(lambda: True)
        time.sleep(60)
if sys.argv[1] == "early":
    ask()
sys.exit(guarded(work))
"""


@pytest.mark.parametrize("when", ["early", "once", "twice", "parent gone"])
def test_a_signal_ends_a_process_whose_line_nobody_reads(when: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", SIGNALLED, when]
    try:
        assert subprocess.run(command, stderr=writer, timeout=20).returncode == 143
    finally:
        os.close(writer)
