"""Sources that are not there, and what a hub answers instead of data."""

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import datasets
import httpx2
import pytest
from datasets import Dataset
from huggingface_hub import constants, errors

from hfbench.config import DataConfig
from hfbench.data.sources import PARQUET_REVISION, load_hub
from hfbench.data.splits import load_splits
from hfbench.errors import HubUnreachableError, UserError
from hfbench.hub_access import _go_offline_without_hub, hub_errors


@pytest.mark.parametrize(
    "source", ["", "bundled/nothing", "./missing.csv", "missing.json", "/no/such/folder"]
)
def test_an_unknown_source_is_an_error_that_lists_the_choices(source: str) -> None:
    with pytest.raises(UserError, match="bundled/digits"):
        load_splits(DataConfig(source=source), "text")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_a_configuration_of_the_converted_revision_is_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "data"
    for name in ("v0.01", "v0.02"):
        for split, rows in (("train", 3), ("validation", 2), ("test", 1)):
            (source / name / split).mkdir(parents=True)
            table = Dataset.from_dict({"text": [f"{name} {split}"] * rows, "label": ["a"] * rows})
            table.to_parquet(source / name / split / "0000.parquet")
    config = DataConfig(source=str(source), name="v0.02", revision=PARQUET_REVISION)
    loaded = load_hub(config)
    assert {split: len(dataset) for split, dataset in loaded.items()} == {
        "train": 3,
        "validation": 2,
        "test": 1,
    }
    assert set(loaded["test"]["text"]) == {"v0.02 test"}
    with pytest.raises(UserError, match=r"data.name='v0.03'.*does not load"):
        load_hub(DataConfig(source=str(source), name="v0.03", revision=PARQUET_REVISION))


@pytest.mark.usefixtures("own_cache")
def test_a_hub_data_set_with_broken_or_without_files_is_a_user_error(tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    with pytest.raises(UserError, match=r"data set '.*data' with data.name=None.*does not load"):
        load_hub(DataConfig(source=str(source)))
    for number, column in enumerate("ab"):
        (source / f"train-{number}.csv").write_text(f"text,{column}\nw,1\n")
    with pytest.raises(UserError, match=r"(?s)does not load: .*b: int64.*data.revision"):
        load_hub(DataConfig(source=str(source)))


@pytest.mark.parametrize("name", ["NonMatchingSplitsSizesError", "ExpectedMoreSplitsError"])
def test_other_splits_than_announced_are_a_user_error(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def load(*_: object, **__: object) -> None:
        raise getattr(datasets.exceptions, name)("test: 3 rows")

    monkeypatch.setattr("hfbench.data.sources.load_dataset", load)
    with pytest.raises(UserError, match=r"data set 'a/b'.*test: 3 rows.*data.revision"):
        load_hub(DataConfig(source="a/b"))


def test_a_full_disk_and_a_lost_hub_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = (
        (OSError(errno.ENOSPC, "full"), UserError, "no space left on the disk: .*full"),
        (ConnectionError("lost"), HubUnreachableError, "'a/b'"),
    )
    for cause, kind, message in cases:

        def load(*_: object, cause: OSError = cause, **__: object) -> None:
            raise datasets.exceptions.DatasetGenerationError("failed") from cause

        monkeypatch.setattr("hfbench.data.sources.load_dataset", load)
        with pytest.raises(kind, match=message):
            load_hub(DataConfig(source="a/b"))


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """Every attempt to connect; online as far as the libraries know, without a proxy."""
    attempts: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        attempts.append(address)
        return socket.socket()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(socket, "create_connection", connect)
    _go_offline_without_hub.cache_clear()
    yield attempts
    _go_offline_without_hub.cache_clear()


def test_only_names_of_the_hub_lead_to_a_connection(
    connections: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bundled/digits", str(tmp_path)):
        with hub_errors("checkpoint", name):
            pass
    assert connections == []
    with monkeypatch.context() as offline, hub_errors("checkpoint", str(tmp_path)):
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        with hub_errors("checkpoint", "owner/name"):
            pass
    assert connections == []
    _go_offline_without_hub.cache_clear()
    with hub_errors("checkpoint", "owner/name"):
        pass
    assert len(connections) == 1


def test_an_unreachable_hub_is_its_own_error_with_the_ways_out() -> None:
    with pytest.raises(HubUnreachableError, match=r"'owner/name'.*bundled/.*HF_ENDPOINT"):
        load_splits(DataConfig(source="owner/name"), "text")


def test_hub_answers_become_user_errors() -> None:
    def refusal(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
        request = httpx2.Request("GET", "https://hub/x")
        return kind("no", response=httpx2.Response(status, request=request))

    cases = [
        (refusal(errors.GatedRepoError, 403), r"gated.*hf auth login.*HF_TOKEN"),
        (refusal(errors.RepositoryNotFoundError, 404), "check the spelling"),
        (refusal(errors.RevisionNotFoundError, 404), "model.revision"),
        (refusal(errors.HfHubHTTPError, 401), "HF_TOKEN"),
        (errors.HFValidationError("bad"), "neither an existing local path"),
    ]
    for cause, message in cases:
        with pytest.raises(UserError, match=message), hub_errors("checkpoint", "a/b"):
            raise OSError("wrapped by the library") from cause
    with pytest.raises(HubUnreachableError), hub_errors("checkpoint", "a/b"):
        raise refusal(errors.HfHubHTTPError, 503)
    with pytest.raises(OSError, match="disk full"), hub_errors("checkpoint", "a/b"):
        raise OSError("disk full")
