"""A run's folder: everything that a training run writes, so that it can be looked at, and gone on with.

`options.yaml`, `data.json` (what it learnt from), `skipped.jsonl` (what was left out, and why), `environment.json`,
`log.jsonl`, `checkpoint/` to go on from, `best/` and `weights/` for the engine, and plots. Everything is written beside
and swapped, so that a kill at any moment loses at most what came after the last checkpoint. Knows nothing of what is
learnt.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import ConfigurationError
from engine.training.options import TrainingOptions, changed_options, read_options, write_options

# To be raised where a checkpoint is written in another way than before.
FORMAT_VERSION = 1
OPTIONS, DATA, SKIPPED, ENVIRONMENT, LOG = (
    "options.yaml", "data.json", "skipped.jsonl", "environment.json", "log.jsonl",
)  # fmt: skip
CHECKPOINT, WEIGHTS, BEST = "checkpoint", "weights", "best"
_STATE, _MODEL, _OPTIMIZER = "state.json", "model.safetensors", "optimizer.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run stands after `step`. `state` holds plain figures, `model` and `optimizer` tensors by name."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any] = field(default_factory=dict)


class RunFolder:
    """One run's folder. Nothing is written before `begin`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def options_file(self) -> Path:
        """Where the run's options are."""
        return self.path / OPTIONS

    def known_options(self) -> TrainingOptions | None:
        """The options of the run that is in here, or `None` where there is none yet. Raises `ConfigurationError` where
        the folder holds something else."""
        file = self.options_file
        if not file.is_file():
            if self.path.exists() and (not self.path.is_dir() or any(self._foreign())):
                raise ConfigurationError(f"{self.path} holds something else than a run; name a new or empty folder")
            return None
        try:
            return read_options(None, file)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"the run in {self.path} cannot be gone on with: {error}. Name another folder to start anew"
            ) from error

    def _foreign(self) -> Iterator[Path]:
        return (path for path in self.path.iterdir() if not path.name.startswith("."))

    def check(self, options: TrainingOptions, *, data_digest: str = "") -> None:
        """Raises `ConfigurationError` where the folder holds a run with other options, over other data, or one that
        cannot be gone on with."""
        known = self.known_options()
        if known is None:
            return
        if changed := changed_options(known, options):
            raise ConfigurationError(
                f"{self.path} holds a run with other options ({', '.join(changed)}); name another folder, or leave "
                "these as they were"
            )
        if data_digest and self.data().get("digest", data_digest) != data_digest:
            raise ConfigurationError(
                f"{self.path} holds a run over other data; name another folder, or the very data it was started with"
            )
        self.load_checkpoint()

    def data(self) -> dict[str, Any]:
        """What `begin` was told about the data."""
        return _read_json(self.path / DATA)

    def environment(self) -> dict[str, Any]:
        """What is known of the machine that the run was started on."""
        return _read_json(self.path / ENVIRONMENT)

    def require_free(self) -> None:
        """Raises `ConfigurationError` where another process trains in here, or this one could not write: before hours
        of preparation. Writes nothing where there is no such folder yet."""
        if self.path.exists():
            with self.held():
                return
        parent = next(parent for parent in self.path.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise ConfigurationError(f"{self.path} cannot be made: {parent} cannot be written to; name another folder")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out. Raises `ConfigurationError` where one trains in this folder."""
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise ConfigurationError(f"another process trains in {self.path}; wait for it, or name another") from None
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} cannot be written to ({error.strerror}); name another folder"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def begin(
        self,
        options: TrainingOptions,
        *,
        data: Mapping[str, Any] | None = None,
        skipped: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Write down what the run is about to do."""
        self.path.mkdir(parents=True, exist_ok=True)
        if data is not None:
            _write_json(self.path / DATA, data)
            _write(self.path / SKIPPED, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in skipped))
        write_options(options, self.options_file)

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Versions, device, times."""
        _write_json(self.path / ENVIRONMENT, environment)

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        with (self.path / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The log's whole lines; one that a kill cut off is left out."""
        try:
            text = (self.path / LOG).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return [line for line in map(_parse_line, text.splitlines()) if line is not None]

    def mend_log(self, *, last_step: int) -> None:
        """Take away a line that was cut off, and all that came after the checkpoint: those steps are done again."""
        lines = [line for line in self.read_log() if line["step"] <= last_step]
        _write(self.path / LOG, "".join(json.dumps(line) + "\n" for line in lines))

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep it in place of the one before."""

        def write(folder: Path) -> None:
            folder.mkdir()
            save_file(checkpoint.model, folder / _MODEL)
            save_file(checkpoint.optimizer, folder / _OPTIMIZER)
            state = {"format_version": FORMAT_VERSION, "step": checkpoint.step, **checkpoint.state}
            _write_json(folder / _STATE, state)  # last: a folder that has it is whole

        self.replace(CHECKPOINT, write)

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest one, or `None` where there is none. Raises `ConfigurationError` where it is damaged, or was
        written by a newer version."""
        # Right after a kill in the middle of a swap, only the new or the old one has a name.
        names = (CHECKPOINT, f"{CHECKPOINT}.new", f"{CHECKPOINT}.old")
        folder = next((self.path / name for name in names if (self.path / name / _STATE).is_file()), None)
        if folder is None:
            return None
        try:
            state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            version, step = state.pop("format_version"), state.pop("step")
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise _damaged(folder) from error
        if version != FORMAT_VERSION:
            raise ConfigurationError(
                f"the checkpoint in {folder} has format {version}, this version of Commedia reads {FORMAT_VERSION}; go "
                "on with the version that wrote it, or name another folder to start anew"
            )
        try:
            return Checkpoint(step, load_file(folder / _MODEL), load_file(folder / _OPTIMIZER), state)
        except (OSError, ValueError, SafetensorError) as error:
            raise _damaged(folder) from error

    def replace(self, name: str, write: Callable[[Path], None]) -> Path:
        """Let `write` make a folder, then put it in place of the one called `name`."""
        whole, new, old = self.path / name, self.path / f"{name}.new", self.path / f"{name}.old"
        shutil.rmtree(new, ignore_errors=True)
        write(new)
        shutil.rmtree(old, ignore_errors=True)
        if whole.exists():
            whole.rename(old)
        new.rename(whole)
        shutil.rmtree(old, ignore_errors=True)
        return whole


def _damaged(folder: Path) -> ConfigurationError:
    return ConfigurationError(
        f"the checkpoint in {folder} is damaged; remove that folder to start this run from its first step, or name "
        "another folder"
    )


def _parse_line(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
