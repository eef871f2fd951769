"""A tiny subject: everything real but the sizes and the weights."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from engine.evaluation.pictures import SeenPicture
from engine.evaluation.subject import Subject
from engine.fusion.model import FusionModel
from engine.training.decoder import FrozenDecoder
from engine.training.encoding import SampleEncoder
from engine.training.workshop import Workshop
from tests.engine.encoders.tiny import picture, tiny_text_encoder
from tests.engine.fusion.tiny import NAMES, an_image, tiny_fusion
from tests.engine.tiny import tiny_llama, tiny_tokenizer

COLOURS = ("red", "green", "blue", "yellow", "black", "white")


def tiny_subject(model: FusionModel | None = None, *, folder: Path = Path("nowhere"), **changes: object) -> Subject:
    """A fusion with open gates in front of a tiny Llama; `changes` are of its configuration."""
    backbone = tiny_llama(max_position_embeddings=4096)
    backbone.config._attn_implementation = "eager"
    decoder = FrozenDecoder(backbone, tiny_tokenizer(), name="tiny")
    text = tiny_text_encoder()
    model = model or tiny_fusion(**changes)
    # Personas are quoted in the decoder's own words.
    model.register_buffer("table", decoder.embeddings, persistent=False)
    workshop = Workshop(
        decoder_name="tiny",
        decoder=decoder,
        text=text,
        encoder=SampleEncoder(text, decoder),
        class_names=NAMES,
        meanings=model.meanings,
        image_weights=folder,
        features=folder / "features",
        device="cpu",
    )
    return Subject(workshop, model)


def seen_pictures(num: int, *, num_captions: int = 2) -> list[SeenPicture]:
    """Pictures with random features, and captions that tell them apart."""
    words = ("dog", "cat", "pizza", "photo", "name")
    return [
        SeenPicture(
            f"{j}.png",
            an_image(seed=j, num_patches=25),
            tuple(f"a {words[j % 5]} {'kind ' * (j // 5)}{k}".strip() for k in range(num_captions)),
        )
        for j in range(num)
    ]


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_sets(folder: Path, *, num: int = 4) -> Path:
    """A folder with a set of each kind, none under a name that says so."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "first.zip", "w") as archive:
        for j in range(num):
            archive.writestr(f"{j}.png", picture(COLOURS[j]))
    captions = [[f"a {COLOURS[j]} dog", f"a {COLOURS[j]} cat"] for j in range(num)]
    write_rows(folder / "first.jsonl", [{"image": f"{j}.png", "captions": captions[j]} for j in range(num)])
    answers = [{"user": f"hi {j}", "warm": f"Hello, dear {j}", "cold": f"No {j}"} for j in range(num)]
    write_rows(folder / "second.jsonl", answers)
    talks = [
        {
            "personas": [[f"I have {j} dogs.", "I ski."], [f"I cook for {j}."]],
            "turns": ["1: Hi!", f"2: Hello, I cook for {j}.", "1: I ski."],
        }
        for j in range(num)
    ]
    write_rows(folder / "third.jsonl", talks)
    return folder
