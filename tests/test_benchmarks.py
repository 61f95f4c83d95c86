"""What the benchmarks conclude from what they measured."""

import pytest
from benchmarks.measuring import Span, Spans
from benchmarks.trainer_runs import choose_parameters
from benchmarks.versus_tables import (
    Quality,
    Report,
    Row,
    StepShare,
    document,
    slower,
    with_common_peaks,
)
from tiny_models import bert

from hfbench.config import parse_strategy
from hfbench.models.structure import find_structure
from hfbench.strategies import apply_strategy


def row(*pairs: tuple[float, float], strategy: str = "full") -> Row:
    return Row("text", strategy, 3, "float32", "float32", pairs)


def test_the_ratio_is_the_median_of_the_ratios_of_pairs() -> None:
    measured = row((10.0, 5.0), (40.0, 10.0), (9.0, 9.0))
    assert measured.ratio_text() == "2.00 (1.00-4.00)"  # of 2, 4 and 1; of medians it were 1.11
    assert measured.cells()[5:] == ("10.00", "9.00", "3", "2.00 (1.00-4.00)")


def test_what_is_left_out_of_a_time_counts_once_where_calls_nest() -> None:
    spans = Spans()
    spans.seen += [
        Span("save_tensors", 3.0, 4.0),
        Span("save_state", 2.0, 5.0),  # has called the one above
        Span("save_tensors", 6.0, 6.5),
        Span("save_state", 9.0, 12.0),  # afterwards
        Span("train", 1.0, 8.0),
    ]
    assert spans.seconds(1.0, 8.0, without=("save_state", "save_tensors")) == 7.0 - 3.0 - 0.5


def test_rows_that_trainer_wins_are_named_the_worst_first() -> None:
    rows = [
        row((9.0, 10.0), strategy="lora"),
        row((2.0, 1.0), strategy="head"),
        row((1.0, 2.0), strategy="full"),
    ]
    assert slower(rows).splitlines() == [
        "- text, full, 3 epochs, ours float32, Trainer float32: 0.50 (0.50-0.50)",
        "- text, lora, 3 epochs, ours float32, Trainer float32: 0.90 (0.90-0.90)",
    ]
    assert slower(rows[1:2]) == "Nowhere in this table."


def test_the_peak_is_the_highest_of_all_cases_at_the_same_precision() -> None:
    measured = [
        StepShare("text", "float32", flops=10**9, seconds=0.1, peak_flops_per_second=2e10),
        StepShare("image", "float32", flops=10**9, seconds=0.1, peak_flops_per_second=4e10),
        StepShare("image", "bf16", flops=10**9, seconds=0.1, peak_flops_per_second=8e10),
    ]
    found = [share.share for share in with_common_peaks(measured)]
    assert found == pytest.approx([0.25, 0.25, 0.125])


def test_the_document_has_the_sections_that_were_measured() -> None:
    report = Report(
        origin=[("machine", "a processor")],
        rows=[row((2.0, 1.0))],
        qualities=[Quality("head", ours=(0.5, 0.7), trainer=(0.5, 0.5))],
    )
    text = document(report)
    assert "- machine: a processor" in text
    assert "| text | full | 3 | float32 | float32 | 2.00 | 1.00 | 1 | 2.00 (2.00-2.00) |" in text
    assert "| head | 2 | 0.6000 ± 0.1414 | 0.5000 ± 0.0000 | +0.1000 |" in text
    assert "Share of the peak" not in text


@pytest.mark.parametrize("strategy", ["scratch", "head", "last_1", "last_2", "lora", "full"])
def test_the_users_script_trains_as_many_parameters_as_we_do(strategy: str) -> None:
    theirs = choose_parameters(bert(), strategy)
    model = bert()
    new = [name for name, _ in model.named_parameters() if "pooler" in name or "classifier" in name]
    ours = apply_strategy(model, find_structure(model), parse_strategy(strategy), new)
    counts = [
        sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (theirs, ours)
    ]
    assert counts[0] == counts[1] > 0
