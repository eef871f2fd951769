"""Low-rank adapters (LoRA) of a decoder: a folder in peft's own format, merged into the weights when they are loaded.

Owns the files, which adapter a configuration means, and the merging: `W += scale · B A`. Needs no peft, and knows
nothing of training. Shapes: `r` rank, `d_in`, `d_out` a layer's widths.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.errors import ConfigurationError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
SHIPPED = Path(__file__).parent / "adapters"
SWITCHED_OFF = "none"
_PREFIX = "base_model.model."
_TENSOR_NAME = re.compile(r"(?P<layer>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight")
# What people train on is often the same model in four bits.
_QUANTISED_COPY = re.compile(r"(?:-unsloth)?-bnb-4bit$")
_MERGE_ELSEWHERE = (
    "merge it with peft (`merge_and_unload`, `save_pretrained`) and let engine.decoder name the folder that this writes"
)


@dataclass(frozen=True, slots=True)
class LowRankUpdate:
    """What is added to one layer's weight: `scale · up down`, with `down: (r, d_in)` and `up: (d_out, r)`."""

    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """A trained adapter. `base` is the model it was trained on, as its author calls it; `updates` go by layer name."""

    base: str
    updates: Mapping[str, LowRankUpdate] = field(repr=False)
    is_transposed: bool = False


def adapter_folder(wanted: str | Path | None, *, decoder: str) -> Path | None:
    """The folder of the adapter that the configuration means, or `None` for an untouched decoder.

    `wanted` is `engine.decoder_adapter`: a folder, "none", or `None` for the one that ships for `decoder`, if one does.
    """
    if wanted is None:
        return next((path.parent for path in SHIPPED.glob(f"*/{CONFIG_FILE}") if path.parent.name == decoder), None)
    if str(wanted) == SWITCHED_OFF:
        return None
    try:
        folder = Path(wanted).expanduser()
    except RuntimeError:
        folder = Path(wanted)  # "~somebody" without a home
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigurationError(
            f'engine.decoder_adapter = "{wanted}" is no adapter: name a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, '
            'as peft and `commedia train lora` write them, or "none"'
        )
    return folder


def adapter_digest(folder: Path | None) -> str:
    """What tells this adapter from every other, whatever its folder is called; an empty text for no adapter."""
    if folder is None:
        return ""
    settings = _read_settings(folder)
    told = {key: settings.get(key) for key in ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    digest.update(_weights_of(folder).read_bytes())
    return digest.hexdigest()[:16]


def read_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`. Raises `ConfigurationError` where it is damaged, or of a kind that cannot be merged."""
    settings = _read_settings(folder)
    _require_mergeable(settings, folder)
    try:
        tensors = load_file(_weights_of(folder))
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(
            f"{folder / WEIGHTS_FILE} is damaged ({error}): copy or train the adapter again"
        ) from error
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = _TENSOR_NAME.fullmatch(name.removeprefix(_PREFIX))
        if found is None or tensor.ndim != 2:
            raise ConfigurationError(
                f"{folder} changes more than linear layers ({name}), which cannot be merged here: {_MERGE_ELSEWHERE}"
            )
        halves.setdefault(found["layer"], {})[found["half"]] = tensor
    updates = {layer: _update(layer, pair, settings, folder) for layer, pair in halves.items()}
    return Adapter(
        base=str(settings.get("base_model_name_or_path") or ""),
        updates=updates,
        is_transposed=bool(settings.get("fan_in_fan_out")),
    )


def save_adapter(
    updates: Mapping[str, tuple[Tensor, Tensor]], folder: Path, *, base: str, rank: int, alpha: float
) -> None:
    """Write `(down, up)` of each layer in half precision, as peft does. The settings go last: a folder without them is
    not complete."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for layer, (down, up) in updates.items():
        tensors[f"{_PREFIX}{layer}.lora_A.weight"] = down.detach().to("cpu", torch.float16).contiguous()
        tensors[f"{_PREFIX}{layer}.lora_B.weight"] = up.detach().to("cpu", torch.float16).contiguous()
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    settings = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(updates),
        "task_type": "CAUSAL_LM",
    }
    (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def merge_adapter(model: nn.Module, folder: Path, *, decoder: str) -> None:
    """Add the adapter in `folder` to the weights of `model`, which the configuration calls `decoder`.

    All or nothing: raises `ConfigurationError` before anything is changed where the adapter is another model's.
    """
    adapter = read_adapter(folder)
    _require_same_base(adapter, folder, decoder)
    layers = {name: _layer(model, name, adapter, folder, decoder) for name in adapter.updates}
    for name, layer in layers.items():
        update = adapter.updates[name]
        weight: Tensor = layer.weight
        up, down = update.up.to(weight.device, torch.float32), update.down.to(weight.device, torch.float32)
        change = update.scale * (up @ down)
        weight.copy_(weight.float() + (change.T if adapter.is_transposed else change))


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror}): let engine.decoder_adapter name an adapter's folder"
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is damaged ({error}): copy or train the adapter again") from error
    if not isinstance(settings, dict):
        raise ConfigurationError(f"{path} is no adapter's configuration: copy or train the adapter again")
    return settings


def _weights_of(folder: Path) -> Path:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ConfigurationError(
            f"{folder} has no {WEIGHTS_FILE}. Older formats can run code when they are opened and are not read: save "
            "the adapter with safetensors"
        )
    return path


def _require_mergeable(settings: Mapping[str, Any], folder: Path) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise ConfigurationError(f"{folder} is a {kind} adapter, and only LORA can be merged here: {_MERGE_ELSEWHERE}")
    unlike = [
        name
        for name in ("use_dora", "modules_to_save", "layer_replication", "trainable_token_indices", "lora_bias")
        if settings.get(name)
    ]
    if settings.get("bias", "none") != "none":
        unlike.append("bias")
    if unlike:
        raise ConfigurationError(f"{folder} uses {', '.join(unlike)}, which is not merged here: {_MERGE_ELSEWHERE}")


def _update(layer: str, pair: Mapping[str, Tensor], settings: Mapping[str, Any], folder: Path) -> LowRankUpdate:
    down, up = pair.get("A"), pair.get("B")
    if down is None or up is None or down.shape[0] != up.shape[1]:
        raise ConfigurationError(
            f"{folder / WEIGHTS_FILE} has no matching pair for {layer}: copy or train the adapter again"
        )
    try:
        rank = int(_by_pattern(layer, settings.get("rank_pattern"), settings["r"]))
        alpha = float(_by_pattern(layer, settings.get("alpha_pattern"), settings["lora_alpha"]))
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise ConfigurationError(
            f"{folder / CONFIG_FILE} must give r and lora_alpha as numbers: copy or train the adapter again"
        ) from error
    if rank != down.shape[0]:
        raise ConfigurationError(
            f"{folder} has rank {down.shape[0]} at {layer}, and its {CONFIG_FILE} says {rank}: copy both files of the "
            "same adapter"
        )
    if rank < 1 or not (math.isfinite(alpha) and torch.isfinite(down).all() and torch.isfinite(up).all()):
        raise ConfigurationError(f"{folder} holds what is no number at {layer}: copy or train the adapter again")
    return LowRankUpdate(down, up, alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))


def _by_pattern(layer: str, patterns: Mapping[str, Any] | None, otherwise: object) -> Any:  # noqa: ANN401 - a number
    """peft's exceptions for single layers: a pattern means the layers whose name ends with it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(?:.*\.)?(?:{pattern})$", layer):
            return value
    return otherwise


def _require_same_base(adapter: Adapter, folder: Path, decoder: str) -> None:
    """Two models of one shape take each other's adapters and then talk nonsense: their names must agree."""
    if not adapter.base or _is_path(adapter.base) or _is_path(decoder):
        return
    if _bare_name(adapter.base) != _bare_name(decoder):
        raise ConfigurationError(
            f"the adapter in {folder} was trained on {adapter.base}, and engine.decoder is {decoder}: name an adapter "
            f'for this decoder, or set engine.decoder_adapter = "none". If both are the same model, correct '
            f"base_model_name_or_path in {CONFIG_FILE}"
        )


def _is_path(name: str) -> bool:
    """Whether a model goes by where it lies, which says nothing about what it is."""
    return name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name or Path(name).is_dir()


def _bare_name(name: str) -> str:
    return _QUANTISED_COPY.sub("", name.rpartition("/")[2].casefold())


def _layer(model: nn.Module, name: str, adapter: Adapter, folder: Path, decoder: str) -> Any:  # noqa: ANN401
    another = f'let engine.decoder_adapter name an adapter that was trained on {decoder}, or set it to "none"'
    try:
        layer = model.get_submodule(name)
    except AttributeError as error:
        raise ConfigurationError(
            f"the adapter in {folder} is for a layer {name} that {decoder} lacks: {another}"
        ) from error
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        raise ConfigurationError(
            f"{name} of {decoder} has no plain weight that the adapter in {folder} could be added to: name an "
            "unquantised decoder"
        )
    update = adapter.updates[name]
    change = (update.up.shape[0], update.down.shape[1])
    shape = tuple(reversed(weight.shape)) if adapter.is_transposed else tuple(weight.shape)
    if change != shape:
        raise ConfigurationError(
            f"the adapter in {folder} changes {name} as {change}, and {decoder} has {shape} there: {another}"
        )
    if sum(parameter is weight for _, parameter in model.named_parameters(remove_duplicate=False)) > 1:
        raise ConfigurationError(
            f"{name} of {decoder} shares its weight with another layer, which the adapter in {folder} would change, "
            "too: train it without that layer"
        )
    return layer
