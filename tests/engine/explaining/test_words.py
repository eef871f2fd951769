"""Word pieces back to what a person wrote."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from engine.explaining.words import words_of

PIECES = (
    "[CLS]",
    "[SEP]",
    "[UNK]",
    "what",
    "'",
    "s",
    "this",
    "?",
    "re",
    "##tri",
    "##ever",
    "a",
    ",",
    "dog",
    "cafe",
    "猫",
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordPiece({piece: number for number, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)])
    return tokenizer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A retriever, this?", [("A", (0,)), ("retriever", (1, 2, 3)), ("this", (5,))]),
        ("What's this?", [("What's", (0, 1, 2)), ("this", (3,))]),
        ("This 'dog'", [("This", (0,)), ("dog'", (2, 3))]),
        ("Café", [("Café", (0,))]),
        ("猫猫", [("猫", (0,)), ("猫", (1,))]),
        ("zyx dog", [("zyx", (0,)), ("dog", (1,))]),
        ("🐕 dog", [("🐕", (0,)), ("dog", (1,))]),
        ("?!", []),
        ("", []),
    ],
)
def test_pieces_become_the_words_that_were_written(
    tokenizer: Tokenizer, text: str, expected: list[tuple[str, tuple[int, ...]]]
) -> None:
    assert [(word.text, word.rows) for word in words_of(text, tokenizer.encode(text))] == expected


def test_padding_counts_for_nothing(tokenizer: Tokenizer) -> None:
    tokenizer.enable_padding(length=12)
    try:
        assert [word.text for word in words_of("dog", tokenizer.encode("dog"))] == ["dog"]
    finally:
        tokenizer.no_padding()
