"""Who may do what: accounts with read, write and fine-grained tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .store import Refusal, Repository, no_repository

READ, WRITE = "repo.content.read", "repo.write"


@dataclass(frozen=True)
class Account:
    """One token of one user."""

    user: str
    token: str
    role: Literal["read", "write", "fineGrained"]
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of a fine-grained token: a namespace or a repository -> its permissions."""

    def permits(self, permission: str, repo_id: str) -> bool:
        namespace = repo_id.split("/")[0]
        if self.role == "fineGrained":
            scopes = (*self.scopes.get(namespace, ()), *self.scopes.get(repo_id, ()))
            return permission in scopes
        return namespace == self.user and (permission == READ or self.role == "write")

    def whoami(self) -> dict[str, Any]:
        token: dict[str, Any] = {"displayName": f"{self.user}'s token", "role": self.role}
        if self.role == "fineGrained":
            scoped = [
                {
                    "entity": {"type": "model" if "/" in name else "user", "name": name},
                    "permissions": list(permissions),
                }
                for name, permissions in self.scopes.items()
            ]
            token["fineGrained"] = {"canReadGatedRepos": False, "global": [], "scoped": scoped}
        return {
            "type": "user",
            "id": f"{self.user}-id",
            "name": self.user,
            "fullname": self.user.capitalize(),
            "email": f"{self.user}@example.org",
            "emailVerified": True,
            "canPay": False,
            "isPro": False,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": token},
        }


ACCOUNTS = (
    Account("alice", "hf_AliceMayWrite0123456789", "write"),
    Account("alice", "hf_AliceMayRead0123456789", "read"),
    Account(
        "alice", "hf_AliceFineGrained0123456789", "fineGrained", {"alice/granted": (READ, WRITE)}
    ),
    Account("bob", "hf_BobMayWrite0123456789", "write"),
)


def check_read(repository: Repository, account: Account | None) -> None:
    """A private repository looks like one that does not exist, as on the Hub."""
    if not repository.private:
        return
    if account is None:
        raise Refusal(401, "Invalid username or password.", code="RepoNotFound")
    if not account.permits(READ, repository.id):
        raise no_repository(repository.kind, repository.id)


def check_write(repo_id: str, account: Account | None) -> None:
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    if account.role == "read":
        raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")
    if not account.permits(WRITE, repo_id):
        raise Refusal(403, f"Forbidden: you don't have the rights to write to {repo_id}.")
