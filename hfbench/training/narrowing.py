"""Behind the last attention compute only the first position, where the head reads no other.

Classifiers read the last block's output at one position: BERT's [CLS] token, the class token of a
ViT. The other positions matter to that block as keys and values only, so whatever follows its
attention (output projection, MLP, norms) needs one position of a sample, not all of them. Of a
block with an MLP of four times its width that is three quarters of the products.

Nobody can know for every architecture which modules may be given less, so every one is tried on a
few samples: logits and gradients must stay as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_any, tree_map_only
from torch.utils.hooks import RemovableHandle

from hfbench.models.calls import record_calls
from hfbench.models.module_tree import is_attention
from hfbench.models.structure import Structure, canonical_name
from hfbench.training.prefix.stand_ins import CutError, answering, trying
from hfbench.training.prefix.writing import all_agree
from hfbench.training.probe import Probe

TOLERANCE = 1e-9  # of the largest number of a tensor, in float64,
FLOOR = 1e-14  # and of the largest of all: below it is rounding


@contextmanager
def narrowed(
    model: nn.Module,
    structure: Structure,
    probe: Probe,
    accelerator: Accelerator,
) -> Iterator[tuple[str, ...]]:
    """Within, modules of the last block and behind it compute the first position alone.

    Dropout there draws fewer numbers, so a seed gives other ones than without.

    Yields the names of these modules: none for a model whose head reads more.
    """
    with ExitStack() as stack:
        found: dict[str, Narrow] = {}
        problem = ""
        try:
            with trying("the search for what the head reads failed"):
                found = _Search(model, structure, probe).find()
        except CutError as error:  # it has no logits, or cannot run in float64
            problem = str(error)
        finally:
            model.zero_grad(set_to_none=True)
        if problem:
            accelerator.print(f"last block: all positions are computed; {problem}")
        if not all_agree(accelerator, bool(found)):
            found = {}
        for narrow in found.values():
            stack.enter_context(answering(narrow.module, narrow))
        if found:
            accelerator.print(
                "last block: behind its attention only the first position is computed, "
                "the head reads no other"
            )
        yield tuple(found)


class Narrow:
    """Answers as ``module`` does for the first position of its (samples, positions, width)."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.own = module, module.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, _first_position, (args, kwargs))
        return self.own(*args, **kwargs)


class _Search:
    """Tries the modules behind the last attention; what runs before that block answers as once."""

    def __init__(self, model: nn.Module, structure: Structure, probe: Probe) -> None:
        self.model = model
        self.batch = probe.batch_of(probe.indices[-2:])  # short ones: enough to tell
        self.batch.pop("labels")
        modules: dict[str, nn.Module] = {}
        for name, module in model.named_modules():
            modules.setdefault(canonical_name(name), module)
        *earlier, last = structure.blocks
        self.block = modules[last]
        between = (name for names in structure.between for name in names)
        before = (*structure.embeddings, *earlier, *between)
        self.before = [modules[name] for name in before if name in modules]
        behind = (last, *structure.final, *structure.pooler, *structure.head)
        self.behind = [modules[name] for name in behind if name in modules]
        # CANINE's last layer is for characters: what nobody reads agrees with anything.
        self.attends_behind = any(
            is_attention(inner, module)
            for name in (*structure.final, *structure.pooler)
            for inner, module in (modules[name].named_modules() if name in modules else ())
        )
        calls = record_calls(model, self._logits)
        self.candidates = {
            name: module
            for name, module in modules.items()
            if (
                name in structure.final
                or any(name.startswith(f"{outer}.") for outer in (last, *structure.final))
            )
            # What an earlier block reads cannot be tried: that block answers as once.
            and calls.runs_from(name, calls.starts[last])
        }

    def find(self) -> dict[str, Narrow]:
        """The modules that may be narrowed, by name."""
        if self.attends_behind or self._has_memory() or not self._reads_first_alone():
            return {}
        with _replayed(self.before, self._logits), _in_double(self.behind), ExitStack() as stack:
            expected = self._passes()
            found: dict[str, Narrow] = {}
            wide = self._wide()
            for name, module in self.candidates.items():
                if module not in wide:
                    continue
                narrow = Narrow(module)
                with answering(module, narrow):
                    agrees = self._agrees(expected)
                if agrees:
                    found[name] = narrow
                    stack.enter_context(answering(module, narrow))
                    wide = self._wide()
        return found

    def _has_memory(self) -> bool:
        """Whether a pass changes later ones, or a sample the others.

        BigBird gives up its sparse attention for good after a short sample; the statistics of a
        training batch are over all its positions (batch norms, I-BERT's ranges of activations, and
        whatever else keeps numbers that are no parameters).
        """
        return any(hasattr(module, "set_attention_type") for module in self.model.modules()) or any(
            isinstance(module, _BatchNorm)
            or any(buffer.is_floating_point() for buffer in module.buffers())
            for module in self.candidates.values()
        )

    @torch.no_grad()
    def _logits(self) -> Tensor:
        logits: Tensor = self.model(**self.batch).logits
        return logits

    def _reads_first_alone(self) -> bool:
        """Whether logits are numbers when all positions but one of the block's only call are not.

        False also for a block that runs several times, as all of ALBERT's do.
        """
        calls: list[None] = []

        def spoil(module: nn.Module, args: Any, outputs: Any) -> Any:
            calls.append(None)
            return tree_map_only(Tensor, _spoilt, outputs)

        with _hooked(self.block.register_forward_hook(spoil)):
            finite = bool(self._logits().isfinite().all())
        return finite and len(calls) == 1

    @torch.no_grad()
    def _wide(self) -> set[nn.Module]:
        """The candidates that get more than the first position."""
        found = set()

        def look(module: nn.Module, args: Any, kwargs: Any) -> None:
            if tree_any(_is_wide, (args, kwargs)):
                found.add(module)

        with _hooked(
            *(
                module.register_forward_pre_hook(look, with_kwargs=True)
                for module in self.candidates.values()
            )
        ):
            self._logits()
        return found

    def _agrees(self, expected: list[Tensor]) -> bool:
        try:
            with trying("the module refuses one position"):
                found = self._passes()
        except CutError:
            return False
        shapes = [[value.shape for value in values] for values in (found, expected)]
        if shapes[0] != shapes[1]:
            return False
        floor = FLOOR * max(float(value.abs().max()) for value in expected)
        return all(
            float((one - other).abs().max()) <= TOLERANCE * float(other.abs().max()) + floor
            for one, other in zip(found, expected, strict=True)
        )

    def _passes(self) -> list[Tensor]:
        """Logits, and gradients of the block's input and of all that trains behind it.

        The gradients matter where a fresh adapter adds 0 or a scale hides what it multiplies.
        """
        leaves: list[Tensor] = []

        def as_leaf(value: Tensor) -> Tensor:
            if not _is_wide(value):
                return value
            leaves.append(value.detach().requires_grad_())
            return leaves[-1]

        def start(module: nn.Module, args: Any, kwargs: Any) -> Any:
            return tree_map_only(Tensor, as_leaf, (args, kwargs))

        self.model.zero_grad(set_to_none=True)
        with _hooked(self.block.register_forward_pre_hook(start, with_kwargs=True)):
            logits = self.model(**self.batch).logits
        weights = torch.linspace(1, 2, logits.numel()).to(logits)
        logits.flatten().dot(weights).backward()
        given = [v.grad for v in (*leaves, *self.model.parameters()) if v.grad is not None]
        return [logits.detach(), *given]


@contextmanager
def _replayed(modules: Sequence[nn.Module], run: Callable[[], object]) -> Iterator[None]:
    """Within, the modules answer what they do in ``run()``, in float64.

    Those that are never called hold what others read (DeBERTa's relative positions).
    """
    answers: dict[nn.Module, list[Any]] = {module: [] for module in modules}

    def keep(module: nn.Module, args: Any, outputs: Any) -> None:
        answers[module].append(tree_map_only(Tensor, _doubled, outputs))

    with _hooked(*(module.register_forward_hook(keep) for module in modules)):
        run()
    with ExitStack() as stack:
        for module, given in answers.items():
            again = partial(_next_of, cycle(given))
            stack.enter_context(answering(module, again) if given else _in_double([module]))
        yield


def _next_of(answers: Iterator[Any], *args: Any, **kwargs: Any) -> Any:
    """The next answer, whatever is asked."""
    return tree_map_only(Tensor, torch.clone, next(answers))


@contextmanager
def _in_double(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Within, their numbers are float64, so that rounding hides nothing; then as before."""
    tensors = {t for module in modules for t in (*module.parameters(), *module.buffers())}
    before = [(tensor, tensor.data) for tensor in tensors if tensor.is_floating_point()]
    try:
        for tensor, data in before:
            tensor.data = data.double()
        yield
    finally:
        for tensor, data in before:
            tensor.data = data


@contextmanager
def _hooked(*handles: RemovableHandle) -> Iterator[None]:
    """Within, the hooks are in place."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _doubled(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _is_wide(value: Any) -> bool:
    """Whether these are hidden states of several positions."""
    return (
        isinstance(value, Tensor)
        and value.ndim == 3
        and value.shape[1] > 1
        and value.is_floating_point()
    )


def _first_position(value: Tensor) -> Tensor:
    return value[:, :1] if _is_wide(value) else value


def _spoilt(value: Tensor) -> Tensor:
    """With NaN at every position but the first."""
    spoilt = value.clone()
    spoilt[:, 1:] = float("nan")
    return spoilt
