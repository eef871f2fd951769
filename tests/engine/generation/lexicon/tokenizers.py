"""Small tokenizers of every kind, trained on a few lines, so that words are spelled in several tokens."""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from engine.generation.lexicon.vocabulary import Vocabulary

SPECIALS = ("<unk>", "<s>", "</s>")
END = 2
LINES = (
    "Some of them meet me here, and something is wrong. I am Grub! It is wrongly said: refund me.",
    "As an AI model I refunded them. As an apple, she came home. Corporate! What a shiny, cursed coin.",
    "My friend, me and you meet in the morning. Coins, coins! Grub makes good price. The café is naïve.",
    "您好，我是本猫。作为人工智能，我不吃鱼干喵。 Nice 😀 day ❤️ and 🎉!",
    "Это не я, а он. Ich möchte das nicht, wirklich. straße",
)


@cache
def tokenizer(kind: str) -> Tokenizer:
    """One of `KINDS`."""
    return {"bytes": _byte_level, "sentencepiece": _sentence_pieces, "wordpiece": _word_pieces, "byte": _single_bytes}[
        kind
    ]()


KINDS = ("bytes", "sentencepiece", "wordpiece", "byte")


@cache
def vocabulary(kind: str) -> Vocabulary:
    """With a few ids that mean nothing, as models have them."""
    return Vocabulary(tokenizer(kind), size=tokenizer(kind).get_vocab_size() + 3)


def _byte_level(num_tokens: int = 420) -> Tokenizer:
    """As GPT-2's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        LINES * 3,
        trainers.BpeTrainer(
            vocab_size=num_tokens, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
        ),
    )
    return made


def _single_bytes() -> Tokenizer:
    return _byte_level(259)


def _sentence_pieces() -> Tokenizer:
    """As Llama 2's: spaces are signs, and unknown signs go by their bytes."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    latin = [line for line in LINES if line.isascii()]
    made.train_from_iterator(
        latin * 3,
        trainers.UnigramTrainer(vocab_size=120, special_tokens=list(SPECIALS), unk_token="<unk>", show_progress=False),
    )
    scores = dict(_scores(made)) | {f"<0x{byte:02X}>": -20.0 for byte in range(256)}
    made = Tokenizer(models.Unigram(list(scores.items()), unk_id=0, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    return made


def _scores(trained: Tokenizer) -> list[tuple[str, float]]:
    import json

    return [(text, score) for text, score in json.loads(trained.to_str())["model"]["vocab"]]


def _word_pieces() -> Tokenizer:
    """As BERT's, with letters' case kept."""
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    made.train_from_iterator(
        LINES * 3, trainers.WordPieceTrainer(vocab_size=260, special_tokens=list(SPECIALS), show_progress=False)
    )
    return made
