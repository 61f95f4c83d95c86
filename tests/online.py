"""Commands in a process that may use a hub; the tests' own process is offline from its start."""

import io
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


@contextmanager
def online_process(variables: Mapping[str, str]) -> Iterator[ProcessPoolExecutor]:
    """One process that runs calls in turn, started with ``variables`` and without a token."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.delenv("HF_TOKEN", raising=False)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            pool.submit(os.getpid).result()  # started now, with these variables
            yield pool


@dataclass(frozen=True)
class User:
    """Runs hfbench and recipes as a user of the hub would, and keeps all that they print."""

    pool: ProcessPoolExecutor
    logs: list[str]

    def hfbench(self, *arguments: str, token: str | None) -> Done:
        return self._run(_hfbench, arguments, token)

    def recipe(self, task: str, *arguments: str, token: str | None) -> Done:
        return self._run(_recipe, (task, *arguments), token)

    def _run(self, call: Callable[..., int], arguments: tuple[str, ...], token: str | None) -> Done:
        done = self.pool.submit(_captured, call, arguments, token).result(timeout=300)
        self.logs.extend((done.stdout, done.stderr))
        return done


def _captured(call: Callable[..., int], arguments: tuple[str, ...], token: str | None) -> Done:
    if token is None:
        os.environ.pop("HF_TOKEN", None)
    else:
        os.environ["HF_TOKEN"] = token
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = call(*arguments)
    return Done(code, out.getvalue(), err.getvalue())


def _hfbench(*arguments: str) -> int:
    from hfbench.cli import main

    return main(arguments)


def _recipe(task: str, *arguments: str) -> int:
    from hfbench.cli import recipe_main

    return recipe_main(task, None, arguments)
