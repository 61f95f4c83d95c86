"""``hfbench doctor``: every fact has its section, for people and for programs."""

import dataclasses
import itertools
import json
import socket

import pytest
from huggingface_hub import constants

from hfbench.cli import main
from hfbench.doctor import Choices, Diagnosis, Gpu, Hub, Machine, Speed, Storage
from hfbench.hub_access import try_hub
from hfbench.report.diagnoses import diagnosis_as_json, format_diagnosis
from hfbench.training.attention import AttentionChoice
from hfbench.training.precision import PrecisionChoice
from hfbench.training.threads import ThreadChoice

DIAGNOSIS = Diagnosis(
    versions={"python": "3.12.1", "torch": "2.14.1", "timm": None},
    machine=Machine(
        platform="Linux",
        processor="A Processor",
        cores=4,
        load=0.25,
        memory_bytes=16 * 2**30,
        torch_kernels="AVX2",
        half_precision_instructions=[],
        gpus=(),
        device="cpu",
    ),
    speed=Speed(185e9, 370e9),
    choices=Choices(
        threads=ThreadChoice(4, {1: 0.004, 4: 0.0015}),
        thread_reason=None,
        precision={256: PrecisionChoice(0.0194, 0.0121, "block")},
        attention={"bfloat16, 64 positions": AttentionChoice(0.0035, 0.0012)},
    ),
    storage=Storage("/data", 100 * 2**30, "/home/a/.cache/hfbench", 3 * 2**20),
    hub=Hub("https://huggingface.co", "silent", 5.0, has_token=False),
)
EXPECTED = """\
Versions
========
python  3.12.1
torch   2.14.1
timm    not installed

Machine
=======
platform      Linux
processor     A Processor, 4 cores usable, load 0.25
instructions  PyTorch's kernels: AVX2; for bfloat16: none
memory        16.0 GiB
GPUs          none
device        cpu

Measured
========
products  185 GFLOP/s in a matrix product in float32, 370 in bfloat16, with 4
          threads

What would be chosen
====================
threads                            4: 4 ms with 1, 1.5 ms with 4, for a product
                                   as in a small transformer
mixed_precision=auto, width 256    bf16, 1.6 times as fast as float32 here (12.1
                                   against 19.4 ms a block); measured once and
                                   kept
attention, bfloat16, 64 positions  written out (1.2 ms; by PyTorch's own
                                   function 3.5 ms); measured once and kept

Storage
=======
free disk  100 GiB for runs in /data
cache      3.00 MiB in /home/a/.cache/hfbench, which may be removed

Hugging Face Hub
================
hub    https://huggingface.co does not answer within 5 s: only what is on this
       machine can be used
token  not set: private repositories and push need one
"""


def test_the_report_for_people() -> None:
    assert format_diagnosis(DIAGNOSIS) == EXPECTED


def test_the_report_for_programs_is_in_seconds_and_bytes() -> None:
    values = json.loads(diagnosis_as_json(DIAGNOSIS))
    assert list(values) == ["versions", "machine", "speed", "choices", "storage", "hub"]
    assert values["versions"]["timm"] is None
    assert values["choices"]["threads"] == {"threads": 4, "seconds": {"1": 0.004, "4": 0.0015}}
    chosen = values["choices"]["precision"]["256"]
    assert (chosen["precision"], chosen["float32_seconds"]) == ("bf16", 0.0194)
    assert chosen["gain"] == pytest.approx(1.603, abs=1e-3)
    assert values["storage"]["cache_bytes"] == 3 * 2**20
    assert values["hub"]["answer"] == "silent"


def test_a_gpu_is_described() -> None:
    gpu = Gpu("NVIDIA T4", 15 * 2**30, "7.5")
    machine = dataclasses.replace(DIAGNOSIS.machine, gpus=(gpu,), device="cuda")
    choices = dataclasses.replace(
        DIAGNOSIS.choices, threads=ThreadChoice(4, {}), thread_reason="the cuda device computes"
    )
    text = format_diagnosis(dataclasses.replace(DIAGNOSIS, machine=machine, choices=choices))
    assert "NVIDIA T4, 15.0 GiB, compute capability 7.5" in text
    assert "370 in bfloat16, on the GPU" in " ".join(text.split())
    assert "4: the cuda device computes" in text


@pytest.mark.usefixtures("own_cache")
def test_this_machine_is_diagnosed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, which is a statement and no error; the token is never shown."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    lines = EXPECTED.splitlines()
    titles = [line for line, under in itertools.pairwise(lines) if set(under) == {"="}]
    assert len(titles) == 6
    for title in titles:
        assert f"{title}\n{'=' * len(title)}\n" in text
    assert "is not asked: HF_HUB_OFFLINE is set" in text
    assert "token  set" in text

    assert main(["doctor", "--json"]) == 0
    printed = capsys.readouterr().out
    values = json.loads(printed)
    assert values["speed"]["float32_flops_per_second"] > 1e8
    assert values["storage"]["free_bytes"] > 0
    assert values["storage"]["cache_bytes"] > 0  # the two kept decisions
    assert values["hub"]["has_token"] is True
    assert "hf_secret" not in text + printed
    for choice in values["choices"]["precision"].values():
        assert choice["precision"] in ("no", "bf16")


def test_the_hub_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        assert try_hub() == "answers"
    assert try_hub() == "silent"
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.example")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert try_hub() == "not tried"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert try_hub() == "switched off"
