"""The data sets and checkpoints that are shipped: whole, small, licensed, fair and loadable."""

import io
import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

import hfbench

BUNDLED = Path(hfbench.__file__).parent / "bundled"
DATA_SETS = ("python-docs", "spoken-digits")
CHECKPOINTS = ("bert-tiny", "gpt-tiny", "vit-tiny", "wav2vec2-tiny")
SPLITS = ("train", "validation", "test")
MEGABYTE = 1_000_000


def rows(name: str, split: str) -> list[dict[str, Any]]:
    return pq.read_table(BUNDLED / "data" / name / f"{split}.parquet").to_pylist()


def size_in_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def card(kind: str, name: str) -> str:
    return (BUNDLED / kind / name / "README.md").read_text(encoding="utf-8")


def test_data_and_checkpoints_are_small() -> None:
    assert size_in_bytes(BUNDLED / "data") <= 10 * MEGABYTE
    sizes = [size_in_bytes(BUNDLED / "checkpoints" / name) for name in CHECKPOINTS]
    assert max(sizes) <= 12 * MEGABYTE
    assert sum(sizes) <= 30 * MEGABYTE


def test_nothing_bundled_can_run_code_when_it_is_read() -> None:
    files = [file for file in BUNDLED.rglob("*") if file.is_file()]
    assert len(files) > 10
    allowed = {".parquet", ".md", ".txt", ".json", ".safetensors"}
    assert {file.suffix for file in files} <= allowed


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint_card_says_data_licence_command_duration_and_scores(name: str) -> None:
    text = card("checkpoints", name)
    assert "license: apache-2.0" in text
    for heading in ("## Data", "## Training", "## Scores", "## Licence"):
        assert heading in text
    command = re.search(r"`python recipes/(pretrain_\w+\.py) .*`", text)
    assert command, "the card has no command"
    assert (Path(hfbench.__file__).parents[1] / "recipes" / command[1]).exists()
    assert re.search(r"duration \| [1-9]\d* minutes", text)


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_card_says_licence_and_how_it_was_made(name: str) -> None:
    text = card("data", name)
    assert "license:" in text
    assert "**Licence.**" in text
    assert "recipes/make_bundled_data.py" in text


@pytest.mark.parametrize("name", DATA_SETS)
def test_splits_hold_the_same_labels_roughly_balanced(name: str) -> None:
    counts = {split: Counter(row["label"] for row in rows(name, split)) for split in SPLITS}
    assert counts["train"].keys() == counts["validation"].keys() == counts["test"].keys()
    for split in SPLITS:
        assert min(counts[split].values()) >= 0.9 * max(counts[split].values())


def test_python_docs_ships_the_licence_that_its_text_asks_for() -> None:
    licence = (BUNDLED / "data" / "python-docs" / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Copyright © 2001-2023 Python Software Foundation" in licence
    assert "PSF LICENSE AGREEMENT FOR PYTHON 3.11.2" in licence


def test_python_docs_paragraphs_are_15_to_80_words_without_markup() -> None:
    texts = [row["text"] for split in SPLITS for row in rows("python-docs", split)]
    assert all(15 <= len(text.split()) <= 80 for text in texts)
    markup = re.compile(r"`|\\|>>>|:\w+:`|\.\. \w+::")
    assert [text for text in texts if markup.search(text)] == []


def test_python_docs_has_no_near_duplicates_between_or_within_splits() -> None:
    """No two paragraphs share more than 30 % (Jaccard index) of their five-word shingles."""
    shingles = []
    for split in SPLITS:
        for row in rows("python-docs", split):
            words = re.findall(r"\w+", row["text"].lower())
            shingles.append({tuple(words[i : i + 5]) for i in range(len(words) - 4)})
    containing: dict[tuple[str, ...], list[int]] = {}
    for number, own in enumerate(shingles):
        for shingle in own:
            containing.setdefault(shingle, []).append(number)
    shared: Counter[tuple[int, int]] = Counter()
    for numbers in containing.values():
        shared.update(itertools.combinations(numbers, 2))
    assert shared, "not one shared shingle: the check sees nothing"
    worst = max(n / len(shingles[a] | shingles[b]) for (a, b), n in shared.items())
    assert worst <= 0.3


def test_spoken_digits_voices_are_disjoint_between_splits() -> None:
    variants = {
        split: {row["voice"].split("+")[1] for row in rows("spoken-digits", split)}
        for split in SPLITS
    }
    assert all(variants.values())
    for one, other in itertools.combinations(SPLITS, 2):
        assert variants[one].isdisjoint(variants[other])


def test_spoken_digits_clips_are_distinct_16_khz_mono_and_audible() -> None:
    clips = [row["audio"] for split in SPLITS for row in rows("spoken-digits", split)]
    assert len(set(clips)) == len(clips) == 1150
    for clip in clips:
        with soundfile.SoundFile(io.BytesIO(clip)) as file:
            assert (file.format, file.subtype) == ("FLAC", "PCM_16")
            assert (file.samplerate, file.channels, file.frames) == (16_000, 1, 12_800)
            samples = file.read(dtype="float32")
        assert 0.25 < np.abs(samples).max() <= 0.95


def newly_initialised(loading_info: dict[str, Any]) -> set[str]:
    assert not loading_info["mismatched_keys"]
    return {name.split(".")[0] for name in loading_info["missing_keys"]}


def test_bert_tiny_loads_and_takes_a_fresh_pooler_and_classifier() -> None:
    folder = BUNDLED / "checkpoints" / "bert-tiny"
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=8, output_loading_info=True
    )
    missing = info["missing_keys"]
    assert all("pooler" in name or name.startswith("classifier") for name in missing)
    batch = AutoTokenizer.from_pretrained(folder)(
        ["Return the size of a file."], return_tensors="pt"
    )
    assert model(**batch).logits.shape == (1, 8)


def test_bert_tiny_fills_in_a_masked_word_of_a_plain_sentence() -> None:
    folder = BUNDLED / "checkpoints" / "bert-tiny"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    batch = tokenizer("Returns the number [MASK] rows in the table.", return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits[0]
    place = batch["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    assert tokenizer.decode([int(logits[place].argmax())]) == "of"


def test_vit_tiny_loads_with_a_fresh_classifier_only() -> None:
    folder = BUNDLED / "checkpoints" / "vit-tiny"
    model, info = AutoModelForImageClassification.from_pretrained(
        folder, num_labels=10, output_loading_info=True
    )
    assert newly_initialised(info) == {"classifier"}
    processor = AutoImageProcessor.from_pretrained(folder)
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    pixel_values = processor(image, return_tensors="pt")["pixel_values"]
    assert pixel_values.shape == (1, 3, 28, 28)
    assert pixel_values.unique().tolist() == [-1.0]  # (0 - 0.5) / 0.5
    assert model(pixel_values=pixel_values).logits.shape == (1, 10)


def test_wav2vec2_tiny_loads_with_a_fresh_projector_and_classifier_only() -> None:
    folder = BUNDLED / "checkpoints" / "wav2vec2-tiny"
    model, info = AutoModelForAudioClassification.from_pretrained(
        folder, num_labels=10, output_loading_info=True
    )
    assert newly_initialised(info) == {"projector", "classifier"}
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    audio = np.sin(np.arange(16_000) / 10).astype(np.float32)
    values = extractor(audio, sampling_rate=16_000, return_tensors="pt")["input_values"]
    assert values.std(correction=0).item() == pytest.approx(1.0, abs=1e-3)
    assert model(input_values=values).logits.shape == (1, 10)
