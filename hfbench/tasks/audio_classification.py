"""Audio classification: one clip to one label."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForAudioClassification

from hfbench.data.audio import MIN_SECONDS, decode_audio
from hfbench.data.media import DecodedSamples
from hfbench.models import loading
from hfbench.tasks.base import Samples
from hfbench.tasks.classification import ClassificationTask, with_labels


class AudioClassification(ClassificationTask):
    """Clips are decoded, resampled, cropped and normalised one by one, then padded in the batch.

    If the feature extractor asks for an attention mask, a batch is padded to its longest clip and
    masked. If not, or if the model's feature encoder has a group norm (Wav2Vec2-base: it goes over
    the padding too, whatever the mask), every clip is padded with zeros to exactly
    ``data.max_seconds``. Either way the logits of a clip do not depend on its batch.
    """

    name = "audio_classification"
    modality = "audio"
    length_unit = "audio samples"
    input_settings = ("max_seconds",)
    model_class = AutoModelForAudioClassification
    # With layerdrop the processes of a distributed run use different parameters and it crashes.
    config_overrides: ClassVar[Mapping[str, Any]] = {"layerdrop": 0.0}

    def load_processor(self) -> Any:
        settings = loading.load_config(self.config.model)
        norm = getattr(settings, "feat_extract_norm", None)
        extractor = loading.load_feature_extractor(self.config.model)
        self.feature = extractor.model_input_names[0]
        wanted = bool(getattr(extractor, "return_attention_mask", False))
        self.masked = wanted and norm != "group"
        self.processor = extractor
        self._fit_time_masks(settings)
        return extractor

    def _fit_time_masks(self, settings: Any) -> None:
        """Set ``mask_frames`` and ``min_samples`` so that every batch can be masked in training.

        Wav2Vec2 and its kin refuse a batch with fewer frames than ``mask_time_length``. So that
        length is cut to the frames of a clip of ``max_seconds``, and a batch of shorter clips is
        padded to as many samples as it takes.
        """
        self.mask_frames: int | None = None
        self.min_samples = 0
        if not hasattr(settings, "mask_time_length") or self.feature != "input_values":
            return
        network: Any = loading.build_on_meta(settings, self.model_class)

        def frames(samples: int) -> int:
            lengths = network._get_feat_extract_output_lengths(torch.tensor(samples))
            return int(lengths)

        self.mask_frames = max(1, min(settings.mask_time_length, frames(self.max_samples)))
        self.min_samples = bisect_left(range(self.max_samples), self.mask_frames, key=frames)

    def complete_config(self, config: Any) -> None:
        if self.mask_frames is not None:
            config.mask_time_length = self.mask_frames

    def features(self, rows: Dataset, title: str, *, keep: bool) -> Samples:
        """Waveforms: (samples,), float32; extractors of spectrograms: (frames, bins)."""
        return DecodedSamples(
            rows, "audio", title, feature=self.feature, decode=self._extract, keep=keep
        )

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The feature: (batch, longest, ...), float32; ``labels``: (batch,)."""
        clips = [sample[self.feature] for sample in samples]
        longest = max(self.min_samples, *(len(clip) for clip in clips))
        if clips[0].ndim == 1 and not self.masked:
            longest = self.max_samples
        padded = torch.full(
            (len(clips), longest, *clips[0].shape[1:]), float(self.processor.padding_value)
        )
        mask = torch.zeros((len(clips), longest), dtype=torch.int64)
        for row, clip in enumerate(clips):
            padded[row, : len(clip)] = clip
            mask[row, : len(clip)] = 1
        batch = {self.feature: padded} | ({"attention_mask": mask} if self.masked else {})
        return with_labels(batch, samples)

    def sample_lengths(self, split: Samples) -> list[int] | None:
        """Audio samples, or frames of a spectrogram; None where all are padded to one length."""
        return cast(DecodedSamples, split).lengths() if self.masked else None

    @property
    def max_samples(self) -> int:
        """The longest clip after cropping and padding."""
        sample_rate_hz: int = self.processor.sampling_rate
        return round(max(self.config.data.max_seconds, MIN_SECONDS) * sample_rate_hz)

    def _extract(self, source: str | bytes, name: str) -> Tensor:
        clip = decode_audio(
            source,
            sample_rate_hz=self.processor.sampling_rate,
            max_seconds=self.config.data.max_seconds,
            name=name,
        )
        extracted = self.processor(
            clip, sampling_rate=self.processor.sampling_rate, return_tensors="pt"
        )
        feature: Tensor = extracted[self.feature][0]
        return feature
