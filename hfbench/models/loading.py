"""Load configurations, processors and weights of a checkpoint: safetensors only, float32.

No code from a repository is ever run.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import nn
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from hfbench.config import ModelConfig
from hfbench.errors import UserError
from hfbench.hub_access import hub_errors
from hfbench.models.adapter_files import adapter_base, is_adapter
from hfbench.models.bundled import resolve_checkpoint
from hfbench.models.configuration import CONFIG_FILE
from hfbench.models.heads import tasks_of
from hfbench.models.timm_models import network_arguments, weights_repository, wrapper_values
from hfbench.models.weight_files import (
    INDEX_FILE,
    WEIGHTS_FILE,
    require_whole,
    shards_of,
    stored_names,
)
from hfbench.models.weights import Found, require_fit, wrapped_names, wrapper_mappings
from hfbench.plain_json import read_json
from hfbench.results import WeightsRecord

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_PREPROCESSOR = "preprocessor_config.json"
_NOT_CONVERTED = "automatic conversion of the weights"  # in what transformers says of misfits
_TOO_MANY_DIGITS = "Exceeds the limit"  # in what Python says of a number in JSON
_WANTS_CODE = "trust_remote_code=True"  # in what transformers says of repositories with code


def load_config(model: ModelConfig, **overrides: Any) -> "PreTrainedConfig":
    """The checkpoint's configuration with ``overrides`` set.

    Raises UserError for an unknown checkpoint or architecture, HubUnreachableError without a hub.
    """
    if _named_in_timm(model):
        return _timm_config(model, **overrides)
    with _loading(model, "configuration"):
        config: Any = transformers.AutoConfig.from_pretrained(
            **_source(_holder(model, CONFIG_FILE)), **overrides
        )
    for name, value in vars(config).items():
        if isinstance(value, int) and abs(value) >= 2**63:
            raise UserError(
                f"checkpoint {model.checkpoint!r}: no usable configuration. Its {name} is {value}, "
                "and no size has more than 64 bits"
            )
    of_timm = isinstance(config, transformers.TimmWrapperConfig)
    if model.source == "timm" and not of_timm:
        raise UserError(
            f"model.source=timm, but {model.checkpoint!r} is a {config.model_type!r} of "
            "transformers: leave model.source out"
        )
    if of_timm:
        config.model_args = network_arguments({"model_args": config.model_args})
    return cast("PreTrainedConfig", config)


def require_task(model: ModelConfig, task: str) -> None:
    """Raise UserError for a checkpoint of an architecture that learns other tasks."""
    model_type = load_config(model).model_type
    possible = tasks_of(model_type)
    if possible and task not in possible:
        raise UserError(
            f"checkpoint {model.checkpoint!r} (model type {model_type!r}) has no class for {task}: "
            f"it fits {', '.join(f'recipes/{name}.py' for name in possible)}"
        )


def weights_name(model: ModelConfig) -> str:
    """Where the weights are: the checkpoint's own name, or the Hub's repository of a timm name."""
    if not _named_in_timm(model):
        return model.checkpoint
    return weights_repository(model.checkpoint) or model.checkpoint


def hub_commit(model: ModelConfig) -> str | None:
    """The commit of the hub from which the checkpoint was loaded; None: not from the hub."""
    if not model.checkpoint or Path(_source(model)["pretrained_model_name_or_path"]).exists():
        return None
    # of a timm name the weights alone are loaded
    file = WEIGHTS_FILE if _named_in_timm(model) else "config.json"
    cached = try_to_load_from_cache(weights_name(model), file, revision=model.revision)
    return Path(cached).parent.name if isinstance(cached, str) else None


@dataclass(frozen=True)
class Loaded:
    """A network with the weights of a checkpoint, in eval mode and float32.

    Attributes:
        new_parameters: those that the checkpoint lacks, or has in another shape (a head for other
            labels).
    """

    model: nn.Module
    new_parameters: frozenset[str]
    weights: WeightsRecord


def load_model(model: ModelConfig, config: "PreTrainedConfig", model_class: Any) -> Loaded:
    """The checkpoint's weights in a ``model_class`` (an ``AutoModelFor...``).

    Names that a wrapper around the network gave (``module.``) are recognised.

    Raises UserError for pickle-only, broken or missing files, for an architecture without this
    head, and for weights that do not fit the network (see :func:`require_fit`).
    """
    if _named_in_timm(model) and weights_repository(model.checkpoint) is None:
        raise UserError(
            f"timm has no weights for {model.checkpoint!r}: choose strategy=scratch, or another "
            "network"
        )
    source = _source(model)["pretrained_model_name_or_path"]
    with _loading(model, "weights"), quiet():
        if _named_in_timm(model):  # the first that is asked of the hub; what it answers is clear
            hf_hub_download(weights_name(model), WEIGHTS_FILE, revision=model.revision)
        if Path(source).is_dir():
            require_whole(Path(source))
        elif not isinstance(
            try_to_load_from_cache(source, WEIGHTS_FILE, revision=model.revision), str
        ):
            index = _file(replace(model, checkpoint=source), INDEX_FILE)
            if index is not None:
                shards_of(index)
        loaded, found = _read(model, config, model_class)
        stored = stored_names(source, model.revision) if found.missing else []
        wrapped = wrapped_names(stored)
        if wrapped and 2 * len(found.left_over) > len(wrapped):
            for prefix, mapping in wrapper_mappings(wrapped):
                other, fits = _read(model, config, model_class, prefix, mapping)
                if len(fits.missing) < len(found.missing):
                    loaded, found = other, fits
    weights = require_fit(model, loaded, found, stored)
    parameters = (name for name, _ in loaded.named_parameters())
    return Loaded(loaded, found.new.intersection(parameters), weights)


def _read(
    model: ModelConfig,
    config: "PreTrainedConfig",
    model_class: Any,
    prefix: str | None = None,
    key_mapping: dict[str, str] | None = None,
) -> tuple[Any, Found]:
    """The network and what the file had for it, its names changed by ``key_mapping``."""
    loaded, info = model_class.from_pretrained(
        **_source(model),
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        key_mapping=key_mapping,
    )
    if key_mapping is not None:
        # transformers keeps it to give the names back when it saves
        loaded._weight_conversions = [
            conversion
            for conversion in loaded._weight_conversions
            if not key_mapping.keys() & set(conversion.source_patterns)
        ]
    return loaded, Found.of(loaded, info, prefix)


def build_model(config: "PreTrainedConfig", model_class: Any) -> tuple[nn.Module, frozenset[str]]:
    """The same network with random float32 weights; every parameter is new."""
    with _no_such_head(config), quiet():
        model = model_class.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return model, frozenset(name for name, _ in model.named_parameters())


def build_on_meta(config: "PreTrainedConfig", model_class: Any) -> nn.Module:
    """The network of a configuration without memory for its weights, for counting."""
    with torch.device("meta"):
        return build_model(config, model_class)[0]


def load_tokenizer(model: ModelConfig) -> Any:
    """The checkpoint's tokenizer. Raises UserError when it has none."""
    with _loading(model, "tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            **_source(_holder(model, "tokenizer_config.json"))
        )
    # A folder without tokenizer files gives an empty tokenizer, which maps every word to [UNK].
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(
            f"checkpoint {model.checkpoint!r} has no tokenizer files (tokenizer.json, vocab.txt, "
            "...): copy them into its folder"
        )
    return tokenizer


def load_ctc_tokenizer(model: ModelConfig) -> Any | None:
    """The checkpoint's own tokenizer of characters; None where it has none."""
    named = _json_values(model, "tokenizer_config.json").get("tokenizer_class")
    if not _json_values(model, "vocab.json"):
        return None
    if named is None:  # in the first checkpoints, such as facebook/wav2vec2-base-960h
        # AutoTokenizer goes by the network then, and fails where it knows no class for it.
        config = load_config(model)
        own = getattr(config, "tokenizer_class", None)
        named = own or TOKENIZER_MAPPING_NAMES.get(config.model_type)
    return load_tokenizer(model) if named == "Wav2Vec2CTCTokenizer" else None


def load_image_processor(model: ModelConfig) -> Any:
    """The checkpoint's image processor.

    Files of the old type ``ViTFeatureExtractor``, which ``AutoImageProcessor`` refuses, become the
    ``ViTImageProcessor`` with the file's values. Raises UserError when there is none.
    """
    if _named_in_timm(model):
        config: Any = _timm_config(model)
        return transformers.TimmWrapperImageProcessor(config.pretrained_cfg, config.architecture)
    values = _json_values(model, _PREPROCESSOR)
    kinds = (values.pop("image_processor_type", None), values.pop("feature_extractor_type", None))
    if "ViTFeatureExtractor" in kinds:
        return transformers.ViTImageProcessor(**values)
    with _loading(model, "image processor"):
        return transformers.AutoImageProcessor.from_pretrained(
            **_source(_holder(model, _PREPROCESSOR))
        )


def load_feature_extractor(model: ModelConfig) -> Any:
    """The checkpoint's audio feature extractor. Raises UserError when it has none."""
    with _loading(model, "feature extractor"):
        return transformers.AutoFeatureExtractor.from_pretrained(
            **_source(_holder(model, _PREPROCESSOR))
        )


def _named_in_timm(model: ModelConfig) -> bool:
    """Whether the checkpoint is a name of timm's, and no folder of a saved network."""
    return model.source == "timm" and not Path(model.checkpoint).expanduser().exists()


def _timm_config(model: ModelConfig, **overrides: Any) -> "PreTrainedConfig":
    """As the installed timm knows the network, so that a hub is needed for weights only."""
    values = wrapper_values({"architecture": model.checkpoint})
    config: PreTrainedConfig = transformers.TimmWrapperConfig.from_dict(values, **overrides)
    return config


def _holder(model: ModelConfig, file_name: str) -> ModelConfig:
    """The checkpoint that has a file: of an adapter without it, the adapter's base."""
    if _named_in_timm(model):
        return model
    folder = Path(resolve_checkpoint(model.checkpoint))
    if is_adapter(folder) and not (folder / file_name).is_file():
        return _holder(adapter_base(folder), file_name)
    return model


def _source(model: ModelConfig) -> dict[str, Any]:
    return {
        "pretrained_model_name_or_path": resolve_checkpoint(weights_name(model)),
        "revision": model.revision,
        "trust_remote_code": False,  # None would ask at the terminal
    }


def _json_values(model: ModelConfig, file_name: str) -> dict[str, Any]:
    """What a file of the checkpoint holds; empty where there is none (timm has no preprocessor)."""
    path = _file(_holder(model, file_name), file_name)
    if path is None:
        return {}
    try:
        values: dict[str, Any] = read_json(path)
    except ValueError as error:  # neither UTF-8 nor JSON
        raise UserError(f"{str(path)!r} is not valid JSON: {error}") from error
    return values


def _file(model: ModelConfig, name: str) -> Path | None:
    """Where a file of the checkpoint is, fetched from the hub; None where it has none."""
    source = resolve_checkpoint(model.checkpoint)
    path = Path(source) / name
    if not Path(source).is_dir():
        with hub_errors("checkpoint", model.checkpoint):
            try:
                path = Path(hf_hub_download(source, name, revision=model.revision))
            except LocalEntryNotFoundError:  # the hub does not answer
                found = try_to_load_from_cache(source, name, revision=model.revision)
                if found is None or isinstance(found, str):
                    raise
                return None  # it answered once that there is no such file
            except EntryNotFoundError:
                return None
    return path if path.is_file() else None


@contextmanager
def _loading(model: ModelConfig, part: str) -> Iterator[None]:
    """Name the checkpoint and the part in every error that the user can mend."""
    try:
        with hub_errors("checkpoint", weights_name(model)):
            yield
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(
            f"checkpoint {model.checkpoint!r}: no usable {part}. Its JSON is nested too deep"
        ) from error
    except RuntimeError as error:
        if _NOT_CONVERTED not in str(error):
            raise
        raise UserError(
            f"checkpoint {model.checkpoint!r}: its weights do not fit its config.json. "
            "transformers puts several tensors of the file into one of the network (experts, or "
            "query, key and value), and these have unequal shapes. Fetch the file again, or mend "
            "the configuration"
        ) from error
    except (OSError, ValueError) as error:
        text = str(error)
        if ("safetensors" in text and "no file named" in text) or "use_safetensors=True" in text:
            raise UserError(
                f"checkpoint {model.checkpoint!r} has no safetensors weights. Pickle files are not "
                "loaded because they can run code: convert it with save_pretrained, or choose a "
                "revision that has model.safetensors"
            ) from error
        if _WANTS_CODE in text:
            raise _runs_no_code(f"checkpoint {model.checkpoint!r}: its {part}") from error
        hopeless = ("Unrecognized", "does not recognize", "valid JSON", "Can't load", "backend")
        if _TOO_MANY_DIGITS in text:
            raise UserError(
                f"checkpoint {model.checkpoint!r}: no usable {part}. Its JSON holds a whole number "
                "of more than 4,300 digits"
            ) from error
        if any(words in text for words in hopeless):
            raise UserError(
                f"checkpoint {model.checkpoint!r}: no usable {part}. {text.splitlines()[0]}"
            ) from error
        raise


@contextmanager
def _no_such_head(config: "PreTrainedConfig") -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if _WANTS_CODE in str(error):
            raise _runs_no_code(f"a {config.model_type!r} network") from error
        if "Unrecognized configuration class" not in str(error):
            raise
        raise UserError(
            f"a {config.model_type!r} network does not fit this task: {str(error).splitlines()[0]}"
        ) from error


def _runs_no_code(what: str) -> UserError:
    return UserError(
        f"{what} needs code from its repository, and hfbench runs no code from repositories. "
        "Choose a checkpoint whose architecture is part of transformers"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """No loading report and no bar for weights: the new parameters are returned instead."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # PEFT asks every model for an attribute that transformers has renamed.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is dep", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
