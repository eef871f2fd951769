"""A real training run that takes milliseconds: two linear regressions, learnt by one small module with dropout.

`python -m tests.engine.training.regression FOLDER` trains in a process of its own, slowly enough to be killed.
"""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.training.folder import RunFolder
from engine.training.options import TrainingOptions, default_options
from engine.training.run import Progress, TrainingRun, TrainingSetup
from engine.training.tasks.base import TaskLoss

NUM_STEPS = 12


class Regressor(nn.Module):
    """A frozen layer, a trained one, a gate, dropout, and a buffer that training moves."""

    def __init__(self, *, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Linear(4, width).requires_grad_(False)
        self.dropout = nn.Dropout(0.2)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 1)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.dropout(self.norm(self.frozen(inputs).relu()))
        return self.head(hidden).squeeze(-1) * (1 + self.gate.tanh())


class RegressionTask:
    """Rows drawn by seed and step; the truth is a sum."""

    def __init__(self, name: str, module: nn.Module, *, seed: int = 0, batch_size: int = 8) -> None:
        self.name = name
        self.steps: list[tuple[int, int, int]] = []
        self._module = module
        self._seed = seed
        self._batch_size = batch_size

    def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
        self.steps.append((step, part, num_parts))
        chance = torch.Generator().manual_seed(self._seed * 1000 + step)
        inputs = torch.randn(self._batch_size, 4, generator=chance)
        off = (self._module(inputs) - inputs.sum(dim=-1))[part::num_parts]
        return TaskLoss(off.pow(2).mean(), {"off": off.abs().mean().item()})


def tiny_options(**changes: object) -> TrainingOptions:
    told: dict[str, object] = {
        "num_steps": NUM_STEPS, "num_warmup_steps": 2, "learning_rate": 0.05, "checkpoint_every": 3,
        "validate_every": 4, "num_validation_batches": 1,
    }  # fmt: skip
    return TrainingOptions.model_validate(default_options("fusion").model_dump() | told | changes)


def tiny_setup(module: nn.Module | None = None, **parts: object) -> TrainingSetup:
    module = module or Regressor()
    told: Mapping[str, object] = {
        "tasks": [RegressionTask("captioning", module), RegressionTask("masked", module, seed=1)],
        "held_out": [RegressionTask("captioning", module, seed=7)],
        "save": lambda folder: save(module, folder),
        "gauges": lambda: {"gate": module.gate.item() if isinstance(module, Regressor) else 0.0},
    }
    return TrainingSetup(module=module, **{**told, **parts})  # type: ignore[arg-type]


def save(module: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True)
    torch.save(module.state_dict(), folder / "module.pt")


def a_run(path: Path, options: TrainingOptions | None = None, setup: TrainingSetup | None = None) -> TrainingRun:
    return TrainingRun(RunFolder(path), options=options or tiny_options(), setup=setup or tiny_setup())


def quiet(_: Progress) -> None:
    """Told of every step, says nothing."""


def slowly(seconds: float) -> Callable[[Progress], None]:
    return lambda _: time.sleep(seconds)


if __name__ == "__main__":
    a_run(Path(sys.argv[1])).run(slowly(0.2))
