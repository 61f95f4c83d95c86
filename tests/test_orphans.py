"""Helpers end with the process that they help; nobody has to read why a process ends."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from signalled import living, started, wait_until

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


def seconds_after_a_kill(
    command: list[str], module: str, more: dict[str, str], *, settle: float = 0.0
) -> float:
    """For which a helper lives that would not end itself; at most 15."""
    with started(command, more=more) as process:
        wait_until(lambda: any(helps(module, found) for found in living(process.pid)), process)
        time.sleep(settle)
        assert any(helps(module, found) for found in living(process.pid))
        return _lives_on(process)


def _lives_on(process: subprocess.Popen[str]) -> float:
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
        module = "hfbench.hub.worker"
        assert seconds_after_a_kill(["-c", UPLOAD], module, online, settle=4) < 10


def test_the_check_of_a_saved_model_ends_with_its_command(tmp_path: Path) -> None:
    """Also while it imports; it would then wait for a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "check")
    command = ["-c", VERIFY, str(tmp_path), str(tmp_path / "check")]
    assert seconds_after_a_kill(command, "hfbench.verification", {}) < 10


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has to run")
def test_a_helper_ends_also_where_none_of_its_threads_runs(tmp_path: Path) -> None:
    """A library's call keeps Python's lock, as reading a file of tensors does."""
    reached = tmp_path / "reached"
    (tmp_path / "held.py").write_text(
        "import ctypes, pathlib, sys\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "ctypes.PyDLL(None).sleep(60)\n"
    )
    program = "import subprocess, sys; from hfbench.orphans import helper\n"
    program += "subprocess.run(helper('held', sys.argv[1]))"
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with started(["-c", program, str(reached)], more={"PYTHONPATH": path}) as process:
        wait_until(reached.exists, process)
        time.sleep(0.5)  # from the file to the call
        assert _lives_on(process) < 10


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
