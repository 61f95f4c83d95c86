"""Which keys of a configuration file go when an override replaces what they describe.

A file that names a data set, a checkpoint or a strategy also has keys that mean something with
this one only: its splits and columns, its revision, its options. No large library.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from hfbench.strategy_config import StrategyConfig

# key -> the keys that describe its value
DESCRIBED_BY: Mapping[str, tuple[str, ...]] = {
    "data.source": (
        "data.name",
        "data.revision",
        "data.train_split",
        "data.validation_split",
        "data.test_split",
        "data.text_column",
        "data.text_pair_column",
        "data.completion_column",
        "data.separator",
        "data.image_column",
        "data.audio_column",
        "data.label_column",
        "data.label_columns",
        "data.problem_type",
        "data.max_bad_rows",  # as many rows as were found to be bad in that source
        "hub.repo_id",  # or a model would be published under the name of another
    ),
    "model.checkpoint": ("model.revision", "model.source", "hub.repo_id"),
    "strategy.name": tuple(
        f"strategy.{field.name}"
        for field in dataclasses.fields(StrategyConfig)
        if field.name != "name"
    ),
}

# (key, value) in the order of the command line
Override = tuple[str, Any]


@dataclasses.dataclass(frozen=True)
class Dropped:
    """Keys of a file that went with a value of the file that an override replaced."""

    key: str
    old: Any
    new: Any
    settings: Mapping[str, Any]  # section.key -> the file's value

    def __str__(self) -> str:
        left_out = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        how = "given anew" if self.old == self.new else f"instead of the file's {self.old}"
        return f"{self.key}={self.new} {how}: what the file says of that is left out ({left_out})"


def drop_described(values: dict[str, Any], overrides: Iterable[Override]) -> list[Dropped]:
    """Take the keys out of a file's ``values`` (changed in place) that ``overrides`` make void.

    A key that is overridden itself is no loss. Nothing goes where the file does not name what is
    replaced, or names the same. A whole ``strategy`` replaces all of the file's, in any case.
    """
    given = dict(overrides)
    if "strategy" in given:
        given |= {f"strategy.{name}": value for name, value in given["strategy"].items()}
    found = []
    for key, described in DESCRIBED_BY.items():
        old = _get(values, key)
        whole = key == "strategy.name" and "strategy" in given
        if key not in given or old is None or (given[key] == old and not whole):
            continue
        lost = {name: _pop(values, name) for name in described}
        settings = {n: value for n, value in lost.items() if value is not None and n not in given}
        if settings:
            found.append(Dropped(key, old, given[key], settings))
    return found


def _get(values: Mapping[str, Any], dotted: str) -> Any:
    section, _, key = dotted.partition(".")
    inner = values.get(section)
    return inner.get(key) if isinstance(inner, Mapping) else None


def _pop(values: dict[str, Any], dotted: str) -> Any:
    section, _, key = dotted.partition(".")
    inner = values.get(section)
    return inner.pop(key, None) if isinstance(inner, dict) else None
