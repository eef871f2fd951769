"""Tiny random models with a byte-level tokenizer, built in a second: real classes, no downloads."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine.decoder.language_model import LanguageModel

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Refuses a system message and two neighbours of one role, as Gemma's and Mistral's templates do.
STRICT = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")


def tiny_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """One token a byte, and four special ones."""
    letters = sorted(ByteLevel.alphabet())
    vocabulary = {text: index for index, text in enumerate([*SPECIALS, *letters])}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevelDecoder()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_llama(*, seed: int = 0, max_position_embeddings: int = 512, head_dim: int | None = None) -> LlamaForCausalLM:
    """Two layers, 32 wide, random."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=max_position_embeddings,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    # Random weights of the usual size give almost even logits, and parity tests that could not fail.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return model


def tiny_language_model(
    *,
    max_context_tokens: int = 512,
    chat_template: str = CHATML,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    head_dim: int | None = None,
) -> LanguageModel:
    """The tiny Llama as the engine sees it."""
    return LanguageModel(
        tiny_llama(seed=seed, head_dim=head_dim).to(dtype),
        tiny_tokenizer(chat_template),
        name="tiny",
        max_context_tokens=max_context_tokens,
    )


def save_tiny(folder: Path, *, chat_template: str | None = CHATML) -> Path:
    """A folder such as `engine.decoder` may name."""
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer(chat_template).save_pretrained(folder)
    return folder
