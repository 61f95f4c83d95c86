"""A disk that takes no more is one run's reason, and other runs go on."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import overrides

from hfbench.disk import is_full
from hfbench.errors import TrainingFailedError, UserError
from hfbench.exits import guarded
from hfbench.matrix import FULL_DISK


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/some/file")


FULL = {
    "no space": os_error(errno.ENOSPC),
    "quota": os_error(errno.EDQUOT),
    "limit on files": os_error(errno.EFBIG),
    "only the text": RuntimeError("write failed: No space left on device (os error 28)"),
    "a result": raised(UserError("cannot write the result"), os_error(errno.ENOSPC)),
    "a failed training": raised(TrainingFailedError("saving"), os_error(errno.ENOSPC)),
}
OTHER = {
    "a mistake": UserError("data.source is wrong"),
    "a file in the way": os_error(errno.ENOTDIR),
    "no permission": os_error(errno.EACCES),
}


@pytest.mark.parametrize("kind", [*FULL, *OTHER])
def test_a_full_disk_has_an_exit_code_of_its_own(kind: str) -> None:
    error = (FULL | OTHER)[kind]

    def action() -> int:
        raise error

    assert is_full(error) == (kind in FULL)
    assert guarded(action, full_disk=FULL_DISK) == (FULL_DISK if kind in FULL else 2)


@pytest.mark.slow
def test_every_run_of_a_matrix_is_tried_where_the_disk_is_full(
    tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    settings = overrides(tiny_bert, texts, tmp_path, "training.epochs=1")
    settings = [text for text in settings if not text.startswith(("output_dir", "strategy"))]
    config = tmp_path / "run.yaml"
    config.write_text("task: text_classification\n")
    command = [
        *("-m", "hfbench", "compare", "--config", str(config), "--strategies", "full,last_1"),
        *("--output", str(tmp_path / "runs"), *settings),
    ]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 50 && "$0" "$@"', sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1, done.stderr
    for name in ("full_seed0", "last_1_seed0"):
        result = json.loads((tmp_path / "runs" / name / "result.json").read_text())
        assert result["status"] == "failed"
        assert "File too large" in result["reason"]
