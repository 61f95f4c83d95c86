"""What is killed is named as that, with what its plan had predicted."""

import os
import signal
from pathlib import Path

import pytest
from result_factory import make_result
from signalled import living, started, wait_until

from hfbench.config import load_config
from hfbench.killed import killed, record_killed
from hfbench.record import STARTED, run_id
from hfbench.results import RunResult

ROOT = Path(__file__).parents[1]
KILLED = "killed (SIGKILL), perhaps by the kernel for want of memory: "
GIB = 2**30


def test_a_killed_run_has_what_was_predicted_beside_what_the_machine_has() -> None:
    predicted, machine = make_result().predicted, {"memory_bytes": 8 * GIB}
    text = f"{KILLED}the plan predicted 2 GiB, the machine has 8 GiB"
    assert killed(signal.SIGKILL, predicted, machine) == text
    text = f"{KILLED}nothing was predicted yet, the machine has 8 GiB"
    assert killed(signal.SIGKILL, None, machine) == text
    assert killed(signal.SIGKILL, None, {}) == f"{KILLED}nothing was predicted yet"
    assert killed(signal.SIGSEGV, predicted, machine) == "killed (SIGSEGV)"


@pytest.mark.parametrize("said", [STARTED, "KeyError: 'labels'"])
def test_a_reason_that_the_run_gave_itself_stays(said: str, tmp_path: Path) -> None:
    config = load_config(None, [f"output_dir={tmp_path}"])
    result = make_result(run_id=run_id(config), status="failed", reason=said)
    result.save(tmp_path / "result.json")
    (tmp_path / ".result.json.1.tmp").write_text("half")
    reason = record_killed(config, signal.SIGKILL)
    assert reason.startswith(KILLED)
    kept = RunResult.load(tmp_path / "result.json")
    assert kept.reason == (reason if said == STARTED else said)
    assert list(tmp_path.glob("*.tmp")) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_matrix_names_a_killed_run_and_goes_on(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("task: mnist_mlp\nnetwork: {widths: [256]}\ndata: {source: bundled/digits}\n")
    command = ["-m", "hfbench", "compare", "--config", str(config), "--seeds", "0,1"]
    command += ["--strategies", "scratch", "training.epochs=15", "--output", str(tmp_path / "runs")]
    with started(command) as process:
        wait_until(lambda: any(tmp_path.glob("runs/scratch_seed0/state/step-*")), process)
        (child,) = [number for number in living(process.pid) if is_run(number)]
        os.kill(child, signal.SIGKILL)
        out, error = process.communicate(timeout=120)
    assert process.returncode == 1, out + error
    first, second = (
        RunResult.load(tmp_path / f"runs/scratch_seed{seed}/result.json") for seed in (0, 1)
    )
    assert (first.status, second.status) == ("failed", "succeeded")
    assert str(first.reason).startswith(f"{KILLED}the plan predicted ")
    assert f"hfbench: error: [1/2] scratch, seed 0: {first.reason}\n" in error
    assert f"scratch, seed 0, failed: {KILLED}" in " ".join(out.split())


def is_run(process: int) -> bool:
    """A child of the server, which has the same command line; the server has children."""
    words = Path(f"/proc/{process}/cmdline").read_bytes()
    children = Path(f"/proc/{process}/task/{process}/children").read_text()
    return b"multiprocessing.forkserver" in words and not children.split()
