"""Which columns hold the input and the label, and what the labels are called."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from datasets import Audio, ClassLabel, Dataset, Image, Value

from hfbench.config import DataConfig
from hfbench.errors import UserError

Modality = Literal["text", "image", "audio"]

LABEL_NAMES = ("label", "labels", "class", "category", "intent", "emotion", "sentiment", "target")
INPUT_NAMES: dict[Modality, tuple[str, ...]] = {
    "text": (
        *("text", "sentence", "content", "review", "document", "comment", "tweet", "message"),
        *("utterance", "question", "body", "headline"),
    ),
    "image": ("image", "img", "picture", "photo"),
    "audio": ("audio", "speech", "wav", "recording"),
}
PAIR_NAMES = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "context"),
    ("question", "answer"),
    ("query", "passage"),
    ("text1", "text2"),
)


@dataclass(frozen=True)
class Columns:
    """Names of the columns in the data as they came."""

    input: str
    label: str
    text_pair: str | None = None


def detect_columns(dataset: Dataset, data: DataConfig, modality: Modality) -> Columns:
    """The configured columns; those left None by their type first, then by well-known names.

    Raises UserError for a configured column that does not exist, and when nothing or more than
    one column fits.
    """
    configured = {
        "text": data.text_column,
        "image": data.image_column,
        "audio": data.audio_column,
    }[modality]
    label = _configured(dataset, data.label_column, "label_column") or _only(
        dataset, label_candidates(dataset), "label_column"
    )
    pair = _configured(dataset, data.text_pair_column, "text_pair_column")
    found = _configured(dataset, configured, f"{modality}_column")
    if found is None and pair is None and modality == "text":
        found, pair = detect_pair(dataset, taken={label})
    if found is None:
        candidates = input_candidates(dataset, modality, taken={label, pair})
        found = _only(dataset, candidates, f"{modality}_column")
    return Columns(found, label, pair if modality == "text" else None)


def label_names(train: Dataset, column: str) -> tuple[str, ...]:
    """Names of the labels; their position is the label's number.

    The order of a ``ClassLabel`` is kept. Other labels are sorted, as numbers if all are integers.
    """
    feature = train.features[column]
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    values = train[column][:]
    given = _given(values, feature)
    names = sorted(
        {str(_plain(value)) for value, known in zip(values, given, strict=True) if known}
    )
    integers = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=int) if integers else names)


def encode_labels(dataset: Dataset, column: str, names: tuple[str, ...], split: str) -> list[int]:
    """The numbers of a split's labels.

    Raises UserError naming the row for a missing label (None, empty, or a -1 that stands for none),
    and the label for one that ``names`` lacks.
    """
    feature = dataset.features[column]
    if isinstance(feature, Value) and feature.dtype.startswith("float"):
        raise UserError(
            f"column {column!r} holds numbers with a fraction: classification needs labels "
            "(words or whole numbers); regression is not supported"
        )
    if not isinstance(feature, (Value, ClassLabel)):
        raise UserError(f"column {column!r} must hold one label a row; it holds {feature}")
    numbers = {name: number for number, name in enumerate(names)}
    encoded = []
    values = dataset[column][:]
    for row, (value, given) in enumerate(zip(values, _given(values, feature), strict=True)):
        if not given:
            raise UserError(
                f"split {split!r} has no label in row {row} ({column}={value!r}): the labels of "
                "public test sets are often withheld; choose another split, e.g. "
                "data.test_split=validation"
            )
        name = feature.int2str(value) if isinstance(feature, ClassLabel) else str(_plain(value))
        if name not in numbers:
            raise UserError(
                f"split {split!r} has the label {name!r} (row {row}), which train lacks; "
                f"train has: {', '.join(names)}"
            )
        encoded.append(numbers[name])
    return encoded


def _given(values: list[Any], feature: Any) -> list[bool]:
    """Which labels of a split are there.

    The number -1 stands for none in a ``ClassLabel``, and where no row has another label; beside
    others it is a label as in {-1, 1}.
    """
    withheld = isinstance(feature, ClassLabel) or all(value in (None, -1) for value in values)
    missing = (None, "", -1) if withheld else (None, "")
    return [value not in missing for value in values]


def _plain(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _configured(dataset: Dataset, name: str | None, key: str) -> str | None:
    if name is not None and name not in dataset.column_names:
        raise UserError(
            f"data.{key}={name!r} is not a column; choose: {', '.join(dataset.column_names)}"
        )
    return name


def label_candidates(dataset: Dataset) -> list[str]:
    """Columns that may hold the label: by their type, or else by their name."""
    typed = [name for name, kind in dataset.features.items() if isinstance(kind, ClassLabel)]
    named = [name for name in dataset.column_names if name.lower() in LABEL_NAMES]
    return typed or named


def input_candidates(
    dataset: Dataset, modality: Modality, taken: Collection[str | None]
) -> list[str]:
    """Columns beside ``taken`` that may hold the input: by name and type, or else by one."""
    free = {name: kind for name, kind in dataset.features.items() if name not in taken}
    named = [name for name in free if name.lower() in INPUT_NAMES[modality]]
    if modality == "text":
        strings = [name for name, kind in free.items() if _is_string(kind)]
        return [name for name in named if name in strings] or strings
    media = Image if modality == "image" else Audio
    return [name for name, kind in free.items() if isinstance(kind, media)] or named


def detect_pair(dataset: Dataset, taken: Collection[str]) -> tuple[str | None, str | None]:
    """Two sentences to be compared, e.g. premise and hypothesis; (None, None) without."""
    strings = {
        name.lower(): name
        for name, kind in dataset.features.items()
        if name not in taken and _is_string(kind)
    }
    pairs = [pair for pair in PAIR_NAMES if strings.keys() >= set(pair)]
    if len(pairs) != 1:
        return None, None
    return strings[pairs[0][0]], strings[pairs[0][1]]


def _is_string(kind: Any) -> bool:
    return isinstance(kind, Value) and kind.dtype in ("string", "large_string")


def _only(dataset: Dataset, candidates: list[str], key: str) -> str:
    if len(candidates) == 1:
        return candidates[0]
    problem = (
        f"more than one column may be meant ({', '.join(candidates)})"
        if candidates
        else "none is recognised"
    )
    raise UserError(
        f"{problem}: set data.{key}; the columns are: {', '.join(dataset.column_names)}"
    )
