"""How the tests count parameters."""

import json
from pathlib import Path
from typing import Any

from hfbench.config import parse_strategy
from hfbench.params import ParameterCounts, count_strategies


def counts(checkpoint: str | Path, *strategies: str, **options: Any) -> ParameterCounts:
    parsed = [parse_strategy(text) for text in strategies] or None
    return count_strategies(str(checkpoint), strategies=parsed, **options)


def write_config(folder: Path, **values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    return path
