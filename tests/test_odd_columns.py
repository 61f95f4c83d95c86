"""Columns that a table of Arrow cannot hold, read or not, and columns without names."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hfbench.config import DataConfig
from hfbench.data.files import load_local
from hfbench.data.inputs import read_inputs
from hfbench.data.splits import load_splits
from hfbench.data.tables import load_table
from hfbench.data.texts import load_texts
from hfbench.errors import UserError

LONG = 2**64 + 1
ROWS = 40
ODD: list[list[Any]] = [
    [1, LONG],
    [2**63],
    [1, "a"],
    [{"a": 1}, {"a": "x"}],
    [[1], "x"],
    [{"a": [1, LONG]}],
    [{"a": 1}, [1]],
    [1.5, 2**60 + 1],
]


def rows_with(odd: list[Any]) -> list[dict[str, Any]]:
    """Texts and labels, with the odd values in the column ``id`` of the rows from 10 on."""
    rows: list[dict[str, Any]] = [
        {"text": f"words {i}", "label": "ab"[i % 2], "id": None} for i in range(ROWS)
    ]
    for row, value in enumerate(odd, start=10):
        rows[row]["id"] = value
    return rows


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def write_parquet(path: Path, **columns: Any) -> Path:
    texts = [f"words {i}" for i in range(ROWS)]
    labels = ["ab"[i % 2] for i in range(ROWS)]
    pq.write_table(pa.table({"text": texts, "label": labels} | columns), path)
    return path


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_odd_values_that_nobody_reads_are_left_out_and_said(
    tmp_path: Path, ending: str, odd: list[Any]
) -> None:
    path = write_lines(tmp_path / "a.jsonl", rows_with(odd))
    if ending == "json":
        path = tmp_path / "a.json"
        path.write_text(json.dumps(rows_with(odd)))
    summary = load_splits(DataConfig(source=str(path)), "text").summary
    row = 9 + len(odd)
    where = f"line {row + 1}" if ending == "jsonl" else f"row {row}"
    assert summary["notes"][0].startswith(
        f"split 'train': the column 'id' is left out, as it cannot be read: {path}, {where} holds "
    )
    assert sum(summary[split] for split in ("train", "validation", "test")) == ROWS


@pytest.mark.parametrize("odd", ODD)
def test_odd_values_that_are_asked_for_are_an_error(tmp_path: Path, odd: list[Any]) -> None:
    path = write_lines(tmp_path / "a.jsonl", rows_with(odd))
    data = DataConfig(source=str(path), label_column="id")
    line = 10 + len(odd)
    with pytest.raises(UserError, match=rf"data.label_column='id' cannot be read: .*line {line} h"):
        load_splits(data, "text")


def test_the_reason_tells_integers_from_mixtures(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": 1}, {"a": LONG, "b": "x"}]
    unread = load_table(write_lines(tmp_path / "a.jsonl", rows)).unread
    place = f"{tmp_path / 'a.jsonl'}, line 2"
    assert unread == {
        "a": f"{place} holds {LONG}, and integers have at most 64 bits",
        "b": f"{place} holds 'x', which does not go with the rows before it",
    }


@pytest.mark.parametrize(("column", "odd"), [("label", LONG), ("label", "x"), ("text", 5)])
def test_a_column_that_is_meant_by_its_name_is_never_replaced_by_another(
    tmp_path: Path, column: str, odd: Any
) -> None:
    rows = [{"text": f"t {i}", "label": i % 2, "comment": "x", "class": 1} for i in range(9)]
    if column == "text":
        rows = [{"text": row["text"], "label": row["label"], "c": "x"} for row in rows]
    else:
        rows = [{"text": row["text"], "label": row["label"]} for row in rows]
    rows[4][column] = odd
    path = write_lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=rf"'?{column}'?.*cannot be read: .*a.jsonl, line 5 holds"):
        load_splits(DataConfig(source=str(path)), "text")


def test_texts_and_tables_to_predict_leave_odd_columns_out_too(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", rows_with([1, "a"]))
    notes = load_texts(DataConfig(source=str(path), text_column="text")).summary["notes"]
    assert any("the column 'id' is left out" in note for note in notes)
    with path.open("rb") as stream:
        found = read_inputs([str(path)], "text", standard_input=stream)
        assert len(found.names) == ROWS
        with pytest.raises(UserError, match=r"'id' cannot be read: .*line 12 holds 'a'"):
            read_inputs([str(path)], "text", standard_input=stream, text_column="id")


def test_parts_with_columns_of_different_types_lose_only_these(tmp_path: Path) -> None:
    for part, identity in enumerate((1, "b")):
        rows = [row | {"id": identity} for row in rows_with([])]
        write_lines(tmp_path / f"train-{part}.jsonl", rows)
    table = load_local(tmp_path).tables["train"]
    assert table.rows.column_names == ["text", "label"]
    assert list(table.unread) == ["id"]
    assert "train-0.jsonl" in table.unread["id"]
    assert "train-1.jsonl" in table.unread["id"]


# ---- parquet


MAP = pa.array([[("k", 1)]] * ROWS, pa.map_(pa.string(), pa.int64()))


@pytest.mark.parametrize(
    "column",
    [
        MAP,
        pa.array([{"m": [("k", 1)]}] * ROWS, pa.struct([("m", pa.map_(pa.string(), pa.int64()))])),
        pa.array([b"\xff\xfe"] * ROWS).view(pa.string()),
    ],
)
def test_types_that_are_no_columns_are_left_out_and_said(tmp_path: Path, column: pa.Array) -> None:
    path = write_parquet(tmp_path / "a.parquet", odd=column)
    summary = load_splits(DataConfig(source=str(path)), "text").summary
    assert "split 'train': the column 'odd' is left out, as it cannot be" in summary["notes"][0]
    with pytest.raises(UserError, match=r"data.label_column='odd' cannot be read"):
        load_splits(DataConfig(source=str(path), label_column="odd"), "text")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([Decimal("1.50")] * ROWS, pa.decimal128(10, 2)),
        pa.array([0] * ROWS, pa.timestamp("ns", "UTC")),
        pa.array([0] * ROWS, pa.duration("s")),
        pa.array(["x"] * ROWS, pa.large_string()),
        pa.array(["x"] * ROWS).dictionary_encode(),
        pa.array([None] * ROWS),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * ROWS, pa.binary(16))),
        pa.array([["x"]] * ROWS, pa.large_list(pa.string())),
    ],
)
def test_other_types_of_pandas_and_arrow_do_no_harm(tmp_path: Path, column: pa.Array) -> None:
    path = write_parquet(tmp_path / "a.parquet", odd=column, __index_level_0__=["i"] * ROWS)
    splits = load_splits(DataConfig(source=str(path)), "text")
    assert splits.summary["columns"] == {"text": "text", "label": "label"}
    assert load_table(path).unread == {}


def test_categories_are_labels(tmp_path: Path) -> None:
    kinds = pa.DictionaryArray.from_arrays([0, 1] * (ROWS // 2), ["no", "yes"])
    texts = pa.array([f"w {i}" for i in range(ROWS)]).dictionary_encode()
    pq.write_table(pa.table({"text": texts, "label": kinds}), tmp_path / "a.parquet")
    splits = load_splits(DataConfig(source=str(tmp_path / "a.parquet")), "text")
    assert splits.label_names == ("no", "yes")
    numbers = pa.DictionaryArray.from_arrays([0, 1] * (ROWS // 2), pa.array([10, 9]))
    path = write_parquet(tmp_path / "b.parquet", label=numbers)
    assert load_splits(DataConfig(source=str(path)), "text").label_names == ("9", "10")


def test_an_index_of_pandas_is_no_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "body of it": [f"w {i}" for i in range(ROWS)],
            "label": ["a", "b"] * (ROWS // 2),
            "__index_level_0__": [f"row {i}" for i in range(ROWS)],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    splits = load_splits(DataConfig(source=str(tmp_path / "a.parquet")), "text")
    assert splits.summary["columns"]["text"] == "body of it"


def test_decimal_numbers_are_a_regression(tmp_path: Path) -> None:
    targets = pa.array([Decimal(i) / 4 for i in range(ROWS)], pa.decimal128(10, 2))
    path = write_parquet(tmp_path / "a.parquet", label=targets)
    assert load_splits(DataConfig(source=str(path)), "text").problem_type == "regression"
    exact = pa.array([Decimal(10**30 + 1)] * ROWS, pa.decimal128(38, 0))
    kept = load_table(write_parquet(tmp_path / "b.parquet", odd=exact)).rows
    assert kept["odd"][0] == Decimal(10**30 + 1)


def test_typed_labels_stay_typed_beside_a_column_that_is_left_out(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["z", "a"])})
    rows = {"text": [f"w {i}" for i in range(ROWS)], "label": [0, 1] * (ROWS // 2)}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet").append_column("odd", MAP)
    pq.write_table(table, tmp_path / "a.parquet")
    assert load_splits(DataConfig(source=str(tmp_path / "a.parquet")), "text").label_names == (
        "z",
        "a",
    )


def test_two_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    table = pa.table([["a"], ["b"]], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="two columns have the name 'text'"):
        load_table(tmp_path / "a.parquet")


# ---- first lines that are no names


@pytest.mark.parametrize(
    "lines",
    [
        ["a film that I really liked a lot,pos", "dull,neg", "fine,pos"],
        ["good,pos", "bad,neg", "fine,pos"],
        ["1,5.1", "0,4.9", "1,4.7"],
        ["a/1.png,cat", "a/2.png,dog", "a/3.png,cat"],
    ],
)
def test_a_first_line_of_data_is_named(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "a.csv").write_text("\n".join(lines))
    shown = lines[0].replace(",", ", ")
    with pytest.raises(UserError, match=rf"the first line \({shown}\) looks like data and not"):
        load_splits(DataConfig(source=str(tmp_path / "a.csv")), "text")
    with pytest.raises(UserError, match=r"'label' is not a column; choose: .*looks like data"):
        load_splits(DataConfig(source=str(tmp_path / "a.csv"), label_column="label"), "text")


def test_names_that_are_names_are_not_doubted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("first,second\none text,a\nanother,b\n")
    with pytest.raises(UserError) as caught:
        load_splits(DataConfig(source=str(tmp_path / "a.csv")), "text")
    assert "looks like data" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Once upon a time there was a king", "looks like data"),
        ("text;label", "separated by semicolons"),
        ("text\tlabel", "separated by tabs"),
    ],
)
def test_a_single_column_is_not_taken_without_its_name(
    tmp_path: Path, header: str, message: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join([header, *(f"line {i}" for i in range(20))]))
    with pytest.raises(UserError, match=message):
        load_texts(DataConfig(source=str(path)))
    with path.open("rb") as stream, pytest.raises(UserError, match=message):
        read_inputs([str(path)], "text", standard_input=stream)
    assert load_texts(DataConfig(source=str(path), text_column=header)).summary["train"] == 16


# ---- where errors are


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            'text,label\n"x\n\ny",a\n\n,b\nz,b\n',
            r"row 1 \(.*a.csv, line 6\): no text \(text=''",
        ),
        (
            "a.csv",
            "text,label\nx,a\ny,\nz,b\n",
            r"row 1 \(.*a.csv, line 3\): no label \(label=''\)",
        ),
        (
            "a.jsonl",
            '{"text": "x", "label": 1}\n\n{"text": null, "label": 0}\n{"text": "y", "label": 0}',
            r"line 3\): no text",
        ),
        (
            "a.json",
            '[{"text": "x", "label": 1}, {"label": 0}, {"text": "y", "label": 0}]',
            r"a.json, row 1\): no text \(text=",
        ),
        ("a.csv", 'text,label\nx,a\n"y,b\n', r"a.csv' .* begins in line 3: unexpected end of data"),
        ("a.csv", 'text,label\n"x" y,b\n', r"a.csv' .* begins in line 2: ',' expected after"),
        ("a.csv", "text,text\n", "'text' is there twice"),
        (
            "a.jsonl",
            '{"a": 1}\n{"a": }',
            r"a.jsonl', line 2 is not a valid jsonl file: .* char.* 7",
        ),
        ("a.jsonl", '{"a": 1}\n5', r"a.jsonl, line 2 holds '5' and no object"),
        ("a.json", '{\n"a": [1]\n}', r"a.json' holds one object over several lines"),
        ("a.json", '[{"a": 1},\n 5 6]', r"a.json' is not a valid json file: .*line 2 column 4"),
        (
            "a.json",
            '[{"a": ' + "[" * 100_000,
            "a.json' is not a valid json file: .*nested too deep",
        ),
        (
            "a.json",
            '[{"a": ' + "9" * 5000 + "}]",
            "a.json' is not a valid json file: .*4,300 digits",
        ),
    ],
)
def test_errors_name_file_row_and_column(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_splits(DataConfig(source=str(tmp_path / name)), "text")


def test_a_value_that_is_no_text_is_named_with_its_line(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [{"text": 1}, {"text": 2}])
    data = DataConfig(source=str(tmp_path), text_column="text")
    with pytest.raises(UserError, match=r"row 0 \(.*train.jsonl, line 1\): column 'text' holds 1"):
        load_texts(data)
