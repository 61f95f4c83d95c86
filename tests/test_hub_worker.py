"""What a publication removes of a repository, and what it may replace on this machine."""

from pathlib import Path

import pytest

from hfbench.errors import UserError
from hfbench.hub.publication import require_own, summary
from hfbench.hub.worker import stale_files
from hfbench.manifest import seal


def test_only_files_of_ours_at_the_top_are_removed() -> None:
    ours = [
        "model.safetensors",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "adapter_model.safetensors",
        "adapter_config.json",
    ]
    theirs = [
        "onnx/model.safetensors",
        "checkpoint-10/adapter_model.safetensors",
        "old/adapter_config.json",
        "my-ema.safetensors",
        "model.safetensors.bak",
        "model-best.safetensors",
        "README.md",
    ]
    assert stale_files([*theirs, *ours], {}) == ours
    assert stale_files([*theirs, *ours], {"model.safetensors": ""}) == ours[1:]


def test_what_was_removed_is_said() -> None:
    done = {"url": "https://hub/a/b", "commit": "0" * 40, "changed": ["x"], "removed": []}
    assert summary(done, 3) == f"published 1 of 3 files: https://hub/a/b (commit {'0' * 12})"
    said = summary(done | {"removed": ["adapter_config.json", "a.safetensors"]}, 3)
    assert "files, removed adapter_config.json, a.safetensors of an earlier publication: " in said


def test_the_folder_of_the_merged_model_is_replaced_only_where_it_is_ours(tmp_path: Path) -> None:
    folder = tmp_path / "merged"
    require_own(folder)  # absent
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    with pytest.raises(UserError, match="did not write"):
        require_own(folder)
    seal(folder, {})
    require_own(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        require_own(folder)
    (folder / "notes.txt").unlink()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="move it elsewhere"):
        require_own(folder)
