"""Which columns hold the input and the label."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Any, Literal

from datasets import Audio, ClassLabel, Dataset, Image, Value

from hfbench.config import DataConfig
from hfbench.data.headers import header_problem, is_no_name
from hfbench.data.kinds import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from hfbench.errors import UserError

Modality = Literal["text", "image", "audio"]

LABEL_NAMES = ("label", "labels", "class", "category", "intent", "emotion", "sentiment", "target")
TRANSCRIPT_NAMES = ("transcript", "transcription", "text", "sentence", "normalized_text")
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

COMPLETION_PAIRS = (
    ("prompt", "completion"),
    ("document", "summary"),
    ("dialogue", "summary"),
    ("article", "highlights"),
    ("source", "target"),
    ("instruction", "output"),
    ("instruction", "response"),
)
PANDAS_INDEX = "__index_level_"  # how the columns of an index without a name begin in parquet
Unread = Mapping[str, str]  # column that is there, and is not among a table's rows -> why
_NONE: Unread = {}
# Beside such a pair: what the prompt is about, without which it is half a prompt (Alpaca, Dolly).
PROMPT_PARTS = ("input", "context")


@dataclass(frozen=True)
class Columns:
    """Names of the columns in the data as they came; of several ``label`` columns the first."""

    input: str
    label: str
    text_pair: str | None = None


def detect_columns(
    dataset: Dataset, data: DataConfig, modality: Modality, unread: Unread = _NONE
) -> Columns:
    """The configured columns; those left None by their type first, then by well-known names.

    Raises UserError for a configured column that does not exist or cannot be read, when nothing or
    more than one column fits, and where the names of the columns look like data.
    """
    configured = {
        "text": data.text_column,
        "image": data.image_column,
        "audio": data.audio_column,
    }[modality]
    of_labels = [_configured(dataset, name, "label_columns", unread) for name in data.label_columns]
    label = (
        next(filter(None, of_labels), None)
        or _configured(dataset, data.label_column, "label_column", unread)
        or _only(dataset, label_candidates(dataset), "label_column", LABEL_NAMES, unread)
    )
    taken = {label, *of_labels}
    pair = _configured(dataset, data.text_pair_column, "text_pair_column", unread)
    found = _configured(dataset, configured, f"{modality}_column", unread)
    if found is None and pair is None and modality == "text":
        found, pair = detect_pair(dataset, taken)
    if found is None:
        candidates = input_candidates(dataset, modality, taken | {pair})
        found = _only(dataset, candidates, f"{modality}_column", INPUT_NAMES[modality], unread)
    if modality == "text":
        _refuse_files(dataset, found)
    return Columns(found, label, pair if modality == "text" else None)


def _refuse_files(dataset: Dataset, column: str) -> None:
    """Raise UserError for paths of images or sounds where texts are expected."""
    first = next(iter(dataset[column]), None)
    if (
        isinstance(first, str)
        and Path(first).suffix.lower() in IMAGE_SUFFIXES + AUDIO_SUFFIXES
        and isfile(first)
    ):
        raise UserError(
            f"the column {column!r} holds files such as {first!r}, and this task reads texts: use "
            "the recipe for images or sounds, or name a column of texts with data.text_column"
        )


def _configured(dataset: Dataset, name: str | None, key: str, unread: Unread) -> str | None:
    if name is not None and name in unread:
        raise UserError(f"data.{key}={name!r} cannot be read: {unread[name]}")
    if name is not None and name not in dataset.column_names:
        raise UserError(
            f"data.{key}={name!r} is not a column; choose: {', '.join(dataset.column_names)}"
            f"{header_problem(dataset)}"
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
    free = {
        name: kind
        for name, kind in dataset.features.items()
        if name not in taken and not name.startswith(PANDAS_INDEX)
    }
    named = [name for name in free if name.lower() in INPUT_NAMES[modality]]
    if modality == "text":
        strings = [name for name, kind in free.items() if is_string(kind)]
        return [name for name in named if name in strings] or strings
    media = Image if modality == "image" else Audio
    return [name for name, kind in free.items() if isinstance(kind, media)] or named


def detect_pair(dataset: Dataset, taken: Collection[str | None]) -> tuple[str | None, str | None]:
    """Two sentences to be compared, e.g. premise and hypothesis; (None, None) without."""
    return _detect_pair_of(PAIR_NAMES, dataset, taken)


def _detect_pair_of(
    names: Sequence[tuple[str, str]], dataset: Dataset, taken: Collection[str | None]
) -> tuple[str | None, str | None]:
    strings = {
        name.lower(): name
        for name, kind in dataset.features.items()
        if name not in taken and is_string(kind)
    }
    pairs = [pair for pair in names if strings.keys() >= set(pair)]
    if len(pairs) != 1:
        return None, None
    return strings[pairs[0][0]], strings[pairs[0][1]]


def detect_texts(
    dataset: Dataset, data: DataConfig, unread: Unread = _NONE
) -> tuple[str, str | None]:
    """The column with the texts and, where these are prompts, the one with their completions.

    Raises UserError as ``detect_columns`` does, and where a found prompt has a second part.
    """
    completion = _configured(dataset, data.completion_column, "completion_column", unread)
    text = _configured(dataset, data.text_column, "text_column", unread)
    if text is None and completion is None:
        text, completion = _detect_pair_of(COMPLETION_PAIRS, dataset, taken=())
        parts = [name for name in dataset.column_names if name.lower() in PROMPT_PARTS]
        if completion is not None and parts:
            raise UserError(
                f"the column {parts[0]!r} may belong to the prompt in {text!r}: write both into "
                "one column and name it with data.text_column, and the completion with "
                f"data.completion_column={completion}; or leave {parts[0]!r} out with "
                f"data.text_column={text} data.completion_column={completion}"
            )
    if text is None:
        candidates = input_candidates(dataset, "text", {completion})
        text = _only(dataset, candidates, "text_column", INPUT_NAMES["text"], unread)
    if text == completion:
        raise UserError(f"data.completion_column={text!r} is the text column: name another one")
    return text, completion


def detect_speech(dataset: Dataset, data: DataConfig, unread: Unread = _NONE) -> tuple[str, str]:
    """The columns with the recordings and with their transcripts (``data.text_column``).

    Raises UserError as ``detect_columns`` does.
    """
    text = _configured(dataset, data.text_column, "text_column", unread)
    if text is None:
        named = [
            name
            for name, kind in dataset.features.items()
            if name.lower() in TRANSCRIPT_NAMES and is_string(kind)
        ]
        text = _only(dataset, named, "text_column", TRANSCRIPT_NAMES, unread)
    audio = _configured(dataset, data.audio_column, "audio_column", unread)
    if audio is None:
        candidates = input_candidates(dataset, "audio", {text})
        audio = _only(dataset, candidates, "audio_column", INPUT_NAMES["audio"], unread)
    return audio, text


def is_string(kind: Any) -> bool:
    """Whether a column of this feature holds texts."""
    return isinstance(kind, Value) and kind.dtype in ("string", "large_string")


def _only(
    dataset: Dataset, readable: Sequence[str], key: str, names: Collection[str], unread: Unread
) -> str:
    """The only candidate; those that cannot be read are candidates by their ``names``."""
    candidates = [*readable, *(name for name in unread if name.lower() in names)]
    if len(candidates) == 1:
        (name,) = candidates
        if name in unread:
            raise UserError(f"the column {name!r} cannot be read: {unread[name]}")
        if is_no_name(dataset, name) and name.lower() not in names:
            raise UserError(
                f"the column {name!r} may be meant{header_problem(dataset)}. If this is its name, "
                f"set data.{key} to it"
            )
        return name
    problem = (
        f"more than one column may be meant ({', '.join(candidates)})"
        if candidates
        else "none is recognised"
    )
    lost = "".join(f"; {name!r} cannot be read: {why}" for name, why in unread.items())
    raise UserError(
        f"{problem}: set data.{key}; the columns are: {', '.join(dataset.column_names)}{lost}"
        f"{header_problem(dataset)}"
    )
