"""What a route gets and gives: a request whose body can be read once, and an answer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from .accounts import Account


@dataclass
class Recorded:
    """One request as it arrived, for a test's assertions; `status` is None if it got no answer."""

    method: str
    path: str  # with the query, as on the wire
    route: str
    headers: dict[str, str]  # names in lower case
    body_bytes: int = 0
    body: bytes = b""  # empty for the contents of large files, which are on disk
    status: int | None = None


@dataclass(frozen=True)
class Request:
    parameters: dict[str, str]  # from the path, unquoted
    query: dict[str, list[str]]
    account: Account | None
    chunks: Iterator[bytes]  # the body

    def read(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.read() or b"{}")

    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.read().decode())


@dataclass(frozen=True)
class Answer:
    """`content` is JSON data, bytes, or a file that is sent whole or by range."""

    content: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path | None:
        return self.content if isinstance(self.content, Path) else None

    def body(self) -> bytes:
        if isinstance(self.content, bytes):
            return self.content
        return b"" if self.content is None else json.dumps(self.content).encode()
