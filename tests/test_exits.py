"""Ctrl-C at any moment ends a command with 130 and one line, whoever gets the signal."""

import os
import re
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from signalled import living, started, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

RECIPES = Path(__file__).parents[1] / "recipes"
DEMO = str(RECIPES / "configs/demo_text.yaml")
COMPARE = ["-m", "hfbench", "compare", "--config", DEMO, "--strategies", "full", "--output"]
RECIPE = [str(RECIPES / "text_classification.py"), "--config", DEMO]
LINE = r"hfbench: interrupted(; the same command continues)?\n"


def assert_interrupted(process: subprocess.Popen[str]) -> None:
    _, error = process.communicate(timeout=60)
    lines = [line for line in error.splitlines(True) if not line.startswith("... ")]
    assert re.fullmatch(LINE, "".join(lines)), error
    assert process.returncode == 130
    patience = time.monotonic() + 20  # multiprocessing's tracker ends when it sees that others have
    while living(process.pid) and time.monotonic() < patience:
        time.sleep(0.05)
    assert living(process.pid) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "hfbench", "params", "bundled/bert-tiny"],
        ["-m", "hfbench", "compare", "--config", DEMO],
        RECIPE,
        [str(RECIPES / "depth_study.py")],
    ],
)
def test_an_interrupt_is_answered_before_anything_is_imported(arguments: list[str]) -> None:
    with started(arguments, blocked=True) as process:
        os.kill(process.pid, signal.SIGINT)
        assert_interrupted(process)


@pytest.mark.parametrize("send", [os.killpg, os.kill])
def test_an_interrupt_ends_a_matrix_and_the_server_that_loads_its_libraries(
    send: Callable[[int, int], None], tmp_path: Path
) -> None:
    """A terminal tells every process of the group; others may tell the parent alone."""
    with started([*COMPARE, str(tmp_path)]) as process:
        wait_until(lambda: len(living(process.pid)) >= 3, process)  # with multiprocessing's tracker
        send(process.pid, signal.SIGINT)
        assert_interrupted(process)


@pytest.mark.slow
@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize("send", [os.killpg, os.kill])
@pytest.mark.parametrize("command", ["compare", "recipe"])
def test_an_interrupt_ends_a_training(
    command: str, send: Callable[[int, int], None], presses: int, tmp_path: Path
) -> None:
    arguments = [*COMPARE, str(tmp_path)]
    if command == "recipe":
        arguments = [*RECIPE, f"output_dir={tmp_path / 'run'}", "training.epochs=50"]
    with started(arguments) as process:
        wait_until(lambda: any(tmp_path.rglob("result.json")), process)
        send(process.pid, signal.SIGINT)
        for _ in range(presses - 1):
            time.sleep(1.1)
            if process.poll() is None:
                send(process.pid, signal.SIGINT)
        assert_interrupted(process)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 1, 1.5, 2, 3, 4, 6, 8, 10])
@pytest.mark.parametrize("command", ["params", "predict", "compare", "recipe"])
def test_the_moment_does_not_matter(command: str, seconds: float, tmp_path: Path) -> None:
    arguments = {
        "params": ["-m", "hfbench", "params", "bundled/bert-tiny"],
        "predict": ["-m", "hfbench", "predict", "/nowhere", "a text"],
        "compare": [*COMPARE, str(tmp_path)],
        "recipe": [*RECIPE, f"output_dir={tmp_path / 'run'}"],
    }[command]
    with started(arguments) as process:
        time.sleep(seconds)
        if process.poll() is not None:
            pytest.skip(f"{command} takes less than {seconds} seconds here")
        os.killpg(process.pid, signal.SIGINT)
        assert_interrupted(process)


def own_process(code: str) -> subprocess.CompletedProcess[str]:
    """What happens in a process that answers interrupts; ``press`` sends one to itself."""
    start = """
    import os, signal, sys, time
    from hfbench import interrupts
    def press():
        os.kill(os.getpid(), signal.SIGINT)
    """
    program = textwrap.dedent(start) + textwrap.dedent(code)
    with started(["-c", program]) as process:
        out, error = process.communicate(timeout=60)
    return subprocess.CompletedProcess(program, process.returncode, out, error)


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        # before the work, and after it
        ("interrupts.answer_interrupts(); press(); print('went on')", ""),
        # within the work: what is open is put away
        (
            """
            from hfbench.exits import guarded
            interrupts.answer_interrupts()
            def work():
                try:
                    press()
                    time.sleep(60)
                finally:
                    print("put away")
            sys.exit(guarded(work))
            """,
            "put away\n",
        ),
        # a second press does not wait for that
        (
            """
            from hfbench.exits import guarded
            interrupts.answer_interrupts()
            interrupts.ONE_PRESS_SECONDS = 0
            def work():
                try:
                    press()
                finally:
                    press()
                    print("put away")
            sys.exit(guarded(work))
            """,
            "",
        ),
        # where Python would drop the exception
        (
            """
            from hfbench.exits import guarded
            interrupts.answer_interrupts()
            class Holder:
                def __del__(self):
                    press()
                    time.sleep(60)
            def work():
                Holder()
                print("went on")
                return 0
            sys.exit(guarded(work))
            """,
            "",
        ),
        # while a library is imported, whatever that would make of an exception
        (
            """
            from hfbench.exits import guarded
            interrupts.answer_interrupts()
            class Finder:
                def find_spec(self, name, path=None, target=None):
                    try:
                        press()
                    except BaseException:
                        pass
            sys.meta_path.insert(0, Finder())
            def work():
                import wave
                return 0
            sys.exit(guarded(work))
            """,
            "",
        ),
    ],
)
def test_every_interrupt_ends_the_process(code: str, printed: str) -> None:
    done = own_process(code)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "hfbench: interrupted\n"
    assert done.stdout == printed


def test_one_press_that_arrives_twice_is_one() -> None:
    done = own_process(
        """
        from hfbench.exits import guarded
        interrupts.answer_interrupts()
        def work():
            try:
                press()
            finally:
                press()
                print("put away")
        sys.exit(guarded(work))
        """
    )
    assert (done.returncode, done.stdout) == (130, "put away\n")


def test_a_process_that_must_ignore_interrupts_goes_on() -> None:
    done = own_process(
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupts.answer_interrupts()
        press()
        print("went on")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_a_forked_worker_of_a_library_says_nothing() -> None:
    done = own_process(
        """
        interrupts.answer_interrupts()
        worker = os.fork()
        if not worker:
            try:
                press()
                time.sleep(60)
            except KeyboardInterrupt:
                os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")


def test_only_the_main_process_of_several_speaks() -> None:
    done = own_process(
        "os.environ['RANK'] = '1'; interrupts.answer_interrupts(); press(); time.sleep(60)"
    )
    assert (done.returncode, done.stderr) == (130, "")
