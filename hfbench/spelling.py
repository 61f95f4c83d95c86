"""Keys of a configuration in messages, as the command that was called lets its user write them."""

import re
from collections.abc import Sequence

Spelling = Sequence[tuple[str, str]]  # a key and what stands in its place, the longer key first

STRATEGIES: Spelling = (
    ("strategy.name=", "--strategies "),
    ("strategy=", "--strategies "),
    ("strategy.", "--strategies: "),
)
COMPARE: Spelling = (
    *STRATEGIES,
    ("seed=", "--seeds "),
    ("output_dir=", "--output: "),
    ("output_dir", "--output"),
)
COUNTS: Spelling = (*STRATEGIES, ("model.checkpoint=", "checkpoint "))


def spelled(message: str, spelling: Spelling) -> str:
    """The message with these keys replaced, where they are words of their own and no path's part.

    >>> spelled("seed=-1 must be from 0", COMPARE)
    '--seeds -1 must be from 0'
    """
    for key, replacement in spelling:
        ending = r"(?![\w./-])" if key[-1].isalpha() else ""
        message = re.sub(rf"(?<![\w./-]){re.escape(key)}{ending}", replacement, message)
    return message
