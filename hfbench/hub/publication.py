"""What of a run is published, and publishing it."""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfbench.config import HubConfig
from hfbench.disk import write_whole
from hfbench.errors import NotPublishedError, UserError
from hfbench.hub.client import upload
from hfbench.manifest import DamagedError, files_below, read_manifest, seal
from hfbench.record import damage
from hfbench.report.card_metadata import Contents
from hfbench.report.history_plot import plot_history
from hfbench.report.model_card import model_card
from hfbench.results import MODEL_REMOVED, RESULT_FILE, RunResult
from hfbench.saving import MODEL_FOLDER

CARD_FILE = "README.md"
HISTORY_FILE = "history.png"
MERGED_FOLDER = "merged"


def publish(folder: Path, hub: HubConfig) -> str:
    """Publish a finished run: check that its model loads, write its card, send what differs.

    Returns one line about what was done.

    Raises:
        UserError: ``folder`` holds no finished run, or the hub refuses.
        NotPublishedError: the hub does not take it now; the message has the command to repeat.
        RuntimeError: the saved model is not the measured one. Nothing is sent then.
    """
    files = prepare_publication(folder, hub)
    result = RunResult.load(folder / RESULT_FILE)
    try:
        done = upload(hub, files, message=f"{result.strategy}, seed {result.seed}")
    except NotPublishedError as error:
        raise NotPublishedError(f"{error}. {where_it_is(folder, hub)}") from error
    return summary(done, len(files))


def prepare_publication(folder: Path, hub: HubConfig) -> dict[str, Path]:
    """Path in the repository -> file; the card and the picture are written, nothing is sent."""
    result = finished_run(folder)
    model_folder, written = folder / MODEL_FOLDER, result.saved_files
    if written is None:
        raise UserError(
            f"the run in {str(folder)!r} was saved by an earlier version, which kept no list of "
            f"its files: remove {RESULT_FILE} and {MODEL_FOLDER}/ there and repeat its command"
        )
    adapter = (model_folder / "adapter_config.json").is_file()
    if adapter and hub.adapter_only:
        check_base(_base_of(model_folder))
        prefix = None if result.weights is None else result.weights.removed_prefix
        if prefix is not None:
            raise UserError(
                f"the names in the file of this adapter's base begin with {prefix!r}, and other "
                "programs would give it random values: publish it merged with "
                "hub.adapter_only=false"
            )
    check_contents(result.config["strategy"]["name"], hub)
    _verify(folder)
    contents: Contents = "adapter" if adapter else "model"
    inside = f"{MODEL_FOLDER}/"
    names = [name.removeprefix(inside) for name in written if name.startswith(inside)]
    if adapter and not hub.adapter_only:
        model_folder, contents = _merged(folder, names), "merged"
        names = list(read_manifest(model_folder)["files"])
    files = {name: model_folder / name for name in sorted(names)}
    plot_history(result, folder / HISTORY_FILE)
    card = model_card(
        result,
        repo_id=str(hub.repo_id),
        contents=contents,
        local=_local_names(result),
        revision=hub.revision,
        plots=(HISTORY_FILE,),
    )
    write_whole(folder / CARD_FILE, card)
    return files | {name: folder / name for name in (CARD_FILE, HISTORY_FILE, RESULT_FILE)}


def where_it_is(folder: Path, hub: HubConfig) -> str:
    """That nothing is lost, and the one command that publishes it later."""
    default = HubConfig()
    settings = [
        f"hub.{field.name}={_text(getattr(hub, field.name))}"
        for field in dataclasses.fields(hub)
        if field.name != "push" and getattr(hub, field.name) != getattr(default, field.name)
    ]
    command = shlex.join(["hfbench", "push", str(folder), *settings])
    return f"The run is complete in {folder}; publish it later with: {command}"


def finished_run(folder: Path) -> RunResult:
    """The result of a run that can be published. Raises UserError for another folder."""
    path = folder / RESULT_FILE
    if not path.is_file():
        raise UserError(f"{str(folder)!r} is no folder of a run: it has no {RESULT_FILE}")
    if (problem := damage(folder)) is not None:
        raise UserError(f"{problem}. Repeat the run's command, which makes it whole")
    result = RunResult.load(path)
    if result.model_removed is not None:
        raise UserError(
            f"the run in {str(folder)!r} has no model: {MODEL_REMOVED.format(result.model_removed)}"
        )
    if result.status != "succeeded" or not (folder / MODEL_FOLDER).is_dir():
        raise UserError(
            f"the run in {str(folder)!r} is not finished ({result.reason or result.status}): "
            "repeat its command, which continues it"
        )
    return result


def check_base(name: str) -> None:
    """Raise UserError for the base of an adapter that nobody else could load."""
    if Path(name).expanduser().exists():
        raise UserError(
            f"the adapter needs its base, {name!r}, which is on this machine only: publish it "
            "merged with hub.adapter_only=false, or publish the base and train from there"
        )


def check_contents(strategy: str, hub: HubConfig) -> None:
    """Raise UserError for an adapter that cannot be merged into its base."""
    if strategy == "qlora" and not hub.adapter_only:
        raise UserError(
            "hub.adapter_only=false: the adapter of qlora belongs to a base in 4 bits and is not "
            "merged; publish the adapter, or train with lora"
        )


def _base_of(model_folder: Path) -> str:
    adapter = json.loads((model_folder / "adapter_config.json").read_text(encoding="utf-8"))
    return str(adapter["base_model_name_or_path"])


def _local_names(result: RunResult) -> list[str]:
    """Which of checkpoint and data are files or folders here."""
    config = result.config
    names = [config["model"]["checkpoint"], config["data"]["source"]]
    return [name for name in names if name and Path(name).expanduser().exists()]


def _verify(folder: Path) -> None:
    from hfbench.verification import CHECK_FILE, verify

    verify(folder / MODEL_FOLDER, folder / CHECK_FILE)


def _merged(folder: Path, written: Sequence[str]) -> Path:
    """The folder of the merged model, its files in a manifest."""
    from hfbench.merging import merge

    target = folder / MERGED_FOLDER
    require_own(target)
    merge(folder, target, written)
    seal(target, {"merged": folder.name})
    return target


def require_own(folder: Path) -> None:
    """Raise UserError for a folder with files that are not in its manifest: it is replaced."""
    if not folder.exists() and not folder.is_symlink():
        return
    try:
        listed = {folder / name for name in read_manifest(folder)["files"]}
        others = [str(path) for path in files_below(folder) if path not in listed]
    except DamagedError as error:
        others = [str(error)]
    if others or folder.is_symlink():
        raise UserError(
            f"{str(folder)!r} is where the merged model goes, and holds what this command did not "
            f"write ({', '.join(others) or 'it is a link'}): move it elsewhere"
        )


def summary(done: dict[str, Any], count: int) -> str:
    """One line on what :func:`hfbench.hub.client.upload` did with ``count`` files."""
    changed, removed = done["changed"], done["removed"]
    where = f"{done['url']} (commit {done['commit'][:12]})"
    if not changed and not removed:
        return f"all {count} files are there already: {where}"
    gone = f", removed {', '.join(removed)} of an earlier publication" if removed else ""
    return f"published {len(changed)} of {count} files{gone}: {where}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
