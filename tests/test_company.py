"""Processes of one run tell each other why they end, and wait for each other."""

import os
import subprocess
import sys
import threading
import time

import pytest
from torch.distributed import HashStore

from hfbench.errors import OtherProcessFailedError
from hfbench.interrupts import Interrupted
from hfbench.training.company import Cause, Company


def cause(rank: int) -> Cause:
    return Cause(rank, "failed", f"KeyError: {rank}", "Traceback ...")


def two(place: str | None = "here") -> tuple[Company, Company]:
    store = HashStore()
    return Company(0, 2, store, place), Company(1, 2, store, place)


def test_the_first_cause_is_that_of_all() -> None:
    first, second = two()
    assert second.settle(cause(1)) == cause(1)
    assert first.settle(cause(0)) == cause(1)
    assert first.news() == cause(1)


def test_the_first_signal_ends_all_and_is_no_failure() -> None:
    first, second = two()
    assert first.ended_by() is None
    assert second.end_by(10) == 10
    assert first.end_by(15) == 10
    assert first.news(seconds=60) is None  # which does not wait for a failure then
    with pytest.raises(Interrupted) as caught:
        first.wait_for_all()
    assert caught.value.number == 10


def test_one_process_alone_has_its_own_cause_and_waits_for_nobody() -> None:
    alone = Company(0, 1, None, "here")
    alone.wait_for_all()
    assert alone.news(seconds=60) is None
    assert alone.end_by(15) == 15
    assert alone.settle(cause(0)) == cause(0)
    assert alone.speaks()


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("place", "left", "killed"),
    [("here", False, True), ("here", True, False), ("elsewhere", False, False)],
)
def test_a_process_of_this_machine_that_ended_without_leaving_was_killed(
    place: str, left: bool, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HashStore()
    with monkeypatch.context() as patch:
        number = gone()
        patch.setattr(os, "getpid", lambda: number)
        other = Company(0, 2, store, place)
    if left:
        other.leave()
    second = Company(1, 2, store, "here")
    found = second.news()
    assert (found is not None and found.killed) == killed
    assert second.speaks() == killed
    if killed:
        assert found == Cause(0, "failed", "process 0 was killed", None)


def test_a_meeting_waits_for_all_and_ends_when_one_has_failed() -> None:
    first, second = two()
    waits = threading.Thread(target=first.wait_for_all)
    waits.start()
    time.sleep(0.05)
    assert waits.is_alive()
    second.wait_for_all()
    waits.join(5)
    assert not waits.is_alive()
    second.settle(cause(1))
    first.news()
    with pytest.raises(OtherProcessFailedError, match="KeyError: 1"):
        first.wait_for_all()


class EndedStore(HashStore):
    """As one whose launcher was killed."""

    ended = False
    refused = 0

    def check(self, keys: list[str]) -> bool:
        if self.ended:
            self.refused += 1
            raise RuntimeError("Connection reset by peer")
        return super().check(keys)

    def add(self, key: str, amount: int) -> int:
        if self.ended:
            raise RuntimeError("Connection reset by peer")
        return super().add(key, amount)


def test_nobody_waits_in_a_store_that_has_ended() -> None:
    store = EndedStore()
    first, _ = Company(0, 2, store, None), Company(1, 2, store, None)
    store.ended = True
    first.wait_for_all()


def test_a_store_that_has_ended_is_asked_no_more() -> None:
    store = EndedStore()
    company = Company(0, 2, store, "here")
    store.ended = True
    assert company.news() is None
    assert company.ended_by() is None
    assert company.end_by(15) == 15
    assert company.settle(cause(0)) == cause(0)
    company.leave()
    assert store.refused == 1


def test_who_did_not_fail_waits_until_the_cause_is_recorded() -> None:
    first, second = two()
    kept: list[Cause] = []
    first.record = kept.append
    told = threading.Thread(target=second.tell, args=(cause(1),))
    told.start()
    time.sleep(0.05)
    assert told.is_alive()
    first.tell(cause(1))
    told.join(5)
    assert kept == [cause(1)]
    assert not told.is_alive()
