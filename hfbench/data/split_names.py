"""Names of files and folders that stand for splits, as people write them."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["train", "validation", "test"]

WORDS: Mapping[Role, tuple[str, ...]] = {
    "train": ("train", "training", "训练", "训练集"),
    "validation": (
        *("validation", "valid", "val", "dev", "development", "eval", "evaluation"),
        *("验证", "验证集"),
    ),
    "test": ("test", "testing", "测试", "测试集"),
}
_ROLES: Mapping[str, Role] = {word: role for role, words in WORDS.items() for word in words}
# Words that say nothing more: train_set, Training data, test-images.
_FILLERS = (
    *("set", "data", "dataset", "split", "folder", "files", "samples", "image", "images", "img"),
    *("imgs", "audio", "clips"),
)
_GLUED = ("set", "data", "dataset", "split", "images", "imgs")  # trainset
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")


@dataclass(frozen=True)
class SplitName:
    """What a name says.

    Attributes:
        role: of the split.
        word: that says so, in lower case.
        rest: the name without the word for the role: ``"seg"`` of ``seg_train``; empty where it
            says nothing more, as in ``Training_set``.
    """

    role: Role
    word: str
    rest: str


def split_name(name: str) -> SplitName | None:
    """What split a name stands for; None for a name with no word for a role or with several."""
    words = [word.casefold() for word in _WORD.findall(unicodedata.normalize("NFC", name))]
    found = [(place, known) for place, word in enumerate(words) if (known := _known(word))]
    if len(found) != 1:
        return None
    ((place, word),) = found
    rest = [other for at, other in enumerate(words) if at != place and other not in _FILLERS]
    return SplitName(_ROLES[word], word, " ".join(rest))


def of_role(role: Role, names: Sequence[str], *, rest: str = "") -> list[str]:
    """The names that stand for this role, with this rest; those with the usual word first."""
    found = ((name, split_name(name)) for name in names)
    fitting = [
        (WORDS[role].index(split.word), name)
        for name, split in found
        if split is not None and (split.role, split.rest) == (role, rest)
    ]
    return [name for _, name in sorted(fitting)]


def _known(word: str) -> str | None:
    """The word for a role that this is, also with a word glued to it: trainset."""
    glued = (word.removesuffix(end) for end in _GLUED if word.endswith(end))
    return next((part for part in (word, *glued) if part in _ROLES), None)
