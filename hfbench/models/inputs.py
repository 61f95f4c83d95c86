"""A batch without numbers: the shapes that a model is given in training."""

from typing import Any

import torch
from torch import Tensor, nn

from hfbench.errors import UserError

SAMPLE_RATE_HZ = 16_000  # of Wav2Vec2, HuBERT, WavLM and their relatives


def meta_batch(
    model: nn.Module, samples: int, *, max_length: int, max_seconds: float
) -> dict[str, Tensor]:
    """Arguments of a classifier on the meta device, ``labels`` (samples,) included.

    Texts are ``max_length`` tokens with a mask, waveforms ``max_seconds`` at 16 kHz; images and
    spectrograms have the size that the model's configuration names.

    Raises UserError for more tokens than the model has positions, and for other inputs.
    """
    config: Any = model.config
    name = str(getattr(model, "main_input_name", None))
    with torch.device("meta"):
        batch = {"labels": torch.empty(samples, dtype=torch.int64)}
        if name == "input_ids":
            positions = getattr(config, "max_position_embeddings", None)
            if positions is not None and max_length > positions:
                raise UserError(f"max_length={max_length} exceeds the model's {positions} tokens")
            tokens = torch.empty(samples, max_length, dtype=torch.int64)
            return batch | {name: tokens, "attention_mask": torch.empty_like(tokens)}
        if name == "pixel_values":
            return batch | {name: torch.empty(samples, *_image_shape(config))}
        if name == "input_values" and hasattr(config, "conv_stride"):
            return batch | {name: torch.empty(samples, round(max_seconds * SAMPLE_RATE_HZ))}
        if name == "input_values" and hasattr(config, "num_mel_bins"):
            return batch | {name: torch.empty(samples, config.max_length, config.num_mel_bins)}
    raise UserError(
        f"{type(model).__name__} reads {name}; plans know input_ids, pixel_values and input_values"
    )


def _image_shape(config: Any) -> tuple[int, int, int]:
    """Channels, height, width."""
    timm = getattr(config, "pretrained_cfg", None)
    if timm:
        channels, height, width = timm["input_size"]
        return channels, height, width
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return getattr(config, "num_channels", 3), height, width
