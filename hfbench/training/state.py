"""The whole state of a training in one folder: written whole or not at all, checked, read safely.

A state holds the trainable parameters and buffers, the optimiser, the schedule, the loss scaler,
the position in the data, the history and every random generator of every process. Nothing is
unpickled beyond tensors and plain values (``weights_only=True``). The parameters of the best
evaluation lie beside the states. Both are folders with a manifest, and the last two of each are
kept: a damaged one is named, and the training goes on from the one before.
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

from hfbench import manifest
from hfbench.disk import sync
from hfbench.errors import TrainingFailedError, UserError
from hfbench.manifest import DamagedError
from hfbench.training.company import meet, told_by_main

STATE = "state"  # folders within a run: of the states,
BEST = "best"  # and of the best evaluations' parameters
KEPT = 2  # of each, so that one that turns out to be damaged is not the last
_PREFIX = "step-"
_PARTIAL = ".partial-"
_WEIGHTS = "model.safetensors"


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
    out_of_time: bool = False  # training.max_minutes ended it before its last step
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


def save_best(folder: Path, model: nn.Module, *, owner: str, step: int) -> None:
    """Keep :func:`trainable_tensors` as those of the best evaluation so far, after ``step``."""
    final = _best_folder(folder, step)
    temporary = _new_folder(final)
    _save_tensors(model, temporary / _WEIGHTS)
    _publish(temporary, final, owner)


def load_best(folder: Path, model: nn.Module, *, owner: str, step: int) -> None:
    """Put the parameters of the best evaluation into the model.

    Raises TrainingFailedError where they are damaged: the same command then trains again.
    """
    try:
        best = _check_best(folder, step, owner)
    except DamagedError as error:
        raise TrainingFailedError(
            f"the best epoch's parameters were damaged after they were written: {error}. The same "
            "command goes on from what is whole"
        ) from error
    _load_tensors(model, best / _WEIGHTS)


def save_state(
    folder: Path,
    accelerator: Accelerator,
    model: nn.Module,
    parts: dict[str, Any],
    progress: dict[str, Any],
    *,
    owner: str,
) -> None:
    """Write a state for ``progress``; older ones go only when the new one is whole.

    Args:
        folder: the run's.
        parts: objects with ``state_dict()`` (optimiser, schedule, scaler), by name.
        progress: plain JSON values.
        owner: the run that may go on from it.
    """
    name = f"{_PREFIX}{progress['step']:09d}-epoch-{progress['epoch']:06d}"
    final = folder / STATE / name
    temporary = final.with_name(f"{_PARTIAL}{name}")
    if accelerator.is_main_process:
        _new_folder(final)
    meet()
    _save(_random_state(), temporary / f"random-{accelerator.process_index}.pt")
    if accelerator.is_main_process:
        _save_tensors(accelerator.unwrap_model(model), temporary / _WEIGHTS)
        _save({name: part.state_dict() for name, part in parts.items()}, temporary / "parts.pt")
        (temporary / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
    meet()
    if accelerator.is_main_process:
        _publish(temporary, final, owner)
        for kind in (STATE, BEST):
            for older in _kept(folder / kind)[:-KEPT]:
                shutil.rmtree(older)
    meet()


def load_state(
    folder: Path, accelerator: Accelerator, model: nn.Module, parts: dict[str, Any], *, owner: str
) -> dict[str, Any] | None:
    """Restore the newest whole state of a run and return its progress; None when there is none.

    What is damaged is said. Raises UserError for a state of another run, or of another number of
    processes.
    """
    newest, refusal = None, None
    if accelerator.is_main_process:
        newest, refusal = _newest_whole(folder, owner)
        if newest is not None:
            _drop_newer(folder, newest)
    newest, refusal = told_by_main((newest, refusal))
    if refusal is not None:
        raise UserError(refusal)
    if newest is None:
        return None
    written_by = len(list(newest.glob("random-*.pt")))
    if written_by != accelerator.num_processes:
        raise UserError(
            f"the state in {str(newest)!r} was written by {written_by} processes and this run has "
            f"{accelerator.num_processes}: start as many, or set training.resume=never"
        )
    _load_tensors(accelerator.unwrap_model(model), newest / _WEIGHTS)
    stored = torch.load(newest / "parts.pt", weights_only=True, map_location="cpu")
    for name, part in parts.items():
        part.load_state_dict(stored[name])
    random_file = newest / f"random-{accelerator.process_index}.pt"
    _restore_random_state(torch.load(random_file, weights_only=True))
    return _progress(newest)


def has_state(folder: Path) -> bool:
    """Whether a run may go on in ``folder``."""
    return bool(_kept(folder / STATE))


def last_step(folder: Path) -> int | None:
    """After which step the newest state of the run in ``folder`` was kept."""
    kept = _kept(folder / STATE)
    return _step_of(kept[-1]) if kept else None


def clear(folder: Path, accelerator: Accelerator) -> None:
    """Remove what an earlier training left in ``folder``: its states and its best parameters."""
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        for kind in (STATE, BEST):
            inside = folder / kind
            if inside.is_dir() and not inside.is_symlink():
                for path in (*inside.glob(f"{_PREFIX}*"), *inside.glob(f"{_PARTIAL}{_PREFIX}*")):
                    shutil.rmtree(path)
                if not any(inside.iterdir()):  # what else is there is not ours
                    inside.rmdir()
    meet()


def _newest_whole(folder: Path, owner: str) -> tuple[Path | None, str | None]:
    """The newest state that is whole, its best parameters too; and why none may be used."""
    for state in reversed(_kept(folder / STATE)):
        try:
            of = manifest.check(state)["run"]
            best = _progress(state)["best_step"] if of == owner else None
            if best is not None:
                _check_best(folder, best, owner)
        except DamagedError as error:
            print(f"a state is damaged and not used: {error}")
            continue
        if of != owner:
            return None, (
                f"{str(state)!r} is the state of another run ({of}): choose another output_dir, or "
                "remove that folder"
            )
        return state, None
    return None, None


def _check_best(folder: Path, step: int, owner: str) -> Path:
    """The whole parameters of this run's best evaluation, after ``step``."""
    best = _best_folder(folder, step)
    of = manifest.check(best)["run"]
    if of != owner:
        raise DamagedError(f"{str(best)!r} is of another run ({of})")
    return best


def _drop_newer(folder: Path, state: Path) -> None:
    """Remove what is newer than the state from which the training goes on: damaged, or to come."""
    for newer in _kept(folder / STATE):
        if newer.name > state.name:
            shutil.rmtree(newer)
    for newer in _kept(folder / BEST):
        if _step_of(newer) > _step_of(state):
            shutil.rmtree(newer)


def _step_of(kept: Path) -> int:
    return int(kept.name.removeprefix(_PREFIX).partition("-")[0])


def _progress(state: Path) -> dict[str, Any]:
    progress: dict[str, Any] = json.loads((state / "progress.json").read_text(encoding="utf-8"))
    return progress


def _best_folder(folder: Path, step: int) -> Path:
    return folder / BEST / f"{_PREFIX}{step:09d}"


def _new_folder(final: Path) -> Path:
    """An empty one under a temporary name beside ``final``."""
    temporary = final.with_name(f"{_PARTIAL}{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def _publish(temporary: Path, final: Path, owner: str) -> None:
    """Give a folder its manifest, then its name; one of that name goes."""
    manifest.seal(temporary, {"run": owner})
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    sync(final.parent)


def _kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def _save_tensors(model: nn.Module, path: Path) -> None:
    tensors = {name: tensor.cpu().contiguous() for name, tensor in trainable_tensors(model).items()}
    save_file(tensors, path)


def _load_tensors(model: nn.Module, path: Path) -> None:
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


def _save(values: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # PyTorch's own writer hides why it failed, e.g. a full disk
        torch.save(values, file)


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
