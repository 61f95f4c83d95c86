"""What the installed timm knows of its networks by their names, and transformers' class for them.

``TimmWrapperForImageClassification`` gives a timm network a loss, saves it as a plain Hugging Face
folder and reads timm's own folders and repositories, so nothing here wraps a network.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from hfbench.errors import UserError
from hfbench.models.configuration import TIMM_PREFIX


def timm_name(checkpoint: str) -> str:
    """The name within timm, with its pretrained tag if it has one.

    Raises UserError for an unknown name or tag.
    """
    import timm

    name = checkpoint.removeprefix(TIMM_PREFIX)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(close)}" if close else ""
        raise UserError(f"timm {timm.__version__} has no model {name!r}{hint}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UserError(f"timm model {name!r}: {error}") from error
    return name


def timm_labels(checkpoint: str) -> int:
    """Of the pretrained weights; 0 without a head. Raises UserError for an unknown name."""
    import timm

    pretrained = timm.get_pretrained_cfg(timm_name(checkpoint))
    return int(getattr(pretrained, "num_classes", 0) or 0)


def weights_repository(checkpoint: str) -> str | None:
    """The Hub's repository of a timm network's weights; None for a network without any.

    Without a tag they are timm's default ones. Raises UserError for an unknown name.
    """
    import timm

    pretrained: Any = timm.get_pretrained_cfg(timm_name(checkpoint))
    return None if pretrained is None else pretrained.hf_hub_id


def wrapper_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json of transformers' wrapper holds, from what timm's own config.json holds.

    ``values`` needs only ``architecture``, which may have a tag. timm writes the number of labels
    into the network's arguments too, where the wrapper would give it a second time.

    Raises UserError for an unknown name, and for a network whose image size nobody knows.
    """
    import timm

    name = timm_name(values["architecture"])
    pretrained = values.get("pretrained_cfg")
    if not pretrained:
        known: Any = timm.get_pretrained_cfg(name)
        if known is None:
            raise UserError(f"timm model {name!r} has no pretrained configuration: no image size")
        pretrained = known.to_dict()
    return {
        "model_type": "timm_wrapper",
        "architecture": name,
        "num_classes": values.get("num_classes") or timm_labels(name),
        "model_args": network_arguments(values),
        "pretrained_cfg": pretrained,
    }


def network_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """``model_args`` of a config.json without the number of labels."""
    arguments = values.get("model_args") or {}
    return {key: value for key, value in arguments.items() if key != "num_classes"}
