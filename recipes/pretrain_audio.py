"""Pre-trains the bundled wav2vec2-tiny: Wav2Vec2's network (Baevski et al. 2020) taught keywords.

    python recipes/pretrain_audio.py --data speech_commands --data-notes recipes/data_notes/audio.md

--data is an audiofolder, <label>/<speaker>_nohash_<n>.wav at 16 kHz, such as the test set of
Speech Commands v0.02, http://download.tensorflow.org/data/speech_commands_test_set_v0.02.tar.gz
A speaker is in one of training, validation and test set only.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from pretraining import argument_parser, pretrain, write_card
from torch import nn
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from hfbench.training.batching import Batch, Sample
from hfbench.training.evaluation import predict_split
from hfbench.training.objective import Objective

SAMPLE_RATE_HZ = 16_000
CLIP_SAMPLES = SAMPLE_RATE_HZ  # one second
SPEED = (0.8, 1.25)  # factor; changes the pitch too
SHIFT_SECONDS = 0.15
SNR_DB = (0.0, 30.0)

Waveform = npt.NDArray[np.float32]


def fit_length(waveform: Waveform, start: int = 0) -> Waveform:
    """CLIP_SAMPLES samples from `start` on; zeros where there are none. `start` may be negative."""
    begin, end = max(start, 0), min(start + CLIP_SAMPLES, len(waveform))
    clip = np.zeros(CLIP_SAMPLES, dtype=np.float32)
    clip[begin - start : end - start] = waveform[begin:end]
    return clip


def read_clips(folder: Path) -> dict[str, list[Sample]]:
    """Samples of each split; the speaker's name decides: 80 % train, 10 % validation, 10 % test."""
    files = sorted(folder.glob("*/*.wav"))
    if not files:
        raise SystemExit(f"no <label>/*.wav files in {folder}")
    labels = sorted({file.parent.name for file in files})
    splits: dict[str, list[Sample]] = {"train": [], "validation": [], "test": []}
    for file in files:
        waveform, rate_hz = soundfile.read(file, dtype="float32")
        if rate_hz != SAMPLE_RATE_HZ or waveform.ndim != 1:
            raise SystemExit(f"{file}: {rate_hz} Hz, {waveform.ndim} channels; need 16 kHz mono")
        share = zlib.crc32(file.name.split("_")[0].encode()) % 10
        split = {8: "validation", 9: "test"}.get(share, "train")
        label = labels.index(file.parent.name)
        splits[split].append({"waveform": waveform, "label": label, "augmented": split == "train"})
    return splits


def augment(waveform: Waveform) -> Waveform:
    """Speed, shift and coloured noise at random."""
    speed, shift, snr, colour = torch.rand(4, dtype=torch.float64).tolist()
    step = SPEED[0] * (SPEED[1] / SPEED[0]) ** speed
    positions = np.arange(0, len(waveform) - 1, step)
    faster = np.interp(positions, np.arange(len(waveform)), waveform).astype(np.float32)
    centre = (len(faster) - CLIP_SAMPLES) // 2
    clip = fit_length(faster, centre + round((2 * shift - 1) * SHIFT_SECONDS * SAMPLE_RATE_HZ))
    spectrum = np.fft.rfft(torch.randn(CLIP_SAMPLES).numpy())
    spectrum[1:] /= np.arange(1, len(spectrum)) ** colour  # from white (0) to brown (1)
    noise = np.fft.irfft(spectrum, CLIP_SAMPLES)
    power_ratio = 10 ** ((SNR_DB[0] + snr * (SNR_DB[1] - SNR_DB[0])) / 10)
    noise *= np.sqrt(np.mean(clip**2) / power_ratio / np.mean(noise**2))
    return (clip + noise).astype(np.float32)


def collate(samples: list[Sample]) -> Batch:
    """input_values: (batch, CLIP_SAMPLES), each of mean 0 and variance 1."""
    clips = np.stack(
        [
            augment(sample["waveform"]) if sample["augmented"] else fit_length(sample["waveform"])
            for sample in samples
        ]
    )
    clips -= clips.mean(axis=1, keepdims=True)
    clips /= np.sqrt(clips.var(axis=1, keepdims=True) + 1e-7)
    labels = torch.tensor([sample["label"] for sample in samples])
    return {"input_values": torch.from_numpy(clips), "labels": labels}


def main() -> None:
    parser = argument_parser(
        __doc__,
        output="wav2vec2-tiny",
        epochs=20,
        batch_size=32,
        learning_rate=1e-3,
        mixed_precision="bf16",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of <label>/*.wav")
    args = parser.parse_args()
    set_seed(args.seed)
    accelerator = Accelerator(cpu=True, mixed_precision=args.mixed_precision)
    splits = read_clips(args.data)
    sizes = {split: len(samples) for split, samples in splits.items()}
    num_labels = 1 + max(sample["label"] for sample in splits["train"])
    print(f"{num_labels} keywords, clips: {sizes}")

    config = Wav2Vec2Config(
        conv_dim=(64,) * 7,
        feat_extract_norm="group",
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=512,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=8,
        classifier_proj_size=64,
        # Norms before the layers learn far faster in so few steps. Two masks of 10 frames, the
        # least that masking sets, would hide 40 % of a clip; little dropout suits so small a net.
        do_stable_layer_norm=True,
        mask_time_prob=0.0,
        layerdrop=0.0,
        hidden_dropout=0.05,
        attention_dropout=0.0,
        activation_dropout=0.0,
        num_labels=num_labels,
    )
    model = Wav2Vec2ForSequenceClassification(config)

    def accuracy(model: nn.Module, samples: list[Sample]) -> dict[str, Any]:
        found = predict_split(
            model,
            samples,
            collate=collate,
            loss_units=lambda batch: len(batch["labels"]),
            keep=lambda outputs, batch: outputs.logits.float(),
            batch_size=args.batch_size,
            accelerator=accelerator,
        )
        correct = found.predictions.argmax(-1) == found.references
        return {"loss": found.loss, "accuracy": float(correct.mean())}

    objective = Objective(
        collate=collate,
        loss_units=lambda batch: len(batch["labels"]),
        evaluate=lambda model: accuracy(model, splits["validation"]),
        metric="accuracy",
        greater_is_better=True,
    )
    result = pretrain(model, splits["train"], objective, accelerator, args)
    test = accuracy(model, splits["test"])

    # Only the backbone is shipped: every task that starts from it needs a head of its own.
    config.num_labels, config.problem_type = 2, None
    model.wav2vec2.save_pretrained(args.output)
    Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLE_RATE_HZ, do_normalize=True, return_attention_mask=False
    ).save_pretrained(args.output)
    write_card(
        args,
        result,
        metadata="language: en\npipeline_tag: feature-extraction\nlibrary_name: transformers\n",
        description="The backbone of a Wav2Vec2 (7 convolutions of 64 channels, 6 blocks of width "
        f"128, 4 heads; 16 kHz) pre-trained with supervision on {num_labels} spoken keywords, "
        "with changes of speed, shifts and added noise. The head was left out.",
        scores=f"Accuracy on the {sizes['test']} test clips, read once at the end: "
        f"**{test['accuracy']:.4f}** (loss {test['loss']:.3f}). Trained on {sizes['train']:,} "
        f"clips, validated on {sizes['validation']}; no speaker is in two of the three. The epoch "
        "with the highest validation accuracy was kept.\n",
        parameters=model.wav2vec2.num_parameters(),
    )


if __name__ == "__main__":
    main()
