"""Replies from vLLM's own server: beside OpenAI's API it takes pictures, adapters by name, biases and embeddings.

Owns which of the three ways a picture goes: as the fused prefix, inside a prompt that is sent as embeddings; as a
picture, where the model on the server sees by itself; or as a note. Imports torch only where embeddings are made, on a
thread of its own. Knows neither HTTP nor how embeddings come about (`prompt_embedding`).

Of a turn's steering, a bias on the whole vocabulary, the server gets the strongest part as `logit_bias`. Where the
fusion mixes several prefixes, it gets the one that counts most.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from engine.backends.chat_request import Dialect, Draft
from engine.backends.chat_server import ChatServer, Patience, Refused
from engine.backends.openai import OpenAIEngine, Reply
from engine.backends.openai import check as check_openai
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.types import ContextSize, GenerationRequest, TokenMeasure

if TYPE_CHECKING:
    from engine.backends.prompt_embedding import EmbeddedPrompt, PromptEmbedder

logger = logging.getLogger(__name__)

COMPLETIONS_PATH = "completions"
# Said once in words and once in embeddings, this has to be continued alike.
PROBE = "The days of the week are Monday, Tuesday, Wednesday, Thursday,"
NUM_PROBE_TOKENS = 8

T = TypeVar("T")


class VLLMEngine(OpenAIEngine):
    """An `Engine` whose decoder runs in vLLM's server."""

    def __init__(self, config: EngineConfig, *, patience: Patience | None = None) -> None:
        super().__init__(config, patience=patience)
        # vLLM ignores the fields that it does not know. Models that can think aloud are asked not to.
        self._dialect = Dialect(
            repetition_names=("repetition_penalty",),
            max_pictures=None,
            extra={"chat_template_kwargs": {"enable_thinking": False}},
            going_on={"continue_final_message": True, "add_generation_prompt": False},
            banned_name="bad_words" if config.lexicon else None,
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commedia-embedding")
        self._embedder: PromptEmbedder | None = None
        self._measure: TokenMeasure | None = None

    def context(self) -> ContextSize:
        """How much there is room for; with the decoder's tokenizer here, exactly."""
        if self._measure is None:
            return super().context()
        return replace(self._measure.context(), max_tokens=self._max_context_tokens())

    def count_tokens(self, text: str) -> int:
        """By the decoder's tokenizer, where that is here."""
        return super().count_tokens(text) if self._measure is None else self._measure.count_tokens(text)

    async def aclose(self, *, drain_s: float = 0.0) -> None:
        """Take nothing new, let replies end for up to `drain_s` seconds, and end the rest."""
        await super().aclose(drain_s=drain_s)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _prepare(self, server: ChatServer) -> None:
        """Learn the server's adapters, and whether pictures can go as embeddings."""
        served = [model.name for model in self._served if model.parent is not None]
        self._adapters = tuple(dict.fromkeys((*self._config.adapters, *served)))
        if not self._may_fuse():
            return
        self._embedder = await self._on_thread(lambda: _load_embedder(self._config))
        if self._embedder is not None and not await self._understands_embeddings(server, self._embedder):
            self._embedder = None
        if self._embedder is not None:
            self._measure = await self._on_thread(self._embedder.measure)

    async def _answer(self, reply: Reply) -> None:
        embedder = self._embedder
        if embedder is not None and any(turn.images for turn in reply.sequence.request.turns):
            draft = self._draft(reply.sequence.request)
            if (body := await self._embedded(draft, embedder)) is not None:
                reply.sequence.has_fused_prefix = True
                await self._send(reply, draft, COMPLETIONS_PATH, body)
                return
        await super()._answer(reply)

    async def _embedded(self, draft: Draft, embedder: "PromptEmbedder") -> Callable[[], dict[str, Any]] | None:
        """What to send instead of words; `None` where no turn has a prefix."""
        request = draft.request
        prompt = await self._on_thread(
            lambda: embedder.embed(
                request, max_tokens=self._max_prompt_tokens(request), num_dropped_turns=draft.num_dropped_turns
            )
        )
        if prompt is None:
            return None
        draft.num_dropped_turns, draft.logit_bias = prompt.num_dropped_turns, prompt.logit_bias
        return lambda: _completion_body(draft, prompt)

    def _max_prompt_tokens(self, request: GenerationRequest) -> int | None:
        """Room for the prompt; a reply may be long, but not at the price of all that was said before."""
        length = self._max_context_tokens()
        return None if length is None else length - min(request.sampling.max_new_tokens, length // 2)

    def _may_fuse(self) -> bool:
        """Whether the server seems to run the decoder that fusion weights are for."""
        if self._config.fusion == "none":
            return False
        if self._config.fusion_weights is not None:
            return True
        decoder = _plain(self._config.decoder)
        names = {name for model in self._served for name in (model.name, model.root, model.parent) if name}
        return any(decoder in _plain(name) for name in names)

    async def _understands_embeddings(self, server: ChatServer, embedder: "PromptEmbedder") -> bool:
        """Whether the server takes embeddings, and ours mean the same to it as words."""
        said: list[str] = []
        data = await self._on_thread(lambda: embedder.embed_text(PROBE))
        for prompt in ({"prompt": PROBE}, {"prompt_embeds": data}):
            body = {"model": self._model, "stream": True, "max_tokens": NUM_PROBE_TOKENS, "temperature": 0, **prompt}
            try:
                async with aclosing(server.stream(COMPLETIONS_PATH, body)) as pieces:
                    said.append("".join([piece.text async for piece in pieces]))
            except Refused as refusal:
                logger.warning(
                    "pictures do not go to the server as a fused prefix: %s. Start it with --enable-prompt-embeds",
                    refusal,
                )
                return False
        if said[0] != said[1]:
            logger.warning(
                "pictures do not go to the server as a fused prefix: it runs another model than engine.decoder = %r. "
                "Let that name the files that the server loads",
                embedder.decoder,
            )
        return said[0] == said[1]

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def check(config: EngineConfig) -> str:
    """What answers at the configured address, in a sentence. Raises `EngineError` with a remedy."""
    return await check_openai(config)


def _completion_body(draft: Draft, prompt: "EmbeddedPrompt") -> dict[str, Any]:
    # What is about messages: here the prompt is whole already.
    unwanted = {*draft.dialect.extra, *draft.dialect.going_on}
    fields = {name: value for name, value in draft.fields().items() if name not in unwanted}
    return {
        "model": draft.model,
        "prompt_embeds": prompt.data,
        "stop_token_ids": list(prompt.end_token_ids),
        "stream": True,
        **fields,
    }


def _load_embedder(config: EngineConfig) -> "PromptEmbedder | None":
    """On the thread. Where it fails, pictures go another way: that is told, and no reason to end."""
    from engine.backends.prompt_embedding import load_embedder

    try:
        return load_embedder(config)
    except EngineError as error:
        logger.warning("pictures do not go to the server as a fused prefix: %s", error)
        return None


def _plain(name: str) -> str:
    """A model's name without its owner, and however it is written."""
    return re.sub(r"[^a-z0-9]", "", PurePath(name).name.lower())
