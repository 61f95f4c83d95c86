"""How much of a recording a network gets follows from the data, and what is left out is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from classification_tasks import config
from datasets import Dataset
from speech_tasks import config_of, task_of

from hfbench.cli import recipe_main
from hfbench.data.durations import durations_of, given, of_all_clips, of_most_clips, seconds_read
from hfbench.results import RunResult
from hfbench.tasks import make_task
from hfbench.trained import find_trained


def write_clips(
    folder: Path, seconds: list[float], rate_hz: int = 16000, channels: int = 1
) -> Path:
    """Of two labels in turn."""
    generator = np.random.default_rng(0)
    for index, duration in enumerate(seconds):
        path = folder / "ab"[index % 2] / f"{index:03}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = generator.normal(0, 0.1, (round(duration * rate_hz), channels))
        soundfile.write(path, samples.astype(np.float32), rate_hz)
    return folder


# ---- the choice


@pytest.mark.parametrize(
    ("durations", "limit", "seconds"),
    [
        ([1.0] * 100, None, 1.0),
        ([0.5] * 95 + [7.0] * 5, None, 0.5),  # the 95th of 100 is the longest that must fit
        ([0.5] * 94 + [7.0] * 6, None, 7.0),
        ([2.34], None, 2.4),  # rounded up to tenths
        ([25.0] * 10, None, 10.0),  # for the sake of memory
        ([25.0] * 10, 30.0, 10.0),
        ([5.0] * 10, 3.2, 3.2),  # of the feature extractor
        ([], None, 10.0),  # nothing can be read
    ],
)
def test_most_clips_stay_whole(durations: list[float], limit: float | None, seconds: float) -> None:
    assert of_most_clips(durations, limit).seconds == seconds


def test_the_reason_names_the_clips_and_what_bounds_them() -> None:
    clips = [1.0] * 10 + [20.0]
    known = "95 % of the training clips are not longer than 20 s, the longest has 20 s"
    assert of_most_clips(clips, None).reason == (
        f"data.max_seconds=10, chosen: {known}; more takes much memory, so it is only used when it "
        "is asked for"
    )
    assert of_most_clips(clips, 1.5).reason == (
        f"data.max_seconds=1.5, chosen: {known}; this checkpoint reads no more"
    )


def test_with_a_transcript_every_clip_fits() -> None:
    assert of_all_clips([1.0] * 99 + [17.21], None).seconds == 17.3
    assert of_all_clips([40.0], None).seconds == 30


def test_what_the_user_asks_for_is_kept_to_what_the_checkpoint_reads() -> None:
    assert given(35.0, None).seconds == 35
    assert given(35.0, 30.0).seconds == 30
    assert given(35.0, 30.0).reason == "data.max_seconds=35, of which this checkpoint reads 30 s"


@pytest.mark.filterwarnings("ignore:At least one mel filter")
def test_the_limit_of_a_feature_extractor_is_found_by_trying() -> None:
    """100 frames of 10 ms; 2 s that are stated; features that grow with the clip."""
    from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

    assert seconds_read(ASTFeatureExtractor(max_length=100, num_mel_bins=16)) == 1.0
    assert seconds_read(WhisperFeatureExtractor(chunk_length=2, feature_size=20)) == 2.0
    assert seconds_read(Wav2Vec2FeatureExtractor()) is None


def test_durations_are_read_from_headers_and_broken_clips_have_none(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(4000), 8000)
    soundfile.write(tmp_path / "b.flac", np.zeros((4000, 2)), 16000)
    (tmp_path / "c.wav").write_bytes(b"no sound")
    names = ["a.wav", "b.flac", "c.wav", "missing.wav"]
    rows = Dataset.from_dict({"audio": [str(tmp_path / name) for name in names]})
    assert list(durations_of(rows)) == [0.5, 0.25]


# ---- what is said and kept


def prepared(checkpoint: Path, data: Path, **settings: Any) -> tuple[Any, dict[str, Any]]:
    task = make_task(config("audio_classification", checkpoint, data, **settings))
    return task, task.prepare_data().summary


def test_a_default_run_says_what_it_crops(tiny_wav2vec2: Path, tmp_path: Path) -> None:
    """0.5 s suffice for the training clips, and not for the four of test."""
    write_clips(tmp_path / "train", [0.5] * 36)
    write_clips(tmp_path / "test", [2.5] * 4)
    task, summary = prepared(tiny_wav2vec2, tmp_path)
    assert summary["max_seconds"] == task.max_seconds == 0.5
    assert summary["cropped"] == {
        "max_seconds": 0.5,
        "clips": 4,
        "of_clips": 40,
        "seconds": 8.0,
        "of_seconds": 28.0,
    }
    assert (
        "data.max_seconds=0.5, chosen: 95 % of the training clips are not longer than 0.5 s, the "
        "longest has 0.5 s"
    ) in summary["notes"]
    assert (
        "4 of 40 clips are longer than 0.5 s and keep their middle: 28.6 % of the recorded time is "
        "left out"
    ) in summary["notes"]


def test_resampling_and_averaging_are_said(tiny_wav2vec2: Path, tmp_path: Path) -> None:
    write_clips(tmp_path / "train", [0.1] * 10, 8000)
    write_clips(tmp_path / "validation", [0.1] * 10, 44100, channels=2)
    write_clips(tmp_path / "test", [0.1] * 10)
    _, summary = prepared(tiny_wav2vec2, tmp_path, max_seconds=1.0)
    assert summary["resampled"] == {"8000 Hz": 10, "44100 Hz": 10}
    assert summary["averaged_channels"] == 10
    expected = [
        "resampled to 16,000 Hz: 10 clips from 8,000 Hz, 10 clips from 44,100 Hz",
        "the channels of 10 clips are averaged to one",
    ]
    assert [note for note in summary["notes"] if "clips" in note] == expected
    assert (summary["cropped"]["clips"], summary["cropped"]["of_clips"]) == (0, 30)


def test_facts_of_clips_that_are_not_kept_are_the_same(
    tiny_wav2vec2: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the answer comes from the disk, and for another limit it is another one."""
    found = [prepared(tiny_wav2vec2, clips, max_seconds=0.5)[1]]
    monkeypatch.setattr("hfbench.data.media.MEMORY_LIMIT_BYTES", 100_000)
    found += [prepared(tiny_wav2vec2, clips, max_seconds=0.5)[1] for _ in range(2)]
    assert found[0]["cropped"]["clips"] == 2 * 14  # of 0.25 s to 1.2 s, every 0.05 s
    assert [summary["cropped"] for summary in found] == [found[0]["cropped"]] * 3
    assert prepared(tiny_wav2vec2, clips, max_seconds=1.0)[1]["cropped"]["clips"] == 2 * 4


def test_speech_follows_the_longest_recording_of_all_splits(
    tiny_wav2vec2: Path, speech: Path
) -> None:
    case = config_of(tiny_wav2vec2, speech, "data.max_seconds=null")
    task = task_of(case)
    summary = task.prepare_data().summary
    longest = max(soundfile.info(path).duration for path in speech.glob("*.wav"))
    assert summary["max_seconds"] == pytest.approx(np.ceil(longest * 10) / 10)
    assert summary["cropped"]["clips"] == 0
    assert sum(summary["bad_rows"].values()) == 0


def test_a_saved_model_knows_the_length_that_was_chosen(
    tiny_wav2vec2: Path, tmp_path: Path
) -> None:
    data = write_clips(tmp_path / "data", [0.25] * 30)
    run = tmp_path / "run"
    settings = [f"model.checkpoint={tiny_wav2vec2}", f"data.source={data}", "strategy=head"]
    settings += ["training.max_steps=1", f"output_dir={run}"]
    assert recipe_main("audio_classification", None, settings) == 0
    result = RunResult.load(run / "result.json")
    assert result.config["data"]["max_seconds"] is None
    assert result.max_seconds == 0.3
    trained = find_trained(str(run))
    assert trained.task.config.data.max_seconds == 0.3
    assert "preprocessing: as in training, data.max_seconds=0.3" in trained.notes
    samples = trained.task.features(
        Dataset.from_dict({"audio": [str(next(data.glob("a/*.wav")))]}), "input", keep=False
    )
    assert trained.task.collate([samples[0]])["input_values"].shape == (1, 4800)
