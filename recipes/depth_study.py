"""What depth buys: networks of 1 to 8 layers from scratch, and fine-tuning 0 to all blocks.

    python recipes/depth_study.py                      # about 10 minutes on two cores
    python recipes/depth_study.py --quick              # about one: few depths, seeds and steps
    python recipes/depth_study.py data.source=mnist/ data.max_train_samples=2000
    python recipes/depth_study.py --fine-tuning-seeds 0,1,2

Depth is the number of layers with parameters that a sample passes one after the other. In a
multi-layer perceptron each is y = f(Wx + b): a matrix of inputs × outputs weights and one bias for
each output, (inputs + 1) · outputs parameters. One layer can only draw straight borders between the
labels. Without the activation f between them, several would be one matrix product again, and draw
no others; with it each layer bends what the one before it made, so depth buys shapes that one layer
cannot make. It has a price: gradients pass every layer on their way back and can fade, and a
network that can make any shape can learn its training samples by heart. In a transformer the unit
of depth is the block: attention and two linear layers.

Part 1 trains perceptrons of depth 1 to 8 twice: all of the reference's width, so that depth also
adds parameters, and all with the reference's number of parameters, so that what is left is depth
alone. Each with and without regularisation, with several seeds, always to the last epoch: nothing
is chosen on a validation split, so overfitting shows as it is. The configuration of the reference
is recipes/configs/depth_study.yaml or --config; key=value changes it. network.activation=sigmoid,
whose slope is at most 1/4, shows how gradients fade.

Part 2 asks the same of fine-tuning: quality against n, the number of last blocks that train beside
the head (n = 0 is head, then last_1, last_2 ... and full), on the three demo configurations.

Runs are kept in --output, and a repeated command trains only what is missing.
"""

from hfbench.start import prepare_process

if __name__ == "__main__":
    prepare_process()  # before the other imports

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hfbench.cli import parse_seeds
from hfbench.config import RunConfig, load_config
from hfbench.disk import check_place
from hfbench.errors import UserError
from hfbench.exits import WORK_GOES_ON, guarded
from hfbench.spelling import COMPARE
from hfbench.status import remark

CONFIGS = Path(__file__).parent / "configs"
TUNED = ("demo_text", "demo_image", "demo_audio")
DEPTHS, QUICK_DEPTHS = (1, 2, 3, 4, 5, 6, 7, 8), (1, 4, 8)
SEEDS, QUICK_SEEDS = "0,1,2", "0,1"
QUICK_NETWORKS = ("training.epochs=20",)
QUICK_TUNING = ("training.max_steps=6", "data.max_train_samples=200", "data.max_eval_samples=100")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 when a run failed, 2 for a mistake in the command."""
    options = _parser().parse_args(arguments)
    return guarded(
        lambda: study(options),
        debug=options.debug,
        interrupted=WORK_GOES_ON,
        spelling=COMPARE,
    )


def study(options: argparse.Namespace) -> int:
    """Train what is missing, print the tables and draw the images."""
    name = "depth_study_quick" if options.quick else "depth_study"
    folder = Path(options.output or Path("runs") / name)
    check_place(folder, f"--output {str(folder)!r}", "folder")
    default = QUICK_SEEDS if options.quick else SEEDS
    seeds = parse_seeds(options.seeds or default, "--seeds")
    tuning_seeds = parse_seeds(options.fine_tuning_seeds, "--fine-tuning-seeds")
    if options.part == "fine-tuning" and options.overrides:
        raise UserError(f"{options.overrides[0]!r} changes part networks: leave --part out")
    if options.quick:
        print(
            f"Quick: depths {', '.join(map(str, QUICK_DEPTHS))} with {', '.join(QUICK_NETWORKS)}; "
            f"fine-tuning of 0 and half the blocks with {', '.join(QUICK_TUNING)}. Too little "
            "to conclude anything.\n"
        )
    if options.part in ("all", "networks"):
        print(networks_part(options, seeds, folder))
    if options.part in ("all", "fine-tuning"):
        text, failed = tuning_part(options, tuning_seeds, folder)
        print(text)
        return 1 if failed else 0
    return 0


def networks_part(options: argparse.Namespace, seeds: Sequence[int], folder: Path) -> str:
    """Perceptrons of growing depth, from random weights."""
    overrides = [*(QUICK_NETWORKS if options.quick else ()), *options.overrides]
    config = load_config(options.config, overrides, task="mnist_mlp", say=remark)
    from hfbench.depth_training import study_networks
    from hfbench.report.depth_figures import draw_networks
    from hfbench.report.depth_tables import format_networks

    depths = QUICK_DEPTHS if options.quick else DEPTHS
    found = study_networks(config, depths=depths, seeds=seeds, folder=folder / "networks")
    image = folder / "networks.png"
    draw_networks(found, image)
    return f"{format_networks(found, options.format)}\nimage: {image}\n"


def tuning_part(options: argparse.Namespace, seeds: Sequence[int], folder: Path) -> tuple[str, int]:
    """Fine-tuning of the last n blocks of three checkpoints; also how many runs failed."""
    from hfbench.compare import aggregate
    from hfbench.matrix import plan_matrix, run_matrix
    from hfbench.record import run_id
    from hfbench.report.depth_figures import draw_tuning
    from hfbench.report.depth_tables import format_tuning
    from hfbench.results import load_all
    from hfbench.tuning_depth import TuningDepth, depth_strategies

    studies, failed = [], 0
    for name in TUNED:
        quick = QUICK_TUNING if options.quick else ()
        config = load_config(CONFIGS / f"{name}.yaml", quick)
        blocks = number_of_blocks(config)
        counts = (0, blocks // 2) if options.quick else range(blocks + 1)
        own = folder / "fine_tuning" / name
        runs = plan_matrix(config, depth_strategies(counts), seeds, own)
        print(f"{config.start} on {config.data.label}: {len(runs)} runs", file=sys.stderr)
        failed += run_matrix(runs, debug=options.debug, log=own / "log.txt")
        wanted = {run_id(run) for run in runs}
        unreadable: list[str] = []
        groups = aggregate(one for one in load_all(own, unreadable) if one.run_id in wanted)
        for problem in unreadable:
            print(f"left out: {problem}", file=sys.stderr)
        studies.append(TuningDepth.of(groups, blocks=blocks))
    image = folder / "fine_tuning.png"
    draw_tuning(studies, image)
    tables = [format_tuning(one, options.format) for one in studies]
    return "\n".join([*tables, f"image: {image}\n"]), failed


def number_of_blocks(config: RunConfig) -> int:
    """Of the checkpoint, from its configuration alone."""
    from hfbench.params import count_strategies
    from hfbench.tuning_depth import FULL

    counts = count_strategies(config.model.checkpoint, task=config.task, strategies=[FULL])
    names = (row.name for row in counts.strategies[0].report.by_depth)
    return sum(name.startswith("block ") for name in names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", metavar="FILE", default=CONFIGS / "depth_study.yaml", help="part 1's reference"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to --config")
    parser.add_argument("--part", choices=("all", "networks", "fine-tuning"), default="all")
    parser.add_argument("--seeds", help=f"of part 1 (default {SEEDS}, quick {QUICK_SEEDS})")
    parser.add_argument("--fine-tuning-seeds", default="0", help="of part 2 (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="about a minute, for a first look")
    parser.add_argument("--format", choices=("table", "markdown"), default="table")
    parser.add_argument("--output", metavar="FOLDER", help="default runs/depth_study, or ..._quick")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    return parser


if __name__ == "__main__":
    sys.exit(main())
