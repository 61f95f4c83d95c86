"""Fine-tune a Wav2Vec2 or HuBERT checkpoint to classify recordings, e.g. spoken commands.

    accelerate launch recipes/audio_classification.py \
        --config recipes/configs/wav2vec2_base_speech_commands.yaml strategy=head seed=1

The steps are those of every recipe (see text_classification.py): data, checkpoint, strategy, exact
parameter report, training with validation, one test, a saved model that was loaded again.

Strategies: full, head, last_2, first_2, blocks:0+3, lora:r=8,targets=all_linear, dora:r=8, qlora,
ia3, bitfit, norm, attention, gradual, scratch.
Data: a hub name, or a folder with one sub-folder of recordings per class (wav, flac, ogg, mp3):
data.source=words/. Recordings are mixed to one channel, resampled to the checkpoint's rate and cut
to data.max_seconds, by default the length of 95 % of the training clips.
"""

import sys

from hfbench.start import recipe

if __name__ == "__main__":
    sys.exit(recipe("audio_classification", __doc__))
