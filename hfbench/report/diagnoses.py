"""What ``hfbench doctor`` found, as text for the terminal and as JSON. Nothing is printed here."""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hfbench.report.plans import format_entries
from hfbench.report.tables import heading_line, three_digits

if TYPE_CHECKING:
    from hfbench.doctor import Choices, Diagnosis, Gpu, Hub, Machine, Speed, Storage

_GIB = 2**30
_GIGA = 1e9


def format_diagnosis(diagnosis: "Diagnosis") -> str:
    """One section for each kind of fact, in the order in which they build on each other."""
    versions = [(name, text or "not installed") for name, text in diagnosis.versions.items()]
    sections: list[tuple[str, Sequence[tuple[str, str]]]] = [
        ("Versions", versions),
        ("Machine", _machine(diagnosis.machine)),
        ("Measured", _speed(diagnosis.speed, diagnosis)),
        ("What would be chosen", _choices(diagnosis.choices)),
        ("Storage", _storage(diagnosis.storage)),
        ("Hugging Face Hub", _hub(diagnosis.hub)),
    ]
    texts = [f"{heading_line(title, 'table')}\n{format_entries(rows)}" for title, rows in sections]
    return "\n\n".join(texts) + "\n"


def diagnosis_as_json(diagnosis: "Diagnosis") -> str:
    """The same for programs; each precision choice with its outcome."""
    values = dataclasses.asdict(diagnosis)
    for width, choice in diagnosis.choices.precision.items():
        values["choices"]["precision"][width] |= {
            "precision": choice.precision,
            "gain": choice.gain,
        }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _machine(machine: "Machine") -> list[tuple[str, str]]:
    load = "" if machine.load is None else f", load {machine.load:.2f}"
    extra = machine.half_precision_instructions
    half = "not known here" if extra is None else ", ".join(extra) or "none"
    memory = "not known here" if machine.memory_bytes is None else _gib(machine.memory_bytes)
    return [
        ("platform", machine.platform),
        ("processor", f"{machine.processor}, {machine.cores or '?'} cores usable{load}"),
        ("instructions", f"PyTorch's kernels: {machine.torch_kernels}; for bfloat16: {half}"),
        ("memory", memory),
        ("GPUs", "; ".join(map(_gpu, machine.gpus)) or "none"),
        ("device", machine.device),
    ]


def _gpu(gpu: "Gpu") -> str:
    return f"{gpu.name}, {_gib(gpu.memory_bytes)}, compute capability {gpu.compute_capability}"


def _speed(speed: "Speed", diagnosis: "Diagnosis") -> list[tuple[str, str]]:
    threads = diagnosis.choices.threads.threads
    where = "on the GPU"
    if diagnosis.machine.device != "cuda":
        where = "with 1 thread" if threads == 1 else f"with {threads} threads"
    return [
        (
            "products",
            f"{speed.float32_flops_per_second / _GIGA:,.0f} GFLOP/s in a matrix product in "
            f"float32, {speed.bf16_flops_per_second / _GIGA:,.0f} in bfloat16, {where}",
        )
    ]


def _choices(choices: "Choices") -> list[tuple[str, str]]:
    threads = choices.threads
    measured = ", ".join(
        f"{1e3 * seconds:.3g} ms with {count}" for count, seconds in threads.seconds.items()
    )
    why = choices.thread_reason or f"{measured}, for a product as in a small transformer"
    return [
        ("threads", f"{threads.threads}: {why}"),
        *(
            (
                f"mixed_precision=auto, width {width}",
                f"{choice}; measured once and kept",
            )
            for width, choice in choices.precision.items()
        ),
        *(
            (f"attention, {sizes}", f"{choice}; measured once and kept")
            for sizes, choice in choices.attention.items()
        ),
    ]


def _storage(storage: "Storage") -> list[tuple[str, str]]:
    kept = three_digits(storage.cache_bytes / 2**20)
    return [
        ("free disk", f"{_gib(storage.free_bytes)} for runs in {storage.folder}"),
        ("cache", f"{kept} MiB in {storage.cache_folder}, which may be removed"),
    ]


def _hub(hub: "Hub") -> list[tuple[str, str]]:
    answers = {
        "answers": "answers",
        "silent": f"does not answer within {hub.waited_seconds:g} s: only what is on this machine "
        "can be used",
        "switched off": "is not asked: HF_HUB_OFFLINE is set",
        "not tried": "is behind a proxy and was not tried",
    }
    return [
        ("hub", f"{hub.endpoint} {answers[hub.answer]}"),
        ("token", "set" if hub.has_token else "not set: private repositories and push need one"),
    ]


def _gib(size_bytes: int) -> str:
    return f"{three_digits(size_bytes / _GIB)} GiB"
