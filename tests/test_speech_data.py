"""Speech recognition: transcripts, recordings and the rows that cannot be used."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_tasks import changed_row, config_of, task_of

from hfbench.data.sources import load_bundled
from hfbench.errors import UserError
from hfbench.tasks.speech_recognition import frames_needed

pytestmark = pytest.mark.usefixtures("own_folders")


def test_the_vocabulary_and_the_spelling_are_said(tiny_wav2vec2: Path, speech: Path) -> None:
    task = task_of(config_of(tiny_wav2vec2, speech))
    data = task.prepare_data()
    assert data.summary["columns"] == {"audio": "audio", "transcript": "transcript"}
    assert data.summary["notes"] == [
        "vocabulary: 5 tokens, made of the training transcripts",  # [PAD] [UNK] | a b
        "transcripts: Unicode NFKC, lower case, dashes and hyphens are spaces, other "
        "punctuation, symbols and invisible characters removed",
    ]
    # "ba" for "b a": one word is wrong, one is missing.
    words, together = np.array([[4, 2, 3]]), np.array([[4, 3, -100]])
    assert task.compute_metrics(together, words) == {"wer": 1.0, "cer": 1 / 3}
    # b — a, and what fills up to the longest of the split
    assert data.train[3]["labels"] == [4, 2, 3]
    assert data.train[1]["labels"] == [4, -100, -100]


def test_characters_of_test_that_train_lacks_are_counted(
    tiny_wav2vec2: Path, speech: Path, tmp_path: Path
) -> None:
    folder = changed_row(speech, tmp_path, "test", 2, transcript="a, zz")
    data = task_of(config_of(tiny_wav2vec2, folder)).prepare_data()
    assert data.summary["notes"][-1] == (
        "2 characters of test (12.5 %) are not in the vocabulary and count as errors: z 2"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        # 0.15 s are 14 frames: 8 letters and 7 blanks between equal ones do not fit
        (
            {"transcript": "aaaaaaaa"},
            r"train row 1 \(.*\): too short for its transcript: 14 frames .* needs 15",
        ),
        ({"transcript": "?!"}, r"train row 1 \(.*\): without a transcript: of '\?!' nothing"),
        ({"audio": "missing.wav"}, r"train row 1 \(.*missing.wav\): not a readable sound"),
    ],
)
def test_a_row_that_cannot_be_learnt_is_named(
    values: dict[str, str], message: str, tiny_wav2vec2: Path, speech: Path, tmp_path: Path
) -> None:
    folder = changed_row(speech, tmp_path, "train", 1, **values)
    with pytest.raises(UserError, match=message):
        task_of(config_of(tiny_wav2vec2, folder)).prepare_data()


def test_rows_that_cannot_be_used_are_skipped_up_to_the_limit(
    tiny_hubert: Path, speech: Path, tmp_path: Path
) -> None:
    folder = changed_row(speech, tmp_path, "train", 1, transcript="aaaaaaaa")
    (folder / "broken.wav").write_bytes(b"RIFF")
    rows = (folder / "train.jsonl").read_text().splitlines()
    rows[3] = json.dumps({**json.loads(rows[3]), "audio": "broken.wav"})
    (folder / "train.jsonl").write_text("\n".join(rows))
    truncated = folder / "truncated.wav"
    truncated.write_bytes((speech / "train4.wav").read_bytes()[:-100])
    rows[4] = json.dumps({**json.loads(rows[4]), "audio": "truncated.wav"})
    (folder / "train.jsonl").write_text("\n".join(rows))
    task = task_of(config_of(tiny_hubert, folder, "data.max_bad_rows=3"))
    data = task.prepare_data()
    assert [(row.split, row.row) for row in data.bad_rows] == [
        ("train", 1), ("train", 3), ("train", 4)
    ]  # fmt: skip
    lengths = task.sample_lengths(data.train)
    assert lengths is not None
    assert len(lengths) == len(data.train) == 33
    assert lengths == [len(data.train[index]["input_values"]) for index in range(33)]
    assert data.train[1]["labels"] == [3, 2, 4]  # the third row, a b


def test_frames_that_a_transcript_needs() -> None:
    assert frames_needed([5]) == 1
    assert frames_needed([5, 4, 6, 6, 7]) == 6
    assert frames_needed([3, 3, 3]) == 5


def test_a_recording_is_never_cropped(tiny_wav2vec2: Path, speech: Path) -> None:
    config = config_of(tiny_wav2vec2, speech, "data.max_seconds=0.2")
    with pytest.raises(
        UserError, match=r"train row 2 \(.*\): a recording of 0.30 s, longer than data.max"
    ):
        task_of(config).prepare_data()


def test_without_other_splits_they_are_taken_from_train(tiny_wav2vec2: Path, speech: Path) -> None:
    data = task_of(config_of(tiny_wav2vec2, speech / "train.jsonl")).prepare_data()
    assert [len(split) for split in (data.train, data.validation, data.test)] == [28, 4, 4]
    assert "taken from train (by chance, the same for every seed)" in data.summary["notes"][0]


def test_digit_strings_are_clips_of_one_split_behind_each_other() -> None:
    made, again = load_bundled("spoken-digit-strings"), load_bundled("spoken-digit-strings")
    clips = load_bundled("spoken-digits")
    for split, rows in made.items():
        assert rows["audio"][:] == again[split]["audio"][:]
        known = {}
        for clip, word in zip(clips[split]["audio"][:], clips[split]["label"][:], strict=True):
            samples = from_first_sound(samples_of(clip))
            known[samples[:2000].tobytes()] = (word, samples)
        for audio, text in zip(rows["audio"][:20], rows["text"][:20], strict=True):
            samples, start = samples_of(audio), 0
            for word in text.split():
                start += len(samples) - start - len(from_first_sound(samples[start:]))
                clip_word, clip = known[samples[start : start + 2000].tobytes()]
                assert clip_word == word
                np.testing.assert_array_equal(samples[start : start + len(clip)], clip)
                start += len(clip)
            assert start == len(samples)


def from_first_sound(samples: np.ndarray) -> np.ndarray:
    return samples[np.flatnonzero(samples)[0] :]


def samples_of(file: bytes) -> np.ndarray:
    return np.asarray(soundfile.read(io.BytesIO(file), dtype="int16")[0])
