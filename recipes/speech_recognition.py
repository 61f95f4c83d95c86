"""Fine-tune a Wav2Vec2 or HuBERT checkpoint to write down what is said (CTC).

    accelerate launch recipes/speech_recognition.py \
        --config recipes/configs/wav2vec2_base_librispeech.yaml strategy=last_4 seed=1

The steps are those of every recipe (see text_classification.py): data, checkpoint, strategy, exact
parameter report, training with validation, one test, a saved model that was loaded again.

Strategies: full, head, last_2, first_2, blocks:0+3, lora:r=8,targets=all_linear, dora:r=8, qlora,
ia3, bitfit, norm, attention, gradual, scratch.
Data: a hub name, or a table with a column of recordings (paths beside the table) and one of
transcripts: data.source=speech/train.csv data.text_column=transcript. Recordings are mixed to one
channel and resampled to the checkpoint's rate; none may be longer than data.max_seconds,
by default the longest recording.
Decoding: decoding.beams=8 searches over eight prefixes instead of taking the best path.
"""

import sys

from hfbench.start import recipe

if __name__ == "__main__":
    sys.exit(recipe("speech_recognition", __doc__))
