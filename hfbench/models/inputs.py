"""A batch without numbers: the shapes that a model is given in training."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from hfbench.errors import UserError

SAMPLE_RATE_HZ = 16_000  # of Wav2Vec2, HuBERT, WavLM and their relatives


def meta_batch(
    model: nn.Module,
    samples: int,
    *,
    max_length: int,
    max_seconds: float,
    token_labels: bool = False,
) -> dict[str, Tensor]:
    """Arguments of a model on the meta device, ``labels`` (samples,) included.

    With ``token_labels``, of a language model, labels are (samples, max_length). Texts are
    ``max_length`` tokens with a mask, waveforms ``max_seconds`` at 16 kHz; images and
    spectrograms have the size that the model's configuration names. One of timm's networks gets
    its images as ``x``.

    Raises UserError for more tokens than the model has positions, for fewer or shorter inputs
    than it can read, and for other inputs.
    """
    config: Any = getattr(model, "config", model)  # timm's networks have none
    name = "x" if config is model else str(getattr(model, "main_input_name", None))
    with torch.device("meta"):
        batch = {"labels": torch.empty(samples, dtype=torch.int64)}
        if name == "input_ids":
            positions = getattr(config, "max_position_embeddings", None)
            if max_length < 1:
                raise UserError(f"max_length={max_length} must be at least 1 token")
            # XLNet says -1 for any length.
            if positions is not None and 0 < positions < max_length:
                raise UserError(f"max_length={max_length} exceeds the model's {positions} tokens")
            tokens = torch.empty(samples, max_length, dtype=torch.int64)
            batch |= {name: tokens, "attention_mask": torch.empty_like(tokens)}
            return batch | {"labels": torch.empty_like(tokens)} if token_labels else batch
        if name in ("pixel_values", "x"):
            return batch | {name: torch.empty(samples, *_image_shape(config))}
        if name == "input_values" and hasattr(config, "conv_stride"):
            waveform = torch.empty(samples, _waveform_length(config, max_seconds))
            return batch | {name: waveform}
        if name == "input_values" and hasattr(config, "num_mel_bins"):
            return batch | {name: torch.empty(samples, config.max_length, config.num_mel_bins)}
    raise UserError(
        f"{type(model).__name__} reads {name}; known are input_ids, pixel_values and input_values"
    )


def _waveform_length(config: Any, max_seconds: float) -> int:
    """In samples. Raises UserError where the convolutions make no frame of them."""
    if not math.isfinite(max_seconds):
        raise UserError(f"max_seconds={max_seconds} is not a number of seconds")
    length = frames = round(max_seconds * SAMPLE_RATE_HZ)
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        frames = (frames - kernel) // stride + 1
    if frames < 1:
        raise UserError(f"max_seconds={max_seconds:g} is too short for one frame of this model")
    return length


def _image_shape(config: Any) -> tuple[int, int, int]:
    """Channels, height, width; of a configuration or one of timm's networks."""
    timm = getattr(config, "pretrained_cfg", None)
    if timm:
        channels, height, width = timm["input_size"]
        # A size given when the network was built wins over that of the pretrained weights.
        own = getattr(getattr(config, "patch_embed", None), "img_size", None)
        return channels, *(own or (height, width))
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return getattr(config, "num_channels", 3), height, width
