"""Publish the best model of the text demo, find it again by its name and ask it: no network needed.

    make demo-hub

A small hub on this machine (the one of the tests, which speaks the real protocol) stands in for
huggingface.co; everything else is what you would type yourself, with your own token:

    hfbench push runs/demo_text/full_seed0 hub.repo_id=you/python-docs hub.private=true
    hfbench predict you/python-docs "..."
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from loopback_hub import ACCOUNTS, LoopbackHub  # noqa: E402

from hfbench.results import RunResult  # noqa: E402

CONFIG = ROOT / "recipes/configs/demo_text.yaml"
RUNS = Path("runs/demo_text")
REPOSITORY = "alice/python-docs"
QUESTIONS = (
    "Return the square root of x, correctly rounded to the nearest float.",
    "The child process inherits the open sockets of its parent.",
)


def main() -> int:
    if not list(RUNS.glob("*/result.json")):
        _run("compare", "--config", str(CONFIG), "--strategies", "head,full", "--seeds", "0")
    folder = _best_run()
    token = next(account.token for account in ACCOUNTS if account.role == "write")
    with LoopbackHub(Path("runs/hub")) as hub:
        print(f"\na hub on this machine: {hub.url}")
        variables = hub.environment(Path("runs/hub_cache"), token=token)
        _run("push", str(folder), f"hub.repo_id={REPOSITORY}", "hub.private=true", **variables)
        files = hub.store.find("model", REPOSITORY).commit_at("main").files
        print("\n".join(f"  {path}" for path in sorted(files)))
        _run("push", str(folder), f"hub.repo_id={REPOSITORY}", **variables)
        _run("predict", REPOSITORY, *QUESTIONS, **variables)
    return 0


def _best_run() -> Path:
    """The folder of the succeeded run with the best test metric."""
    results = {path.parent: RunResult.load(path) for path in RUNS.glob("*/result.json")}
    values = {
        folder: result.primary_value
        for folder, result in results.items()
        if result.status == "succeeded" and result.primary_value is not None
    }
    return max(values, key=lambda folder: values[folder] or 0.0)


def _run(*arguments: str, **variables: str) -> None:
    print(f"\n$ hfbench {' '.join(map(_quoted, arguments))}", flush=True)
    command = [sys.executable, "-m", "hfbench", *arguments]
    subprocess.run(command, check=True, env=os.environ | variables)


def _quoted(argument: str) -> str:
    return f'"{argument}"' if " " in argument else argument


if __name__ == "__main__":
    sys.exit(main())
