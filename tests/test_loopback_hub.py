"""The hub of the tests, as the real huggingface_hub client sees it."""

import hashlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from hub_client import (
    BOB,
    CARD,
    FINE_GRAINED,
    READ,
    REPO,
    WRITE,
    HubClient,
    branches,
    call,
    commit,
    commit_in_parallel,
    contents,
    create,
    files,
    make_branch,
    may_write,
    model_names,
    pull,
    pull_file,
    push,
    write_model,
)
from loopback_hub import LoopbackHub, client_environment
from loopback_hub.card import check_card

LFS_FILES = {"model.safetensors", "large.txt", "binary.dat"}  # by pattern, by size, by content
TRANSFERS = ("lfs_upload", "xet_xorb")


@pytest.fixture(params=["lfs", "xet"])
def client(request: pytest.FixtureRequest) -> HubClient:
    found: HubClient = request.getfixturevalue(f"{request.param}_client")
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


# ---- publishing and loading


def test_a_published_folder_comes_back(
    client: HubClient, hub: LoopbackHub, model: Path, tmp_path: Path
) -> None:
    client.run(create, hub.url, WRITE)
    oid = client.run(push, hub.url, WRITE, model)
    assert hub.count("xet_xorb" if client.xet else "lfs_upload") >= 1
    assert hub.count("lfs_upload" if client.xet else "xet_xorb") == 0

    stored = client.run(files, hub.url, WRITE)
    assert stored.keys() == contents(model).keys() | {".gitattributes"}
    hashes = {path: hashlib.sha256(data).hexdigest() for path, data in contents(model).items()}
    assert {path: sha for path, sha in stored.items() if sha} == {
        path: hashes[path] for path in LFS_FILES
    }
    for revision in (None, "main", oid):
        snapshot = client.run(pull, hub.url, None, tmp_path / f"cache-{revision}", REPO, revision)
        assert Path(snapshot).name == oid
        found = contents(Path(snapshot))
        del found[".gitattributes"]
        assert found == contents(model)


def test_contents_travel_without_the_token(
    client: HubClient, hub: LoopbackHub, model: Path, tmp_path: Path
) -> None:
    client.run(create, hub.url, WRITE, REPO, True)
    client.run(push, hub.url, WRITE, model)
    client.run(pull, hub.url, WRITE, tmp_path / "cache")
    assert hub.count("content") == len(LFS_FILES)
    storage = [request for request in hub.requests if request.headers["host"][:9] == "localhost"]
    assert len(storage) > len(LFS_FILES)
    assert not any(WRITE in request.headers.get("authorization", "") for request in storage)
    assert hub.places_of(WRITE) == []
    client.run(commit, hub.url, WRITE, {"leak.txt": WRITE.encode()})
    assert len(hub.places_of(WRITE)) == 1


def test_a_second_push_transfers_nothing(client: HubClient, hub: LoopbackHub, model: Path) -> None:
    client.run(create, hub.url, WRITE)
    first = client.run(push, hub.url, WRITE, model)
    hub.requests.clear()
    assert client.run(push, hub.url, WRITE, model) == first
    assert hub.count("commit", *TRANSFERS) == 0


def test_a_deleted_repository_can_be_filled_again(
    client: HubClient, hub: LoopbackHub, model: Path
) -> None:
    for _ in range(2):
        client.run(create, hub.url, WRITE)
        client.run(push, hub.url, WRITE, model)
        assert client.run(files, hub.url, WRITE).keys() > contents(model).keys()
        client.run(call, hub.url, WRITE, "delete_repo", REPO)


def test_a_changed_file_travels_alone(client: HubClient, hub: LoopbackHub, model: Path) -> None:
    client.run(create, hub.url, WRITE)
    client.run(push, hub.url, WRITE, model)
    hub.requests.clear()
    (model / "config.json").write_text('{"hidden_size": 32}')
    client.run(push, hub.url, WRITE, model)
    (sent,) = [request for request in hub.requests if request.route == "commit"]
    changes = [json.loads(line) for line in sent.body.splitlines()][1:]
    assert [change["value"]["path"] for change in changes] == ["config.json"]
    assert hub.count(*TRANSFERS) == 0


def test_one_file_by_name_and_by_range(
    lfs_client: HubClient, hub: LoopbackHub, model: Path, tmp_path: Path
) -> None:
    lfs_client.run(create, hub.url, WRITE)
    lfs_client.run(push, hub.url, WRITE, model)
    for path in ("config.json", "sub/notes.txt", "large.txt"):
        found = lfs_client.run(pull_file, hub.url, None, tmp_path / "cache", path)
        assert Path(found).read_bytes() == (model / path).read_bytes()
    for path in ("sub/notes.txt", "large.txt"):
        whole = (model / path).read_bytes()
        for given, expected in {"2-4": whole[2:5], "3-": whole[3:]}.items():
            url = f"{hub.url}/{REPO}/resolve/main/{path}"
            request = urllib.request.Request(url, headers={"Range": f"bytes={given}"})
            with urllib.request.urlopen(request) as answer:
                assert (answer.status, answer.read()) == (206, expected)
    missing = lfs_client.observe(pull_file, hub.url, None, tmp_path / "cache", "absent.json")
    assert missing.error == "RemoteEntryNotFoundError"


def test_a_branch_is_pushed_and_loaded_by_its_name(
    client: HubClient, hub: LoopbackHub, model: Path, tmp_path: Path
) -> None:
    client.run(create, hub.url, WRITE)
    missing = client.observe(push, hub.url, WRITE, model, REPO, "runs/1")
    assert missing.error == "RevisionNotFoundError"
    for _ in range(2):  # create_branch(exist_ok=True) bears a second time
        client.run(make_branch, hub.url, WRITE, "runs/1")
    oid = client.run(push, hub.url, WRITE, model, REPO, "runs/1")
    assert client.run(branches, hub.url, WRITE)["runs/1"] == oid
    assert set(client.run(files, hub.url, WRITE)) == {".gitattributes"}
    snapshot = client.run(pull, hub.url, None, tmp_path / "cache", REPO, "runs/1")
    assert contents(Path(snapshot)).keys() > contents(model).keys()
    (model / "new.txt").write_text("a commit id is no branch")
    assert client.observe(push, hub.url, WRITE, model, REPO, oid).error == "RevisionNotFoundError"


def test_commits_add_delete_and_refuse_a_stale_parent(
    lfs_client: HubClient, hub: LoopbackHub
) -> None:
    lfs_client.run(create, hub.url, WRITE)
    changes: dict[str, bytes | None] = {"a.txt": b"a", "sub/b.txt": b"b", "sub/c.txt": b"c"}
    first = lfs_client.run(commit, hub.url, WRITE, changes)
    lfs_client.run(commit, hub.url, WRITE, {"a.txt": None, "sub/": None, "d.txt": b"d"}, first)
    assert set(lfs_client.run(files, hub.url, WRITE)) == {".gitattributes", "d.txt"}
    stale = lfs_client.observe(commit, hub.url, WRITE, {"e.txt": b"e"}, first)
    assert (stale.error, stale.status) == ("HfHubHTTPError", 412)
    absent = lfs_client.observe(commit, hub.url, WRITE, {"absent.txt": None})
    assert absent.error == "RemoteEntryNotFoundError"
    assert len(lfs_client.run(call, hub.url, WRITE, "list_repo_commits", REPO)) == 3


def test_commits_at_the_same_time_all_arrive(lfs_client: HubClient, hub: LoopbackHub) -> None:
    lfs_client.run(create, hub.url, WRITE)
    names = [f"{index}.txt" for index in range(6)]
    lfs_client.run(commit_in_parallel, hub.url, WRITE, names)
    assert set(lfs_client.run(files, hub.url, WRITE)) == {".gitattributes", *names}


def test_long_listings_come_in_pages(lfs_client: HubClient, tmp_path: Path) -> None:
    names = {f"sub/{index}.txt" for index in range(5)}
    with LoopbackHub(tmp_path / "hub", page_size=2) as hub:
        lfs_client.run(create, hub.url, WRITE)
        lfs_client.run(commit, hub.url, WRITE, dict.fromkeys(names, b"x"))
        assert set(lfs_client.run(files, hub.url, WRITE)) == {".gitattributes", *names}
        assert hub.count("tree") == 4  # seven entries, with the folder's own
        wanted = ["sub/1.txt", "sub/absent.txt"]
        (found,) = lfs_client.run(call, hub.url, WRITE, "get_paths_info", REPO, wanted)
        assert (found.path, found.size) == ("sub/1.txt", 1)


def test_a_hub_goes_on_where_it_stopped(lfs_client: HubClient, model: Path, tmp_path: Path) -> None:
    with LoopbackHub(tmp_path / "hub") as hub:
        lfs_client.run(create, hub.url, WRITE)
        oid = lfs_client.run(push, hub.url, WRITE, model)
    with LoopbackHub(tmp_path / "hub") as hub:
        assert lfs_client.run(push, hub.url, WRITE, model) == oid
    assert lfs_client.observe(call, hub.url, WRITE, "whoami").error == "ConnectError"


# ---- who may do what


def test_a_private_repository_is_not_there_for_others(
    lfs_client: HubClient, hub: LoopbackHub, model: Path, tmp_path: Path
) -> None:
    lfs_client.run(create, hub.url, WRITE, REPO, True)
    lfs_client.run(push, hub.url, WRITE, model)
    for token, status in ((None, 401), (BOB, 404)):
        for outcome in (
            lfs_client.observe(call, hub.url, token, "model_info", REPO),
            lfs_client.observe(pull, hub.url, token, tmp_path / "cache"),
            lfs_client.observe(pull_file, hub.url, token, tmp_path / "cache", "config.json"),
        ):
            assert (outcome.error, outcome.status) == ("RepositoryNotFoundError", status)
        assert lfs_client.run(model_names, hub.url, token) == []
    for token in (WRITE, READ):
        assert lfs_client.run(model_names, hub.url, token) == [REPO]
        assert lfs_client.run(pull, hub.url, token, tmp_path / token)


@pytest.mark.parametrize(
    ("token", "repo", "status"),
    [
        (READ, REPO, 403),
        (BOB, REPO, 403),
        (FINE_GRAINED, REPO, 403),
        ("hf_unknown", REPO, 401),
        (FINE_GRAINED, "alice/granted", None),
        (BOB, "bob/model", None),
    ],
)
def test_who_may_write_where(
    lfs_client: HubClient,
    hub: LoopbackHub,
    model: Path,
    token: str,
    repo: str,
    status: int | None,
) -> None:
    created = lfs_client.observe(create, hub.url, token, repo)
    assert created.status == status
    lfs_client.run(create, hub.url, BOB if repo.startswith("bob") else WRITE, repo)
    assert lfs_client.observe(may_write, hub.url, token, repo).status == status
    assert lfs_client.observe(push, hub.url, token, model, repo).status == status


def test_whoami_tells_the_role_of_a_token(lfs_client: HubClient, hub: LoopbackHub) -> None:
    roles = {}
    for token in (WRITE, READ, FINE_GRAINED):
        account = lfs_client.run(call, hub.url, token, "whoami")
        assert account["name"] == "alice"
        roles[token] = account["auth"]["accessToken"]
    assert [roles[token]["role"] for token in roles] == ["write", "read", "fineGrained"]
    (scope,) = roles[FINE_GRAINED]["fineGrained"]["scoped"]
    assert scope["entity"]["name"] == "alice/granted"
    assert "repo.write" in scope["permissions"]
    refused = lfs_client.observe(call, hub.url, "hf_unknown", "whoami")
    assert (refused.status, refused.message[:19]) == (401, "Invalid user token.")


def test_creating_twice_and_deleting(lfs_client: HubClient, hub: LoopbackHub) -> None:
    where = lfs_client.run(create, hub.url, WRITE)
    assert where == f"{hub.url}/{REPO}" == lfs_client.run(create, hub.url, WRITE)
    twice = lfs_client.observe(call, hub.url, WRITE, "create_repo", REPO)
    assert (twice.error, twice.status) == ("HfHubHTTPError", 409)
    lfs_client.run(call, hub.url, WRITE, "delete_repo", REPO)
    assert lfs_client.run(call, hub.url, WRITE, "repo_exists", REPO) is False


def test_creating_what_exists_says_nothing_of_rights_and_visibility(
    lfs_client: HubClient, hub: LoopbackHub
) -> None:
    lfs_client.run(create, hub.url, WRITE)
    assert lfs_client.run(create, hub.url, BOB) == f"{hub.url}/{REPO}"
    assert lfs_client.observe(may_write, hub.url, BOB, REPO).status == 403
    lfs_client.run(create, hub.url, WRITE, REPO, True)
    assert lfs_client.run(call, hub.url, None, "model_info", REPO).private is False


# ---- the card


def test_a_card_is_checked_before_anything_is_uploaded(
    lfs_client: HubClient, hub: LoopbackHub, model: Path
) -> None:
    lfs_client.run(create, hub.url, WRITE)
    (model / "README.md").write_text("---\nbase_model: ../my model\n---\n")
    outcome = lfs_client.observe(push, hub.url, WRITE, model)
    assert outcome.error == "ValueError"
    assert '"base_model" with value "../my model" is not valid' in outcome.message
    assert hub.count("preupload", "commit", *TRANSFERS) == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({}, None),
        ({"datasets": ["/data/mine"]}, '"datasets[0]"'),
        ({"base_model": "./runs/1"}, '"base_model"'),
        ({"dataset": {"name": "Mine", "type": "my own data"}}, "dataset.type"),
        ({"dataset": {"name": "Mine"}}, "dataset.type"),
        ({"dataset": {"name": "Mine", "type": "mine", "revision": 3}}, "dataset.revision"),
        ({"metrics": [{"type": "accuracy"}]}, "metrics[0].value"),
        ({"task": {}}, "task.type"),
    ],
)
def test_what_the_hub_wants_of_a_card(change: dict[str, Any], complaint: str | None) -> None:
    result = {
        "task": {"type": "text-classification"},
        "dataset": {"name": "Mine", "type": "mine"},
        "metrics": [{"type": "accuracy", "value": 0.9}],
    }
    inside = {key: value for key, value in change.items() if key in result}
    outside = {key: value for key, value in change.items() if key not in result}
    metadata = {
        "base_model": "google-bert/bert-base-uncased",
        "model-index": [{"name": "m", "results": [{**result, **inside}]}],
        **outside,
    }
    errors, warnings = check_card(f"---\n{json.dumps(metadata)}\n---\n# m\n")
    assert warnings == []
    assert len(errors) == (complaint is not None)
    assert complaint is None or complaint in errors[0]


# ---- a fresh process, by name alone

LOAD_BY_NAME = """
import sys
from huggingface_hub import ModelCard, model_info
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

name, folder = sys.argv[1:]
tokens = AutoTokenizer.from_pretrained(name)("the cat sleeps", return_tensors="pt")
hidden = AutoModel.from_pretrained(name).eval()(**tokens).last_hidden_state
save_file({"hidden": hidden.detach().contiguous()}, folder + "/hidden.safetensors")
print(ModelCard.load(name).data.library_name, model_info(name).card_data.tags)
"""


def test_a_model_is_loaded_by_name_from_a_hub_in_another_process(
    xet_client: HubClient, tiny_bert: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    command = [sys.executable, "-m", "tests.loopback_hub", "--folder", str(tmp_path / "hub")]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            url = served.stdout.readline().strip()
            assert WRITE in served.stdout.readline()
            xet_client.run(create, url, WRITE, REPO, True)
            xet_client.run(push, url, WRITE, tiny_bert)
            xet_client.run(commit, url, WRITE, {"README.md": CARD.encode()})
            variables = client_environment(tmp_path / "home", url=url, token=READ)
            loaded = subprocess.run(
                [sys.executable, "-c", LOAD_BY_NAME, REPO, str(tmp_path)],
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
            )
        finally:
            served.terminate()
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == "transformers ['tiny']"
    tokens = AutoTokenizer.from_pretrained(tiny_bert)("the cat sleeps", return_tensors="pt")
    expected = AutoModel.from_pretrained(tiny_bert).eval()(**tokens).last_hidden_state
    assert load_file(tmp_path / "hidden.safetensors")["hidden"].equal(expected)
    assert served.returncode == 0
