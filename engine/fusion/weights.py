"""Trained fusion weights on disk: a folder with `config.json`, `classes.json` and `model.safetensors`.

Knows how to find the ones that ship with Commedia.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import ConfigurationError
from engine.fusion.config import CONFIG_FILE, FusionConfig
from engine.fusion.model import FusionModel
from engine.fusion.vocabulary import CLASSES_FILE, build_vocabulary

WEIGHTS_FILE = "model.safetensors"
SHIPPED = Path(__file__).parent / "weights"
_RETRAIN = "train it again, or let engine.fusion_weights name another folder"


@dataclass(frozen=True, slots=True)
class SavedFusion:
    """What a weights folder holds, not yet bound to a language model."""

    config: FusionConfig
    class_names: tuple[str, ...]
    tensors: dict[str, Tensor]


def shipped_folder(decoder: str) -> Path | None:
    """The folder that ships for `decoder`, a catalogue name, or `None`."""
    folders = (path.parent for path in SHIPPED.glob(f"*/{CONFIG_FILE}"))
    return next((folder for folder in folders if FusionConfig.load(folder).decoder == decoder), None)


def save_fusion(model: FusionModel, class_names: Sequence[str], folder: Path) -> None:
    """Write `model` in half precision. The configuration goes last: a folder without it is not complete."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in model.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS_FILE)
    (folder / CLASSES_FILE).write_text(json.dumps(list(class_names), indent=0) + "\n", encoding="utf-8")
    model.config.save(folder)


def read_fusion(folder: Path) -> SavedFusion:
    """Read a folder that `save_fusion` wrote. Raises `ConfigurationError` where it is damaged or too new."""
    config = FusionConfig.load(folder)
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
        names = tuple(json.loads((folder / CLASSES_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigurationError(f"the fusion weights in {folder} are incomplete or damaged; {_RETRAIN}") from error
    return SavedFusion(config, names, tensors)


def bind(
    saved: SavedFusion, *, tokenize: Callable[[str], list[int]], embeddings: Tensor, device: torch.device
) -> FusionModel:
    """The model for one language model, whose input embedding table is `embeddings`, ready to fuse."""
    config = saved.config
    if embeddings.shape[-1] != config.decoder_width:
        raise ConfigurationError(
            f"the fusion weights were trained for {config.decoder} with width {config.decoder_width}, this decoder has "
            f"width {embeddings.shape[-1]}; {_RETRAIN}"
        )
    meanings = saved.tensors.get("meanings")
    if meanings is None or meanings.shape != (config.num_classes, config.text_width):
        raise ConfigurationError(f"the fusion weights of {config.decoder} have no table of concept words; {_RETRAIN}")
    if broken := next((name for name, tensor in saved.tensors.items() if not torch.isfinite(tensor).all()), None):
        raise ConfigurationError(f"the fusion weights of {config.decoder} are no numbers ({broken}); {_RETRAIN}")
    vocabulary = build_vocabulary(
        saved.class_names,
        meanings=meanings.float(),
        tokenize=tokenize,
        embeddings=embeddings,
        num_tokens=max(1, config.num_lexical_tokens),
    )
    model = FusionModel(config, vocabulary)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in saved.tensors.items()})
    except RuntimeError as error:
        raise ConfigurationError(f"the fusion weights do not fit their {CONFIG_FILE}; {_RETRAIN}") from error
    return model.to(device).eval().requires_grad_(False)
