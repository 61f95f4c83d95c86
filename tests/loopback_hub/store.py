"""Repositories on disk: contents by their hash, one JSON a commit, branches by name.

    FOLDER/{model,dataset,space}/NAMESPACE/NAME/
        repository.json     private, branches: name -> commit id
        commits/ID.json     parent, title, message, date, author, files: path -> StoredFile
        blobs/SHA256        contents; an uploaded one waits here for the commit that names it
    FOLDER/xorbs/HASH       what hf_xet uploaded, from which blobs were put together

Nothing is kept in memory, so a hub started again on the same folder goes on where it was.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KINDS = ("model", "dataset", "space")
MAIN = "main"
# What the Hub puts into a new model repository (.gitattributes): these are stored as LFS files.
LFS_PATTERNS = (  # separated by spaces
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack "
    "*.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors "
    "saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*"
)


class Refusal(Exception):
    """What the hub answers instead: a status, and the code by which the client knows the reason."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        commit: str | None = None,  # in which an entry is missing; the client remembers that
        url: str | None = None,  # of the repository that exists already
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.code, self.commit, self.url = code, commit, url


def no_repository(kind: str, repo_id: str) -> Refusal:
    return Refusal(404, f"Repository not found: {kind} {repo_id}", code="RepoNotFound")


@dataclass(frozen=True)
class StoredFile:
    """One file of a commit; `sha256` names its contents under blobs/, `size` is in bytes."""

    sha256: str
    size: int
    git_oid: str  # of the contents, or of the pointer for an LFS file
    lfs: bool

    @property
    def etag(self) -> str:
        """What the client compares with its own hash to see that a file has not changed."""
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    id: str  # 40 hexadecimal digits, as the client's cache wants them
    parent: str | None
    title: str
    message: str
    date: str
    author: str
    files: dict[str, StoredFile]

    def file(self, path: str) -> StoredFile:
        if path not in self.files:
            raise Refusal(404, f"Entry not found: {path}", code="EntryNotFound", commit=self.id)
        return self.files[path]


def git_blob_oid(contents: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(contents) + contents).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


def write_whole(path: Path, contents: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
        part.write(contents)
    os.replace(part.name, path)


class Repository:
    """One repository; whoever changes it holds the hub's lock."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.id = f"{folder.parent.name}/{folder.name}"

    @property
    def namespace(self) -> str:
        return self.folder.parent.name

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = json.loads((self.folder / "repository.json").read_text())
        return settings

    @property
    def private(self) -> bool:
        return bool(self._settings()["private"])

    @property
    def branches(self) -> dict[str, str]:
        branches: dict[str, str] = self._settings()["branches"]
        return branches

    def write_settings(self, *, private: bool, branches: Mapping[str, str]) -> None:
        settings = {"private": private, "branches": dict(branches)}
        write_whole(self.folder / "repository.json", json.dumps(settings, indent=1).encode())

    def commit_at(self, revision: str) -> Commit:
        """The commit that a branch or a full commit id names."""
        path = self.folder / "commits" / f"{self.branches.get(revision, revision)}.json"
        if not path.is_file():
            raise Refusal(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
        record = json.loads(path.read_text())
        files = {name: StoredFile(**file) for name, file in record.pop("files").items()}
        return Commit(**record, files=files)

    def history(self, revision: str) -> Iterator[Commit]:
        """Newest first."""
        commit: Commit | None = self.commit_at(revision)
        while commit is not None:
            yield commit
            commit = self.commit_at(commit.parent) if commit.parent else None

    def head(self, branch: str) -> Commit:
        """The commit of a branch, where a commit id will not do."""
        if branch not in self.branches:
            raise Refusal(404, f"Invalid branch: {branch}", code="RevisionNotFound")
        return self.commit_at(branch)

    def create_branch(self, name: str, *, start: str) -> None:
        if name in self.branches:
            raise Refusal(409, f"Reference already exists: {name}")
        branches = {**self.branches, name: self.commit_at(start).id}
        self.write_settings(private=self.private, branches=branches)

    def blob(self, sha256: str) -> Path:
        return self.folder / "blobs" / sha256

    def receive(self, chunks: Iterable[bytes], *, sha256: str | None = None) -> Path:
        """Keep contents under their hash; a wrong one, or half of a file, leaves nothing."""
        digest = hashlib.sha256()
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            path = Path(temporary) / "part"
            with path.open("wb") as part:
                for chunk in chunks:
                    digest.update(chunk)
                    part.write(chunk)
            if sha256 not in (None, digest.hexdigest()):
                raise Refusal(400, f"The contents received are not those of sha256 {sha256}")
            os.replace(path, self.blob(digest.hexdigest()))
        return self.blob(digest.hexdigest())

    def regular_file(self, contents: bytes) -> StoredFile:
        path = self.receive([contents])
        return StoredFile(path.name, len(contents), git_blob_oid(contents), lfs=False)

    def lfs_file(self, sha256: str) -> StoredFile:
        if not self.blob(sha256).is_file():
            raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {sha256}")
        size = self.blob(sha256).stat().st_size
        return StoredFile(sha256, size, git_blob_oid(lfs_pointer(sha256, size)), lfs=True)

    def add_commit(
        self,
        branch: str,
        files: Mapping[str, StoredFile],
        *,
        title: str,
        message: str,
        author: str,
        expected_parent: str | None = None,
    ) -> Commit:
        """`files` is the whole tree after the commit, not the difference."""
        parent = self.branches.get(branch)
        if expected_parent not in (None, parent):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        record = {
            "parent": parent,
            "title": title,
            "message": message,
            "date": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "author": author,
            "files": {path: asdict(file) for path, file in sorted(files.items())},
        }
        identity = hashlib.sha1(json.dumps(record).encode()).hexdigest()
        path = self.folder / "commits" / f"{identity}.json"
        write_whole(path, json.dumps({"id": identity, **record}, indent=1).encode())
        self.write_settings(private=self.private, branches={**self.branches, branch: identity})
        return self.commit_at(identity)


class Store:
    """All repositories below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "xorbs").mkdir(parents=True, exist_ok=True)

    def xorb(self, name: str) -> Path:
        """Of no single repository, and kept for ever: hf_xet does not send what it sent before."""
        return self.folder / "xorbs" / name

    def _folder(self, kind: str, repo_id: str) -> Path:
        parts = repo_id.split("/")
        if len(parts) != 2 or any(part in ("", ".", "..") for part in parts):
            raise no_repository(kind, repo_id)
        return self.folder / kind / parts[0] / parts[1]

    def find(self, kind: str, repo_id: str) -> Repository | None:
        folder = self._folder(kind, repo_id)
        return Repository(folder, kind) if (folder / "repository.json").is_file() else None

    def create(self, kind: str, repo_id: str, *, private: bool, author: str) -> Repository:
        folder = self._folder(kind, repo_id)
        for name in ("commits", "blobs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        repository = Repository(folder, kind)
        repository.write_settings(private=private, branches={})
        rules = [
            f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS.split()
        ]
        attributes = repository.regular_file("".join(rules).encode())
        repository.add_commit(
            MAIN,
            {".gitattributes": attributes},
            title="initial commit",
            message="",
            author=author,
        )
        return repository

    def delete(self, repository: Repository) -> None:
        shutil.rmtree(repository.folder)

    def repositories(self, kind: str, *, namespace: str | None = None) -> list[Repository]:
        found = sorted(self.folder.glob(f"{kind}/*/*/repository.json"))
        repositories = [Repository(path.parent, kind) for path in found]
        return [repo for repo in repositories if namespace in (None, repo.namespace)]
