"""Faults on request: what goes wrong, on which route, how often.

503 once                    Fault("commit", "status", status=503)
503 for ever                Fault("commit", "status", status=503, times=None)
429 with Retry-After: 2     Fault("preupload", "status", status=429, retry_after=2)
connection reset            Fault("lfs_upload", "reset")
taken, the answer lost      Fault("commit", "lost")
hangs for 3 s, then answers Fault("whoami", "hang", seconds=3)
every request, for ever     Fault("any", "hang", times=None)
100 kB a second             Fault("lfs_upload", "slow", bytes_per_second=100_000)
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["status", "reset", "lost", "hang", "slow"]
OPTIONS: dict[Kind, tuple[str, ...]] = {
    "status": ("status", "message", "retry_after"),
    "reset": (),
    "lost": (),
    "hang": ("seconds",),
    "slow": ("bytes_per_second",),
}
ANY = "any"

MESSAGES = {
    401: "Invalid credentials in Authorization header",
    403: "Forbidden: you don't have the required permissions to perform this action",
    409: "Cannot create repo: another conflicting operation is in progress",
    412: "A commit has happened since. Please refresh and try again.",
    429: "We had to rate limit you",
    503: "Service unavailable",
}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong on `route` (a name of `api.ROUTES`, or "any").

    `status` answers without doing anything, `reset` closes the connection before reading the
    request's body, `lost` does what was asked and closes the connection instead of answering,
    `hang` waits before reading the body and then goes on (when the faults are cleared meanwhile,
    it closes the connection and has done nothing), `slow` paces the bodies of both directions.
    """

    route: str
    kind: Kind
    times: int | None = 1  # None: for ever
    status: int | None = None
    message: str | None = None  # None: what the real Hub says, where MESSAGES knows it
    retry_after: int | None = None  # seconds
    seconds: float | None = None  # of a hang; None: for ever
    bytes_per_second: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in OPTIONS:
            raise ValueError(f"kind={self.kind!r} is none of {', '.join(OPTIONS)}")
        for kind, options in OPTIONS.items():
            for option in options:
                if kind != self.kind and getattr(self, option) is not None:
                    raise ValueError(f"{option}=… is for kind={kind!r}, not {self.kind!r}")
        if self.kind in ("status", "slow") and getattr(self, OPTIONS[self.kind][0]) is None:
            raise ValueError(f"kind={self.kind!r} needs {OPTIONS[self.kind][0]}=…")

    @property
    def text(self) -> str:
        assert self.status is not None
        return self.message or MESSAGES.get(self.status, f"Fault {self.status}")


class FaultBook:
    """The faults to come; the first that fits a request is taken."""

    def __init__(self, routes: Iterable[str]) -> None:
        self.routes = {*routes, ANY}
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._released = threading.Event()

    def add(self, fault: Fault) -> None:
        if fault.route not in self.routes:
            raise ValueError(f"route={fault.route!r} is none of {', '.join(sorted(self.routes))}")
        with self._lock:
            self._faults.append(fault)

    def take(self, route: str) -> Fault | None:
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.route in (route, ANY):
                    if fault.times == 1:
                        del self._faults[index]
                    elif fault.times is not None:
                        self._faults[index] = replace(fault, times=fault.times - 1)
                    return fault
        return None

    def clear(self) -> None:
        """Forget the faults to come and end the requests that hang."""
        with self._lock:
            self._faults.clear()
            self._released.set()
            self._released = threading.Event()

    def hang(self, seconds: float | None) -> bool:
        """Wait; False if the faults were cleared meanwhile."""
        return not self._released.wait(seconds)
