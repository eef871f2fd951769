"""One training run: a module, its tasks, and the loop that goes on where it was stopped.

Every step is a function of the options, the module and the step's number: tasks draw their samples by it, and whatever
else is random is seeded with it. So a run that was killed goes on from its checkpoint to the loss curve that it would
have had. Knows no task, no data and no model by name.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from engine.device import choose_dtype, is_out_of_memory
from engine.errors import ConfigurationError, EngineError
from engine.training.folder import BEST, WEIGHTS, Checkpoint, RunFolder
from engine.training.options import Precision, TrainingOptions
from engine.training.tasks.base import Task, TaskLoss


class TrainingFailed(EngineError):
    """Training cannot go on. The last checkpoint is kept."""


def _no_gauges() -> dict[str, float]:
    return {}


def _keeps_nothing() -> None:
    """Of a setup that computes each step from nothing but its samples."""


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """What is trained, by what, and how its weights are kept.

    Of `module`, the parameters that require a gradient are trained; those whose names end in `gate` learn at a rate of
    their own. `held_out` are the same tasks over the rows kept back; there may be none. `save` writes weights for the
    engine into a new folder. `gauges` are figures for the log, like how far the gates are open. `forget` drops what was
    kept of earlier steps, like encoded sentences: a run that goes on has none, and the company in which a sentence is
    encoded moves its last digits.
    """

    module: nn.Module
    tasks: Sequence[Task]
    save: Callable[[Path], None]
    held_out: Sequence[Task] = ()
    gauges: Callable[[], dict[str, float]] = _no_gauges
    forget: Callable[[], None] = _keeps_nothing


@dataclass(frozen=True, slots=True)
class Progress:
    """Told after every step. `held_out_loss` is that of the last look at the rows kept back."""

    step: int
    num_steps: int
    loss: float
    held_out_loss: float | None = None


class TrainingRun:
    """Trains a setup in a folder."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        options: TrainingOptions,
        setup: TrainingSetup,
        device: torch.device | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        """Goes on from the folder's checkpoint, if there is one; raises `ConfigurationError` where it does not fit,
        before anything is written. `autocast` is the number format of products while learning."""
        if not setup.tasks:
            raise ConfigurationError("there is nothing to learn: no task of this run has samples; see --data")
        self._folder = folder
        self._options = options
        self._setup = setup
        self._device = device or torch.device("cpu")
        self._autocast = autocast
        self._optimizer = torch.optim.AdamW(list(_parameter_groups(setup.module, options)), betas=(0.9, 0.98))
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=autocast is torch.float16)
        self._weights = {name: task.weight for name, task in options.active_tasks().items()}
        self._step = 0
        self._elapsed_s = 0.0
        self._best: dict[str, float] | None = None
        self._num_looks_without_better = 0
        self._held_out_loss: float | None = None
        folder.check(options)
        if (checkpoint := folder.load_checkpoint()) is not None:
            self._restore(checkpoint)

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self._step

    def run(self, advance: Callable[[Progress], None]) -> Path:
        """Train to the end; the folder of the weights. Raises `TrainingFailed`, the last checkpoint kept."""
        self._folder.begin(self._options)
        self._folder.mend_log(last_step=self._step)
        self._setup.forget()
        self._setup.module.train()
        try:
            while not self._is_over():
                self._advance(advance)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingFailed(
                f"memory ran out at step {self._step}; raise num_parts (--set num_parts={2 * self._options.num_parts}) "
                "and start again on the same folder: it goes on from the last checkpoint"
            ) from error
        except (OSError, SafetensorError) as error:
            raise self._unwritten(error) from error
        try:
            if self._step % self._options.checkpoint_every:
                self._save_checkpoint()
            return self._folder.replace(WEIGHTS, self._setup.save)
        except (OSError, SafetensorError) as error:
            raise self._unwritten(error) from error

    def summary(self) -> dict[str, Any]:
        """Figures of the run as a whole."""
        return {"steps": self._step, "elapsed_s": round(self._elapsed_s, 3), "best": self._best}

    def _is_over(self) -> bool:
        patience = self._options.patience
        return self._step >= self._options.num_steps or 0 < patience <= self._num_looks_without_better

    def _advance(self, advance: Callable[[Progress], None]) -> None:
        options = self._options
        start = time.perf_counter()
        line = self._train_step()
        is_last = self._step == options.num_steps
        if self._step % options.log_every == 0 or is_last:
            self._folder.log({"step": self._step, **line, **self._gauges(), "time": round(time.time(), 3)})
        if options.validate_every and (self._step % options.validate_every == 0 or is_last):
            self._look_at_held_out()
        self._elapsed_s += time.perf_counter() - start
        if self._step % options.checkpoint_every == 0:
            self._save_checkpoint()
        advance(Progress(self._step, options.num_steps, line["loss"], self._held_out_loss))

    def _train_step(self) -> dict[str, Any]:
        """One step of the optimiser; the line of the log that tells of it."""
        rate = self._schedule()
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * rate
        self._optimizer.zero_grad(set_to_none=True)
        figures = {task.name: self._learn(task) for task in self._tasks_of_step()}
        self._scaler.unscale_(self._optimizer)
        trained = [p for group in self._optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(trained, self._options.max_gradient_norm).item()
        if not math.isfinite(norm) and not self._scaler.is_enabled():
            raise self._diverged(f"the gradient is {norm}")
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._step += 1
        return {
            "loss": sum(self._weight(name) * figure["loss"] for name, figure in figures.items()),
            "tasks": figures,
            "learning_rate": self._options.learning_rate * rate,
            "gradient_norm": norm if math.isfinite(norm) else None,
        }

    def _tasks_of_step(self) -> list[Task]:
        sections = self._options.active_tasks()
        return [
            task
            for task in self._setup.tasks
            if task.name not in sections or self._step % sections[task.name].every == 0
        ]

    def _learn(self, task: Task) -> dict[str, float]:
        """Add the gradient of one task's samples, slice by slice; its figures."""
        num_parts = self._options.num_parts
        slices = []
        for part in range(num_parts):
            found = self._loss(task, self._step, part=part, num_parts=num_parts)
            value = found.total.item()
            if not math.isfinite(value):
                raise self._diverged(f"the loss of {task.name} is {value}")
            weighted = self._scaler.scale(found.total * (self._weight(task.name) / num_parts))
            weighted.backward()  # type: ignore[no-untyped-call]
            slices.append({"loss": value, **found.parts})
        return _means(slices)

    def _loss(self, task: Task, step: int, *, part: int = 0, num_parts: int = 1, salt: str = "learn") -> TaskLoss:
        torch.manual_seed(_seed(self._options.seed, salt, task.name, step, part))
        with self._products():
            return task.loss(step, part=part, num_parts=num_parts)

    def _products(self) -> AbstractContextManager[object]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._autocast)

    def _weight(self, name: str) -> float:
        """A task without a section of its own counts once."""
        return self._weights.get(name, 1.0)

    def _diverged(self, what: str) -> TrainingFailed:
        lower = self._options.learning_rate / 3
        return TrainingFailed(
            f"{what} at step {self._step}; lower the learning rate (--set learning_rate={lower:.2g}) and start again "
            "on the same folder: it goes on from the last checkpoint"
        )

    def _unwritten(self, error: Exception) -> TrainingFailed:
        return TrainingFailed(
            f"{self._folder.path} cannot be written at step {self._step} ({error}); make room there and start again on "
            "the same folder: it goes on from the last checkpoint"
        )

    def _schedule(self) -> float:
        """Warm up, then a half cosine down to nothing."""
        warmup = self._options.num_warmup_steps
        if self._step < warmup:
            return (self._step + 1) / warmup
        done = (self._step - warmup) / max(1, self._options.num_steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * done))

    def _gauges(self) -> dict[str, Any]:
        gauges = self._setup.gauges()
        return {"gauges": gauges} if gauges else {}

    @torch.no_grad()
    def _look_at_held_out(self) -> None:
        """The losses over the rows kept back: always the same samples, so that looks can be compared."""
        if not self._setup.held_out:
            return
        self._setup.module.eval()
        figures = {task.name: self._held_out_figures(task) for task in self._setup.held_out}
        self._setup.module.train()
        loss = sum(self._weight(name) * figure["loss"] for name, figure in figures.items())
        self._folder.log({"step": self._step, "held_out": {"loss": loss, "tasks": figures}})
        self._held_out_loss = loss
        if self._best is None or loss < self._best["loss"]:
            self._best = {"step": self._step, "loss": loss}
            self._num_looks_without_better = 0
            self._folder.replace(BEST, self._setup.save)
        else:
            self._num_looks_without_better += 1

    def _held_out_figures(self, task: Task) -> dict[str, float]:
        looks = (self._loss(task, j, salt="held out") for j in range(self._options.num_validation_batches))
        return _means([{"loss": look.total.item(), **look.parts} for look in looks])

    def _save_checkpoint(self) -> None:
        moments = {
            f"{number}.{name}": value.detach().contiguous()
            for number, values in self._optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        state = {
            "elapsed_s": self._elapsed_s,
            "best": self._best,
            "num_looks_without_better": self._num_looks_without_better,
            "held_out_loss": self._held_out_loss,
            "scaler": self._scaler.state_dict(),
        }
        self._folder.save_checkpoint(Checkpoint(self._step, _kept_tensors(self._setup.module), moments, state))
        self._setup.forget()

    def _restore(self, checkpoint: Checkpoint) -> None:
        _fill(self._setup.module, checkpoint.model, folder=self._folder.path)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in checkpoint.optimizer.items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if self._scaler.is_enabled() and checkpoint.state.get("scaler"):
            self._scaler.load_state_dict(checkpoint.state["scaler"])
        self._step = checkpoint.step
        self._elapsed_s = checkpoint.state.get("elapsed_s", 0.0)
        self._best = checkpoint.state.get("best")
        self._num_looks_without_better = checkpoint.state.get("num_looks_without_better", 0)
        self._held_out_loss = checkpoint.state.get("held_out_loss")


def choose_precision(precision: Precision, device: torch.device) -> tuple[torch.dtype, torch.dtype | None]:
    """The number format of frozen models, and that of products while learning (`None`: as the tensors are).

    Only CUDA multiplies in a shorter format than it keeps: elsewhere the frozen models alone are shorter. Without a
    scaler for it, float16 loses small gradients on MPS, so that `auto` takes float32 there.
    """
    if precision == "auto" and device.type == "mps":
        return torch.float32, None
    frozen = choose_dtype(precision, device)
    return frozen, frozen if device.type == "cuda" and frozen is not torch.float32 else None


def _parameter_groups(module: nn.Module, options: TrainingOptions) -> Iterator[dict[str, Any]]:
    """Gates start shut and have to open fast; they and other vectors are not decayed."""
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    gates = [p for name, p in trained if name.endswith("gate")]
    vectors = [p for name, p in trained if p.ndim < 2 and not name.endswith("gate")]
    matrices = [p for name, p in trained if p.ndim >= 2 and not name.endswith("gate")]
    yield {"params": matrices, "peak_lr": options.learning_rate, "weight_decay": options.weight_decay}
    yield {"params": vectors, "peak_lr": options.learning_rate, "weight_decay": 0.0}
    yield {"params": gates, "peak_lr": options.gate_learning_rate, "weight_decay": 0.0}


def _seed(*parts: object) -> int:
    """A seed for torch that depends on all parts."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def _means(slices: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over the slices that have it."""
    names = dict.fromkeys(name for one in slices for name in one)
    found = {name: [one[name] for one in slices if name in one] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def _kept_tensors(module: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps: trained parameters and buffers. Frozen parameters come with the models."""
    frozen = {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
    twins = {name for name, _ in module.named_parameters(remove_duplicate=False)} - {
        name for name, _ in module.named_parameters()
    }
    return {
        name: tensor.detach().contiguous()
        for name, tensor in module.state_dict().items()
        if name not in frozen and name not in twins
    }


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], *, folder: Path) -> None:
    """Load what a checkpoint kept. Raises `ConfigurationError` where names or shapes differ, the module untouched."""
    expected = _kept_tensors(module)
    if differing := sorted(_differing(expected, tensors)):
        raise ConfigurationError(
            f"the checkpoint in {folder} is of another shape ({', '.join(differing[:3])}"
            f"{f' and {len(differing) - 3} more' if len(differing) > 3 else ''}); name another folder"
        )
    module.load_state_dict(dict(tensors), strict=False)


def _differing(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterable[str]:
    names = expected.keys() | found.keys()
    return (n for n in names if n not in expected or n not in found or expected[n].shape != found[n].shape)
