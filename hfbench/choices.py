"""What was measured for a run, kept with it: a run that goes on from a state decides as before.

Another number of threads, another precision or another way to compute the same gives other last
bits, so an interrupted run would end elsewhere than an undisturbed one.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hfbench.manifest import DamagedError, read_manifest, seal

KEY = "choices"  # in the manifest of a run's folder


@dataclass(frozen=True)
class Choices:
    """None: not chosen, or left to a new measurement."""

    precision: str | None = None  # as training.mixed_precision, without auto
    threads: int | None = None
    attention: str | None = None  # "as loaded" or "written out"
    prefix: bool | None = None  # whether the frozen prefix is stored
    parts: int | None = None  # in which each batch is computed, after the memory was exhausted


def kept_choices(folder: Path) -> Choices:
    """Those of the run that works in ``folder``; all None where nothing is kept.

    All but ``parts`` is to be asked where a state of the run exists: one that starts anew measures
    anew.
    """
    try:
        kept = read_manifest(folder)["about"].get(KEY, {})
    except DamagedError:
        return Choices()
    return Choices(**{f.name: kept[f.name] for f in fields(Choices) if f.name in kept})


def keep_choices(folder: Path, run: str, choices: Choices) -> None:
    """Keep them with the mark of the run's folder."""
    seal(folder, {"run": run, KEY: asdict(choices)}, names=())
