"""Publishing to a real HTTP hub on loopback with the real client: nothing lost, nothing leaked."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import ACCOUNTS, Fault, LoopbackHub
from online import User, online_process
from online_calls import logits_by_name, upload_files, upload_folders
from safetensors.torch import load_file
from tiny_runs import overrides

from hfbench.results import RunResult
from hfbench.verification import CHECK_FILE, check_inputs

WRITE, READ, FINE_GRAINED, BOB = (account.token for account in ACCOUNTS)
RECIPE = Path(__file__).parents[1] / "recipes/text_classification.py"
CHECKPOINTS = {"text": "tiny_bert", "image": "tiny_vit", "audio": "tiny_wav2vec2"}
DATA = {"text": "texts", "image": "images", "audio": "sounds"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    """One hub for the module; every test uses repositories of its own."""
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults_left(hub: LoopbackHub) -> Iterator[None]:
    yield
    hub.faults.clear()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def logs() -> list[str]:
    """Everything that any command of this module printed."""
    return []


@pytest.fixture(scope="module")
def user(hub: LoopbackHub, home: Path, logs: list[str]) -> Iterator[User]:
    with online_process(hub.environment(home)) as pool:
        yield User(pool, logs)


@pytest.fixture(scope="module")
def stranger(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Another process with a cache of its own, in which nothing was trained."""
    with online_process(hub.environment(tmp_path_factory.mktemp("stranger"))) as pool:
        yield pool


@pytest.fixture(scope="module")
def bases(user: User, request: pytest.FixtureRequest) -> dict[str, str]:
    """The tiny checkpoints on the hub, where adapters find them by name."""
    names = {kind: f"alice/tiny-{kind}" for kind in CHECKPOINTS}
    folders = {
        names[kind]: str(request.getfixturevalue(fixture)) for kind, fixture in CHECKPOINTS.items()
    }
    user.pool.submit(upload_folders, WRITE, folders).result()
    return names


@pytest.fixture(scope="module")
def finished(
    user: User, tiny_bert: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Path]:
    """Makes copies of one finished run."""
    first = tmp_path_factory.mktemp("finished") / "run"
    arguments = overrides(tiny_bert, texts, first, "training.max_steps=2", "strategy=last_1")
    assert user.recipe("text_classification", *arguments, token=None).returncode == 0

    def copy() -> Path:
        target = tmp_path_factory.mktemp("copy") / "run"
        shutil.copytree(first, target)
        return target

    return copy


SLOW = pytest.mark.slow
FORMS = [
    ("text", "full"),
    ("image", "last_1"),
    ("audio", "lora"),
    ("text", "lora merged"),
    *(
        pytest.param(kind, form, marks=SLOW)
        for kind, form in (
            *(("text", "last_1"), ("text", "lora")),
            *(("image", "full"), ("image", "lora"), ("image", "lora merged")),
            *(("audio", "full"), ("audio", "last_1"), ("audio", "lora merged")),
        )
    ),
]


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_what_is_loaded_by_name_is_what_was_measured(
    kind: str,
    form: str,
    hub: LoopbackHub,
    user: User,
    stranger: Any,
    bases: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Trained and pushed in one process, loaded in another; some on a branch of a private one."""
    strategy, _, merged = form.partition(" ")
    private = form in ("full", "lora")
    name = f"alice/{kind}-{form.replace(' ', '-')}"
    arguments = overrides(
        Path(bases[kind]),
        request.getfixturevalue(DATA[kind]),
        tmp_path / "run",
        f"strategy={strategy}",
        "training.max_steps=2",
        "hub.push=true",
        f"hub.repo_id={name}",
        *(["hub.private=true", "hub.revision=trial"] if private else []),
        *(["hub.adapter_only=false"] if merged else []),
    )
    trained = user.recipe(f"{kind}_classification", *arguments, token=WRITE)
    assert trained.returncode == 0, trained.stderr
    assert "published" in trained.stdout
    if strategy == "lora":
        adapter = json.loads((tmp_path / "run/model/adapter_config.json").read_text())
        base = hub.store.find("model", bases[kind])
        assert base is not None
        assert adapter["revision"] == base.commit_at("main").id  # pinned, though none was given
        assert adapter["revision"] == RunResult.load(tmp_path / "run/result.json").checkpoint_commit
    check = tmp_path / "run" / CHECK_FILE
    revision = "trial" if private else None
    token = WRITE if private else None
    actual = stranger.submit(logits_by_name, token, name, revision, check).result()
    expected = load_file(check)["logits"]
    if merged:  # (W + BA)x is rounded otherwise than Wx + BAx
        assert (actual - expected).abs().max() < 1e-5
    else:
        assert actual.equal(expected)
    if private:
        refusal = stranger.submit(logits_by_name, BOB, name, revision, check).result()
        assert isinstance(refusal, str)  # an error: for bob it does not exist
    transfers = hub.count("lfs_upload", "commit")
    again = user.hfbench("push", str(tmp_path / "run"), token=WRITE)
    assert again.returncode == 0, again.stderr
    assert "are there already" in again.stdout
    assert hub.count("lfs_upload", "commit") == transfers


PASSING = [
    Fault("commit", "status", status=503),
    Fault("lfs_upload", "status", status=503),
    Fault("create", "status", status=503),
    Fault("create", "status", status=409),
    Fault("commit", "status", status=412),
    Fault("preupload", "status", status=429, retry_after=1),
    Fault("commit", "reset"),
    Fault("commit", "lost"),
    Fault("lfs_upload", "reset"),
    Fault("commit", "hang"),
    Fault("lfs_upload", "slow", bytes_per_second=50_000),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: f"{f.route}-{f.kind}-{f.status}")
def test_what_passes_is_overcome(
    fault: Fault, hub: LoopbackHub, user: User, tmp_path: Path
) -> None:
    contents = {"model.safetensors": bytes(range(256)) * 400, "config.json": b"{}"}
    files = {name: tmp_path / name for name in contents}
    for name, content in contents.items():
        files[name].write_bytes(content)
    name = f"alice/overcome-{fault.route}-{fault.kind}-{fault.status}"
    hub.faults.add(fault)
    done = user.pool.submit(upload_files, WRITE, name, files).result()
    assert done["url"] == f"{hub.url}/{name}"
    repository = hub.store.find("model", name)
    assert repository is not None
    commit = repository.commit_at("main")
    assert commit.id == done["commit"]
    for path, content in contents.items():
        assert repository.blob(commit.file(path).sha256).read_bytes() == content


LASTING = [
    (Fault("commit", "status", status=503, times=None), "503"),
    (Fault("lfs_upload", "hang", times=None), "nothing got through for 3 seconds"),
    (Fault("commit", "status", status=403, times=None), "may not write"),
    pytest.param(
        Fault("commit", "status", status=401, times=None), "not accept the token", marks=SLOW
    ),
    pytest.param(Fault("any", "status", status=503, times=None), "503", marks=SLOW),
    pytest.param(Fault("lfs_upload", "status", status=503, times=None), "got through", marks=SLOW),
]


@pytest.mark.parametrize(("fault", "message"), LASTING)
def test_a_run_that_cannot_be_published_is_done_and_safe(
    fault: Fault,
    message: str,
    hub: LoopbackHub,
    user: User,
    tiny_bert: Path,
    texts: Path,
    tmp_path: Path,
) -> None:
    """Exit code 4, the command that publishes it later, and that command works."""
    name = f"alice/lasting-{fault.route}-{fault.kind}-{fault.status}"
    settings = ["training.max_steps=2", "hub.push=true", f"hub.repo_id={name}"]
    settings += ["hub.deadline_seconds=3"]
    arguments = overrides(tiny_bert, texts, tmp_path / "run", *settings)
    hub.faults.add(fault)
    done = user.recipe("text_classification", *arguments, token=WRITE)
    assert done.returncode == 4, done.stderr
    assert message in done.stderr
    assert RunResult.load(tmp_path / "run/result.json").status == "succeeded"
    command = done.stderr.rstrip().rpartition("publish it later with: ")[2]
    run = tmp_path / "run"
    assert command == f"hfbench push {run} hub.repo_id={name} hub.deadline_seconds=3.0"
    hub.faults.clear()
    later = user.hfbench(*command.split()[1:], token=WRITE)
    assert later.returncode == 0, later.stderr
    assert "published" in later.stdout


def test_a_hub_that_hangs_costs_at_most_the_deadline(
    hub: LoopbackHub, user: User, finished: Callable[[], Path]
) -> None:
    folder = str(finished())
    name = "hub.repo_id=alice/hanging"
    started = time.monotonic()
    assert user.hfbench("push", folder, name, token=WRITE).returncode == 0
    free_seconds = time.monotonic() - started
    hub.faults.add(Fault("any", "hang", times=None))
    started = time.monotonic()
    done = user.hfbench("push", folder, name, "hub.deadline_seconds=3", token=WRITE)
    hanging_seconds = time.monotonic() - started
    assert done.returncode == 4, done.stderr
    assert hanging_seconds - free_seconds < 3 + 3  # the start of processes varies


MISTAKES = [
    ("hf_NobodysToken0123456789", "alice/x", [], "does not accept the token"),
    (None, "alice/x", [], "there is no token"),
    (READ, "alice/x", [], "can only read"),
    (WRITE, "bob/x", [], "may not write"),
    (FINE_GRAINED, "alice/other", [], "may not write"),
    (WRITE, "alice/tiny-text", ["hub.private=true"], "is public and hub.private=true"),
    (WRITE, "no-owner", [], "not written owner/name"),
]


@pytest.mark.parametrize(("token", "name", "more", "message"), MISTAKES)
def test_a_mistake_ends_the_run_before_it_trains(
    token: str | None,
    name: str,
    more: list[str],
    message: str,
    user: User,
    bases: dict[str, str],
    tiny_bert: Path,
    texts: Path,
    tmp_path: Path,
) -> None:
    settings = ["hub.push=true", f"hub.repo_id={name}", *more]
    arguments = overrides(tiny_bert, texts, tmp_path / "run", *settings)
    done = user.recipe("text_classification", *arguments, token=token)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_bad_token_costs_seconds(
    hub: LoopbackHub, home: Path, tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    settings = ["hub.push=true", "hub.repo_id=alice/x"]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(RECIPE), *overrides(tiny_bert, texts, tmp_path / "run", *settings)],
        env=os.environ | hub.environment(home, token="hf_NobodysToken0123456789"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert time.monotonic() - started < 10
    assert done.returncode == 2
    assert "does not accept the token" in done.stderr
    assert "Traceback" not in done.stderr


def test_killed_while_it_publishes_the_run_is_complete_and_publishable(
    hub: LoopbackHub, home: Path, user: User, finished: Callable[[], Path]
) -> None:
    folder = finished()
    before = {p: p.read_bytes() for p in (folder / "model").rglob("*") if p.is_file()}
    hub.faults.add(Fault("lfs_upload", "hang", times=None))
    arguments = ["push", str(folder), "hub.repo_id=alice/killed"]
    seen = hub.count("lfs_upload")
    process = subprocess.Popen(
        [sys.executable, "-m", "hfbench", *arguments],
        env=os.environ | hub.environment(home, token=WRITE),
    )
    deadline = time.monotonic() + 60
    while hub.count("lfs_upload") == seen:
        assert time.monotonic() < deadline, "the upload did not begin"
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    hub.faults.clear()
    assert {p: p.read_bytes() for p in (folder / "model").rglob("*") if p.is_file()} == before
    done = user.hfbench(*arguments, token=WRITE)
    assert done.returncode == 0, done.stderr


def test_a_changed_model_is_not_published(
    hub: LoopbackHub, user: User, finished: Callable[[], Path]
) -> None:
    folder = finished()
    weights = folder / "model/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-400:] = bytes(400)  # a hundred weights become zero
    weights.write_bytes(content)
    refused = user.hfbench("push", str(folder), "hub.repo_id=alice/changed", token=WRITE)
    assert refused.returncode == 2
    assert "model.safetensors' holds other bytes than were written" in refused.stderr
    assert hub.store.find("model", "alice/changed") is None


def test_an_adapter_whose_base_nobody_else_has_is_published_merged_only(
    user: User, tiny_bert: Path, texts: Path, tmp_path: Path
) -> None:
    settings = ["training.max_steps=2", "strategy=lora"]
    arguments = overrides(tiny_bert, texts, tmp_path / "run", *settings)
    assert user.recipe("text_classification", *arguments, token=None).returncode == 0
    command = ["push", str(tmp_path / "run"), "hub.repo_id=alice/local-base"]
    done = user.hfbench(*command, token=WRITE)
    assert done.returncode == 2
    assert "on this machine only" in done.stderr
    merged = user.hfbench(*command, "hub.adapter_only=false", token=WRITE)
    assert merged.returncode == 0, merged.stderr


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("text_classification", ["strategy=lora"], "on this machine only"),
        ("mnist_mlp", ["data.source=bundled/digits"], "no model that others can load"),
    ],
)
def test_what_cannot_be_published_is_found_before_training(
    task: str, settings: list[str], message: str, user: User, tiny_bert: Path, tmp_path: Path
) -> None:
    hub_settings = ["hub.push=true", "hub.repo_id=alice/never", f"output_dir={tmp_path / 'run'}"]
    checkpoint = [] if task == "mnist_mlp" else [f"model.checkpoint={tiny_bert}"]
    done = user.recipe(task, *checkpoint, *settings, *hub_settings, token=WRITE)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_merged_weights_replace_an_adapter_that_was_there(
    hub: LoopbackHub, user: User, bases: dict[str, str], tmp_path: Path, texts: Path
) -> None:
    settings = ["training.max_steps=2", "strategy=lora", "hub.repo_id=alice/both", "hub.push=true"]
    arguments = overrides(Path(bases["text"]), texts, tmp_path / "run", *settings)
    assert user.recipe("text_classification", *arguments, token=WRITE).returncode == 0
    repository = hub.store.find("model", "alice/both")
    assert repository is not None
    assert "adapter_model.safetensors" in repository.commit_at("main").files
    command = ["push", str(tmp_path / "run"), "hub.adapter_only=false"]
    done = user.hfbench(*command, token=WRITE)
    assert done.returncode == 0
    gone = "removed adapter_config.json, adapter_model.safetensors of an earlier publication"
    assert gone in done.stdout
    files = set(repository.commit_at("main").files)
    assert "model.safetensors" in files
    assert not {"adapter_model.safetensors", "adapter_config.json"} & files


def test_a_folder_without_a_finished_run_is_a_mistake(user: User, tmp_path: Path) -> None:
    done = user.hfbench("push", str(tmp_path), "hub.repo_id=alice/x", token=WRITE)
    assert done.returncode == 2
    assert "no folder of a run" in done.stderr


def test_the_stored_batch_is_what_the_model_was_given(finished: Callable[[], Path]) -> None:
    inputs = check_inputs(finished() / CHECK_FILE)
    assert inputs.keys() >= {"input_ids", "attention_mask"}
    assert len(inputs["input_ids"]) == 6  # all of the test split: a tenth of 60


def test_no_token_and_no_pickle_anywhere(hub: LoopbackHub, logs: list[str]) -> None:
    """Last: over everything that the tests above published, sent and printed."""
    assert hub.count("commit") > 20
    for account in ACCOUNTS:
        assert hub.places_of(account.token) == []
        assert not any(account.token in text for text in logs)
    repositories = hub.store.repositories("model")
    paths = [path for found in repositories for path in found.commit_at("main").files]
    assert len(paths) > 50
    assert not [p for p in paths if p.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt"))]
    results = [
        json.loads(found.blob(found.commit_at("main").file("result.json").sha256).read_text())
        for found in repositories
        if "result.json" in found.commit_at("main").files
    ]
    assert len(results) > 5
    assert all("hf_" not in json.dumps(result["config"]) for result in results)
