"""The Hub's HTTP interface, as far as publishing and loading models uses it.

Sources: the calls of huggingface_hub 2.4 (hf_api.py, _commit_api.py, lfs.py, file_download.py) and
https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md.
"""

import base64
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

from . import xet
from .accounts import READ, Account, check_read, check_write
from .card import check_card, parse_metadata
from .contents import apply, entries, matches, sibling
from .exchange import Answer, Request
from .store import KINDS, MAIN, Commit, Refusal, Repository, Store, no_repository, write_whole

LFS_FROM_BYTES = 10_000_000  # a larger file is an LFS file whatever its name
XET_TOKEN_SECONDS = 3600
LFS_JSON = {"Content-Type": "application/vnd.git-lfs+json"}

REPO = r"/api/(?P<kinds>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"
SIGNED = r"/(?P<kind>\w+)/(?P<repo>[^/]+/[^/]+)/(?P<sha256>[-\w]+)/(?P<signature>\w+)"
FILES = r"/(?:(?P<kinds>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)"


class Route(NamedTuple):
    name: str
    method: str
    pattern: re.Pattern[str]
    handle: Callable[["Api", Request], Answer]
    signed: bool  # its URL carries the right to use it, not a token


ROUTES: list[Route] = []
Handler = Callable[["Api", Request], Answer]


def route(
    name: str, method: str, pattern: str, *, signed: bool = False
) -> Callable[[Handler], Handler]:
    def register(handle: Handler) -> Handler:
        ROUTES.append(Route(name, method, re.compile(pattern), handle, signed))
        return handle

    return register


class Api:
    """The routes over one store. A GET route serves HEAD too."""

    def __init__(self, store: Store, url: str, *, page_size: int) -> None:
        self.store, self.url, self.page_size = store, url, page_size
        # Another host name, as on the Hub: the client sends no token there.
        self.content_url = url.replace("127.0.0.1", "localhost")
        self.lock = threading.Lock()
        self._key = secrets.token_bytes(16)

    # ------------------------------------------------------------- accounts and repositories

    @route("whoami", "GET", r"/api/whoami-v2")
    def whoami(self, request: Request) -> Answer:
        if request.account is None:
            raise Refusal(401, "Invalid username or password.")
        return Answer(request.account.whoami())

    @route("create", "POST", r"/api/repos/create")
    def create(self, request: Request) -> Answer:
        kind, repo_id, payload = self._named(request)
        check_write(repo_id, request.account)
        assert request.account is not None
        where = self._page(kind, repo_id)
        with self.lock:
            if self.store.find(kind, repo_id) is not None:
                message = f"You already created this {kind} repo: {repo_id}"
                raise Refusal(409, message, url=where)
            private = payload.get("visibility") == "private"
            self.store.create(kind, repo_id, private=private, author=request.account.user)
        return Answer({"url": where, "name": repo_id})

    @route("delete", "DELETE", r"/api/repos/delete")
    def delete(self, request: Request) -> Answer:
        kind, repo_id, _ = self._named(request)
        with self.lock:
            self.store.delete(self._writable(kind, repo_id, request.account))
        return Answer()

    @route("list", "GET", r"/api/models")
    def list_models(self, request: Request) -> Answer:
        (author,) = request.query.get("author", [None])
        listed = []
        for repository in self.store.repositories("model", namespace=author):
            account = request.account
            if not repository.private or (account and account.permits(READ, repository.id)):
                listed.append(self._described(repository, MAIN))
        return Answer(listed)

    @route("info", "GET", REPO)
    @route("info", "GET", REPO + r"/revision/(?P<revision>[^/]+)")
    def info(self, request: Request) -> Answer:
        repository = self._readable(request)
        description = self._described(repository, request.parameters.get("revision", MAIN))
        return Answer(description)

    @route("auth_check", "GET", REPO + r"/auth-check(?P<write>/write)?")
    def auth_check(self, request: Request) -> Answer:
        repository = self._readable(request)
        if "write" in request.parameters:
            check_write(repository.id, request.account)
        return Answer()

    @route("refs", "GET", REPO + r"/refs")
    def refs(self, request: Request) -> Answer:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in self._readable(request).branches.items()
        ]
        return Answer({"branches": branches, "tags": [], "converts": []})

    @route("branch", "POST", REPO + r"/branch/(?P<branch>[^/]+)")
    def create_branch(self, request: Request) -> Answer:
        repository = self._writable_of(request)
        start = request.json().get("startingPoint", MAIN)
        with self.lock:
            repository.create_branch(request.parameters["branch"], start=start)
        return Answer()

    @route("commits", "GET", REPO + r"/commits/(?P<revision>[^/]+)")
    def commits(self, request: Request) -> Answer:
        listed = [
            {
                "id": commit.id,
                "title": commit.title,
                "message": commit.message,
                "date": commit.date,
                "authors": [{"user": commit.author}],
            }
            for commit in self._readable(request).history(request.parameters["revision"])
        ]
        return Answer(listed)

    # ------------------------------------------------------------------------------ uploading

    @route("validate_yaml", "POST", r"/api/validate-yaml")
    def validate_yaml(self, request: Request) -> Answer:
        errors, warnings = check_card(request.json()["content"])
        content = {
            "errors": [{"message": error} for error in errors],
            "warnings": [{"message": warning} for warning in warnings],
        }
        return Answer(content, 400 if errors else 200)

    @route("preupload", "POST", REPO + r"/preupload/(?P<revision>[^/]+)")
    def preupload(self, request: Request) -> Answer:
        repository = self._writable_of(request)
        commit = repository.commit_at(request.parameters["revision"])
        patterns = self._lfs_patterns(repository, commit)
        files = []
        for file in request.json()["files"]:
            path = file["path"]
            # The Hub takes no binary file into git itself; like git, it looks for a zero byte.
            binary = b"\0" in base64.b64decode(file["sample"])
            lfs = binary or file["size"] > LFS_FROM_BYTES or matches(path, patterns)
            answer = {
                "path": path,
                "uploadMode": "lfs" if lfs else "regular",
                "shouldIgnore": False,
            }
            if path in commit.files:
                answer["oid"] = commit.files[path].etag
            files.append(answer)
        return Answer({"files": files})

    @route("lfs_batch", "POST", FILES + r"\.git/info/lfs/objects/batch")
    def lfs_batch(self, request: Request) -> Answer:
        repository = self._writable_of(request)
        objects = []
        for wanted in request.json()["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if not repository.blob(wanted["oid"]).is_file():
                answer["actions"] = {
                    "upload": {"href": self._signed("upload", repository, wanted["oid"])},
                    "verify": {"href": f"{self._page(repository.kind, repository.id)}/lfs-verify"},
                }
            objects.append(answer)
        return Answer({"transfer": "basic", "objects": objects}, headers=LFS_JSON)

    @route("lfs_upload", "PUT", "/upload" + SIGNED, signed=True)
    def lfs_upload(self, request: Request) -> Answer:
        repository, sha256 = self._redeem("upload", request)
        repository.receive(request.chunks, sha256=sha256)
        return Answer()

    @route("lfs_verify", "POST", FILES + r"/lfs-verify")
    def lfs_verify(self, request: Request) -> Answer:
        repository, wanted = self._writable_of(request), request.json()
        if repository.lfs_file(wanted["oid"]).size != wanted["size"]:
            raise Refusal(400, f"LFS file {wanted['oid']} has another size")
        return Answer()

    @route("xet_token", "GET", REPO + r"/xet-write-token/[^/]+")
    def xet_token(self, request: Request) -> Answer:
        where = self._signed("cas", self._writable_of(request))
        token, expires = secrets.token_hex(16), int(time.time()) + XET_TOKEN_SECONDS
        headers = {
            "X-Xet-Cas-Url": where,
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(expires),
        }
        content = {"casUrl": where, "accessToken": token, "exp": expires}
        return Answer(content, headers=headers)

    @route("xet_xorb", "POST", "/cas" + SIGNED + r"/v1/xorbs/default/(?P<hash>\w+)", signed=True)
    def xet_xorb(self, request: Request) -> Answer:
        self._redeem("cas", request)
        path = self.store.xorb(request.parameters["hash"])
        new = not path.is_file()
        write_whole(path, request.read())
        return Answer({"was_inserted": new})

    @route("xet_shard", "POST", "/cas" + SIGNED + r"/v1/shards", signed=True)
    def xet_shard(self, request: Request) -> Answer:
        repository, _ = self._redeem("cas", request)
        for file in xet.shard_files(request.read()):
            chunks = xet.contents(file, lambda name: self.store.xorb(name).read_bytes())
            repository.receive(chunks, sha256=file.sha256)
        return Answer({"result": 1})

    @route("xet_absent", "GET", "/cas" + SIGNED + r"/.*", signed=True)
    @route("xet_absent", "POST", "/cas" + SIGNED + r"/.*", signed=True)
    def xet_absent(self, request: Request) -> Answer:
        """Deduplication against all repositories, and what newer servers offer: not here."""
        raise Refusal(404, "Not found")

    @route("commit", "POST", REPO + r"/commit/(?P<revision>[^/]+)")
    def commit(self, request: Request) -> Answer:
        repository = self._writable_of(request)
        assert request.account is not None
        header, *changes = [json.loads(line) for line in request.read().splitlines()]
        branch = request.parameters["revision"]
        with self.lock:
            files = repository.head(branch).files
            for change in changes:
                apply(repository, files, change["key"], change["value"])
            commit = repository.add_commit(
                branch,
                files,
                title=header["value"]["summary"],
                message=header["value"]["description"],
                author=request.account.user,
                expected_parent=header["value"].get("parentCommit"),
            )
        page = self._page(repository.kind, repository.id)
        return Answer({"commitUrl": f"{page}/commit/{commit.id}", "commitOid": commit.id})

    # ---------------------------------------------------------------------------- downloading

    @route("tree", "GET", REPO + r"/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
    def tree(self, request: Request) -> Answer:
        commit = self._readable(request).commit_at(request.parameters["revision"])
        recursive = request.query.get("recursive", ["false"])[0].lower() == "true"
        listed = entries(commit, request.parameters.get("path", ""), recursive=recursive)
        first = int(request.query.get("cursor", ["0"])[0])
        last = first + self.page_size
        if last >= len(listed):
            return Answer(listed[first:])
        kinds, repo_id = request.parameters["kinds"], request.parameters["repo"]
        below = f"/{quote(request.parameters['path'])}" if "path" in request.parameters else ""
        following = (
            f"{self.url}/api/{kinds}/{repo_id}/tree/{commit.id}{below}"
            f"?recursive={recursive}&cursor={last}"
        )
        return Answer(listed[first:last], headers={"Link": f'<{following}>; rel="next"'})

    @route("paths_info", "POST", REPO + r"/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, request: Request) -> Answer:
        commit = self._readable(request).commit_at(request.parameters["revision"])
        wanted = set(request.form()["paths"])
        return Answer([entry for entry in entries(commit, "") if entry["path"] in wanted])

    @route("resolve", "GET", FILES + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, request: Request) -> Answer:
        repository = self._readable(request)
        commit = repository.commit_at(request.parameters["revision"])
        file = commit.file(request.parameters["path"])
        headers = {"X-Repo-Commit": commit.id, "ETag": f'"{file.etag}"'}
        if not file.lfs:
            return Answer(repository.blob(file.sha256), headers=headers)
        linked = {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
        location = {"Location": self._signed("content", repository, file.sha256)}
        return Answer(status=302, headers={**headers, **linked, **location})

    @route("content", "GET", "/content" + SIGNED, signed=True)
    def content(self, request: Request) -> Answer:
        repository, sha256 = self._redeem("content", request)
        return Answer(repository.blob(sha256), headers={"ETag": f'"{sha256}"'})

    # -------------------------------------------------------------------------------- helpers

    def _page(self, kind: str, repo_id: str) -> str:
        return f"{self.url}/{'' if kind == 'model' else kind + 's/'}{repo_id}"

    def _named(self, request: Request) -> tuple[str, str, dict[str, Any]]:
        """Kind and id of the repository that the body of create and delete names."""
        payload = request.json()
        namespace = payload.get("organization") or (request.account and request.account.user)
        kind = payload.get("type") or "model"
        if kind not in KINDS:
            raise Refusal(400, f"Invalid repo type: {kind}")
        return kind, f"{namespace}/{payload['name']}", payload

    def _find(self, kind: str, repo_id: str, account: Account | None) -> Repository:
        repository = self.store.find(kind, repo_id)
        if repository is None:
            if account is None:  # the Hub does not tell a stranger which names exist
                raise Refusal(401, "Invalid username or password.", code="RepoNotFound")
            raise no_repository(kind, repo_id)
        check_read(repository, account)
        return repository

    def _writable(self, kind: str, repo_id: str, account: Account | None) -> Repository:
        repository = self._find(kind, repo_id, account)
        check_write(repo_id, account)
        return repository

    def _readable(self, request: Request) -> Repository:
        return self._find(*_addressed(request), request.account)

    def _writable_of(self, request: Request) -> Repository:
        return self._writable(*_addressed(request), request.account)

    def _signed(self, use: str, repository: Repository, sha256: str = "-") -> str:
        """An address that works without a token, as the Hub's storage gives them; always the same
        for the same thing, because hf_xet remembers what a storage holds by its address."""
        target = f"/{use}/{repository.kind}/{repository.id}/{sha256}"
        return f"{self.content_url}{target}/{self._signature(target)}"

    def _signature(self, target: str) -> str:
        return hmac.new(self._key, target.encode(), "sha256").hexdigest()

    def _redeem(self, use: str, request: Request) -> tuple[Repository, str]:
        kind, repo_id, sha256, signature = (
            request.parameters[name] for name in ("kind", "repo", "sha256", "signature")
        )
        repository = self.store.find(kind, repo_id)
        if signature != self._signature(f"/{use}/{kind}/{repo_id}/{sha256}") or not repository:
            raise Refusal(403, "The signature of this URL is not valid")
        return repository, sha256

    def _lfs_patterns(self, repository: Repository, commit: Commit) -> list[str]:
        if ".gitattributes" not in commit.files:
            return []
        rules = repository.blob(commit.files[".gitattributes"].sha256).read_text()
        return [line.split()[0] for line in rules.splitlines() if "filter=lfs" in line]

    def _described(self, repository: Repository, revision: str) -> dict[str, Any]:
        commit = repository.commit_at(revision)
        card = self._card(repository, commit)
        return {
            "id": repository.id,
            "author": repository.namespace,
            "sha": commit.id,
            "lastModified": commit.date,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": card.get("tags", []),
            "siblings": [sibling(path, file) for path, file in commit.files.items()],
            "pipeline_tag": card.get("pipeline_tag"),
            "library_name": card.get("library_name"),
            "cardData": card,
        }

    def _card(self, repository: Repository, commit: Commit) -> dict[str, Any]:
        if "README.md" not in commit.files:
            return {}
        readme = repository.blob(commit.files["README.md"].sha256).read_text()
        return parse_metadata(readme) or {}


def _addressed(request: Request) -> tuple[str, str]:
    kinds = request.parameters.get("kinds", "models")
    return kinds.removesuffix("s"), request.parameters["repo"]
