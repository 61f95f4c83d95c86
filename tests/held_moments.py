"""A module that Python imports by itself (as sitecustomize), which holds a run at one moment.

HELD_MODULE, HELD_FUNCTION and HELD_CALL say before which call of which function; the file
HELD_FILE then appears, and the call waits for a while.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

SECONDS = 1.5


def hold(module: ModuleType) -> None:
    name = os.environ["HELD_FUNCTION"]
    own, calls = getattr(module, name), [0]

    def held(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == int(os.environ["HELD_CALL"]) and os.environ.get("RANK", "0") == "0":
            Path(os.environ["HELD_FILE"]).touch()
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:  # a signal may only be noted
                time.sleep(0.05)
        return own(*arguments, **more)

    setattr(module, name, held)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != os.environ["HELD_MODULE"]:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        own = spec.loader.exec_module

        def execute(module: ModuleType) -> None:
            own(module)
            hold(module)

        spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec


if "HELD_MODULE" in os.environ:
    sys.meta_path.insert(0, Finder())
