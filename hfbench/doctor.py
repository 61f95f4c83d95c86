"""This machine: what it has, how fast it is, and what would be chosen on it."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import constants, get_token

from hfbench import provenance
from hfbench.calibration import calibrate
from hfbench.disk import cache_folder
from hfbench.hub_access import CONNECT_SECONDS, HubAnswer, try_hub
from hfbench.training.attention import AttentionChoice, AttentionSizes, choose_attention
from hfbench.training.company import process_state
from hfbench.training.precision import Block, PrecisionChoice, choose_for_block
from hfbench.training.threads import OMP_THREADS, ThreadChoice, choose_threads

ATTENTION = tuple(
    AttentionSizes(heads=12, head_size=64, positions=positions, bf16=bf16)
    for bf16 in (False, True)
    for positions in (64, 256)
)
BLOCKS = (Block(), Block(hidden=768, intermediate=3072, heads=12))  # a tiny network's, a base one's


@dataclass(frozen=True)
class Gpu:
    """One CUDA device."""

    name: str
    memory_bytes: int
    compute_capability: str


@dataclass(frozen=True)
class Machine:
    """What there is. None: the system does not tell."""

    platform: str
    processor: str
    cores: int | None  # that this process may use
    load: float | None  # programs that wanted to run, mean of the last minute
    memory_bytes: int | None
    torch_kernels: str  # the instruction set of PyTorch's own CPU kernels
    half_precision_instructions: list[str] | None
    gpus: tuple[Gpu, ...]
    device: str  # that a run started now would compute on


@dataclass(frozen=True)
class Speed:
    """What the device reaches in a matrix product, with the chosen threads."""

    float32_flops_per_second: float
    bf16_flops_per_second: float


@dataclass(frozen=True)
class Choices:
    """What a run of one process would be given."""

    threads: ThreadChoice
    thread_reason: str | None  # why there was nothing to measure
    precision: Mapping[int, PrecisionChoice]  # by the width of the network's blocks
    attention: Mapping[str, AttentionChoice]  # by precision and positions; none on a GPU


@dataclass(frozen=True)
class Storage:
    """Room for runs, which go below the working directory, and what is kept for later ones."""

    folder: str
    free_bytes: int
    cache_folder: str
    cache_bytes: int


@dataclass(frozen=True)
class Hub:
    """Whether the Hugging Face Hub can be used from here."""

    endpoint: str
    answer: HubAnswer
    waited_seconds: float  # at most, for it to accept a connection
    has_token: bool


@dataclass(frozen=True)
class Diagnosis:
    """Everything that ``hfbench doctor`` reports."""

    versions: Mapping[str, str | None]  # None: not installed
    machine: Machine
    speed: Speed
    choices: Choices
    storage: Storage
    hub: Hub


def diagnose() -> Diagnosis:
    """Look and measure, for some seconds. The threads of this process are then the chosen ones."""
    device = process_state().device
    machine = _machine(device)  # first: measuring adds to the load
    choices = _choices(device)
    known = provenance.versions()
    return Diagnosis(
        versions=known | {name: known.get(name) for name in provenance.PACKAGES},
        machine=machine,
        speed=_speed(device),
        choices=choices,
        storage=_storage(),
        hub=Hub(constants.ENDPOINT, try_hub(), CONNECT_SECONDS, get_token() is not None),
    )


def _machine(device: torch.device) -> Machine:
    hardware = provenance.hardware()
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return Machine(
        platform=hardware["platform"],
        processor=hardware["cpu"],
        cores=hardware["cores"],
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        memory_bytes=hardware["memory_bytes"],
        torch_kernels=torch.backends.cpu.get_cpu_capability(),
        half_precision_instructions=provenance.half_precision_instructions(),
        gpus=tuple(Gpu(p.name, p.total_memory, f"{p.major}.{p.minor}") for p in properties),
        device=device.type,
    )


def _choices(device: torch.device) -> Choices:
    """In the order of a run: the precision with all threads, then the threads."""
    precision = {block.hidden: choose_for_block(device, block) for block in BLOCKS}
    if device.type != "cpu":
        threads = ThreadChoice(torch.get_num_threads(), {})
        return Choices(threads, f"the {device.type} device computes", precision, {})
    attention = {str(sizes): choose_attention(sizes) for sizes in ATTENTION}
    threads, reason = choose_threads(), None
    if not threads.seconds:
        is_set = OMP_THREADS in os.environ
        reason = f"{OMP_THREADS} is set" if is_set else "there is no other number to try"
    return Choices(threads, reason, precision, attention)


def _speed(device: torch.device) -> Speed:
    kind: Literal["cuda", "cpu"] = "cuda" if device.type == "cuda" else "cpu"
    float32, bf16 = (
        calibrate(precision, device_type=kind).matmul_flops_per_second
        for precision in ("no", "bf16")
    )
    return Speed(float32, bf16)


def _storage() -> Storage:
    folder, cache = Path.cwd(), cache_folder("").absolute()
    files = (path for path in cache.rglob("*") if path.is_file())
    return Storage(
        folder=str(folder),
        free_bytes=shutil.disk_usage(folder).free,
        cache_folder=str(cache),
        cache_bytes=sum(path.stat().st_size for path in files),
    )
