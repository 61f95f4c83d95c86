"""A signal ends a training after its step, with a state from which the same command goes on."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from signalled import living, started, wait_until

from hfbench.processes import lives

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

ROOT = Path(__file__).parents[1]
RECIPE = str(ROOT / "recipes/mnist_mlp.py")
SETTINGS = [
    "network.widths=[1024,1024]",
    "data.source=bundled/digits",
    "training.batch_size=32",
    "training.epochs=4",
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
def training(
    how: str, folder: Path, *more: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A run in ``folder``; ``compare`` makes the run's folder in it."""
    if how == "compare":
        config = folder.parent / "config.yaml"
        config.write_text("task: mnist_mlp\nnetwork: {kind: mlp}\n")
        command = ["-m", "hfbench", "compare", *SETTINGS, *more, "--config", str(config)]
        command += ["--output", str(folder)]
    else:
        command = [*LAUNCHERS[how], RECIPE, *SETTINGS, *more, f"output_dir={folder}"]
    with started(command, more=ENVIRONMENT | dict(environment or {})) as process:
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


def ended_within(process: subprocess.Popen[str], folder: Path, seconds: float) -> tuple[str, str]:
    """What it printed; no process that it started lives after so long."""
    patience = time.monotonic() + seconds
    while at_work(process, folder) and time.monotonic() < patience:
        time.sleep(0.05)
    assert at_work(process, folder) == []
    return process.communicate()


def at_work(process: subprocess.Popen[str], folder: Path) -> list[int]:
    """Those of its session, and the workers of a launcher, which have sessions of their own."""
    return sorted({*living(process.pid), *workers(folder)})


def workers(folder: Path) -> list[int]:
    """The processes that run the recipe in ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            words = path.read_bytes().split(b"\0")
            if RECIPE.encode() in words and f"output_dir={folder}".encode() in words:
                found.append(int(path.parent.name))
    return [number for number in found if lives(number)]


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


MOMENTS = {  # before which call of which function a signal comes
    "step": ("hfbench.training.fit", "check_loss", "30"),  # in the second epoch
    "evaluation": ("hfbench.scoring", "predict_split", "2"),
    "state": ("hfbench.training.state", "_publish", "4"),  # each state comes after its best
    "model": ("hfbench.run", "save_model", "1"),
}


def held(moment: str, reached: Path) -> dict[str, str]:
    """The environment in which the main process waits at a moment, once ``reached`` is there."""
    site = reached.with_name("site")
    site.mkdir()
    shutil.copy(Path(__file__).with_name("held_moments.py"), site / "sitecustomize.py")
    module, function, call = MOMENTS[moment]
    return {
        "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
        "HELD_MODULE": module,
        "HELD_FUNCTION": function,
        "HELD_CALL": call,
        "HELD_FILE": str(reached),
    }


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
    folder, reached = tmp_path / "run", tmp_path / "reached"
    with training(how, folder, environment=held("step", reached)) as process:
        wait_until(reached.exists, process)
        process.send_signal(number)
        _, error = ended_within(process, folder, 30)
    result = result_in(folder)
    assert result["status"] == "interrupted", result["reason"]
    assert 30 <= result["steps"] <= 32
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
    folder = tmp_path / "run"
    with training(how, folder) as process:
        wait_until(lambda: in_a_step(tmp_path), process)
        # The launcher has the words of its workers too, and was there before them.
        os.kill(max(workers(folder)), signal.SIGUSR1)
        ended_within(process, folder, 30)
    assert result_in(tmp_path)["status"] == "interrupted"
    assert result_in(tmp_path)["reason"].startswith("ended by SIGUSR1;")


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
    folder = tmp_path / "run"
    with training(how, folder, "training.epochs=5000") as process:
        wait_until(lambda: in_a_step(tmp_path), process)
        process.kill()
        ended_within(process, folder, 10)
    assert result_in(tmp_path)["status"] == "interrupted"


@pytest.mark.slow
def test_a_killed_server_ends_its_run_and_not_the_matrix(tmp_path: Path) -> None:
    with training("compare", tmp_path / "run", "training.epochs=200") as process:
        wait_until(lambda: in_a_step(tmp_path), process)
        (server,) = [p for p in living(process.pid) if is_server(p)]
        os.kill(server, signal.SIGKILL)
        out, _ = ended_within(process, tmp_path / "run", 30)
    assert process.returncode == 1
    assert "interrupted" in out


def is_server(process: int) -> bool:
    """Its children have the same command line, and no children."""
    path = Path(f"/proc/{process}/task/{process}/children")
    words = Path(f"/proc/{process}/cmdline").read_bytes()
    return b"multiprocessing.forkserver" in words and bool(path.read_text().split())


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("main", [True, False])
def test_a_signal_that_reaches_one_process_at_other_moments_stops_all(
    main: bool, moment: str, tmp_path: Path
) -> None:
    """The others learn its number, and do not take a connection that it closes for a failure."""
    folder, reached = tmp_path / "run", tmp_path / "reached"
    with training("launch 2", folder, environment=held(moment, reached)) as process:
        wait_until(reached.exists, process)
        _, first, second = sorted(workers(folder))  # after their launcher
        os.kill(first if main else second, signal.SIGUSR1)
        _, error = ended_within(process, folder, 15)
    result = result_in(folder)
    assert (result["status"], result["failure"]) == ("interrupted", None), result["reason"]
    assert result["reason"].startswith("ended by SIGUSR1;")
    assert "hfbench: interrupted by SIGUSR1; the same command continues" in error
    finish("launch 2", folder)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment != "step"])
@pytest.mark.parametrize("how", [*LAUNCHERS, "compare"])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_other_moments_keeps_what_was_kept_last(
    how: str,
    number: int,
    moment: str,
    tmp_path: Path,
    undisturbed: Callable[[str], tuple[bytes, object]],
) -> None:
    folder, reached = tmp_path / "run", tmp_path / "reached"
    with training(how, folder, environment=held(moment, reached)) as process:
        wait_until(reached.exists, process)
        process.send_signal(number)
        _, error = ended_within(process, folder, 30)
    result = result_in(folder)
    assert result["status"] == "interrupted", result["reason"]
    kept = {"evaluation": 25, "state": 50, "model": 100}[moment]
    assert result["reason"].endswith(f"the same command goes on after step {kept}")
    if how in ("recipe", "compare"):
        assert process.returncode == 128 + number, error
    out = finish(how, folder)
    if moment != "model":
        assert f"resumed at epoch {kept // 25}, step {kept}" in out
    assert trained(folder) == undisturbed(how)
    assert not any(folder.rglob(".*partial*"))
    assert not any(folder.rglob("*.tmp"))
