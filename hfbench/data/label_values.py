"""Single values of a label column: missing, a number, a name, a list written as text."""

import ast
import json
import math
import re
import unicodedata
from typing import Any

from datasets import ClassLabel

# What stands in a csv for a missing value, as pandas writes or names it. "NA", "None" and "null"
# are not among them: they may be labels (a country, a class of nothing).
_NO_LABEL = ("", "nan", "NaN", "N/A")
_ONE_TEXT = re.compile(r"""[bBuUrR]{0,2}("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""", re.DOTALL)


def is_missing(value: Any) -> bool:
    """Whether a value stands for no label."""
    if isinstance(value, str):
        return value.strip() in _NO_LABEL
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_number(value: Any) -> float | None:
    """As a number; None for what is none. Python's own ``1_000`` is none."""
    if isinstance(value, str) and "_" in value:
        return None
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def name_of(value: Any, feature: Any) -> str:
    """The label's name: texts without white space around them, in Unicode's composed form (NFC)."""
    if isinstance(feature, ClassLabel):
        # A number beyond the names is a label that train lacks, under the number itself.
        return str(feature.names[value] if 0 <= value < len(feature.names) else value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return unicodedata.normalize("NFC", value.strip()) if isinstance(value, str) else str(value)


def written_list(text: str) -> list[Any] | None:
    """The items of a list that is written as JSON or as Python does; None for any other text."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        items = _python_list(text)
    plain = isinstance(items, list) and all(
        item is None or isinstance(item, (str, int, float)) for item in items
    )
    return items if plain else None


def _python_list(text: str) -> list[Any] | None:
    """Python joins texts without a comma between them, as NumPy writes arrays: that is no list."""
    try:
        tree = ast.parse(text, mode="eval").body
        items = ast.literal_eval(tree)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    if not isinstance(tree, ast.List):
        return None
    for item in tree.elts:
        if isinstance(item, ast.Constant) and isinstance(item.value, str):
            written = ast.get_source_segment(text, item)
            if written is None or not _ONE_TEXT.fullmatch(written):
                return None
    return list(items)
