"""Words for waits, and how long is left."""

import threading
import time

import pytest

from hfbench import status
from hfbench.expectation import Durations, duration
from hfbench.status import remark, working


def test_a_long_wait_has_a_word_and_a_short_one_has_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "MOMENT_SECONDS", 0.05)
    with working("reading"):
        deadline = time.monotonic() + 60
        said = ""
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
            said = capsys.readouterr().err
    assert said == "... reading\n"
    monkeypatch.setattr(status, "MOMENT_SECONDS", 60.0)
    before = threading.active_count()
    with pytest.raises(ValueError, match="over"), working("failing"):
        raise ValueError("over")
    assert threading.active_count() == before
    assert capsys.readouterr().err == ""


def test_one_process_speaks_for_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        remark("said")
    assert capsys.readouterr().err == "said\n"


def test_the_time_left_is_that_of_finished_runs_of_each_strategy() -> None:
    durations = Durations()
    assert durations.left(["full", "head"]) is None
    durations.add("full", 100)
    assert str(durations.left(["head", "full"])) == "at most about 3 min"  # 100 s each
    durations.add("full", 200)
    durations.add("head", 10)
    durations.add("head", None)  # an old result
    left = durations.left(["full", "head", "head"])
    assert left is not None
    assert (left.seconds, left.at_most) == (150 + 2 * 10, False)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (9000, "2.5 h")],
)
def test_a_duration_has_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text
