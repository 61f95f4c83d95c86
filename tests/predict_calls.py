"""``hfbench predict`` as the tests ask it, and how they spoil what it reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from hfbench.cli import main

Captured = pytest.CaptureFixture[str]


def predict(captured: Captured, *arguments: str | Path) -> list[dict[str, Any]]:
    captured.readouterr()
    assert main(["predict", *map(str, arguments), "--format", "json"]) == 0
    found: list[dict[str, Any]] = json.loads(captured.readouterr().out)["predictions"]
    return found


def refusal(captured: Captured, *arguments: str | Path, code: int = 2) -> str:
    captured.readouterr()
    assert main(["predict", *map(str, arguments)]) == code
    error = captured.readouterr().err.splitlines()[-1]
    assert error.startswith("hfbench: error: ")
    return error


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
