"""A checkpoint that is an adapter of another one (PEFT): both become one plain network."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from hfbench.config import ModelConfig
from hfbench.errors import UserError
from hfbench.models import loading
from hfbench.models.adapter_files import adapter_base, is_adapter, read_adapter, require_weights
from hfbench.models.bundled import resolve_checkpoint
from hfbench.models.weight_files import listed
from hfbench.results import NEW_HEAD, OWN_HEAD, WeightsRecord

_STORED = "base_model.model."  # before every name in an adapter's file


def load_model(model: ModelConfig, config: Any, model_class: Any) -> loading.Loaded:
    """As :func:`hfbench.models.loading.load_model`, also of a local folder of an adapter.

    Its base is loaded first, then it is merged; modules that it holds whole (its trained head)
    are in the network where their shapes fit it.

    Raises UserError also for an adapter that changes no weights, that needs its base in 4 bits, or
    that does not fit this network.
    """
    if model.source == "timm" or not is_adapter(Path(resolve_checkpoint(model.checkpoint))):
        return loading.load_model(model, config, model_class)
    folder = Path(resolve_checkpoint(model.checkpoint))
    adapter = read_adapter(folder)
    kind = str(getattr(adapter.peft_type, "value", adapter.peft_type))
    base = adapter_base(folder)
    what = f"the {kind} adapter {model.checkpoint!r} of {base.label!r}"
    if adapter.is_prompt_learning:
        raise UserError(
            f"{what} adds to the input and changes no weights, so there is nothing to start from: "
            "give its base as model.checkpoint"
        )
    if getattr(config, "base_weights", None) is not None:
        raise UserError(
            f"{what} belongs to a base in 4 bits (qlora) and cannot be merged: give its base as "
            "model.checkpoint, or train with lora"
        )
    file = require_weights(folder)
    loaded = load_model(replace(base, allow_new=model.allow_new), config, model_class)
    with safe_open(file, "pt") as stored:
        shapes = {
            name.removeprefix(_STORED): tuple(stored.get_slice(name).get_shape())
            for name in stored.keys()  # noqa: SIM118
        }
    wanted = {name: tuple(p.shape) for name, p in loaded.model.named_parameters()}
    given = {name for name, shape in shapes.items() if wanted.get(name) == shape}
    merged = _merged(loaded.model, folder, what, shapes, left=shapes.keys() - wanted.keys())
    record = _with_given(loaded.weights, given)
    return loading.Loaded(
        merged,
        loaded.new_parameters - given,
        replace(record, merged=f"{kind} adapter of {base.label}"),
    )


def _merged(
    network: nn.Module, folder: Path, what: str, stored: Iterable[str], left: Iterable[str]
) -> Any:
    from peft import PeftModel, get_peft_model_state_dict

    with loading.quiet(), warnings.catch_warnings():
        # What has another shape is in our record, what is missing an error of ours.
        warnings.filterwarnings("ignore", "Some weights of|Found missing adapter keys")
        try:
            adapted: Any = PeftModel.from_pretrained(
                network, str(folder), ignore_mismatched_sizes=True
            )
        except (ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"{what} does not fit a {type(network).__name__}: {error}") from error
        expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    names = {name.removeprefix(_STORED) for name in expected}
    whole = {name for name in left if ".lora_" not in name}
    strange = sorted(set(stored) - names - whole)
    lacking = sorted(names - set(stored))
    if strange or lacking:
        text = f"no place for {listed(strange)}" if strange else f"it lacks {listed(lacking)}"
        raise UserError(f"{what} does not fit a {type(network).__name__}: {text}")
    return adapted.merge_and_unload().eval()


def _with_given(record: WeightsRecord, given: set[str]) -> WeightsRecord:
    """Without what the adapter holds whole among the new parameters."""
    new = {part: [n for n in names if n not in given] for part, names in record.new.items()}
    new = {part: names for part, names in new.items() if names}
    return replace(
        record,
        head=NEW_HEAD if "head" in new else OWN_HEAD,
        new=new,
        reshaped={name: shape for name, shape in record.reshaped.items() if name not in given},
    )
