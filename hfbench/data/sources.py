"""Where data come from: the hub, local files, or the package."""

import errno
import io

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetsError
from PIL import Image

from hfbench.config import DataConfig
from hfbench.data.digit_strings import digit_strings
from hfbench.data.files import load_local
from hfbench.data.rows import Source
from hfbench.data.tables import TABLE_READERS
from hfbench.errors import UserError
from hfbench.hub_access import BUNDLED, BUNDLED_FOLDER, bundled_name, hub_errors, local_path

# The branch to which the hub converts data sets: folders by configuration, no metadata.
PARQUET_REVISION = "refs/convert/parquet"
_FOLDER = BUNDLED_FOLDER / "data"
DIGITS_SEED = 0  # of the split of scikit-learn's digits; the same for all runs


def bundled_data() -> list[str]:
    """Names that may follow ``bundled/``."""
    stored = (path.parent.name for path in _FOLDER.glob("*/train.parquet"))
    return sorted({*_MADE, *stored})


def load_source(data: DataConfig) -> Source:
    """Every split of ``data.source`` by its own name, with the columns as they came.

    Raises UserError for an unknown source or hub configuration, HubUnreachableError when the hub
    does not answer.
    """
    key, choices = "data.source", bundled_data()
    bundled = bundled_name(data.source, key=key, choices=choices)
    if bundled is not None:
        return Source.of(load_bundled(bundled))
    path = local_path(data.source, key=key, choices=choices, suffixes=TABLE_READERS)
    return Source.of(load_hub(data)) if path is None else load_local(path)


def load_bundled(name: str) -> dict[str, Dataset]:
    """A data set of the package, in memory. Raises UserError for an unknown name."""
    bundled_name(BUNDLED + name, key="data.source", choices=bundled_data())
    return _MADE[name]() if name in _MADE else load_local(_FOLDER / name).splits


def load_hub(data: DataConfig) -> dict[str, Dataset]:
    """Every split of a data set of the hub, by the library ``datasets`` and its cache.

    In the revision PARQUET_REVISION ``data.name`` is a folder. Raises as ``load_source`` does.
    """
    converted = data.revision == PARQUET_REVISION
    part = {"data_dir" if converted else "name": data.name}
    named = f"data set {data.source!r} with data.name={data.name!r}"
    try:
        with hub_errors("data set", data.source):
            loaded = load_dataset(data.source, revision=data.revision, **part)
    except UserError:
        raise
    except ValueError as error:  # no configuration given, or an unknown one: it lists the choices
        raise UserError(f"{named}: {error}") from error
    except (DatasetsError, FileNotFoundError) as error:
        # no files, broken files, other files or splits than were announced
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise cause from None
        raise UserError(
            f"{named} and data.revision={data.revision!r} does not load: {error}"
            f"{'' if cause is None else f' ({cause})'}. Choose another data.name or data.revision"
        ) from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise UserError(
            f"data set {data.source!r} is a script, and no code is run from the hub; set "
            f"data.revision={PARQUET_REVISION}, which often holds its converted files in one "
            "folder a configuration, and data.name to the folder"
        ) from error
    if not isinstance(loaded, DatasetDict):
        raise UserError(f"data set {data.source!r} has no named splits")
    return dict(loaded)


def _load_digits() -> dict[str, Dataset]:
    """scikit-learn's 1,797 handwritten digits: 800 train, 300 validation, 697 test, stratified.

    Grey images of 8x8 pixels; the 17 levels of the original become 0 to 255.
    Source: UCI ML hand-written digits (Alpaydin and Kaynak, 1998), inside scikit-learn.
    """
    from sklearn.datasets import load_digits  # here, because no other data need it
    from sklearn.model_selection import train_test_split

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


def _load_digit_strings() -> dict[str, Dataset]:
    return digit_strings(load_bundled("spoken-digits"))


# Bundled data that are made when they are asked for.
_MADE = {"digits": _load_digits, "spoken-digit-strings": _load_digit_strings}


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
