"""Clips become batches: resampled, normalised, padded and masked."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from classification_tasks import config, logits_of

from hfbench.preparation import describe, make_accelerator, prepare
from hfbench.tasks import make_task


def save_masked_wav2vec2(folder: Path, mask_time_length: int) -> None:
    """With layer norm and an attention mask, like the large ones; a frame every 40 samples."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    settings = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(8, 5),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        mask_time_prob=0.5,
        mask_time_length=mask_time_length,
    )
    Wav2Vec2Model(settings).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def test_clips_are_resampled_normalised_and_padded_to_max_seconds(
    tiny_wav2vec2: Path, clips: Path
) -> None:
    task = make_task(config("audio_classification", tiny_wav2vec2, clips, max_seconds=1.0))
    data = task.prepare_data()
    samples = [data.train[i] for i in range(len(data.train))]
    lengths = [len(sample["input_values"]) for sample in samples]
    assert min(lengths) == 4000  # 2,000 samples at 8 kHz
    assert max(lengths) == 16000  # cropped to one second
    for sample in samples:
        clip = sample["input_values"]
        assert clip.dtype == torch.float32
        assert abs(clip.mean().item()) < 1e-4
        assert clip.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    shortest = samples[lengths.index(4000)]
    batch = task.collate([shortest])
    assert set(batch) == {"input_values", "labels"}
    assert batch["input_values"].shape == (1, 16000)
    assert not batch["input_values"][0, 4000:].any()


def test_a_short_first_clip_does_not_let_a_large_split_into_memory(
    tiny_wav2vec2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in ("a", "b"):
        (tmp_path / "train" / label).mkdir(parents=True)
        for i in range(10):
            seconds = 0.05 if (label, i) < ("a", 3) else 1.0
            samples = np.zeros(round(16000 * seconds), dtype=np.float32)
            soundfile.write(tmp_path / "train" / label / f"{i:02}.wav", samples, 16000)
    case = config("audio_classification", tiny_wav2vec2, tmp_path)
    whole: Any = make_task(case).prepare_data().train
    size_bytes = sum(whole[i]["input_values"].nbytes for i in range(len(whole)))
    assert whole[0]["input_values"].nbytes * len(whole) < size_bytes / 10
    for limit_bytes, kept in ((size_bytes, True), (size_bytes - 1, False)):
        monkeypatch.setattr("hfbench.data.media.MEMORY_LIMIT_BYTES", limit_bytes)
        train: Any = make_task(case).prepare_data().train
        assert (train.kept is not None) == kept
        assert torch.equal(train[9]["input_values"], whole[9]["input_values"])


def test_a_model_with_layer_norm_gets_a_mask_and_batches_of_the_longest_clip(
    clips: Path, tmp_path: Path
) -> None:
    save_masked_wav2vec2(tmp_path, mask_time_length=4)
    task = make_task(config("audio_classification", tmp_path, clips))
    data = task.prepare_data()
    samples = sorted((data.train[i] for i in range(8)), key=lambda s: len(s["input_values"]))
    batch = task.collate(samples)
    assert batch["input_values"].shape[1] == len(samples[-1]["input_values"])
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    assert lengths == [len(sample["input_values"]) for sample in samples]
    model = task.build_model(data).model
    together = logits_of(task, model, samples)
    alone = torch.cat([logits_of(task, model, [sample]) for sample in samples])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_padding_of_sounds_is_said_in_audio_samples(clips: Path, tmp_path: Path) -> None:
    save_masked_wav2vec2(tmp_path, mask_time_length=4)
    case = config("audio_classification", tmp_path, clips)
    prepared = prepare(case, make_task(case), make_accelerator(case))
    train = prepared.data.train
    lengths = [len(train[i]["input_values"]) for i in range(len(train))]
    assert len(lengths) == case.training.batch_size  # one batch
    share = f"{100 * (1 - sum(lengths) / len(lengths) / max(lengths)):.1f} %"
    expected = (
        f"padding: {share} of the audio samples in training batches, {share} without grouping"
    )
    assert expected in describe(case, prepared).splitlines()


def frames(samples: int) -> int:
    """Of the network of save_masked_wav2vec2, by the formula of a convolution without padding."""
    return ((samples - 10) // 8 + 1 - 8) // 5 + 1


@pytest.mark.parametrize(("max_seconds", "mask_frames"), [(1.0, 30), (0.06, frames(960))])
def test_batches_of_short_clips_can_be_masked_in_training(
    tmp_path: Path, max_seconds: float, mask_frames: int
) -> None:
    save_masked_wav2vec2(tmp_path / "model", mask_time_length=30)
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(20):
            samples = np.full(800 + 500 * (i % 2), 0.1, dtype=np.float32)  # 19 or 31 frames
            soundfile.write(tmp_path / "data" / label / f"{i:02}.wav", samples, 16000)
    data_folder = tmp_path / "data"
    task = make_task(
        config("audio_classification", tmp_path / "model", data_folder, max_seconds=max_seconds)
    )
    data = task.prepare_data()
    model = task.build_model(data).model.train()
    settings: Any = model.config
    assert settings.mask_time_length == mask_frames
    short = [
        s for s in (data.train[i] for i in range(len(data.train))) if len(s["input_values"]) == 800
    ]
    batch = task.collate(short)
    assert frames(batch["input_values"].shape[1]) == mask_frames
    assert torch.isfinite(model(**batch).loss)
    alone = torch.cat([logits_of(task, model, [sample]) for sample in short])
    torch.testing.assert_close(logits_of(task, model, short), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("max_seconds", [0.01, 0.1])
def test_clips_shorter_than_a_mask_train(
    tiny_wav2vec2: Path, clips: Path, tmp_path: Path, max_seconds: float
) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(tiny_wav2vec2, checkpoint)
    settings = json.loads((checkpoint / "config.json").read_text())
    settings.update(mask_time_length=10, mask_time_prob=0.5)
    (checkpoint / "config.json").write_text(json.dumps(settings))
    case = config("audio_classification", checkpoint, clips, max_seconds=max_seconds)
    task = make_task(case)
    data = task.prepare_data()
    model = task.build_model(data).model.train()
    batch = task.collate([data.train[0], data.train[1]])
    assert batch["input_values"].shape[1] == max(800, round(max_seconds * 16000))
    assert torch.isfinite(model(**batch).loss)
