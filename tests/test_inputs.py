"""What ``hfbench predict`` is given: texts, files, tables, folders and standard input."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hfbench.data.columns import Modality
from hfbench.data.inputs import Inputs, read_inputs
from hfbench.errors import UserError


def read(*given: str | Path, modality: Modality = "text", lines: str = "", **more: Any) -> Inputs:
    stream = io.BytesIO(lines.encode())
    return read_inputs([str(item) for item in given], modality, standard_input=stream, **more)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_texts_tables_files_and_standard_input_keep_their_order(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", 'id,review\n1,"one, two"\n2,three\n')
    lines = write(tmp_path / "b.txt", "five\nsix\n")
    found = read("zero", table, "four.", lines, "-", "nine", lines="seven\r\neight")
    expected = ["zero", "one, two", "three", "four.", "five", "six", "seven", "eight", "nine"]
    assert found.rows["text"][:] == expected
    assert list(found.names) == expected
    assert found.rows.column_names == ["text"]
    assert found.notes == (f"{table}: 2 rows, texts from review",)


@pytest.mark.parametrize("ending", ["tsv", "json", "jsonl", "parquet"])
def test_every_kind_of_table_gives_its_texts(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table.{ending}"
    rows = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]
    if ending == "parquet":
        Dataset.from_list(rows).to_parquet(path)
    elif ending == "tsv":
        write(path, "text\tlabel\none\ta\ntwo\tb\n")
    else:
        lines = [json.dumps(row) for row in rows]
        write(path, f"[{', '.join(lines)}]" if ending == "json" else "\n".join(lines))
    assert read(path).names == ("one", "two")


@pytest.mark.parametrize(
    ("header", "training", "chosen", "expected"),
    [
        ("other,quote", None, "quote", "2"),  # --text-column
        ("text,quote", {"text": "quote"}, None, "2"),  # as in training
        ("text,quote", {"text": "text"}, "quote", "2"),  # --text-column before training
        ("other,text", {"text": "body"}, None, "2"),  # by name, where the training's is not there
        ("label,other", None, None, "2"),  # the only one that is no label
        ("premise,hypothesis", {"text": "hypothesis"}, None, "2"),  # no pairs in training
    ],
)
def test_the_column_of_a_table(
    tmp_path: Path,
    header: str,
    training: Mapping[str, str] | None,
    chosen: str | None,
    expected: str,
) -> None:
    table = write(tmp_path / "a.csv", f"{header}\n1,2\n")
    found = read(table, training_columns=training, text_column=chosen)
    assert found.rows.to_dict() == {"text": [expected]}


@pytest.mark.parametrize(
    ("header", "training"),
    [
        ("premise,hypothesis", None),
        ("premise,hypothesis", {"text": "question", "text_pair": "answer"}),
        ("a,b", {"text": "a", "text_pair": "b"}),
    ],
)
def test_pairs_of_texts(tmp_path: Path, header: str, training: Mapping[str, str] | None) -> None:
    table = write(tmp_path / "a.csv", f"{header}\n1,2\n")
    found = read(table, training_columns=training)
    assert found.rows.to_dict() == {"text": ["1"], "text_pair": ["2"]}
    assert found.names == ("1 | 2",)


def test_files_and_folders_of_images_keep_their_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.JPG", "b/deep/1.png", "b/notes.txt", "a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, "")
    inside = [tmp_path / name for name in ("b/10.JPG", "b/2.png", "b/deep/1.png")]
    expected = tuple(map(str, [*inside, tmp_path / "a.png"]))
    found = read(tmp_path / "b", tmp_path / "a.png", modality="image")
    assert found.names == expected
    assert found.rows.to_dict() == {"image": list(expected)}
    assert found.notes == (f"{tmp_path / 'b'}: 3 images; other files, left out: 1",)
    assert read("-", modality="image", lines="\n".join(expected)).names == expected


@pytest.mark.parametrize(
    "text", ["It was good. I saw it twice.", "Well...", "i.e.", "a/b", "3.5", "~ 10 %", "ok."]
)
def test_ordinary_texts_are_not_taken_for_files(text: str) -> None:
    assert read(text).names == (text,)


@pytest.mark.parametrize(
    "name", ["reviews.csv", "my reviews.csv", "clip.WAV", "notes.docx", "/data/a", "./b", "~/c"]
)
def test_a_text_that_looks_like_a_missing_file_is_an_error_with_a_way_out(name: str) -> None:
    with pytest.raises(UserError, match=r"does not exist; if it is meant as a text.*give -"):
        read(name)
    assert read("-", lines=name).names == (name,)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("clip.wav", "", r"clip.wav' is a recording, and this model reads texts: give texts"),
        ("photo.png", "", "is an image, and this model reads texts"),
        ("paper.pdf", "", r"is a file of the kind '.pdf', and this model reads texts"),
        ("empty.txt", "", "empty.txt is empty: write one text a line"),
        ("gap.txt", "one\n \ntwo", "gap.txt, line 2: the text is empty"),
        ("gap.csv", "text,id\none,1\n,2\n", "gap.csv, line 3: the text is empty"),
        ("none.csv", "text\n", "has no rows"),
        ("two.csv", "one,two\na,b\n", "which column.*--text-column: one, two"),
        ("none.json", '[{"text": 5}]', "--text-column: text"),
        ("null.json", '[{"text": "a"}, {"text": null}]', "row 1: 'text' holds None, no text"),
        ("broken.csv", "text\na,b\n", "2 fields"),
        ("broken.json", "[", "not a valid json file"),
        ("", "", "is a folder, and this model reads texts"),
    ],
)
def test_texts_that_cannot_be_read(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    if name:
        write(path, content)
    with pytest.raises(UserError, match=message):
        read(path)


def test_files_that_are_no_text_are_named(tmp_path: Path) -> None:
    for name, message in (
        ("a.txt", "a.txt', line 2: byte 1, 0xff"),
        ("a.csv", "a.csv', line 2: byte 1"),
    ):
        (tmp_path / name).write_bytes(b"text\n\xff\xfe\n")
        with pytest.raises(UserError, match=message):
            read(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path / "folder.csv")


def test_other_wrong_texts(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "text,other\none,two\n")
    pairs = write(tmp_path / "b.csv", "premise,hypothesis\none,two\n")
    trained_on_pairs = {"text": "premise", "text_pair": "hypothesis"}
    with pytest.raises(UserError, match="input 2: the text is empty"):
        read("good", "")
    with pytest.raises(UserError, match="standard input is empty"):
        read("-")
    with pytest.raises(UserError, match=r"--text-column=body is not in .*choose: text, other"):
        read(table, text_column="body")
    with pytest.raises(UserError, match=r"input 1 is a single text.*trained on pairs"):
        read("good", training_columns=trained_on_pairs)
    with pytest.raises(UserError, match="pairs of premise and hypothesis; the columns are: text"):
        read(table, training_columns=trained_on_pairs)
    with pytest.raises(UserError, match="some inputs are single texts and others pairs"):
        read("good", pairs)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing.png", "'nothing.png' does not exist; this model reads images: give files"),
        ("a good film", "'a good film' does not exist; this model reads images"),
        ("{}/clip.wav", "is a recording, and this model reads images"),
        ("{}/table.csv", "is a file of texts, and this model reads images"),
        ("{}/plain", "is a file of the kind 'plain', and this model reads images"),
        ("{}", "holds 3 files, none of them fits"),
        ("-", "standard input is empty"),
    ],
)
def test_what_is_no_image(tmp_path: Path, given: str, message: str) -> None:
    for name in ("clip.wav", "table.csv", "plain"):
        write(tmp_path / name, "")
    with pytest.raises(UserError, match=message):
        read(given.format(tmp_path), modality="image")


def test_a_text_column_belongs_to_texts() -> None:
    with pytest.raises(
        UserError, match="--text-column=a is for texts; this model reads recordings"
    ):
        read("clip.wav", modality="audio", text_column="a")
