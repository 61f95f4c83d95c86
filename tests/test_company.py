"""Processes of one run tell each other why they end, and wait for each other."""

import os
import subprocess
import sys
import threading
import time

import pytest
from torch.distributed import HashStore

from hfbench.errors import OtherProcessFailedError
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


def test_one_process_alone_has_its_own_cause_and_waits_for_nobody() -> None:
    alone = Company(0, 1, None, "here")
    alone.meet()
    assert alone.news(seconds=60) is None
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
    waits = threading.Thread(target=first.meet)
    waits.start()
    time.sleep(0.05)
    assert waits.is_alive()
    second.meet()
    waits.join(5)
    assert not waits.is_alive()
    second.settle(cause(1))
    first.news()
    with pytest.raises(OtherProcessFailedError, match="KeyError: 1"):
        first.meet()


def test_the_main_process_works_first() -> None:
    first, second = two()
    order = []

    def work(who: Company, seconds: float) -> None:
        with who.main_first():
            time.sleep(seconds)
            order.append(who.rank)

    threads = [
        threading.Thread(target=work, args=(who, s)) for who, s in ((second, 0), (first, 0.1))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert order == [0, 1]


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
