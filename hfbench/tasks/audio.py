"""What audio tasks have in common: clips to features, and features to batches."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from datasets import Dataset
from torch import Tensor

from hfbench.data.audio import MIN_SECONDS, decode_audio
from hfbench.data.media import DecodedSamples, Facts, Unreadable
from hfbench.models import loading
from hfbench.tasks.base import PredictingTask, Samples
from hfbench.tasks.classification import with_labels


class AudioTask(PredictingTask):
    """Clips are decoded, resampled, cropped and normalised one by one, then padded in the batch.

    If the feature extractor asks for an attention mask, a batch is padded to its longest clip and
    masked. If not, or if the model's feature encoder has a group norm (Wav2Vec2-base: it goes over
    the padding too, whatever the mask), every clip is padded with zeros to exactly
    ``data.max_seconds``. Either way the logits of a clip do not depend on its batch.
    """

    modality = "audio"
    length_unit = "audio samples"
    input_settings = ("max_seconds",)
    model_class: ClassVar[Any]  # an AutoModelFor... with a head
    # With layerdrop the processes of a distributed run use different parameters and it crashes.
    config_overrides: ClassVar[Mapping[str, Any]] = {"layerdrop": 0.0}

    def load_extractor(self) -> Any:
        """The feature extractor, with what is to be known of the network around it."""
        settings = loading.load_config(self.config.model)
        norm = getattr(settings, "feat_extract_norm", None)
        extractor = loading.load_feature_extractor(self.config.model)
        self.extractor = extractor
        self.feature = extractor.model_input_names[0]
        wanted = bool(getattr(extractor, "return_attention_mask", False))
        self.masked = wanted and norm != "group"
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
        self.network: Any = None
        if not hasattr(settings, "mask_time_length") or self.feature != "input_values":
            return
        self.network = loading.build_on_meta(settings, self.model_class)
        self.mask_frames = max(1, min(settings.mask_time_length, self.frames(self.max_samples)))
        self.min_samples = bisect_left(range(self.max_samples), self.mask_frames, key=self.frames)

    def frames(self, samples: int) -> int:
        """How many frames a network that reads waveforms makes of a clip."""
        return int(self.network._get_feat_extract_output_lengths(torch.tensor(samples)))

    def complete_config(self, config: Any) -> None:
        """Set what the model must know of the clips."""
        if self.mask_frames is not None:
            config.mask_time_length = self.mask_frames

    def features(
        self, rows: Dataset, title: str, *, keep: bool, unreadable: Unreadable | None = None
    ) -> Samples:
        """Waveforms: (samples,), float32; extractors of spectrograms: (frames, bins)."""
        return DecodedSamples(
            rows,
            "audio",
            title,
            feature=self.feature,
            decode=self._extract,
            keep=keep,
            unreadable=unreadable,
        )

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The feature: (batch, longest, ...), float32; ``labels``: (batch, ...)."""
        clips = [sample[self.feature] for sample in samples]
        longest = max(self.min_samples, *(len(clip) for clip in clips))
        if clips[0].ndim == 1 and not self.masked:
            longest = self.max_samples
        padded = torch.full(
            (len(clips), longest, *clips[0].shape[1:]), float(self.extractor.padding_value)
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
        sample_rate_hz: int = self.extractor.sampling_rate
        return round(max(self.config.data.max_seconds, MIN_SECONDS) * sample_rate_hz)

    def _extract(self, source: str | bytes, name: str, facts: Facts) -> dict[str, Tensor]:
        clip = decode_audio(
            source,
            sample_rate_hz=self.extractor.sampling_rate,
            max_seconds=self.config.data.max_seconds,
            name=name,
        )
        extracted = self.extractor(
            clip, sampling_rate=self.extractor.sampling_rate, return_tensors="pt"
        )
        return {self.feature: extracted[self.feature][0]}
