"""Finds the decoder's files: in the catalogue, in a folder, or in a Hugging Face repository.

Owns where files lie and how large they are. Builds no model.
"""

import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from engine.config import EngineConfig
from engine.errors import ConfigurationError, WeightsError
from engine.models.catalogue import CATALOGUE, is_catalogued
from engine.models.fetch import Report
from engine.models.store import ModelStore

REPOSITORY = re.compile(r"^[\w.-]+/[\w.-]+$")
WANTED_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken"]
# Second copies of the same weights in other formats.
UNWANTED_FILES = ["original/*", "consolidated*", "onnx/*", "openvino/*", "gguf/*"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A decoder's files. `name` is what the configuration says; `config` is its `config.json`."""

    name: str
    folder: Path
    config: dict[str, Any]

    @property
    def num_parameters(self) -> int:
        """Numbers in all weight files."""
        return sum(_num_elements(path) for path in self._weight_files())

    def num_bytes(self, bytes_per_number: int) -> int:
        """Memory for the weights. Quantised ones stay as wide as they are stored."""
        if "quantization_config" in self.config:
            return sum(path.stat().st_size for path in self._weight_files())
        return self.num_parameters * bytes_per_number

    def _weight_files(self) -> set[Path]:
        """What transformers loads; a clone of a repository may hold the same weights a second time."""
        single, index = self.folder / "model.safetensors", self.folder / "model.safetensors.index.json"
        if single.exists():
            return {single}
        if not index.exists():
            return set(self.folder.glob("*.safetensors"))
        try:
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return {self.folder / name for name in names}
        except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise WeightsError(f"{index} is damaged: delete it, and fetch it again") from error


def open_checkpoint(config: EngineConfig, models: ModelStore, report: Report | None = None) -> Checkpoint:
    """The files of `config.decoder`, fetched where they are not here yet.

    Raises `ConfigurationError` for a name that means nothing, `WeightsError` for files that cannot be had.
    """
    folder = _locate(config, models, report)
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{folder} is no model folder: its config.json is missing or damaged. engine.decoder must name a folder "
            "with config.json, tokenizer files and *.safetensors"
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{config.decoder} has no *.safetensors files. Older formats can run code when they are opened and are not "
            "read: name a model with safetensors as engine.decoder"
        )
    return Checkpoint(config.decoder, folder, content)


def _locate(config: EngineConfig, models: ModelStore, report: Report | None) -> Path:
    name = config.decoder
    if is_catalogued(name):
        return models.ensure(name, report=report)
    if (folder := _folder(name)) is not None:
        return folder
    if not REPOSITORY.match(name):
        known = ", ".join(model.name for model in CATALOGUE if model.part == "decoder")
        raise ConfigurationError(
            f"engine.decoder = {name!r} is neither in the catalogue ({known}), nor a folder, nor a Hugging Face "
            'repository such as "HuggingFaceTB/SmolLM2-1.7B-Instruct"'
        )
    return _download(name, config.cache_dir)


def is_at_hand(name: str, cache_dir: Path) -> bool:
    """Whether the folder or repository `name` is on this machine, so that it loads without a network.

    Raises `ConfigurationError` for a name that can be neither.
    """
    if _folder(name) is not None:
        return True
    if not REPOSITORY.match(name):
        raise ConfigurationError(f"engine.decoder = {name!r} is no folder, and no Hugging Face repository")
    try:
        snapshot_download(name, cache_dir=_hub_cache(cache_dir), local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


def _folder(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except RuntimeError:
        return None  # "~somebody" without a home
    except OSError as error:
        raise ConfigurationError(
            f"engine.decoder = {name!r} cannot be looked at ({error.strerror}): correct the path, or let this user "
            "read it"
        ) from error


def _hub_cache(cache_dir: Path) -> Path | None:
    """Where repositories are kept; `None` is Hugging Face's own cache, where the environment names one."""
    return None if {"HF_HOME", "HF_HUB_CACHE"} & os.environ.keys() else cache_dir / "hub"


def _download(repository: str, cache_dir: Path) -> Path:
    """A snapshot of a repository."""
    try:
        folder = snapshot_download(
            repository,
            cache_dir=_hub_cache(cache_dir),
            allow_patterns=WANTED_FILES,
            ignore_patterns=UNWANTED_FILES,
        )
    except GatedRepoError as error:
        raise WeightsError(
            f"{repository} asks for its licence to be accepted: do that on its page, then set HF_TOKEN to your token"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise WeightsError(
            f"there is no Hugging Face repository {repository}, or it is private: check engine.decoder, or set HF_TOKEN"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise WeightsError(
            f"{repository} cannot be downloaded ({type(error).__name__}). Check the network and start again (it goes "
            "on where it stopped), or copy the repository's files into a folder and name that folder as engine.decoder"
        ) from error
    return Path(folder)


def _num_elements(path: Path) -> int:
    """Numbers in a safetensors file, from its header alone."""
    try:
        with path.open("rb") as file:
            (header_size,) = struct.unpack("<Q", file.read(8))
            if header_size > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(header_size))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, TypeError, AttributeError, LookupError, struct.error) as error:
        raise WeightsError(f"{path} is damaged ({error}): delete it, and fetch it again") from error
    return sum(_product(shape) for shape in shapes)


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
