"""What a trained fusion is: its sizes, and the decoder and encoders that it was trained with.

Saved as `config.json` beside the weights. Knows no tensors.
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from engine.errors import ConfigurationError

FORMAT_VERSION = 2
CONFIG_FILE = "config.json"
Policy = Literal["pictures", "always"]


@dataclass(frozen=True, slots=True)
class FusionConfig:
    """Sizes and identity of a fusion.

    `decoder` and `decoder_width` say which language model reads the prefix; `embedding_scale` is the root mean square
    of that model's token embeddings, to which the prefix is scaled. `policy` says which turns get a prefix: only those
    with pictures, or all. `num_lexical_tokens` is how many of a class name's own tokens the lexical path can spell,
    `num_quoted_tokens` how many of a persona's facet can be quoted (0: there is no such path). `has_steering`: whether
    the fused context also leans on the vocabulary of the reply. `has_heads`: whether the
    heads that match pictures with texts and fill in words were trained along. `adapter` is the digest of the decoder's
    adapter that the prefix was trained with, or empty.
    """

    decoder: str
    decoder_width: int
    embedding_scale: float
    kind: str = "coattention"
    image_encoder: str = "efficientnet-lite2"
    text_encoder: str = "all-minilm-l6-v2"
    image_width: int = 1280
    text_width: int = 384
    num_classes: int = 1000
    width: int = 256
    num_layers: int = 2
    num_heads: int = 4
    num_prefix_tokens: int = 8
    num_lexical_tokens: int = 4
    num_quoted_tokens: int = 0
    max_images: int = 4
    policy: Policy = "pictures"
    has_steering: bool = False
    has_heads: bool = False
    adapter: str = ""
    format_version: int = FORMAT_VERSION

    def save(self, folder: Path) -> None:
        """Write `config.json`."""
        (folder / CONFIG_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "FusionConfig":
        """Read `config.json`. Raises `ConfigurationError` where it is missing, damaged, or of a newer version."""
        path = folder / CONFIG_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(
                f"{path} cannot be read ({error.strerror}); let engine.fusion_weights name a folder that training wrote"
            ) from error
        except ValueError as error:
            raise ConfigurationError(f"{path} is damaged ({error}); train again or restore the file") from error
        return cls._parse(content, path=path)

    @classmethod
    def _parse(cls, content: object, *, path: Path) -> "FusionConfig":
        version = content.get("format_version") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(version, int):
            raise ConfigurationError(f"{path} is not a fusion configuration; name a folder that training wrote")
        if version > FORMAT_VERSION:
            raise ConfigurationError(
                f"{path} has format version {version}, this Commedia reads up to {FORMAT_VERSION}; update Commedia"
            )
        try:
            config = cls(**content)
        except TypeError as error:
            raise ConfigurationError(f"{path} does not fit this Commedia ({error}); train again") from error
        if config.policy not in get_args(Policy):
            raise ConfigurationError(f"{path}: policy must be one of {', '.join(get_args(Policy))}")
        if wrong := [field.name for field in fields(cls) if not _is_sound(field.name, getattr(config, field.name))]:
            raise ConfigurationError(f"{path}: {', '.join(wrong)} cannot be what training wrote; train again")
        if config.width % config.num_heads:
            raise ConfigurationError(f"{path}: width must be a multiple of num_heads; train again")
        return config


_MAY_BE_ZERO = ("num_lexical_tokens", "num_quoted_tokens")


def _is_sound(name: str, value: object) -> bool:
    """Whether a field has a value of its own kind: sizes count something, names are texts."""
    if name.startswith("has_"):
        return isinstance(value, bool)
    if name == "embedding_scale":
        return isinstance(value, int | float) and math.isfinite(value) and value > 0
    if name.startswith(("num_", "max_")) or name.endswith(("width", "version")):
        return isinstance(value, int) and value >= (0 if name in _MAY_BE_ZERO else 1)
    return isinstance(value, str)
