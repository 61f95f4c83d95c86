"""Saving a trained model whole or not at all, and proving that it can be loaded again."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import nn

from hfbench.config import ModelConfig
from hfbench.disk import sync
from hfbench.errors import UserError
from hfbench.models.adapted import load_model as load_checkpoint
from hfbench.models.adapter_files import adapter_base, is_adapter, require_weights
from hfbench.models.loading import hub_commit, load_config, quiet, weights_name
from hfbench.models.network import ScratchNetwork, is_network_folder
from hfbench.models.structure import find_structure, is_duplicate
from hfbench.models.weights import ANYTHING
from hfbench.quantization import NF4, block_linears, quantize, require_bitsandbytes

MODEL_FOLDER = "model"


def save_model(
    model: nn.Module,
    save_processor: Callable[[Path], None],
    folder: Path,
    *,
    base: ModelConfig,
    check: Callable[[nn.Module], None],
) -> int:
    """Write a plain Hugging Face folder (LoRA: adapter with its head) and return its bytes.

    The folder is written under another name, flushed, loaded again, compared and given to
    ``check``, then renamed: where ``folder`` exists it is complete and loads. Weights are
    safetensors. An adapter names its ``base`` as it was given, and its commit on the hub.

    Raises:
        RuntimeError: the saved model has other tensors, or what ``check`` raises.
    """
    temporary = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with quiet():
            _write(model, temporary, base)
        save_processor(temporary)
        for path in temporary.rglob("*"):
            sync(path)
        loaded = load_model(temporary).to(next(model.parameters()).device)
        check_tensors(model, loaded)
        check(loaded)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(folder.parent)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def load_model(folder: Path) -> nn.Module:
    """Load what :func:`save_model` wrote, in eval mode: a whole model, or base and adapter.

    Everything is float32, as in training.

    Raises:
        UserError: ``folder`` holds no saved model, no safetensors, or not every trained weight.
        HubUnreachableError: the adapter's base is on the hub, which does not answer.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{str(folder)!r} holds no saved model: there is no config.json in it")
    if is_network_folder(folder):
        return ScratchNetwork.from_pretrained(folder)
    source = ModelConfig(checkpoint=str(folder))
    config: Any = load_config(source)
    model_class = getattr(transformers, config.architectures[0])
    if is_adapter(folder):
        return _read_adapter(folder, config, model_class).eval()
    loaded = load_checkpoint(source, config, model_class)
    if loaded.new_parameters:
        names = ", ".join(sorted(loaded.new_parameters))
        raise UserError(f"{str(folder)!r} lacks trained weights: {names}")
    return loaded.model.eval()


def _read_adapter(folder: Path, config: Any, model_class: Any) -> nn.Module:
    """Base and adapter; what the base lacks (its head) must be in the adapter."""
    from peft import PeftModel

    file_name = require_weights(folder)
    source = adapter_base(folder)
    # What may be missing is known below: it is what the adapter has.
    loaded = load_checkpoint(replace(source, allow_new=(ANYTHING,)), config, model_class)
    base = loaded.model
    with safe_open(file_name, "pt") as file:
        stored = {key.removeprefix("base_model.model.") for key in file.keys()}  # noqa: SIM118
    if missing := loaded.new_parameters - stored:
        raise UserError(
            f"the adapter {str(folder)!r} lacks trained weights that its base "
            f"{source.label!r} lacks too: {', '.join(sorted(missing))}"
        )
    packed: list[str] = []
    if getattr(config, "base_weights", None) == NF4:
        require_bitsandbytes()
        packed = block_linears(base, find_structure(base))
    with quiet():
        adapted: nn.Module = PeftModel.from_pretrained(base, str(folder))
    if packed:
        quantize(adapted, packed)
    return adapted


def check_tensors(model: nn.Module, loaded: nn.Module) -> None:
    """Raise RuntimeError unless the loaded model has the trained one's tensors, bit for bit.

    PEFT's copies of saved heads, which nothing reads, do not count.
    """
    expected, found = model.state_dict(), loaded.state_dict()
    names = sorted(
        name
        for name in expected.keys() | found.keys()
        if not is_duplicate(name)
        and not (name in expected and name in found and _same(expected[name], found[name]))
    )
    if names:
        raise RuntimeError(
            f"the saved model has other tensors than the trained one: {', '.join(names[:5])}"
            + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        )


def _same(one: Any, other: Any) -> bool:
    """Bit for bit, also of NaN; of what is no tensor (how bitsandbytes packs), by its values."""
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return bool(one == other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return (
        torch.equal(*(tensor.contiguous().view(torch.uint8) for tensor in (one, other)))
        if one.ndim
        else bool(one == other)
    )


def _write(model: Any, folder: Path, base: ModelConfig) -> None:
    if hasattr(model, "peft_config"):
        local = Path(base.checkpoint).expanduser()
        named = str(local.resolve()) if local.exists() else weights_name(base)
        model.peft_config["default"].base_model_name_or_path = named
        adapted: Any = model.get_base_model()
        model.peft_config["default"].revision = hub_commit(base) or base.revision
        model.save_pretrained(str(folder), save_embedding_layers=False)
        adapted.config.architectures = [type(adapted).__name__]
        adapted.config.save_pretrained(folder)
    else:
        model.save_pretrained(folder)
