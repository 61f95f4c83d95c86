"""``hfbench push``: publish a finished run, now or at any later time; and a recipe's hub.push."""

import argparse
import sys
from pathlib import Path
from typing import Any

from hfbench.config import ADAPTERS, RunConfig, hub_config
from hfbench.errors import NotPublishedError, UserError


def add_push_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the subcommand; the caller sets what it runs. Imports no library."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "push",
        help="publish a finished run on the Hugging Face Hub, as often as you like",
        description="Sends model, card, result and picture of a finished run; only files that "
        "differ travel. Settings are those of the run unless given: hub.repo_id=owner/name, "
        "hub.private=true, hub.revision=BRANCH, hub.adapter_only=false (merge the adapter), "
        "hub.deadline_seconds=60.",
    )
    parser.add_argument("run_folder", help="holds result.json and model/")
    parser.add_argument("overrides", nargs="*", metavar="hub.key=value")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    return parser


def push(run_folder: str, overrides: list[str]) -> str:
    """Publish with the run's own settings and the overrides; returns what was done."""
    from hfbench.hub.publication import finished_run, publish

    folder = Path(run_folder)
    stored = finished_run(folder).config.get("hub", {})
    hub = hub_config(stored, overrides)
    if hub.repo_id is None:
        raise UserError("the run names no repository: add hub.repo_id=owner/name")
    return publish(folder, hub)


def check_before_training(config: RunConfig) -> None:
    """On the main process: what would stop the push stops the run; a silent hub does not.

    Raises UserError for what cannot be published, and where the hub refuses.
    """
    from hfbench.hub.client import check_push
    from hfbench.hub.publication import check_base, check_contents

    if config.network is not None:
        raise UserError(f"hub.push: a network of {config.task} is no model that others can load")
    if config.strategy.name in ADAPTERS and config.hub.adapter_only:
        check_base(config.model.checkpoint)
    check_contents(config.strategy.name, config.hub)
    try:
        check_push(config.hub)
    except NotPublishedError as error:
        print(f"warning: {error}; the run goes on and tries again at its end", file=sys.stderr)


def push_after_training(config: RunConfig) -> None:
    """Publish what the run left in its folder.

    Raises NotPublishedError also where the hub refuses: the run itself is done and safe.
    """
    from hfbench.hub.publication import publish, where_it_is
    from hfbench.record import run_folder

    folder = run_folder(config)
    try:
        print(publish(folder, config.hub))
    except UserError as error:
        raise NotPublishedError(f"{error}. {where_it_is(folder, config.hub)}") from error
