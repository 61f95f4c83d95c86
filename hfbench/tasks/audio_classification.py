"""Audio classification: one clip to one label."""

from typing import Any

from transformers import AutoModelForAudioClassification

from hfbench.tasks.audio import AudioTask
from hfbench.tasks.classification import ClassificationTask


class AudioClassification(AudioTask, ClassificationTask):
    """A clip longer than ``max_seconds`` is cropped at its centre."""

    name = "audio_classification"
    model_class = AutoModelForAudioClassification

    def load_processor(self) -> Any:
        return self.load_extractor()
