"""What a result says about code and machine."""

import platform
import subprocess
import sys
from importlib import metadata

import hfbench
from hfbench.provenance import hardware, versions


def test_versions_are_those_installed() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["hfbench"] == hfbench.__version__
    for package in ("torch", "transformers", "datasets", "accelerate", "peft"):
        assert found[package] == metadata.version(package)


def test_hardware_of_this_machine() -> None:
    found = hardware()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 2**28
    assert isinstance(found["gpus"], list)


def test_asking_for_versions_and_hardware_does_not_load_torch() -> None:
    code = (
        "import sys; from hfbench.provenance import hardware, versions; versions()\n"
        "assert hardware()['gpus'] == []\n"
        "print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
