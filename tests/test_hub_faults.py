"""What the real huggingface_hub client makes of a hub that fails, one fault at a time."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_client import (
    REPO,
    WRITE,
    HubClient,
    call,
    commit,
    create,
    files,
    pull,
    pull_file,
    push,
    with_timeout,
    write_model,
)
from loopback_hub import Fault, LoopbackHub


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def test_a_commit_is_tried_once_without_xet(
    lfs_client: HubClient, hub: LoopbackHub, model: Path
) -> None:
    lfs_client.run(create, hub.url, WRITE)
    for status in (401, 403, 412, 429, 503):
        hub.faults.add(Fault("commit", "status", status=status, retry_after=1))
        hub.requests.clear()
        outcome = lfs_client.observe(push, hub.url, WRITE, model)
        assert (outcome.error, outcome.status) == ("HfHubHTTPError", status)
        assert hub.count("commit") == 1
    assert set(lfs_client.run(files, hub.url, WRITE)) == {".gitattributes"}
    lfs_client.run(push, hub.url, WRITE, model)


def test_a_commit_is_tried_again_with_xet(
    xet_client: HubClient, hub: LoopbackHub, model: Path
) -> None:
    xet_client.run(create, hub.url, WRITE)
    hub.faults.add(Fault("commit", "status", status=503))
    outcome = xet_client.observe(push, hub.url, WRITE, model)
    assert outcome.error is None
    assert outcome.seconds > 1
    assert hub.count("commit") == 2


@pytest.mark.parametrize(
    ("fault", "least_seconds"),
    [
        (Fault("preupload", "status", status=503), 1),
        (Fault("preupload", "status", status=429, retry_after=1), 2),  # one more than was asked
        (Fault("preupload", "reset"), 1),
        (Fault("lfs_batch", "status", status=503), 1),
        (Fault("lfs_upload", "status", status=503), 1),
        (Fault("lfs_upload", "reset"), 1),
        (Fault("lfs_upload", "lost"), 1),
        (Fault("lfs_verify", "status", status=503), 1),
    ],
    ids=lambda value: f"{value.route}-{value.kind}" if isinstance(value, Fault) else "",
)
def test_what_comes_before_the_commit_is_tried_again(
    lfs_client: HubClient, hub: LoopbackHub, model: Path, fault: Fault, least_seconds: float
) -> None:
    (model / "large.txt").unlink()
    lfs_client.run(create, hub.url, WRITE)
    hub.faults.add(fault)
    outcome = lfs_client.observe(push, hub.url, WRITE, model)
    assert (outcome.error, outcome.seconds > least_seconds) == (None, True)


@pytest.mark.slow
def test_the_client_gives_up_after_six_tries(
    lfs_client: HubClient, hub: LoopbackHub, model: Path
) -> None:
    lfs_client.run(create, hub.url, WRITE)
    hub.faults.add(Fault("preupload", "status", status=503, times=None))
    outcome = lfs_client.observe(push, hub.url, WRITE, model)
    assert (outcome.error, outcome.status) == ("HfHubHTTPError", 503)
    assert hub.count("preupload") == 6
    assert 23 < outcome.seconds < 40  # waits of 1, 2, 4, 8 and 8 s


def test_hf_xet_tries_again_by_itself(xet_client: HubClient, hub: LoopbackHub, model: Path) -> None:
    xet_client.run(create, hub.url, WRITE)
    hub.faults.add(Fault("xet_xorb", "status", status=503))
    xet_client.run(push, hub.url, WRITE, model)
    statuses = [request.status for request in hub.requests if request.route == "xet_xorb"]
    assert statuses == [503, 200]


def test_a_refused_upload_keeps_its_cause(
    lfs_client: HubClient, hub: LoopbackHub, model: Path
) -> None:
    lfs_client.run(create, hub.url, WRITE)
    hub.faults.add(Fault("lfs_upload", "status", status=403, times=None))
    outcome = lfs_client.observe(push, hub.url, WRITE, model)
    assert (outcome.error, outcome.status) == ("RuntimeError", None)
    assert "Error while uploading" in outcome.message


def test_a_reset_commit_has_not_arrived_and_an_unanswered_one_has(
    lfs_client: HubClient, hub: LoopbackHub, model: Path
) -> None:
    lfs_client.run(create, hub.url, WRITE)
    for fault, arrived in ((Fault("commit", "reset"), False), (Fault("commit", "lost"), True)):
        hub.faults.add(fault)
        outcome = lfs_client.observe(push, hub.url, WRITE, model)
        assert "TransportError" in outcome.bases
        assert ("config.json" in lfs_client.run(files, hub.url, WRITE)) == arrived
    lfs_client.run(push, hub.url, WRITE, model)
    assert len(lfs_client.run(call, hub.url, WRITE, "list_repo_commits", REPO)) == 2


def test_a_hanging_hub_costs_the_timeout_that_was_set(
    lfs_client: HubClient, hub: LoopbackHub, model: Path
) -> None:
    lfs_client.run(create, hub.url, WRITE)
    for route, function, arguments in (
        ("whoami", call, ("whoami",)),
        ("info", call, ("model_info", REPO)),  # for which the client itself says timeout=None
        ("commit", push, (model,)),
    ):
        hub.faults.add(Fault(route, "hang"))
        outcome = lfs_client.observe(with_timeout, 0.5, function, hub.url, WRITE, *arguments)
        assert outcome.error == "ReadTimeout"
        assert 0.5 <= outcome.seconds < 10
        hub.faults.clear()
    assert set(lfs_client.run(files, hub.url, WRITE)) == {".gitattributes"}


def test_a_hub_that_hangs_for_a_while_answers_then(lfs_client: HubClient, hub: LoopbackHub) -> None:
    hub.faults.add(Fault("any", "hang", seconds=1))
    outcome = lfs_client.observe(call, hub.url, WRITE, "whoami")
    assert (outcome.error, outcome.seconds > 1) == (None, True)


def test_a_slow_upload_takes_its_time(lfs_client: HubClient, hub: LoopbackHub, model: Path) -> None:
    (model / "large.txt").unlink()
    lfs_client.run(create, hub.url, WRITE)
    size = (model / "model.safetensors").stat().st_size
    hub.faults.add(Fault("lfs_upload", "slow", times=None, bytes_per_second=size))
    outcome = lfs_client.observe(push, hub.url, WRITE, model)
    assert (outcome.error, outcome.seconds > 0.9) == (None, True)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
@pytest.mark.parametrize(
    ("route", "function", "arguments"), [("whoami", call, ("whoami",)), ("create", create, ())]
)
def test_whoami_and_create_are_tried_once(
    lfs_client: HubClient,
    hub: LoopbackHub,
    route: str,
    function: Callable[..., Any],
    arguments: tuple[str, ...],
    status: int,
) -> None:
    hub.faults.add(Fault(route, "status", status=status))
    outcome = lfs_client.observe(function, hub.url, WRITE, *arguments)
    assert (outcome.error, outcome.status) == ("HfHubHTTPError", status)
    assert hub.count(route) == 1


def test_a_conflict_while_creating_is_tried_again(lfs_client: HubClient, hub: LoopbackHub) -> None:
    hub.faults.add(Fault("create", "status", status=409, times=3))
    lfs_client.run(create, hub.url, WRITE)
    assert hub.count("create") == 4


def test_a_download_that_fails_names_the_cause(
    lfs_client: HubClient, hub: LoopbackHub, tmp_path: Path
) -> None:
    lfs_client.run(create, hub.url, WRITE)
    lfs_client.run(commit, hub.url, WRITE, {"config.json": b"{}"})
    arguments = (hub.url, None, tmp_path / "cache", "config.json")
    hub.faults.add(Fault("resolve", "status", status=503))  # once: the client asks again
    lfs_client.run(pull_file, *arguments)
    hub.faults.add(Fault("resolve", "status", status=403, times=None))
    refused = lfs_client.observe(pull_file, hub.url, None, tmp_path / "cache2", "config.json")
    assert refused.error == "LocalEntryNotFoundError"
    hub.faults.clear()
    hub.faults.add(Fault("info", "status", status=503))
    down = lfs_client.observe(pull, hub.url, None, tmp_path / "cache3")
    assert (down.error, "503" in down.message) == ("LocalEntryNotFoundError", True)


def test_another_process_sets_faults_and_reads_the_requests(
    lfs_client: HubClient, hub: LoopbackHub
) -> None:
    control(hub, "POST", "faults", {"route": "whoami", "kind": "status", "status": 503})
    assert lfs_client.observe(call, hub.url, WRITE, "whoami").status == 503
    assert lfs_client.observe(call, hub.url, WRITE, "whoami").error is None
    (first, second) = control(hub, "GET", "requests")
    assert (first["route"], first["status"], second["status"]) == ("whoami", 503, 200)
    control(hub, "POST", "faults", {"route": "any", "kind": "hang", "times": None})
    control(hub, "DELETE", "faults")
    control(hub, "DELETE", "requests")
    assert lfs_client.observe(call, hub.url, WRITE, "whoami").error is None
    assert hub.count("whoami") == 1
    for wrong in (
        {"route": "nowhere", "kind": "reset"},
        {"route": "any", "kind": "fire"},
        {"route": "any", "kind": "status"},
        {"route": "any", "kind": "hang", "retry_after": 1},
    ):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            control(hub, "POST", "faults", wrong)


def control(hub: LoopbackHub, method: str, name: str, content: Any = None) -> Any:
    request = urllib.request.Request(
        f"{hub.url}/__control__/{name}",
        method=method,
        data=None if content is None else json.dumps(content).encode(),
    )
    with urllib.request.urlopen(request) as answer:
        body = answer.read()
    return json.loads(body) if body else None
