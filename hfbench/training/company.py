"""The processes of one run: they wait for each other without a limit, the first that fails says
why, for all, and a signal that ends one of them ends all.

What they share is PyTorch's store. torchrun and accelerate launch keep it outside of them, and no
collective is needed to read it: a process that waits for a GPU or for a connection is told too.
Each of them looks there twice a second, and after the others on the same machine.
"""

import functools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

from hfbench.errors import OtherProcessFailedError, UserError
from hfbench.interrupts import Interrupted, asked_to_end, speak_no_more
from hfbench.processes import lives
from hfbench.results import Status

POLL_SECONDS = 0.5
NEWS_SECONDS = 2.0  # so long after a connection broke it is known whose
GRACE_SECONDS = 10.0  # for a process to unwind once one of them has failed
RECORD_SECONDS = 5.0  # for another process to record why

T = TypeVar("T")


@dataclass(frozen=True)
class Cause:
    """Why a run failed.

    Attributes:
        rank: of the process that met it.
        reason: one line.
        traceback: None for a process that was killed.
        mistake: the user can mend it; before the training it leaves no result.
    """

    rank: int
    status: Status
    reason: str
    traceback: str | None
    mistake: bool = False

    @property
    def killed(self) -> bool:
        return self.traceback is None


class Company:
    """This process among those of its launcher; alone it has nobody to wait for or to tell.

    Attributes:
        cause: the first of all processes, once it is known here.
        record: keeps it in the result; None before there is one.
        killed: says of a process, by its rank, that it was killed.
    """

    def __init__(self, rank: int, size: int, store: Store | None, place: str | None) -> None:
        """``place``: of this machine's processes; None where nobody can see which of them live."""
        self.rank, self.size, self.place = rank, size, place
        self.cause: Cause | None = None
        self.record: Callable[[Cause], None] | None = None
        self.killed: Callable[[int], str] = lambda rank: f"process {rank} was killed"
        self._store, self._store_ended = store, False
        self._meetings = 0
        self._leaving = threading.Event()
        self._put(f"who-{rank}", json.dumps([place, os.getpid()]))

    def wait_for_all(self) -> None:
        """Until every process is here, however long it works before.

        Raises OtherProcessFailedError where one has failed, Interrupted where a signal ends one.
        """
        self._meetings += 1
        key, pause, more = f"meeting-{self._meetings}", 0.001, 1
        while (store := self._open_store()) is not None:
            with self._until_store_ends():
                if store.add(key, more) >= self.size:
                    return
            if self.cause is not None and self.cause.rank != self.rank:
                raise OtherProcessFailedError(self.cause.reason)
            if (number := self.ended_by()) is not None:
                raise Interrupted(number)
            time.sleep(pause)
            pause, more = min(2 * pause, 0.1), 0

    def watch(self) -> None:
        """From now on this process ends soon after another has failed, whatever it waits for."""
        if self._store is None:
            self.cause = None  # of an earlier run
        else:
            self._leaving.clear()
            threading.Thread(target=self._watch, name="company", daemon=True).start()

    def leave(self) -> None:
        """This process may end now: nobody shall take it for killed."""
        self._put(f"left-{self.rank}", "")
        self._leaving.set()

    def settle(self, own: Cause) -> Cause:
        """The first cause of all processes: ``own`` unless another was faster."""
        if self.cause is None:
            told = None
            if (store := self._open_store()) is not None:
                with self._until_store_ends():
                    told = store.compare_set("cause", "", json.dumps(asdict(own))).decode()
            self.cause = own if told is None else Cause(**json.loads(told))
        return self.cause

    def end_by(self, number: int) -> int:
        """A signal ends this process: the others are told. Returns the first that ends any."""
        if (store := self._open_store()) is not None:
            with self._until_store_ends():
                return int(store.compare_set("signal", "", str(number)))
        return number

    def ended_by(self) -> int | None:
        """The first signal that ends a process, and with it all."""
        told = self._read("signal")
        return None if told is None else int(told)

    def news(self, seconds: float = 0.0) -> Cause | None:
        """What another process told, or that one was killed; looked for during ``seconds``.

        Also None where a signal ends one of them.
        """
        patience = time.monotonic() + seconds
        while self.cause is None and self._store is not None:
            if (told := self._read("cause")) is not None:
                self.cause = Cause(**json.loads(told))
            elif (rank := self._killed_rank()) is not None:
                self.settle(Cause(rank, "failed", self.killed(rank), None))
            elif time.monotonic() >= patience or self.ended_by() is not None:
                break
            else:
                time.sleep(0.1)
        return self.cause

    def tell(self, cause: Cause) -> None:
        """Let the cause be recorded before this process ends, which may end them all."""
        if not self.speaks():
            patience = time.monotonic() + RECORD_SECONDS
            while self._read("recorded") is None and time.monotonic() < patience:
                if self._store_ended:
                    break
                time.sleep(0.05)
        elif self.record is not None:
            self.record(cause)
            self._put("recorded", "yes")

    def speaks(self) -> bool:
        """Whether this process speaks for those that cannot: the first of those that live."""
        return all(self._is_killed(rank) for rank in range(self.rank))

    def _watch(self) -> None:
        passed_on = False
        while self.news() is None:
            number = self.ended_by()
            if number is not None and asked_to_end() is None and not passed_on:
                signal.pthread_kill(threading.main_thread().ident or 0, number)
                passed_on = True
            if self._leaving.wait(POLL_SECONDS):
                return
        assert self.cause is not None
        if self.cause.rank != self.rank:
            speak_no_more()
        patience = time.monotonic() + GRACE_SECONDS
        while self.speaks() and self.record is None and time.monotonic() < patience:
            time.sleep(POLL_SECONDS)  # it has just begun
        try:
            self.tell(self.cause)
        except UserError as error:  # the disk is full
            print(f"hfbench: error: {error}", file=sys.stderr, flush=True)
        time.sleep(max(0.0, patience - time.monotonic()))
        if self.cause.killed and self.speaks():
            print(f"hfbench: error: {self.cause.reason}", file=sys.stderr, flush=True)
        os._exit(OtherProcessFailedError.exit_code)

    def _killed_rank(self) -> int | None:
        others = (rank for rank in range(self.size) if rank != self.rank)
        return next((rank for rank in others if self._is_killed(rank)), None)

    def _is_killed(self, rank: int) -> bool:
        """Whether a process of this machine has ended without having left."""
        who = self._read(f"who-{rank}")
        if who is None or self._read(f"left-{rank}") is not None:
            return False
        place, process = json.loads(who)
        return place is not None and place == self.place and not lives(process)

    def _put(self, key: str, value: str) -> None:
        if (store := self._open_store()) is not None:
            with self._until_store_ends():
                store.set(key, value)

    def _read(self, key: str) -> str | None:
        if (store := self._open_store()) is not None:
            with self._until_store_ends():
                return store.get(key).decode() if store.check([key]) else None
        return None

    def _open_store(self) -> Store | None:
        """None once it has ended: PyTorch prints pages about each further call."""
        return None if self._store_ended else self._store

    @contextmanager
    def _until_store_ends(self) -> Iterator[None]:
        """Within, it may end, with the launcher or the process that kept it."""
        try:
            yield
        except RuntimeError:  # connections fail with this class
            self._store_ended = True


@functools.cache
def company() -> Company:
    """The one that this process is in."""
    state = process_state()
    store: Store | None = None
    if state.num_processes > 1:
        # A connection of its own: a thread that waits for something in the store holds the other.
        store = PrefixStore("hfbench", _get_default_store().clone())
    return Company(state.process_index, state.num_processes, store, _place())


def process_state() -> PartialState:
    """This process's device and place among the others, as its Accelerator is going to see them."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def meet() -> None:
    """Every process goes on when all are here, however long one works before.

    Raises OtherProcessFailedError where one has failed.
    """
    company().wait_for_all()
    process_state().wait_for_everyone()  # where the launcher has ended, the only one to wait


@contextmanager
def main_first() -> Iterator[None]:
    """Within, the main process works before the others: these find what it keeps."""
    main = process_state().is_main_process
    if not main:
        meet()
    yield
    if main:
        meet()


def told_by_main(value: T) -> T:
    """What the main process gives, on all of them: they wait for it without a limit."""
    company().wait_for_all()
    found = [value]
    broadcast_object_list(found)
    return found[0]


def _place() -> str | None:
    """The machine since its start, and which of its processes see each other's numbers."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {start} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return None
