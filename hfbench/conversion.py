"""Plain values from YAML files and command lines as dataclasses, every key and type checked."""

import dataclasses
import difflib
import math
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from hfbench.errors import UserError
from hfbench.plain_files import read_plain
from hfbench.plain_yaml import parse_yaml

T = TypeVar("T")

_shown = reprlib.Repr()
_shown.maxstring = 200


def build(cls: type[T], values: Mapping[str, Any], prefix: str) -> T:
    """Build a dataclass from plain values, checking every key and type."""
    hints = typing.get_type_hints(cls)
    kwargs = {}
    for key, value in values.items():
        dotted = f"{prefix}.{key}" if prefix else str(key)
        if key not in hints:
            hint = did_you_mean(str(key), hints)
            raise UserError(f"unknown key {dotted!r}{hint}; known: {', '.join(hints)}")
        kwargs[key] = _convert(value, hints[key], dotted)
    return cls(**kwargs)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A clause with the choice that is spelt nearly so; empty where none is."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _convert(value: Any, kind: Any, dotted: str) -> Any:
    """``value`` as the annotated type. PyYAML reads 3e-4 as text, so numbers are parsed here."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None or value == "null":
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), dotted)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"{dotted}={value!r} must be a section of keys")
        return build(typing.cast(type[Any], kind), value, dotted)
    if origin is Literal:
        words = ("yes", "on") if value is True else ("no", "off")  # YAML reads these as booleans
        text = next((w for w in words if w in arguments), value) if type(value) is bool else value
        if text not in arguments:
            choices = [str(argument) for argument in arguments]
            hint = did_you_mean(str(value), choices)
            raise UserError(f"{dotted}={value!r} is not one of {', '.join(choices)}{hint}")
        return text
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{dotted}={value!r} must be a list")
        return tuple(_convert(item, arguments[0], dotted) for item in value)
    return _convert_scalar(value, kind, dotted)


def _convert_scalar(value: Any, kind: type, dotted: str) -> Any:
    if kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = None
        if number is not None and math.isfinite(number) and (kind is float or number.is_integer()):
            return kind(number)
    raise UserError(f"{dotted}={value!r} is not a valid {kind.__name__}")


def parse_value(text: str, override: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise UserError(
            f"override {_shown.repr(override)}: the value is not valid YAML; put it into quotes, a "
            "list into brackets with quoted items"
        ) from error


def read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"config file {str(path)!r} does not exist")
    try:
        values = parse_yaml(read_plain(path).decode("utf-8"))
    except ValueError as error:  # neither UTF-8 nor YAML
        raise UserError(f"config file {str(path)!r} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"config file {str(path)!r} holds no key: value pairs")
    return values


def check(name: str, value: object, valid: bool, requirement: str) -> None:
    if not valid:
        raise UserError(f"{name}={value} must be {requirement}")
