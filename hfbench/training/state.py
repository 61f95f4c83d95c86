"""The whole state of a training in one folder: written whole or not at all, read safely.

A state holds the trainable parameters and buffers, the optimiser, the schedule, the loss scaler,
the position in the data, the history and every random generator of every process. Nothing is
unpickled beyond tensors and plain values (``weights_only=True``).
"""

import json
import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hfbench.disk import sync
from hfbench.errors import UserError

STATE = "state"  # folder of the states within a run
_PREFIX = "step-"


@dataclass
class Progress:
    """The position in the training: plain values, stored with every state."""

    epoch: int = 0
    batches_done: int = 0  # within the epoch
    step: int = 0
    samples_seen: int = 0
    train_seconds: float = 0.0
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    peak_memory_bytes: int | None = None
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    epoch_loss_sum: float = 0.0
    epoch_units: float = 0.0


def trainable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training can change: trainable parameters and persistent buffers, by name."""
    tensors = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    persistent = model.state_dict(keep_vars=True)
    tensors.update({n: b.detach() for n, b in model.named_buffers() if n in persistent})
    return tensors


def save_tensors(model: nn.Module, path: Path) -> None:
    """Write :func:`trainable_tensors` to a safetensors file, atomically."""
    temporary = path.with_name(f".{path.name}.partial")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in trainable_tensors(model).items()}
    save_file(tensors, temporary)
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def load_tensors(model: nn.Module, path: Path) -> None:
    """Copy the tensors of ``path`` into ``model``; the names must be exactly the trainable ones."""
    target, source = trainable_tensors(model), load_file(path)
    if target.keys() != source.keys():
        different = sorted(target.keys() ^ source.keys())
        raise UserError(
            f"{str(path)!r} was written by another model or strategy: {different[:3]} differ; "
            "choose another output_dir or training.resume=never"
        )
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])


def save_state(
    folder: Path,
    accelerator: Accelerator,
    model: nn.Module,
    parts: dict[str, Any],
    progress: dict[str, Any],
) -> None:
    """Write a state for ``progress``; older states go only when the new one is whole.

    Args:
        parts: objects with ``state_dict()`` (optimiser, schedule, scaler), by name.
        progress: plain JSON values.
    """
    final = folder / f"{_PREFIX}{progress['step']:09d}-epoch-{progress['epoch']:06d}"
    temporary = folder / f".partial-{final.name}"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    _save(_random_state(), temporary / f"random-{accelerator.process_index}.pt")
    if accelerator.is_main_process:
        save_tensors(accelerator.unwrap_model(model), temporary / "model.safetensors")
        _save({name: part.state_dict() for name, part in parts.items()}, temporary / "parts.pt")
        (temporary / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for path in temporary.iterdir():
            sync(path)
        os.replace(temporary, final)
        sync(folder)
        for older in _states(folder)[:-1]:
            shutil.rmtree(older)


def load_state(
    folder: Path, accelerator: Accelerator, model: nn.Module, parts: dict[str, Any]
) -> dict[str, Any] | None:
    """Restore the newest state of ``folder`` and return its progress; None when there is none."""
    states = _states(folder)
    if not states:
        return None
    newest = states[-1]
    progress: dict[str, Any] = json.loads((newest / "progress.json").read_text(encoding="utf-8"))
    written_by = len(list(newest.glob("random-*.pt")))
    if written_by != accelerator.num_processes:
        raise UserError(
            f"the state in {str(newest)!r} was written by {written_by} processes and this run has "
            f"{accelerator.num_processes}: start as many, or set training.resume=never"
        )
    load_tensors(accelerator.unwrap_model(model), newest / "model.safetensors")
    stored = torch.load(newest / "parts.pt", weights_only=True, map_location="cpu")
    for name, part in parts.items():
        part.load_state_dict(stored[name])
    random_file = newest / f"random-{accelerator.process_index}.pt"
    _restore_random_state(torch.load(random_file, weights_only=True))
    return progress


def clear(folder: Path, accelerator: Accelerator) -> None:
    """Remove what an earlier training left in ``folder``: its states and its best parameters."""
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / STATE, ignore_errors=True)
        drop_older_best(folder, None)
    accelerator.wait_for_everyone()


def best_file(folder: Path, step: int) -> Path:
    """Where the trainable tensors of the best evaluation, after ``step``, are kept."""
    return folder / f"best-{step:09d}.safetensors"


def drop_older_best(folder: Path, step: int | None) -> None:
    """Remove the tensors of evaluations that are not, or no longer, the best."""
    for path in folder.glob("best-*.safetensors"):
        if step is None or path != best_file(folder, step):
            path.unlink()


def _save(values: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # PyTorch's own writer hides why it failed, e.g. a full disk
        torch.save(values, file)


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*"))


def _random_state() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
