"""Bytes that are no UTF-8, in files, in their names and on standard input."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from hfbench.cli import main
from hfbench.config import DataConfig
from hfbench.data.files import load_local
from hfbench.data.inputs import read_inputs
from hfbench.data.splits import load_splits
from hfbench.data.tables import load_table
from hfbench.data.text_files import decode
from hfbench.errors import UserError


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_a_byte_order_mark_tells_the_encoding(encoding: str) -> None:
    text = "text,label\nné 中 😀,a\n"
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    assert decode((mark + text).encode(encoding), "x") == text


def test_tables_of_excel_are_read(tmp_path: Path) -> None:
    """ "Unicode text": UTF-16 with tabs."""
    (tmp_path / "a.tsv").write_bytes("text\tlabel\r\nnaïve\tpos\r\n".encode("utf-16"))
    assert load_table(tmp_path / "a.tsv").rows.to_dict() == {"text": ["naïve"], "label": ["pos"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\nx,a\nun café noir,b\n".encode("latin-1"), "line 3: byte 7, 0xe9"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "line 2: byte 11, 0xff"),
        ("a.json", b'[{"text": "\xe9"}]', "line 1: byte 12, 0xe9"),
        ("a.tsv", "text\tlabel\n很好\ta\n".encode("gb18030"), "as GB18030 there stands '很好"),
        ("a.txt", b"one\ntwo\n\xe9t\xe9\n", "line 3: byte 1, 0xe9"),
        ("a.csv", "text,label\nx,a\n".encode("utf-16-le"), "iconv -f UTF-16LE"),
        ("a.csv", b"\xff\xfet\x00e\x00x", "UTF-16-LE text, as its first bytes say"),
    ],
)
def test_bytes_that_are_no_text_are_named_with_line_and_byte(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_table(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_the_message_shows_what_the_bytes_may_mean(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,label\nun café noir,b\n".encode("latin-1"))
    with pytest.raises(UserError) as caught:
        load_table(tmp_path / "a.csv")
    assert "as WINDOWS-1252 there stands 'un café noir,b'" in str(caught.value)
    assert "iconv -f WINDOWS-1252 -t UTF-8 a.csv > utf8_a.csv" in str(caught.value)


# ---- half characters


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_lone_surrogates_are_replaced_and_said(tmp_path: Path, ending: str) -> None:
    rows = [{"text": f"words {i}", "label": "ab"[i % 2]} for i in range(40)]
    rows[3]["text"] = "cut \ud83d"
    path = tmp_path / f"rows.{ending}"
    path.write_text(json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)))
    splits = load_splits(DataConfig(source=str(path)), "text")
    texts = [*splits.train["text"], *splits.validation["text"], *splits.test["text"]]
    assert "cut \ufffd" in texts
    where = "line 4" if ending == "jsonl" else "row 3"
    assert splits.summary["notes"][0] == (
        "half characters (lone surrogates) were replaced by \ufffd in 1 rows of the column 'text'; "
        f"the first: {path}, {where}"
    )


def test_lone_surrogates_inside_of_lists_and_objects_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(r'{"a": ["x", "\udfff"], "b": {"c": "\ud800", "d\ud800": 1}}')
    rows = load_table(path).rows.to_list()
    assert rows == [{"a": ["x", "\ufffd"], "b": {"c": "\ufffd", "d\ufffd": 1}}]


def test_a_whole_pair_is_one_character(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(r'{"a": "\ud83d\ude00"}')
    table = load_table(tmp_path / "a.jsonl")
    assert (table.rows["a"][0], table.notes) == ("😀", ())


def test_lone_surrogates_of_tables_to_predict_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(r'{"text": "a\ud800"}')
    found = read_inputs([str(tmp_path / "a.jsonl")], "text", standard_input=io.BytesIO())
    assert found.names == ("a\ufffd",)
    assert "were replaced" in found.notes[1]


# ---- names of files


needs_bytes = pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")


@needs_bytes
@pytest.mark.parametrize("name", [b"a/caf\xe9.png", b"caf\xe9/1.png", b"a/caf\xe9/1.png"])
def test_a_name_that_is_no_utf8_is_an_error_that_names_it(tmp_path: Path, name: bytes) -> None:
    for file in (name, b"b/1.png"):
        path = tmp_path / os.fsdecode(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"caf\\xe9.*is not UTF-8: rename it, .*convmv"):
        load_local(tmp_path)
    with pytest.raises(UserError, match=r"caf\\xe9.*is not UTF-8: rename it"):
        read_inputs([str(tmp_path)], "image", standard_input=io.BytesIO())


@needs_bytes
def test_a_table_with_such_a_name_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.csv")
    path.write_text("text,label\nx,a\n")
    with pytest.raises(UserError, match=r"caf\\xe9.csv' is not UTF-8"):
        load_splits(DataConfig(source=str(path)), "text")


@needs_bytes
def test_such_a_name_of_a_file_that_is_not_used_is_only_counted(tmp_path: Path) -> None:
    for name in (b"a/1.png", b"b/1.png", b"b/caf\xe9.heic"):
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (note,) = load_local(tmp_path).notes
    assert note.endswith(r"the first: b/caf\xe9.heic)")


# ---- standard input and arguments


@pytest.mark.parametrize(
    "arguments", [["caf\udce9", "x"], ["model", "x", "--output", "caf\udce9.csv"]]
)
def test_names_of_models_and_outputs_are_utf8(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *arguments]) == 2
    assert "caf\\xe9" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"good\ncaf\xe9\n", "good\r\ncafé".encode("latin-1")])
def test_standard_input_that_is_no_utf8_is_an_error(content: bytes) -> None:
    with pytest.raises(UserError, match=r"standard input, line 2: byte 4, 0xe9, is no UTF-8"):
        read_inputs(["-"], "text", standard_input=io.BytesIO(content))


def test_standard_input_may_be_utf16_with_a_mark() -> None:
    stream = io.BytesIO("één\r\ntwee\r\n".encode("utf-16"))
    assert read_inputs(["-"], "text", standard_input=stream).names == ("één", "twee")


def test_an_argument_that_is_no_utf8_is_an_error() -> None:
    with pytest.raises(UserError, match=r"input 2, line 1: byte 4, 0xe9, is no UTF-8"):
        read_inputs(["good", os.fsdecode(b"caf\xe9")], "text", standard_input=io.BytesIO())
