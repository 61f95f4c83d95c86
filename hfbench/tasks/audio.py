"""What audio tasks have in common: clips to features, and features to batches."""

from bisect import bisect_left
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from datasets import Dataset
from torch import Tensor

from hfbench.data import durations
from hfbench.data.audio import MIN_SECONDS, decode_audio
from hfbench.data.cropping import Facts, describe_clips
from hfbench.data.durations import ClipLength
from hfbench.data.media import DecodedSamples, Unreadable
from hfbench.data.splits import Splits
from hfbench.models import loading
from hfbench.tasks.base import PredictingTask, Samples
from hfbench.tasks.classification import with_labels


class AudioTask(PredictingTask):
    """Clips are decoded, resampled, cropped and normalised one by one, then padded in the batch.

    If the feature extractor asks for an attention mask, a batch is padded to its longest clip and
    masked. If not, or if the model's feature encoder has a group norm (Wav2Vec2-base: it goes over
    the padding too, whatever the mask), every clip is padded with zeros to exactly
    ``max_seconds``. Either way the logits of a clip do not depend on its batch.
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
        self.network: Any = None
        if hasattr(settings, "mask_time_length") and self.feature == "input_values":
            self.network = loading.build_on_meta(settings, self.model_class)
        self.seconds_read = durations.seconds_read(extractor)
        self.length: ClipLength | None = None
        if self.config.data.max_seconds is not None:
            self.length = durations.given(self.config.data.max_seconds, self.seconds_read)
        return extractor

    def fit_inputs(self, splits: Splits) -> None:
        """Choose the longest clip by the data where the configuration leaves it open."""
        if self.length is None:
            self.length = self.clip_length(splits)
        if self.length.reason:
            splits.summary["notes"].append(self.length.reason)
        splits.summary["max_seconds"] = self.max_seconds

    def clip_length(self, splits: Splits) -> ClipLength:
        """By the training clips, of which a few may be cropped."""
        return durations.of_most_clips(durations.durations_of(splits.train), self.seconds_read)

    @property
    def max_seconds(self) -> float:
        """The longest clip after cropping."""
        assert self.length is not None, "fit_inputs comes before clips are read"
        return self.length.seconds

    def describe_inputs(self, facts: Facts, summary: dict[str, Any]) -> None:
        rate_hz = self.extractor.sampling_rate
        describe_clips(facts, summary, sample_rate_hz=rate_hz, max_seconds=self.max_seconds)

    @cached_property
    def mask_frames(self) -> int | None:
        """To what ``mask_time_length`` is cut, so that every batch can be masked in training.

        Wav2Vec2 and its kin refuse a batch with fewer frames than that. So it is at most the
        frames of a clip of ``max_seconds``, and batches are padded to ``min_samples``.
        """
        if self.network is None:
            return None
        masked: int = self.network.config.mask_time_length
        return max(1, min(masked, self.frames(self.max_samples)))

    @cached_property
    def min_samples(self) -> int:
        """How many samples of a clip make ``mask_frames``."""
        if self.mask_frames is None:
            return 0
        return bisect_left(range(self.max_samples), self.mask_frames, key=self.frames)

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
            settings=self.decoding,
        )

    @property
    def decoding(self) -> dict[str, Any]:
        """What decides how clips are decoded, beside the clips."""
        rate_hz = self.extractor.sampling_rate
        return {"max_seconds": self.max_seconds, "sample_rate_hz": rate_hz}

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
        return round(max(self.max_seconds, MIN_SECONDS) * sample_rate_hz)

    def _extract(self, source: str | bytes, name: str, facts: Facts) -> dict[str, Tensor]:
        clip = decode_audio(
            source,
            sample_rate_hz=self.extractor.sampling_rate,
            max_seconds=self.max_seconds,
            name=name,
            facts=facts,
        )
        extracted = self.extractor(
            clip, sampling_rate=self.extractor.sampling_rate, return_tensors="pt"
        )
        return {self.feature: extracted[self.feature][0]}
