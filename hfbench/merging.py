"""An adapter merged into its base: one plain model without PEFT."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn

from hfbench.config import ModelConfig
from hfbench.saving import MODEL_FOLDER, load_model, save_model
from hfbench.verification import CHECK_FILE, SAME_MACHINE_TOLERANCE, check_inputs

MERGING_TOLERANCE = 1e-3  # of the greatest logit: (W + BA)x rounds otherwise than Wx + B(Ax)
_OF_THE_MODEL = ("adapter_config.json", "config.json", "README.md")


def merge(run_folder: Path, target: Path, written: Iterable[str]) -> Path:
    """Save the run's adapter merged into its base as a plain model in ``target``.

    ``written``: names of the files that the run saved in its model's folder; of others there
    nothing is copied.

    Raises:
        RuntimeError: the merged model gives other logits than base and adapter.
    """
    source = run_folder / MODEL_FOLDER
    batch = check_inputs(run_folder / CHECK_FILE)
    adapted = load_model(source)
    assert isinstance(adapted, PeftModel)
    with torch.no_grad():
        expected = adapted(**batch).logits
        merged = adapted.merge_and_unload()
        merged_logits = merged(**batch).logits
        difference = (merged_logits - expected).abs().max()
    if not difference <= MERGING_TOLERANCE * expected.abs().max():
        raise RuntimeError(f"merging the adapter {source} changes the logits by {difference:.3g}")

    def copy_processor(folder: Path) -> None:
        for name in written:
            if name not in _OF_THE_MODEL and not name.endswith(".safetensors"):
                shutil.copy(source / name, folder / name)

    def check(loaded: nn.Module) -> None:
        with torch.no_grad():
            off = (loaded(**batch).logits - merged_logits).abs().max()
        if not off <= SAME_MACHINE_TOLERANCE * merged_logits.abs().max():
            raise RuntimeError(f"merged and saved, {source} gives other logits (by {off:.3g})")

    save_model(merged, copy_processor, target, base=ModelConfig(), check=check)
    return target
