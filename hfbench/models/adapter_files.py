"""Folders of adapters as PEFT writes them: which they are, and of which base."""

from pathlib import Path
from typing import TYPE_CHECKING

from hfbench.config import ModelConfig
from hfbench.errors import UserError

if TYPE_CHECKING:
    from peft import PeftConfig

ADAPTER_FILE = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_FILE).is_file()


def read_adapter(folder: Path) -> "PeftConfig":
    """What PEFT says of the adapter in ``folder``.

    Raises UserError for an ``adapter_config.json`` that describes no adapter.
    """
    from peft import PeftConfig  # here, because whole models need no PEFT

    try:
        found: PeftConfig = PeftConfig.from_pretrained(str(folder))
    except RecursionError as error:
        raise UserError(
            f"{str(folder / ADAPTER_FILE)!r} describes no adapter: its JSON is nested too deep"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(folder / ADAPTER_FILE)!r} describes no adapter: {error}") from error
    return found


def adapter_base(folder: Path) -> ModelConfig:
    """The checkpoint that the adapter in ``folder`` belongs to.

    Raises UserError for a file that describes no adapter, or names no base or one that is gone.
    """
    adapter = read_adapter(folder)
    base = adapter.base_model_name_or_path
    if not base:
        raise UserError(
            f"the adapter {str(folder)!r} names no base: write base_model_name_or_path into its "
            f"{ADAPTER_FILE}"
        )
    if Path(base).is_absolute() and not Path(base).exists():
        raise UserError(
            f"the adapter {str(folder)!r} needs its base {base!r}, which is not on this machine: "
            "copy it there, or copy the adapter to a folder of its own and change "
            f"base_model_name_or_path in its {ADAPTER_FILE}"
        )
    return ModelConfig(checkpoint=base, revision=adapter.revision)


def require_weights(folder: Path) -> Path:
    """The file of the adapter's weights. Raises UserError where there is no safetensors file."""
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise UserError(
            f"{str(folder)!r} has no {ADAPTER_WEIGHTS}; adapters in pickle files are not loaded "
            "because they can run code"
        )
    return path
