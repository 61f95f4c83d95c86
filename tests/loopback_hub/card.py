"""The Hub's checks of a model card's metadata, as far as a published result can break them.

The messages are the Hub's own.
"""

import re
from typing import Any

import yaml

FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
REPOSITORY = r"^(?:[\w-]+\/)?[\w\-.]+$"
NO_METADATA = "empty or missing yaml metadata in repo card"


def parse_metadata(card: str) -> Any:
    """The YAML block at the top of a README.md; None without one. Raises yaml.YAMLError."""
    block = FRONT_MATTER.match(card)
    return yaml.safe_load(block[1]) if block else None


def check_card(card: str) -> tuple[list[str], list[str]]:
    """Errors and warnings, as /api/validate-yaml gives them."""
    try:
        metadata = parse_metadata(card)
    except yaml.YAMLError as error:
        return [f"Invalid YAML metadata: {error}"], []
    if not metadata:
        return [], [NO_METADATA]
    if not isinstance(metadata, dict):
        return ["The metadata must be an object"], []
    return [*_check_names(metadata), *_check_model_index(metadata.get("model-index"))], []


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _is_repository(value: object) -> bool:
    return isinstance(value, str) and re.match(REPOSITORY, value) is not None


def _check_names(metadata: dict[str, Any]) -> list[str]:
    errors = []
    if "base_model" in metadata:
        for name in _as_list(metadata["base_model"]):
            if not _is_repository(name):
                errors.append(
                    f'"base_model" with value "{name}" is not valid. '
                    "Use a model id from https://hf.co/models."
                )
    for index, name in enumerate(_as_list(metadata.get("datasets", []))):
        if not _is_repository(name):
            errors.append(
                f'"datasets[{index}]" with value "{name}" is not valid. '
                "If possible, use a dataset id from https://hf.co/datasets."
            )
    return errors


def _check_model_index(model_index: Any) -> list[str]:
    errors: list[str] = []
    if model_index is None:
        return errors
    if not isinstance(model_index, list):
        return ['"model-index" must be an array']

    def need(value: Any, name: str, key: str) -> Any:
        found = value.get(key) if isinstance(value, dict) else None
        if found is None:
            errors.append(f'"{name}.{key}" is required')
        return found

    for i, model in enumerate(model_index):
        need(model, f"model-index[{i}]", "name")
        for j, result in enumerate(need(model, f"model-index[{i}]", "results") or []):
            name = f"model-index[{i}].results[{j}]"
            need(need(result, name, "task"), f"{name}.task", "type")
            dataset = need(result, name, "dataset")
            need(dataset, f"{name}.dataset", "name")
            kind = need(dataset, f"{name}.dataset", "type")
            if kind is not None and not _is_repository(kind):
                errors.append(
                    f'"{name}.dataset.type" with value "{kind}" fails to match the required '
                    f"pattern: /{REPOSITORY}/"
                )
            for key in ("config", "split", "revision"):
                if isinstance(dataset, dict) and not isinstance(dataset.get(key, ""), str):
                    errors.append(f'"{name}.dataset.{key}" must be a string')
            for k, metric in enumerate(need(result, name, "metrics") or []):
                need(metric, f"{name}.metrics[{k}]", "type")
                need(metric, f"{name}.metrics[{k}]", "value")
    return errors
