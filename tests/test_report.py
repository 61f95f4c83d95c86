"""Printed tables equal their snapshots (made with UPDATE_SNAPSHOTS=1 and read by eye)."""

import json
from pathlib import Path
from typing import Any

import pytest
from result_factory import make_result
from snapshot_check import assert_snapshot

from hfbench.compare import aggregate
from hfbench.errors import UserError
from hfbench.report.comparison import format_comparison
from hfbench.report.plots import plot_quality_against_parameters
from hfbench.report.predictions import format_predictions
from hfbench.report.tables import format_parameters, layout_table
from hfbench.results import ParameterReport, ParameterRow, RunResult
from hfbench.tasks.base import Candidate


def bert_base_last_2() -> ParameterReport:
    """BERT base with two labels: every block has 7,087,872 parameters."""
    block = 7_087_872
    return ParameterReport(
        total=109_483_778,
        trainable=14_177_282,
        buffers=1_024,
        by_depth=(
            ParameterRow("embeddings", 23_837_184, 0),
            *(ParameterRow(f"block {i}", block, block if i >= 10 else 0) for i in range(12)),
            ParameterRow("pooler", 590_592, 0),
            ParameterRow("head", 1_538, 1_538),
        ),
        by_layer_type=(
            ParameterRow("embedding", 23_835_648, 0),
            ParameterRow("linear", 57_259_776, 9_444_864),
            ParameterRow("convolution", 0, 0),
            ParameterRow("attention", 28_348_416, 4_724_736),
            ParameterRow("norm", 38_400, 6_144),
            ParameterRow("other", 0, 0),
            ParameterRow("head", 1_538, 1_538),
            ParameterRow("adapter", 0, 0),
            ParameterRow("dropout", 0, 0),
            ParameterRow("activation", 0, 0),
        ),
    )


def sst2_results() -> list[RunResult]:
    accuracies = {
        ("scratch", 109_483_778): (0.60, 0.64, 0.62),
        ("full", 109_483_778): (0.92, 0.925),
        ("head", 1_538): (0.84, 0.85, 0.83),
        ("last_2", 14_177_282): (0.905, 0.907, 0.909),
        ("lora:r=16,targets=all_linear", 2_679_554): (0.92,),
    }
    succeeded = [
        make_result(strategy, seed, accuracy, trainable)
        for (strategy, trainable), values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]
    failed = make_result(
        "full",
        2,
        None,
        109_483_778,
        status="out_of_memory",
        reason="CUDA out of memory.\nTried to allocate 2.00 GiB while 1.12 GiB are free in step 1",
        test_metrics={},
    )
    other_task = make_result("head", task="image_classification", checkpoint="bundled/vit-tiny")
    return [*succeeded, failed, other_task]


@pytest.mark.parametrize("style", ["table", "markdown", "json"])
def test_parameter_report_looks_as_before(style: str) -> None:
    text = format_parameters(
        bert_base_last_2(),
        style,  # type: ignore[arg-type]
        checkpoint="google-bert/bert-base-uncased",
        strategy="last_2",
    )
    assert_snapshot(text, f"parameters_{style}.txt")


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_comparison_looks_as_before(style: str) -> None:
    text = format_comparison(aggregate(sst2_results()), style)  # type: ignore[arg-type]
    assert_snapshot(text, f"comparison_{style}.txt")


def test_what_is_for_the_terminal_fits_80_columns() -> None:
    parameters = format_parameters(bert_base_last_2(), checkpoint="x" * 60, strategy="last_2")
    comparison = format_comparison(aggregate(sst2_results()))
    assert max(map(len, (parameters + comparison).splitlines())) <= 80


def test_tables_are_as_wide_as_a_wider_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    headings = ["name", *(f"column {i}" for i in range(9))]
    rows = [["row", *map(str, range(9))]]
    assert len(layout_table(headings, rows, "table").split("\n\n")) == 2
    monkeypatch.setenv("COLUMNS", "120")
    assert len(layout_table(headings, rows, "table").split("\n\n")) == 1
    monkeypatch.setenv("COLUMNS", "30")  # 80 all the same
    assert len(layout_table(headings, rows, "table").split("\n\n")) == 2


def test_columns_that_do_not_fit_follow_below_with_the_first_one() -> None:
    wide, last = "x" * 30, "1" * 20
    text = layout_table(["name", "a", "b", "c"], [["r", wide, wide, last], ["s"] * 4], "table")
    first, second = text.split("\n\n")
    assert first.splitlines()[0].split() == ["name", "a", "b"]
    assert [line.split() for line in second.splitlines()] == [
        ["name", "c"],
        ["-" * (4 + 2 + 20)],
        ["r", last],
        ["s", "s"],
    ]


def test_cells_that_are_too_wide_for_any_table_are_broken() -> None:
    """Of both columns: 40 for the first, 80 - 40 - 2 for the other."""
    name, words = "n" * 100, " ".join(["word"] * 100)
    text = layout_table(["name", "text"], [[name, words]], "table")
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("n") - 1 == 100  # of the heading
    assert text.count("word") == 100
    (alone,) = layout_table(["name"], [[name]], "table").splitlines()[2:3]
    assert len(alone) <= 80


def test_blocks_fold_only_when_their_numbers_are_equal() -> None:
    rows = tuple(
        ParameterRow(f"block {i}", total, trainable)
        for i, (total, trainable) in enumerate([(5, 0), (5, 0), (5, 5), (6, 6), (6, 6), (5, 0)])
    )
    report = ParameterReport(32, 17, 0, rows, (ParameterRow("linear", 32, 17),))
    text = format_parameters(report, "markdown", checkpoint="x", strategy="y")
    names = [line.split("|")[1].strip() for line in text.splitlines() if "block" in line]
    assert names == ["block 0-1 (each)", "block 2", "block 3-4 (each)", "block 5"]


def test_sums_of_the_example_are_its_totals() -> None:
    report = bert_base_last_2()
    for rows in (report.by_depth, report.by_layer_type):
        assert sum(row.total for row in rows) == report.total
        assert sum(row.trainable for row in rows) == report.trainable


def test_json_keeps_every_block() -> None:
    text = format_parameters(bert_base_last_2(), "json", checkpoint="x", strategy="last_2")
    values = json.loads(text)
    assert [row["name"] for row in values["by_depth"]][1:13] == [f"block {i}" for i in range(12)]
    assert values["frozen"] == 109_483_778 - 14_177_282


def test_comparison_warns_of_unlike_and_unmeasured_runs() -> None:
    runs = [
        make_result("full", 0, config={"training": {"epochs": 1}}, versions={"torch": "2.8.0"}),
        make_result("head", 0, config={"training": {"epochs": 2}}, num_processes=2),
        make_result("head", 1, config={"training": {"epochs": 2}}, test_metrics={}),
    ]
    text = " ".join(format_comparison(aggregate(runs)).split())
    assert "Warning: the strategies were not run alike: training.epochs differ." in text
    assert "Warning: the runs were not all made by the same: processes 1, 2." in text
    assert "Warning: accuracy is known for 1 of the 2 runs of head." in text


def test_answers_without_probabilities_have_no_column_for_them() -> None:
    """As a task whose answers are transcripts gives them."""
    answers = [(Candidate("one two"),), (Candidate("three"), Candidate("tree"))]
    names = ["a.wav", "/a/very/long/path/to/the/recording/of/somebody/" + "b" * 30 + ".wav"]

    def written(style: Any) -> str:
        return format_predictions(names, answers, style, answer_name="transcript", about={})

    assert (
        written("csv") == f"input,transcript,transcript_2\na.wav,one two,\n{names[1]},three,tree\n"
    )
    shortened = "/a/very/long/path/to/the/re…" + names[1][-28:]
    assert [line.split() for line in written("table").splitlines()[2:]] == [
        ["a.wav", "one", "two"],
        [shortened, "three"],
        ["tree"],
    ]
    assert json.loads(written("json"))["predictions"][0]["transcript"] == "one two"


def test_rows_and_marks_name_the_settings_in_which_runs_of_a_strategy_differ() -> None:
    from hfbench.report.plots import draw_quality_against_parameters

    groups = aggregate(
        make_result("full", 0, rate, config={"training": {"learning_rate": rate}})
        for rate in (0.25, 0.5)
    )
    for style in ("table", "markdown"):
        text = format_comparison(groups, style)  # type: ignore[arg-type]
        text = text.replace("\\[", "[").replace("\\]", "]")  # as Markdown shows it
        assert "[learning_rate=0.25]" in text
        assert "[learning_rate=0.5]" in text
    labels = [text.get_text() for text in draw_quality_against_parameters(groups).axes[0].texts]
    assert [label for label in labels if label] == [group.label for group in groups]


def test_no_results_say_so() -> None:
    assert format_comparison([]) == "No results.\n"


def test_image_is_a_png_of_the_stated_size(tmp_path: Path) -> None:
    from PIL import Image

    results = [run for run in sst2_results() if run.task == "text_classification"]
    path = tmp_path / "images" / "quality.png"
    plot_quality_against_parameters(aggregate(results), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (1080, 690)  # 7.2 x 4.6 inches at 150 dots per inch


def test_labels_of_close_points_do_not_overlap() -> None:
    from matplotlib.text import Annotation

    from hfbench.report.plots import draw_quality_against_parameters

    results = [
        make_result(name, seed, 0.9 + 0.001 * seed, trainable)
        for name, trainable in (("bitfit", 100_000), ("lora:r=4", 101_000), ("lora", 102_000))
        for seed in range(3)
    ] + [make_result("scratch", 0, 0.9, 101_000)]
    figure = draw_quality_against_parameters(aggregate(results))
    labels = [
        child
        for child in figure.axes[0].get_children()
        if isinstance(child, Annotation) and child.get_text()
    ]
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_image_of_nothing_or_of_unlike_groups_is_refused(tmp_path: Path) -> None:
    failed = [make_result(status="failed", reason="x", test_metrics={})]
    with pytest.raises(UserError, match="no run has"):
        plot_quality_against_parameters(aggregate(failed), tmp_path / "a.png")
    mixed = sst2_results()
    with pytest.raises(UserError, match="one section"):
        plot_quality_against_parameters(aggregate(mixed), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
