"""Saving a trained model whole or not at all, and proving that it can be loaded again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftConfig, PeftModel
from torch import nn

from hfbench.config import ModelConfig
from hfbench.disk import sync
from hfbench.errors import UserError
from hfbench.models.bundled import resolve_checkpoint
from hfbench.models.loading import quiet
from hfbench.training.batching import Batch

MODEL_FOLDER = "model"


def save_model(
    model: nn.Module,
    save_processor: Callable[[Path], None],
    folder: Path,
    *,
    base: ModelConfig,
    check: Batch,
) -> int:
    """Write a plain Hugging Face folder (LoRA: adapter with its head) and return its bytes.

    The folder is written under another name, flushed, loaded again and compared on the batch
    ``check``, then renamed: where ``folder`` exists it is complete and loads. Weights are
    safetensors. An adapter names its ``base`` as it was given, with the revision.

    Raises:
        RuntimeError: the saved model gives other logits.
    """
    temporary = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with quiet():
        _write(model, temporary, base)
    save_processor(temporary)
    for path in temporary.rglob("*"):
        sync(path)
    check_saved(model, temporary, check)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    sync(folder.parent)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def load_model(folder: Path) -> nn.Module:
    """Load what :func:`save_model` wrote, in eval mode: a whole model, or base and adapter.

    Raises:
        UserError: ``folder`` holds no saved model.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{str(folder)!r} holds no saved model: there is no config.json in it")
    with quiet():
        return _read(folder)


def _read(folder: Path) -> nn.Module:
    config = transformers.AutoConfig.from_pretrained(folder)
    model_class = getattr(transformers, config.architectures[0])
    if not (folder / "adapter_config.json").is_file():
        model: nn.Module = model_class.from_pretrained(folder, use_safetensors=True)
        return model.eval()
    adapter = PeftConfig.from_pretrained(str(folder))
    base = model_class.from_pretrained(
        resolve_checkpoint(adapter.base_model_name_or_path),
        revision=adapter.revision,
        config=config,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
    )
    return PeftModel.from_pretrained(base, str(folder)).eval()


def check_saved(model: nn.Module, folder: Path, batch: Batch) -> None:
    """Raise RuntimeError unless the saved model gives the trained model's logits, bit for bit."""
    model.eval()
    device = next(model.parameters()).device
    on_device = {key: value.to(device) for key, value in batch.items()}
    with torch.no_grad():
        expected = model(**on_device).logits
        actual = load_model(folder).to(device)(**on_device).logits
    if not torch.equal(expected, actual):
        difference = (expected - actual).abs().max().item()
        raise RuntimeError(f"the model saved in {folder} gives other logits (by {difference:.3g})")


def _write(model: Any, folder: Path, base: ModelConfig) -> None:
    if isinstance(model, PeftModel):
        local = Path(base.checkpoint).expanduser()
        named = str(local.resolve()) if local.exists() else base.checkpoint
        model.peft_config["default"].base_model_name_or_path = named
        model.peft_config["default"].revision = base.revision
        model.save_pretrained(str(folder), save_embedding_layers=False)
        adapted: Any = model.get_base_model()
        adapted.config.architectures = [type(adapted).__name__]
        adapted.config.save_pretrained(folder)
    else:
        model.save_pretrained(folder)
