"""Where the configuration of a checkpoint is, read without loading torch or transformers."""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hfbench.answers import cached
from hfbench.errors import HubUnreachableError, UserError
from hfbench.models.adapter_files import adapter_base
from hfbench.models.bundled import resolve_checkpoint
from hfbench.models.catalogue import CATALOGUE, catalogue_entry
from hfbench.plain_json import read_json

CONFIG_FILE = "config.json"
TIMM_PREFIX = "timm/"
DEFAULT_LABELS = 2  # as in transformers, for a checkpoint without a head of its own


@dataclass(frozen=True)
class Configuration:
    """What is known of a network before it is built."""

    checkpoint: str  # as the user wrote it
    values: dict[str, Any]  # what config.json holds; {"architecture": name} for a timm model
    source: str  # where the values are from, for people

    @property
    def library(self) -> Literal["transformers", "timm"]:
        """Which library builds the network."""
        is_timm = "architecture" in self.values and "model_type" not in self.values
        return "timm" if is_timm else "transformers"


def find_configuration(checkpoint: str) -> Configuration:
    """Look for the configuration in this order and take the first that is found.

    1. a local folder or ``config.json``, or ``bundled/<name>``
    2. the catalogue of well-known checkpoints, when a hub name matches exactly
    3. ``timm/<name>``, with or without a pretrained tag: the installed timm
    4. what the hub's client downloaded to this machine earlier (it is not asked for news)
    5. a name without an owner: the installed timm
    6. the hub

    Raises UserError for an unknown checkpoint or a broken file, HubUnreachableError when only the
    hub could know it.
    """
    path = Path(checkpoint).expanduser()
    if checkpoint and path.is_file():
        return _from_file(checkpoint, path, str(path))
    resolved = resolve_checkpoint(checkpoint)
    if resolved != checkpoint or path.exists():
        file = Path(resolved) / CONFIG_FILE
        if not file.is_file():  # an adapter, as PEFT writes it
            base = find_configuration(adapter_base(Path(resolved)).checkpoint)
            return replace(base, checkpoint=checkpoint, source=f"{base.source}, of its base")
        return _from_file(checkpoint, file, str(file) if path.exists() else "inside the package")
    entry = catalogue_entry(checkpoint)
    if entry is not None:
        return Configuration(checkpoint, entry[1], f"the built-in catalogue, as {entry[0]}")
    if checkpoint.startswith(TIMM_PREFIX):
        return _from_timm(checkpoint)
    downloaded = _downloaded_file(checkpoint)
    if downloaded is not None:
        source = f"downloaded from the hub earlier, revision {downloaded.parent.name[:12]}"
        return _from_file(checkpoint, downloaded, source)
    if "/" not in checkpoint and _is_timm_model(checkpoint):
        return _from_timm(checkpoint)
    file = _download(checkpoint)
    return _from_file(checkpoint, file, f"the hub, revision {file.parent.name[:12]}")


def _from_timm(checkpoint: str) -> Configuration:
    name = checkpoint.removeprefix(TIMM_PREFIX)
    return Configuration(checkpoint, {"architecture": name}, "the installed timm")


def _from_file(checkpoint: str, path: Path, source: str) -> Configuration:
    try:
        values = read_json(path)
    except ValueError as error:  # neither UTF-8 nor JSON
        raise UserError(f"{str(path)!r} is not a JSON file: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{str(path)!r} holds no configuration: its JSON is not an object")
    if not isinstance(values.get("model_type", values.get("architecture")), str):
        raise UserError(
            f"{str(path)!r} describes no network: it names neither a model_type (transformers) "
            f"nor an architecture (timm). It holds: {', '.join(values) or 'nothing'}"
        )
    return Configuration(checkpoint, values, source)


def _is_timm_model(name: str) -> bool:
    def ask_timm() -> bool:
        import timm

        return bool(timm.is_model(name))

    # An answer is kept because importing timm takes seconds.
    return cached({"is_timm_model": name}, ask_timm, to_json=bool, from_json=bool)


def _downloaded_file(checkpoint: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(checkpoint, CONFIG_FILE)
    except HFValidationError:  # no hub name, so nothing was downloaded
        return None
    return Path(found) if isinstance(found, str) else None


def _download(checkpoint: str) -> Path:
    from huggingface_hub import hf_hub_download

    from hfbench.hub_access import hub_errors

    try:
        with hub_errors("checkpoint", checkpoint):
            return Path(hf_hub_download(checkpoint, CONFIG_FILE))
    except HubUnreachableError as error:
        names = [name for full in CATALOGUE for name in (full, full.rpartition("/")[2])]
        close = difflib.get_close_matches(checkpoint, names, n=3)
        known = f"did you mean {' or '.join(close)}" if close else ", ".join(CATALOGUE)
        raise HubUnreachableError(f"{error}. Known without the hub: {known}") from error
