"""One training run: options, a folder with everything it wrote, and the loop.

The folder holds `options.json`, `log.jsonl` (a line every few steps), `checkpoint/` to go on from, and `weights/`,
which the engine can use. Started again on the same folder, a run goes on where it stopped, with the same samples.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.errors import ConfigurationError, EngineError
from engine.fusion.config import FusionConfig, Policy
from engine.fusion.model import FusionModel
from engine.fusion.weights import save_fusion
from engine.training.decoder import FrozenDecoder, ReplyExample
from engine.training.encoding import SampleEncoder
from engine.training.samples import SampleMix, TrainingSample

CHECKPOINT = "checkpoint"
WEIGHTS = "weights"


class TrainingFailed(EngineError):
    """Training cannot go on. The last checkpoint is kept."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What a run is told. Shares say how often each kind of sample is drawn."""

    num_steps: int = 400
    batch_size: int = 32
    learning_rate: float = 1e-3
    gate_learning_rate: float = 3e-2
    weight_decay: float = 0.01
    num_warmup_steps: int = 20
    max_gradient_norm: float = 1.0
    focus_weight: float = 3.0
    share_concepts: float = 0.45
    share_things: float = 0.27
    share_scenes: float = 0.2
    share_dialogues: float = 0.08
    width: int = 256
    num_layers: int = 2
    num_prefix_tokens: int = 8
    num_lexical_tokens: int = 4
    policy: Policy = "pictures"
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 50

    def shares(self) -> dict[str, float]:
        """The sample mix."""
        return {
            "concepts": self.share_concepts,
            "things": self.share_things,
            "scenes": self.share_scenes,
            "dialogues": self.share_dialogues,
        }


@dataclass(frozen=True, slots=True)
class Progress:
    """Told after every step."""

    step: int
    num_steps: int
    loss: float


class TrainingRun:
    """Trains a fusion for one decoder."""

    def __init__(
        self,
        folder: Path,
        *,
        options: TrainingOptions,
        model: FusionModel,
        class_names: tuple[str, ...],
        decoder: FrozenDecoder,
        encoder: SampleEncoder,
        mix: SampleMix,
    ) -> None:
        self._folder = folder
        self._options = options
        self._model = model
        self._class_names = class_names
        self._decoder = decoder
        self._encoder = encoder
        self._mix = mix
        self._optimizer = torch.optim.AdamW(list(_parameter_groups(model, options)), betas=(0.9, 0.98))
        self._step = 0

    def run(self, advance: Callable[[Progress], None]) -> Path:
        """Train to the end; the folder of the weights."""
        self._open_folder()
        self._model.train()
        while self._step < self._options.num_steps:
            loss, losses = self._train_step()
            if self._step % self._options.log_every == 0 or self._step == self._options.num_steps:
                self._log({"step": self._step, "loss": loss, **losses, "gates": self._gates(), "time": time.time()})
            if self._step % self._options.checkpoint_every == 0 and self._step < self._options.num_steps:
                self._save_checkpoint()
            advance(Progress(self._step, self._options.num_steps, loss))
        save_fusion(self._model, self._class_names, self._folder / WEIGHTS)
        return self._folder / WEIGHTS

    def _train_step(self) -> tuple[float, dict[str, float]]:
        first = self._step * self._options.batch_size
        samples = [self._mix.draw(first + j) for j in range(self._options.batch_size)]
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self._schedule()
        loss, losses = self._loss(samples)
        if not math.isfinite(loss.item()):
            raise TrainingFailed(
                f"the loss is {loss.item()} at step {self._step}; lower --learning-rate and start again on the same "
                "folder: it goes on from the last checkpoint"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._model.parameters(), self._options.max_gradient_norm)
        self._optimizer.step()
        self._step += 1
        return loss.item(), losses

    def _loss(self, samples: list[TrainingSample]) -> tuple[Tensor, dict[str, float]]:
        """Mean over the samples of the weighted mean over each reply's tokens, and the same for each kind."""
        weight = self._options.focus_weight
        examples = [self._encoder.example(sample, focus_weight=weight) for sample in samples]
        prefix = self._model(self._encoder.turns(samples)).prefix
        means = torch.cat([self._reply_means(examples, prefix, rows) for rows in _by_length(examples)])
        order = [row for rows in _by_length(examples) for row in rows]
        means = means[torch.tensor(order).argsort()]
        kinds = sorted({sample.kind for sample in samples})
        by_kind = {
            kind: means[[j for j, sample in enumerate(samples) if sample.kind == kind]].mean().item() for kind in kinds
        }
        return means.mean(), by_kind

    def _reply_means(self, examples: list[ReplyExample], prefix: Tensor, rows: list[int]) -> Tensor:
        """The weighted mean loss of each of `rows`."""
        chosen = [examples[row] for row in rows]
        token_losses, places = self._decoder.reply_losses(chosen, prefix[rows])
        weights = torch.tensor([weight for one in chosen for weight in one.reply_weights], device=places.device)
        totals = torch.zeros(len(rows), device=places.device)
        return totals.index_add(0, places, token_losses * weights) / totals.index_add(0, places, weights)

    def _schedule(self) -> float:
        """Warm up, then a half cosine down to nothing."""
        warmup = self._options.num_warmup_steps
        if self._step < warmup:
            return (self._step + 1) / warmup
        done = (self._step - warmup) / max(1, self._options.num_steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * done))

    def _gates(self) -> dict[str, float]:
        gates = {"readout": self._model.readout.gate}
        if self._model.lexical_path is not None:
            gates["lexical"] = self._model.lexical_path.gate
        return {name: round(gate.tanh().abs().mean().item(), 4) for name, gate in gates.items()}

    def _open_folder(self) -> None:
        """Start the folder, or go on in it. Raises `ConfigurationError` where it holds another run."""
        path = self._folder / "options.json"
        options = asdict(self._options)
        if not path.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
            return
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # A smaller learning rate is the remedy for a diverged run, so it may change.
        fixed = options.keys() - {"learning_rate", "gate_learning_rate", "checkpoint_every", "log_every"}
        changed = sorted(name for name in fixed if known.get(name) != options[name])
        if changed:
            raise ConfigurationError(
                f"{self._folder} holds a run with other options ({', '.join(changed)}); name another folder"
            )
        self._load_checkpoint()

    def _save_checkpoint(self) -> None:
        """Write beside and swap, so that a kill in between loses nothing."""
        new = self._folder / f"{CHECKPOINT}.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        save_file(dict(self._model.state_dict()), new / "model.safetensors")
        state = self._optimizer.state_dict()["state"]
        moments = {f"{j}.{name}": value for j, values in state.items() for name, value in values.items()}
        save_file({name: value.contiguous() for name, value in moments.items()}, new / "optimizer.safetensors")
        (new / "step.json").write_text(json.dumps({"step": self._step}), encoding="utf-8")
        old = self._folder / CHECKPOINT
        shutil.rmtree(old, ignore_errors=True)
        new.rename(old)

    def _load_checkpoint(self) -> None:
        folder = next(
            (f for f in (self._folder / CHECKPOINT, self._folder / f"{CHECKPOINT}.new") if _is_whole(f)), None
        )
        if folder is None:
            return
        try:
            self._model.load_state_dict(load_file(folder / "model.safetensors"))
        except RuntimeError as error:
            raise ConfigurationError(f"the checkpoint in {folder} has another shape; name another folder") from error
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in load_file(folder / "optimizer.safetensors").items():
            number, _, moment = name.partition(".")
            state.setdefault(int(number), {})[moment] = value
        self._optimizer.load_state_dict({"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]})
        self._step = json.loads((folder / "step.json").read_text(encoding="utf-8"))["step"]

    def _log(self, line: dict[str, Any]) -> None:
        with (self._folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def new_config(decoder_name: str, decoder: FrozenDecoder, options: TrainingOptions) -> FusionConfig:
    """The configuration of a fusion that is to be trained with `options`."""
    return FusionConfig(
        decoder=decoder_name,
        decoder_width=decoder.embeddings.shape[-1],
        embedding_scale=decoder.embedding_scale,
        width=options.width,
        num_layers=options.num_layers,
        num_prefix_tokens=options.num_prefix_tokens,
        num_lexical_tokens=options.num_lexical_tokens,
        policy=options.policy,
    )


def _by_length(examples: list[ReplyExample]) -> list[list[int]]:
    """Rows in two halves, short and long, so that little is padded."""
    order = sorted(range(len(examples)), key=lambda row: len(examples[row].tail_ids) + len(examples[row].reply_ids))
    half = (len(order) + 1) // 2
    return [rows for rows in (order[:half], order[half:]) if rows]


def _is_whole(folder: Path) -> bool:
    return (folder / "step.json").is_file()


def _parameter_groups(model: FusionModel, options: TrainingOptions) -> Iterator[dict[str, Any]]:
    """Gates start shut and have to open fast; they and other vectors are not decayed."""
    gates = [p for name, p in model.named_parameters() if name.endswith("gate")]
    vectors = [p for name, p in model.named_parameters() if p.ndim < 2 and not name.endswith("gate")]
    matrices = [p for name, p in model.named_parameters() if p.ndim >= 2 and not name.endswith("gate")]
    yield {"params": matrices, "peak_lr": options.learning_rate, "weight_decay": options.weight_decay}
    yield {"params": vectors, "peak_lr": options.learning_rate, "weight_decay": 0.0}
    yield {"params": gates, "peak_lr": options.gate_learning_rate, "weight_decay": 0.0}
