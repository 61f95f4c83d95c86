"""What the processes of the publishing tests do with a hub: upload, and load by name."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hfbench.verification import check_inputs


def upload_folders(token: str, folders: dict[str, str]) -> None:
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    for name, folder in folders.items():
        api.create_repo(name)
        api.upload_folder(repo_id=name, folder_path=folder)


def logits_by_name(
    token: str | None, name: str, revision: str | None, check_file: Path
) -> Tensor | str:
    """What a model gives that transformers (or peft) loads by name; the error where it cannot."""
    if token is None:
        os.environ.pop("HF_TOKEN", None)
    else:
        os.environ["HF_TOKEN"] = token
    try:
        model = _by_name(name, revision)
    except OSError as error:
        return str(error)
    with torch.no_grad():
        logits: Tensor = model.eval()(**check_inputs(check_file)).logits
    return logits


def _by_name(name: str, revision: str | None) -> Any:
    import transformers
    from peft import PeftConfig, PeftModel

    config = transformers.AutoConfig.from_pretrained(name, revision=revision)
    model_class = getattr(transformers, config.architectures[0])
    try:
        adapter = PeftConfig.from_pretrained(name, revision=revision)
    except ValueError:  # no adapter_config.json
        return model_class.from_pretrained(name, revision=revision)
    base = model_class.from_pretrained(
        adapter.base_model_name_or_path,
        revision=adapter.revision,
        config=config,
        ignore_mismatched_sizes=True,
    )
    return PeftModel.from_pretrained(base, name, revision=revision)


def upload_files(token: str, repo_id: str, files: dict[str, Path]) -> dict[str, Any]:
    from hfbench.config import HubConfig
    from hfbench.hub.client import upload

    os.environ["HF_TOKEN"] = token
    return upload(HubConfig(repo_id=repo_id, deadline_seconds=5), files, "A run")
