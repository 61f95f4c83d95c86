"""JSON whose size in every direction is bounded before anything is done with it.

Standard library only.
"""

import json
from pathlib import Path
from typing import Any

from hfbench.plain_files import read_plain

DEEPEST = 64  # objects and lists inside each other
MOST_DIGITS = 40  # of one whole number


def parse_json(text: str) -> Any:
    """What ``json.loads`` gives.

    Raises ValueError also for nesting and numbers that Python's limits refuse.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists or objects are nested too deep") from None
    except json.JSONDecodeError:
        raise
    except ValueError:  # of int(): its advice is for programmers
        raise ValueError("it holds a whole number of more than 4,300 digits") from None


def read_json(path: Path) -> Any:
    """The plain values of a small file, such as a configuration or a result.

    Raises OSError, also for what is no regular file, and ValueError for what is no JSON in UTF-8,
    is nested deeper than DEEPEST or has a whole number of more than MOST_DIGITS digits.
    """
    values = parse_json(read_plain(path).decode("utf-8"))
    _check(values)
    return values


def depth(value: Any, most: int) -> int:
    """How many lists and objects stand inside each other; counted until there are more than most.

    >>> depth([1, {"a": []}], 64)
    3
    """
    level, deep = [value], 0
    while True:
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level or deep > most:
            return deep
        deep += 1
        level = [part for item in level for part in _parts(item)]


def _check(values: Any) -> None:
    if depth(values, DEEPEST) > DEEPEST:
        raise ValueError(f"lists or objects are nested more than {DEEPEST} deep")
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (dict, list)):
            waiting.extend(_parts(value))
        elif isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
            raise ValueError(f"it holds a whole number of more than {MOST_DIGITS} digits")


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value
