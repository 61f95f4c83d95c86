"""Answers kept on disk, so that a repeated question costs no import of torch.

One JSON file an answer below ``$XDG_CACHE_HOME/hfbench/answers`` (``~/.cache`` when unset), named
by the digest of its question, the versions of the libraries that answer it and this package's
code. Nothing is ever deleted; the folder may be removed at any time.
"""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hfbench.disk import cache_folder, write_whole
from hfbench.manifest import text_checksum
from hfbench.provenance import code_digest, versions
from hfbench.status import remark

LIBRARIES = ("hfbench", "torch", "transformers", "peft", "timm")

T = TypeVar("T")

_log = logging.getLogger(__name__)


def cached(
    question: Mapping[str, Any],
    answer: Callable[[], T],
    *,
    to_json: Callable[[T], Any],
    from_json: Callable[[Any], T],
) -> T:
    """The kept answer to ``question`` (plain JSON values), or ``answer()``, which is then kept.

    A kept file that cannot be read, belongs to another question or that ``from_json`` refuses
    (ValueError, KeyError, TypeError) is replaced. A folder that cannot be written costs the
    memory, not the answer; that is said once.
    """
    versioned = {"question": dict(question), "versions": _versions()}
    key = json.dumps(versioned, sort_keys=True)
    path = answers_folder() / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    if os.path.isfile(path):  # False too where it may not be asked
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if json.dumps(kept["key"], sort_keys=True) != key:
                raise ValueError("it answers another question")
            if kept["checksum"] != text_checksum(kept["answer"]):
                raise ValueError("it is not as it was written")
            return from_json(kept["answer"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning("the kept answer %s is broken (%s) and is computed anew", path, error)
    found = answer()
    try:
        plain = json.loads(json.dumps(to_json(found)))
        kept = {"key": versioned, "answer": plain, "checksum": text_checksum(plain)}
        write_whole(path, json.dumps(kept) + "\n")
    except OSError as error:
        _say_not_kept(f"{answers_folder()}: {error.strerror}")
    return found


@functools.cache
def _say_not_kept(reason: str) -> None:
    remark(f"note: answers are not kept ({reason}); XDG_CACHE_HOME names another folder")


def answers_folder() -> Path:
    """Where answers are kept."""
    return cache_folder("answers")


def _versions() -> dict[str, str]:
    known = {name: version for name, version in versions().items() if name in LIBRARIES}
    return {**known, "code": code_digest()}
