"""Tiny random encoders of the real classes, built in a moment."""

import io
from pathlib import Path

import PIL.Image
import torch
from efficientnet_lite_pytorch import EfficientNet
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

from engine.encoders.image import ImageEncoder
from engine.encoders.text import TextEncoder

WORDS = (
    "[PAD]",
    "[CLS]",
    "[SEP]",
    "[UNK]",
    "a",
    "photo",
    "of",
    "dog",
    "cat",
    "pizza",
    "i",
    "am",
    "kind",
    "my",
    "name",
    "[MASK]",
)


def tiny_text_encoder(*, width: int = 16) -> TextEncoder:
    """One layer and sixteen words."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    return TextEncoder(BertModel(config), tiny_tokenizer())


def tiny_tokenizer() -> Tokenizer:
    """Whole words, with BERT's marks."""
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", WORDS.index("[CLS]")), ("[SEP]", WORDS.index("[SEP]"))]
    )
    return tokenizer


def random_image_encoder() -> ImageEncoder:
    """The real network with random weights."""
    torch.manual_seed(0)
    return ImageEncoder(EfficientNet.from_name("efficientnet-lite2"))


def picture(colour: str = "red", *, size: tuple[int, int] = (40, 30), kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A picture file of one colour."""
    file = io.BytesIO()
    PIL.Image.new("RGB", size, colour).convert(mode).save(file, kind)
    return file.getvalue()


def save_text_encoder(folder: Path) -> Path:
    """A folder as the model store hands it out."""
    encoder = tiny_text_encoder()
    encoder.model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
