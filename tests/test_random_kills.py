"""SIGKILL at random moments and a full disk now and then: no state that was saved is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("random_kills.py")


@pytest.mark.skipif(os.name != "posix", reason="needs fork")
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("kills", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_a_training_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    kills: int, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(kills)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    errors = tmp_path / "errors.txt"
    assert done.returncode == 0, done.stderr + (errors.read_text() if errors.exists() else "")
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= kills
    assert found["trainings"] > 0
    assert found["different"] == 0
    assert found["most_saves_lost"] <= 0
    if kills > 100:
        assert found["full_disks"] > 5
        assert found["killed_after_a_save"] > 50
