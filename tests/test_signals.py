"""A signal ends a training after its step, with a state from which the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from signalled import living, started, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

ROOT = Path(__file__).parents[1]
RECIPE = str(ROOT / "recipes/mnist_mlp.py")
SETTINGS = [
    "network.widths=[1024,1024]",
    "data.source=bundled/digits",
    "training.batch_size=32",
    "training.epochs=8",
]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--main_process_port", "0", "--config_file"]
CONFIGS = ROOT / "accelerate_configs"
LAUNCHERS = {
    "recipe": [],
    "launch 1": [*ACCELERATE, str(CONFIGS / "cpu.yaml")],
    "launch 2": [*ACCELERATE, str(CONFIGS / "multi_cpu.yaml"), "--num_processes", "2"],
    "torchrun": [*TORCHRUN, "2"],
}
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


@contextmanager
def training(how: str, folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A run in ``folder``; ``compare`` makes the run's folder in it."""
    if how == "compare":
        config = folder.parent / "config.yaml"
        config.write_text("task: mnist_mlp\nnetwork: {kind: mlp}\n")
        command = ["-m", "hfbench", "compare", *SETTINGS, *more, "--config", str(config)]
        command += ["--output", str(folder)]
    else:
        command = [*LAUNCHERS[how], RECIPE, *SETTINGS, *more, f"output_dir={folder}"]
    with started(command, more=ENVIRONMENT) as process:
        yield process


def finish(how: str, folder: Path, *more: str) -> str:
    with training(how, folder, *more) as process:
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, out + error
    return out


def result_in(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("result.json")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def trained(folder: Path) -> tuple[bytes, object]:
    """The saved weights, and every loss and metric on the way."""
    (weights,) = folder.rglob("model.safetensors")
    return weights.read_bytes(), result_in(folder)["history"]


def in_a_step(folder: Path) -> bool:
    """The first epoch has ended, and the next step takes milliseconds."""
    return any(folder.rglob("state/step-*"))


def ended_within(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """What it printed; no process of its session lives after so long."""
    patience = time.monotonic() + seconds
    while living(process.pid) and time.monotonic() < patience:
        time.sleep(0.05)
    assert living(process.pid) == []
    return process.communicate()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[bytes, object]]:
    """What the same training gives that nobody ended, by its number of processes."""
    known: dict[bool, tuple[bytes, object]] = {}

    def give(how: str) -> tuple[bytes, object]:
        two = how in ("launch 2", "torchrun")
        if two not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            finish("launch 2" if two else "recipe", folder)
            known[two] = trained(folder)
        return known[two]

    return give


SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP]
QUICK = [
    ("recipe", signal.SIGTERM),
    ("launch 2", signal.SIGTERM),
    ("compare", signal.SIGTERM),
]
SWEEP = [(how, number) for how in (*LAUNCHERS, "compare") for number in SIGNALS]


@pytest.mark.parametrize(
    ("how", "number"),
    [pytest.param(*c, marks=[] if c in QUICK else pytest.mark.slow) for c in SWEEP],
)
def test_a_signal_in_a_step_keeps_its_state_and_the_same_command_goes_on(
    how: str,
    number: int,
    tmp_path: Path,
    undisturbed: Callable[[str], tuple[bytes, object]],
) -> None:
    folder = tmp_path / "run"
    with training(how, folder) as process:
        wait_until(lambda: in_a_step(folder), process)
        process.send_signal(number)
        _, error = ended_within(process, 30)
    result = result_in(folder)
    assert result["status"] == "interrupted", result["reason"]
    assert result["reason"].endswith(f"the same command goes on after step {result['steps']}")
    if how in ("recipe", "compare"):
        name = signal.Signals(number).name
        assert process.returncode == 128 + number
        assert result["reason"].startswith(f"ended by {name};")
        by = "" if number == signal.SIGINT else f" by {name}"
        assert error.endswith(f"hfbench: interrupted{by}; the same command continues\n")
        assert "Traceback" not in error
    assert f"resumed at epoch {result['steps'] // 25}" in finish(how, folder)
    assert trained(folder) == undisturbed(how)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["launch 2", "torchrun"])
def test_a_signal_that_reaches_one_process_stops_all(how: str, tmp_path: Path) -> None:
    with training(how, tmp_path / "run") as process:
        wait_until(lambda: in_a_step(tmp_path), process)
        os.kill(max(workers(process.pid)), signal.SIGUSR1)
        ended_within(process, 30)
    assert result_in(tmp_path)["status"] == "interrupted"
    assert result_in(tmp_path)["reason"].startswith("ended by SIGUSR1;")


def workers(session: int) -> list[int]:
    """Those of a launcher's processes that run the recipe."""
    found = []
    for process in living(session):
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        if words[1] == b"-u" and words[2] == RECIPE.encode():
            found.append(process)
    return found


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Even a step that never ends; nothing but the line is printed."""
    program = """
import os, signal, sys, time
from hfbench import interrupts
from hfbench.exits import guarded
interrupts.answer_interrupts()
interrupts.ONE_PRESS_SECONDS = 0
def work():
    with interrupts.signals_wait():
        os.kill(os.getpid(), signal.SIGTERM)
        print("the step goes on", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
sys.exit(guarded(work))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "the step goes on\n")
    assert done.stderr == "hfbench: interrupted by SIGTERM\n"


@pytest.mark.parametrize(
    "how",
    [pytest.param(how, marks=pytest.mark.slow) for how in ("launch 1", "launch 2")] + ["compare"],
)
def test_no_process_outlives_a_killed_parent_by_ten_seconds(how: str, tmp_path: Path) -> None:
    with training(how, tmp_path / "run", "training.epochs=5000") as process:
        wait_until(lambda: in_a_step(tmp_path), process)
        process.kill()
        ended_within(process, 10)
    assert result_in(tmp_path)["status"] == "interrupted"


@pytest.mark.slow
def test_a_killed_server_ends_its_run_and_not_the_matrix(tmp_path: Path) -> None:
    with training("compare", tmp_path / "run", "training.epochs=200") as process:
        wait_until(lambda: in_a_step(tmp_path), process)
        (server,) = [p for p in living(process.pid) if is_server(p)]
        os.kill(server, signal.SIGKILL)
        out, _ = ended_within(process, 30)
    assert process.returncode == 1
    assert "interrupted" in out


def is_server(process: int) -> bool:
    """Its children have the same command line, and no children."""
    path = Path(f"/proc/{process}/task/{process}/children")
    words = Path(f"/proc/{process}/cmdline").read_bytes()
    return b"multiprocessing.forkserver" in words and bool(path.read_text().split())


@pytest.mark.slow
@pytest.mark.parametrize("how", [*LAUNCHERS, "compare"])
@pytest.mark.parametrize("number", SIGNALS)
def test_the_moment_of_a_signal_does_not_matter(
    how: str, number: int, tmp_path: Path, undisturbed: Callable[[str], tuple[bytes, object]]
) -> None:
    """Data, evaluations, states and the saved model: what was kept last counts."""
    folder = tmp_path / "run"
    for seconds in (4.0, 6.0, 8.0, 10.0, 12.0):
        with training(how, folder) as process:
            time.sleep(seconds)
            process.send_signal(number)
            ended_within(process, 30)
            if any(folder.rglob("result.json")):
                assert result_in(folder)["status"] in ("interrupted", "succeeded")
    finish(how, folder)
    assert trained(folder) == undisturbed(how)
