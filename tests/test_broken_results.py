"""One broken result among many is a counted note, whatever is broken in it."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from result_factory import make_result

from hfbench.cli import main
from hfbench.compare import aggregate
from hfbench.errors import UserError
from hfbench.report.comparison import format_comparison
from hfbench.results import RunResult, load_all

BROKEN = {
    "cut": '{"run_id": ',
    "empty": "",
    "another object": "[1, 2]",
    "nested": "[" * 100_000,
    "digits": '{"steps": ' + "9" * 5_000 + "}",
    "a metric of text": json.dumps(make_result().to_dict() | {"test_metrics": {"accuracy": "x"}}),
}


def write_folder(folder: Path, broken: dict[str, str], whole: int = 2) -> None:
    for seed in range(whole):
        make_result("head", seed).save(folder / f"head_{seed}" / "result.json")
    for number, content in enumerate(broken.values()):
        (folder / f"broken_{number}").mkdir(parents=True)
        (folder / f"broken_{number}" / "result.json").write_text(content)


@pytest.mark.parametrize("kind", BROKEN)
def test_one_broken_result_is_named_and_the_others_are_compared(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path, {kind: BROKEN[kind]})
    assert main(["compare", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Results that cannot be read and are left out: 1 of 3: - " in said
    assert "broken_0" in said
    assert "0.7500" in said  # of the two others


def test_many_broken_results_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path, {str(number): "{" for number in range(9)})
    assert main(["compare", str(tmp_path), "--format", "markdown"]) == 0
    said = capsys.readouterr().out
    assert "left out: 9 of 11:\n\n- " in said
    assert "- and 4 more\n" in said


def test_nothing_but_broken_results_is_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path, BROKEN, whole=0)
    assert main(["compare", str(tmp_path)]) == 2
    assert "none of 6 results can be read: " in capsys.readouterr().err
    with pytest.raises(UserError, match="broken_0"):
        load_all(tmp_path)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, item in value.items() if isinstance(value, dict) else ():
        yield from places(item, (*path, key))


@pytest.mark.parametrize("value", [None, "x", [], {}, ["x"], {"a": 1}, 1e308, -1, 0, True, 10**39])
def test_a_result_with_any_value_anywhere_is_refused_or_compared(value: object) -> None:
    whole, others = make_result().to_dict(), [make_result("scratch", seed, 0.5) for seed in (0, 1)]
    outcomes = set()
    for path in places(whole):
        values = copy.deepcopy(whole)
        inner = values
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        try:
            result = RunResult.from_dict(values)
        except UserError:
            outcomes.add("refused")
            continue
        outcomes.add("compared")
        groups = aggregate([result, make_result("full", 1), *others])
        assert format_comparison(groups, "markdown")
    assert outcomes == {"refused", "compared"}
