"""Whether the names of columns are names, or the first row of a file without them."""

from datasets import Dataset, Value

from hfbench.data.kinds import AUDIO_SUFFIXES, IMAGE_SUFFIXES

MANY_WORDS = 5
LOOKED_AT = 1000  # rows
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def header_problem(dataset: Dataset) -> str:
    """A clause for an error about columns; empty where their names look like names."""
    names = dataset.column_names
    if len(names) == 1:
        for separator, called in SEPARATORS.items():
            if separator in names[0]:
                return (
                    f"; the file seems to be separated by {called}, and a .csv is read with commas "
                    "and a .tsv with tabs: write it so"
                )
    if not any(is_no_name(dataset, name) for name in names):
        return ""
    return (
        f"; the first line ({', '.join(names)}) looks like data and not like names of columns: "
        "write a line with names above it, such as text,label"
    )


def is_no_name(dataset: Dataset, name: str) -> bool:
    """Whether a column of texts is called like a value: a sentence, a number, a file, a label."""
    kind = dataset.features[name]
    if not isinstance(kind, Value) or kind.dtype != "string":
        return False
    if len(name.split()) >= MANY_WORDS or _is_number(name) or any(s in name for s in "\t;"):
        return True
    if name.lower().endswith(IMAGE_SUFFIXES + AUDIO_SUFFIXES):
        return True
    return name in dataset[name][:LOOKED_AT]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
