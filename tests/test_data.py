"""Sources, columns, labels and splits."""

import errno
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import datasets
import httpx2
import numpy as np
import pytest
import soundfile
from datasets import ClassLabel, Dataset, Features, Value
from huggingface_hub import constants, errors
from PIL import Image

from hfbench.config import DataConfig
from hfbench.data.columns import Columns, Modality, detect_columns
from hfbench.data.files import load_table
from hfbench.data.labels import OneLabel, label_names
from hfbench.data.media import decode_image
from hfbench.data.sources import PARQUET_REVISION, load_bundled, load_hub
from hfbench.data.splits import describe, fingerprint, load_splits, stratified_split
from hfbench.errors import HubUnreachableError, UserError
from hfbench.hub_access import _go_offline_without_hub, hub_errors


def columns_of(columns: dict[str, list], modality: Modality = "text", **data: str) -> Columns:
    return detect_columns(Dataset.from_dict(columns), DataConfig(**data), modality)


def write_csv(path: Path, rows: int = 20, labels: str = "ab", header: str = "text,label") -> Path:
    lines = [f"words {i},{labels[i % len(labels)]}" for i in range(rows)]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


# ---- columns


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text": ["a"], "label": [0]}, Columns("text", "label")),
        ({"Review": ["a"], "sentiment": ["+"], "id": ["x"]}, Columns("Review", "sentiment")),
        ({"whatever": ["a"], "intent": ["x"]}, Columns("whatever", "intent")),
        (
            {"premise": ["a"], "hypothesis": ["b"], "label": [0]},
            Columns("premise", "label", "hypothesis"),
        ),
        (
            {"sentence1": ["a"], "sentence2": ["b"], "label": [0], "idx": [3]},
            Columns("sentence1", "label", "sentence2"),
        ),
    ],
)
def test_text_columns_are_found_by_name(columns: dict[str, list], expected: Columns) -> None:
    assert columns_of(columns) == expected


def test_a_class_label_is_found_by_its_type_whatever_its_name() -> None:
    features = Features({"text": Value("string"), "fine": ClassLabel(names=["x", "y"])})
    dataset = Dataset.from_dict({"text": ["a"], "fine": [1]}, features=features)
    assert detect_columns(dataset, DataConfig(), "text") == Columns("text", "fine")
    assert label_names(dataset, "fine") == ("x", "y")


def test_configured_columns_win_and_settle_an_ambiguity() -> None:
    columns = {"text": ["a"], "review": ["b"], "label": [0], "category": [1]}
    with pytest.raises(UserError, match=r"label, category.*data.label_column.*text, review"):
        columns_of(columns)
    with pytest.raises(UserError, match=r"text, review.*data.text_column"):
        columns_of(columns, label_column="label")
    found = columns_of(columns, label_column="category", text_column="review")
    assert found == Columns("review", "category")


def test_an_unknown_column_is_an_error_that_lists_the_columns() -> None:
    with pytest.raises(UserError, match=r"data.text_column='txet' .*text, label"):
        columns_of({"text": ["a"], "label": [0]}, text_column="txet")
    with pytest.raises(UserError, match=r"none is recognised: set data.audio_column.*text, label"):
        columns_of({"text": ["a"], "label": [0]}, "audio")


# ---- labels


def test_label_names_are_sorted_as_numbers_when_all_are_integers() -> None:
    assert label_names(Dataset.from_dict({"y": ["10", "9", "0"]}), "y") == ("0", "9", "10")
    assert label_names(Dataset.from_dict({"y": ["10", "9", "b"]}), "y") == ("10", "9", "b")
    assert label_names(Dataset.from_dict({"y": [10, 9]}), "y") == ("9", "10")


def test_labels_become_positions_in_the_names() -> None:
    dataset = Dataset.from_dict({"y": ["no", "yes", "no"]})
    labels, problems = OneLabel(("no", "yes")).encode(dataset, "y")
    assert (labels.tolist(), problems) == ([0, 1, 0], {})


@pytest.mark.parametrize(
    ("values", "kind", "rows"),
    [
        ([0, None], Value("int64"), [1]),
        (["0", ""], Value("string"), [1]),
        ([0, -1], ClassLabel(names=["0", "1"]), [1]),
        ([-1, -1], Value("int64"), [0, 1]),
    ],
)
def test_a_withheld_label_is_none(values: list, kind: Value | ClassLabel, rows: list[int]) -> None:
    dataset = Dataset.from_dict({"y": values}, features=Features({"y": kind}))
    _, problems = OneLabel(("0", "1")).encode(dataset, "y")
    assert problems == {row: f"no label (y={values[row]!r})" for row in rows}


def test_a_split_without_any_label_is_an_error(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv")
    write_csv(tmp_path / "test.csv", labels=" ")
    with pytest.raises(UserError, match=r"'test' has no row with a label .*data.test_split"):
        load_splits(DataConfig(source=str(tmp_path)), "text")


def test_minus_one_beside_other_whole_numbers_is_a_label() -> None:
    dataset = Dataset.from_dict({"y": [1, -1, 1]})
    assert label_names(dataset, "y") == ("-1", "1")
    assert OneLabel(("-1", "1")).encode(dataset, "y")[0].tolist() == [1, 0, 1]


def test_a_digit_that_is_no_number_is_a_word() -> None:
    assert label_names(Dataset.from_dict({"y": ["²", "10", "9"]}), "y") == ("10", "9", "²")


def test_lists_are_no_single_labels() -> None:
    with pytest.raises(UserError, match="one label a row"):
        OneLabel(("0",)).encode(Dataset.from_dict({"y": [[1, 2]]}), "y")


# ---- splits


def test_a_stratified_split_takes_the_fraction_of_every_label_but_never_all() -> None:
    labels = [0] * 50 + [1] * 30 + [2]
    kept, taken = stratified_split(labels, 0.1, seed=0)
    assert sorted(kept + taken) == list(range(81))
    assert [sum(labels[i] == label for i in taken) for label in (0, 1, 2)] == [5, 3, 0]
    assert stratified_split(labels, 0.1, seed=0) == (kept, taken)
    kept, taken = stratified_split([0, 0, 1], 0.9, seed=0)
    assert (len(taken), kept[-1]) == (1, 2)


def test_missing_splits_are_taken_from_train_the_same_every_time(tmp_path: Path) -> None:
    data = DataConfig(source=str(write_csv(tmp_path / "all.csv", rows=100)), test_fraction=0.2)
    first, second = load_splits(data, "text"), load_splits(data, "text")
    assert [len(s) for s in (first.train, first.validation, first.test)] == [70, 10, 20]
    assert sum(first.test["labels"]) == 10  # half of each label
    texts = [*first.train["text"], *first.validation["text"], *first.test["text"]]
    assert len(set(texts)) == 100
    assert list(second.test["text"]) == list(first.test["text"])
    assert second.summary == first.summary
    assert "no test split: 20 samples were taken" in describe(first.summary)


def test_a_folder_of_tables_is_split_by_file_name(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", rows=20)
    write_csv(tmp_path / "dev.csv", rows=4)
    rows = [{"text": "w", "label": "a"}, {"text": "v", "label": "b"}]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    splits = load_splits(DataConfig(source=str(tmp_path)), "text")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [20, 4, 2]
    assert [note for note in splits.summary["notes"] if note.startswith("no ")] == []


def test_a_split_used_as_test_is_not_used_for_validation_too(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", rows=40)
    write_csv(tmp_path / "validation.csv", rows=4)
    splits = load_splits(DataConfig(source=str(tmp_path), test_split="validation"), "text")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [36, 4, 4]
    assert set(splits.validation["text"]).isdisjoint(splits.train["text"])
    twice = DataConfig(source=str(tmp_path), test_split="validation", validation_split="validation")
    with pytest.raises(UserError, match="used twice"):
        load_splits(twice, "text")


def test_other_column_names_in_another_split_are_mapped_and_noted(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", header="sentence,label")
    write_csv(tmp_path / "test.csv", header="content,label")
    splits = load_splits(DataConfig(source=str(tmp_path)), "text")
    assert splits.test.column_names == ["text", "labels"]
    assert (
        splits.summary["notes"][0] == "in split 'test' the column 'content' is read as 'sentence'"
    )
    write_csv(tmp_path / "test.csv", header="a,b")
    with pytest.raises(UserError, match=r"split 'test' lacks the columns label, sentence"):
        load_splits(DataConfig(source=str(tmp_path)), "text")


def test_a_label_that_train_lacks_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", labels="ab")
    write_csv(tmp_path / "test.csv", labels="abc")
    with pytest.raises(UserError, match=r"test row 2: the label 'c', which train lacks"):
        load_splits(DataConfig(source=str(tmp_path)), "text")


def test_empty_splits_and_single_labels_are_errors(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv")
    write_csv(tmp_path / "test.csv", rows=0)
    with pytest.raises(UserError, match=r"split 'test' of .* is empty"):
        load_splits(DataConfig(source=str(tmp_path)), "text")
    single = write_csv(tmp_path / "single.csv", labels="a")
    with pytest.raises(UserError, match="single label"):
        load_splits(DataConfig(source=str(single)), "text")
    few = write_csv(tmp_path / "few.csv", rows=4)
    with pytest.raises(UserError, match=r"too few .* raise data.test_fraction"):
        load_splits(DataConfig(source=str(few)), "text")


def test_an_unknown_split_is_an_error_that_lists_them(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv")
    with pytest.raises(UserError, match=r"data.test_split='tset'.*splits are: train"):
        load_splits(DataConfig(source=str(tmp_path), test_split="tset"), "text")


def test_limits_keep_a_random_subset_and_all_label_names(tmp_path: Path) -> None:
    source = str(write_csv(tmp_path / "all.csv", rows=100))
    data = DataConfig(source=source, max_train_samples=7, max_eval_samples=5)
    splits = load_splits(data, "text")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [7, 5, 5]
    assert splits.label_names == ("a", "b")
    assert {"a", "b"} == {splits.label_names[label] for label in splits.train["labels"]}


def test_the_fingerprint_follows_the_contents() -> None:
    def of(text: str) -> str:
        one = Dataset.from_dict({"text": [text], "labels": [0]})
        return fingerprint({"train": one, "validation": one, "test": one})

    assert of("a") == of("a") != of("b")
    assert of("/" + "a" * 5000) != of("b")  # a text, too long to be asked for as a file


# ---- local files


def test_csv_fields_may_be_quoted_and_tsv_quotes_are_characters(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"one, two ""x""\nthree",0\nfour,1\n')
    (tmp_path / "a.tsv").write_text('label\ttext\n0\t" one\n1\ttwo\n')
    assert load_table(tmp_path / "a.csv")["text"][0] == 'one, two "x"\nthree'
    assert load_table(tmp_path / "a.tsv")["text"][0] == '" one'


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", "text,label\nx\n", r"line 2: 1 fields, but the first line names 2"),
        ("a.csv", "", "first line"),
        ("a.csv", 'text,label\n"x,0\n', "not a valid csv"),
        ("a.json", "{", "not a valid json"),
        ("a.json", "[1, 2]", "list of objects"),
        ("a.jsonl", '{"a": 1}\n{', "line 2"),
        ("a.parquet", "no", "not a valid parquet"),
        ("a.xlsx", "no", r"'.xlsx' are not read; choose: .csv"),
    ],
)
def test_an_unreadable_table_is_an_error(
    tmp_path: Path, name: str, content: str, problem: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=problem):
        load_splits(DataConfig(source=str(tmp_path / name)), "text")


def test_json_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    rows = [{"text": f"w {i}", "label": i % 2} for i in range(40)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    found = [
        load_splits(DataConfig(source=str(tmp_path / name)), "text").summary["fingerprint"]
        for name in ("a.json", "a.parquet")
    ]
    assert found[0] == found[1]


def test_shards_with_columns_of_different_types_are_an_error(tmp_path: Path) -> None:
    for number, label in enumerate((1, "b")):
        rows = {"text": ["w"], "label": [label]}
        Dataset.from_dict(rows).to_parquet(tmp_path / f"train-{number}.parquet")
    with pytest.raises(UserError, match=r"split 'train'.*train-0.parquet, train-1.*same types"):
        load_splits(DataConfig(source=str(tmp_path)), "text")


@pytest.mark.parametrize(
    ("value", "kind"),
    [("a.png", Value("string")), ({"bytes": b"x", "path": None}, datasets.Image(decode=False))],
)
def test_a_row_without_an_image_is_named(
    tmp_path: Path, value: str | dict, kind: Value | datasets.Image
) -> None:
    rows = {"image": [value, None] * 20, "label": list("aabb" * 10)}
    typed = Dataset.from_dict(rows).cast(Features({"image": kind, "label": Value("string")}))
    typed.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"train row 1: no file .*'image' is empty"):
        load_splits(DataConfig(source=str(tmp_path)), "image")


def test_class_folders_of_images_with_and_without_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / f"{i}.png")
    splits = load_splits(DataConfig(source=str(tmp_path)), "image")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [18, 2, 20]
    assert splits.label_names == ("cat", "dog")
    single = load_splits(DataConfig(source=str(tmp_path / "train")), "image")
    assert len(single.train) == 16
    with pytest.raises(UserError, match=r"none is recognised: set data.audio_column"):
        load_splits(DataConfig(source=str(tmp_path)), "audio")


def test_class_folders_of_sounds_and_tables_with_relative_paths(tmp_path: Path) -> None:
    lines = ["audio,label"]
    for label in ("yes", "no"):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for i in range(10):
            path = tmp_path / "sounds" / label / f"{i}.wav"
            soundfile.write(path, np.zeros(8, dtype=np.float32), 8000)
            lines.append(f"sounds/{label}/{i}.wav,{label}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    folder = load_splits(DataConfig(source=str(tmp_path / "sounds")), "audio")
    table = load_splits(DataConfig(source=str(tmp_path / "list.csv")), "audio")
    assert folder.label_names == table.label_names == ("no", "yes")
    assert Path(table.train[0]["audio"]).is_file()


def test_a_folder_of_neither_shape_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images, sounds or texts in class folders"):
        load_splits(DataConfig(source=str(tmp_path)), "image")


def test_a_broken_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG no")
    with pytest.raises(UserError, match=r"train row 2.* not a readable image"):
        decode_image(str(tmp_path / "a.png"), "RGB", "train row 2")
    with pytest.raises(UserError, match="not a readable image"):
        decode_image(str(tmp_path / "missing.png"), "RGB", "train row 2")


def test_a_rotated_photograph_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    image.paste((255, 255, 255), (0, 0, 2, 2))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned clockwise by a quarter
    image.save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    upright = np.asarray(decode_image(str(tmp_path / "a.jpg"), "L", "x"))
    assert upright.shape == (4, 2)
    assert (upright > 200).tolist() == [[True, True]] * 2 + [[False, False]] * 2  # left became top


def test_typed_columns_of_hub_files_stay_encoded_and_keep_their_label_order(tmp_path: Path) -> None:
    clip, image = tmp_path / "clip.wav", tmp_path / "image.png"
    soundfile.write(clip, np.zeros(800, dtype=np.float32), 8000)
    Image.new("L", (4, 4)).save(image)
    for modality, path, kind in (
        ("image", image, datasets.Image(decode=False)),
        ("audio", clip, datasets.Audio(decode=False)),
    ):
        rows = {
            "blob": [{"bytes": path.read_bytes(), "path": path.name}] * 40,
            "kind": [0, 1] * 20,
        }
        features = Features({"blob": kind, "kind": ClassLabel(names=["z", "a"])})
        typed = Dataset.from_dict(rows).cast(features)
        typed.to_parquet(tmp_path / f"{modality}.parquet")
        data = DataConfig(source=str(tmp_path / f"{modality}.parquet"))
        splits = load_splits(data, modality)  # type: ignore[arg-type]
        assert splits.label_names == ("z", "a")
        assert splits.summary["columns"] == {modality: "blob", "label": "kind"}
        assert splits.train[0][modality]["bytes"] == path.read_bytes()


# ---- bundled


def test_the_digits_are_split_stratified_into_800_300_697() -> None:
    splits = load_splits(DataConfig(source="bundled/digits"), "image")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [800, 300, 697]
    assert splits.label_names == tuple("0123456789")
    images = [splits.train[i]["image"] for i in range(800)]
    assert decode_image(images[0], "L", "x").size == (8, 8)
    levels = {v for image in images for v in np.asarray(decode_image(image, "L", "x")).flat}
    assert (min(levels), max(levels), len(levels)) == (0, 255, 17)
    for split in (splits.train, splits.validation, splits.test):
        counts = np.bincount(split["labels"])
        assert counts.min() > 0.9 * len(split) / 10


@pytest.mark.parametrize("name", ["python-docs", "spoken-digits"])
def test_bundled_data_load_and_have_every_label_in_every_split(name: str) -> None:
    splits = load_bundled(name)
    assert set(splits) == {"train", "validation", "test"}
    labels = {split: set(dataset["label"][:]) for split, dataset in splits.items()}
    assert labels["train"] == labels["validation"] == labels["test"]
    assert len(labels["train"]) > 1


# ---- what is not there


@pytest.mark.parametrize(
    "source", ["", "bundled/nothing", "./missing.csv", "missing.json", "/no/such/folder"]
)
def test_an_unknown_source_is_an_error_that_lists_the_choices(source: str) -> None:
    with pytest.raises(UserError, match="bundled/digits"):
        load_splits(DataConfig(source=source), "text")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_a_configuration_of_the_converted_revision_is_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "data"
    for name in ("v0.01", "v0.02"):
        for split, rows in (("train", 3), ("validation", 2), ("test", 1)):
            (source / name / split).mkdir(parents=True)
            table = Dataset.from_dict({"text": [f"{name} {split}"] * rows, "label": ["a"] * rows})
            table.to_parquet(source / name / split / "0000.parquet")
    config = DataConfig(source=str(source), name="v0.02", revision=PARQUET_REVISION)
    loaded = load_hub(config)
    assert {split: len(dataset) for split, dataset in loaded.items()} == {
        "train": 3,
        "validation": 2,
        "test": 1,
    }
    assert set(loaded["test"]["text"]) == {"v0.02 test"}
    with pytest.raises(UserError, match=r"data.name='v0.03'.*does not load"):
        load_hub(DataConfig(source=str(source), name="v0.03", revision=PARQUET_REVISION))


@pytest.mark.usefixtures("own_cache")
def test_a_hub_data_set_with_broken_or_without_files_is_a_user_error(tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    with pytest.raises(UserError, match=r"data set '.*data' with data.name=None.*does not load"):
        load_hub(DataConfig(source=str(source)))
    for number, column in enumerate("ab"):
        (source / f"train-{number}.csv").write_text(f"text,{column}\nw,1\n")
    with pytest.raises(UserError, match=r"(?s)does not load: .*b: int64.*data.revision"):
        load_hub(DataConfig(source=str(source)))


@pytest.mark.parametrize("name", ["NonMatchingSplitsSizesError", "ExpectedMoreSplitsError"])
def test_other_splits_than_announced_are_a_user_error(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def load(*_: object, **__: object) -> None:
        raise getattr(datasets.exceptions, name)("test: 3 rows")

    monkeypatch.setattr("hfbench.data.sources.load_dataset", load)
    with pytest.raises(UserError, match=r"data set 'a/b'.*test: 3 rows.*data.revision"):
        load_hub(DataConfig(source="a/b"))


def test_a_full_disk_and_a_lost_hub_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = (
        (OSError(errno.ENOSPC, "full"), OSError, "full"),
        (ConnectionError("lost"), HubUnreachableError, "'a/b'"),
    )
    for cause, kind, message in cases:

        def load(*_: object, cause: OSError = cause, **__: object) -> None:
            raise datasets.exceptions.DatasetGenerationError("failed") from cause

        monkeypatch.setattr("hfbench.data.sources.load_dataset", load)
        with pytest.raises(kind, match=message):
            load_hub(DataConfig(source="a/b"))


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """Every attempt to connect; online as far as the libraries know, without a proxy."""
    attempts: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        attempts.append(address)
        return socket.socket()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(socket, "create_connection", connect)
    _go_offline_without_hub.cache_clear()
    yield attempts
    _go_offline_without_hub.cache_clear()


def test_only_names_of_the_hub_lead_to_a_connection(
    connections: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bundled/digits", str(tmp_path)):
        with hub_errors("checkpoint", name):
            pass
    assert connections == []
    with monkeypatch.context() as offline, hub_errors("checkpoint", str(tmp_path)):
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        with hub_errors("checkpoint", "owner/name"):
            pass
    assert connections == []
    _go_offline_without_hub.cache_clear()
    with hub_errors("checkpoint", "owner/name"):
        pass
    assert len(connections) == 1


def test_an_unreachable_hub_is_its_own_error_with_the_ways_out() -> None:
    with pytest.raises(HubUnreachableError, match=r"'owner/name'.*bundled/.*HF_ENDPOINT"):
        load_splits(DataConfig(source="owner/name"), "text")


def test_hub_answers_become_user_errors() -> None:
    def refusal(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
        request = httpx2.Request("GET", "https://hub/x")
        return kind("no", response=httpx2.Response(status, request=request))

    cases = [
        (refusal(errors.GatedRepoError, 403), r"gated.*hf auth login.*HF_TOKEN"),
        (refusal(errors.RepositoryNotFoundError, 404), "check the spelling"),
        (refusal(errors.RevisionNotFoundError, 404), "model.revision"),
        (refusal(errors.HfHubHTTPError, 401), "HF_TOKEN"),
        (errors.HFValidationError("bad"), "neither an existing local path"),
    ]
    for cause, message in cases:
        with pytest.raises(UserError, match=message), hub_errors("checkpoint", "a/b"):
            raise OSError("wrapped by the library") from cause
    with pytest.raises(HubUnreachableError), hub_errors("checkpoint", "a/b"):
        raise refusal(errors.HfHubHTTPError, 503)
    with pytest.raises(OSError, match="disk full"), hub_errors("checkpoint", "a/b"):
        raise OSError("disk full")
