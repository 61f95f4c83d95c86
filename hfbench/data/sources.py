"""Where data come from: the hub, local files, or the package."""

import io
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hfbench.config import DataConfig
from hfbench.data.files import TABLE_READERS, load_local
from hfbench.errors import UserError
from hfbench.hub_access import hub_errors

PREFIX = "bundled/"
FOLDER = Path(__file__).parents[1] / "bundled" / "data"
DIGITS_SEED = 0  # of the split of scikit-learn's digits; the same for all runs


def bundled_data() -> list[str]:
    """Names that may follow ``bundled/``."""
    return sorted({"digits", *(path.parent.name for path in FOLDER.glob("*/train.parquet"))})


def load_source(data: DataConfig) -> dict[str, Dataset]:
    """Every split of ``data.source`` by its own name, with the columns as they came.

    Raises UserError for an unknown source or hub configuration, HubUnreachableError when the hub
    does not answer.
    """
    source = data.source
    if source.startswith(PREFIX):
        return load_bundled(source.removeprefix(PREFIX))
    path = Path(source).expanduser()
    if source and path.exists():
        return load_local(path)
    looks_local = source.startswith((".", "/", "~")) or source.count("/") > 1
    if not source or looks_local or path.suffix.lower() in TABLE_READERS:
        raise UserError(
            f"data.source={source!r} does not exist; write a local file or folder, a hub name "
            f"(owner/name) or one of {', '.join(PREFIX + name for name in bundled_data())}"
        )
    return _load_hub(data)


def load_bundled(name: str) -> dict[str, Dataset]:
    """A data set of the package, in memory."""
    if name not in bundled_data():
        choices = ", ".join(PREFIX + known for known in bundled_data())
        raise UserError(f"data.source={PREFIX + name!r} is not bundled; choose: {choices}")
    return _load_digits() if name == "digits" else load_local(FOLDER / name)


def _load_hub(data: DataConfig) -> dict[str, Dataset]:
    try:
        with hub_errors("data set", data.source):
            loaded = load_dataset(data.source, data.name, revision=data.revision)
    except UserError:
        raise
    except ValueError as error:  # no configuration given, or an unknown one: it lists the choices
        raise UserError(
            f"data set {data.source!r} with data.name={data.name!r}: {error}"
        ) from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise UserError(
            f"data set {data.source!r} is a script, and no code is run from the hub; its "
            "converted files are often under data.revision=refs/convert/parquet"
        ) from error
    if not isinstance(loaded, DatasetDict):
        raise UserError(f"data set {data.source!r} has no named splits")
    return dict(loaded)


def _load_digits() -> dict[str, Dataset]:
    """scikit-learn's 1,797 handwritten digits: 800 train, 300 validation, 697 test, stratified.

    Grey images of 8x8 pixels; the 17 levels of the original become 0 to 255.
    Source: UCI ML hand-written digits (Alpaydin and Kaynak, 1998), inside scikit-learn.
    """
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    indices = np.arange(len(pixels))
    train, rest = train_test_split(
        indices, train_size=800, stratify=digits.target, random_state=DIGITS_SEED
    )
    validation, test = train_test_split(
        rest, train_size=300, stratify=digits.target[rest], random_state=DIGITS_SEED
    )
    return {
        split: Dataset.from_dict(
            {
                "image": [_png(pixels[index]) for index in chosen],
                "label": [str(digits.target[index]) for index in chosen],
            }
        )
        for split, chosen in (("train", train), ("validation", validation), ("test", test))
    }


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
