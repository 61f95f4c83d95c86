"""The variables that keep the Hugging Face client from everything but one folder and one hub."""

from pathlib import Path


def client_environment(home: Path, *, url: str, token: str | None = None) -> dict[str, str]:
    """For a process that has not imported the client yet; empty variables undo a user's own."""
    return {
        "HF_ENDPOINT": url,
        "HF_TOKEN": token or "",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_XET_CACHE": str(home / "xet"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
