"""What vLLM's server takes beside text, and the server itself where it is installed."""

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import LlamaForCausalLM

from engine.backends import vllm
from engine.backends.prompt_embedding import PromptEmbedder
from engine.backends.vllm import VLLMEngine, check
from engine.config import EngineConfig
from engine.errors import RequestError, WeightsError
from engine.types import FinishReason, GenerationRequest, ReplyChunk
from tests.engine.backends.test_prompt_embedding import (
    PictureFuser,
    as_the_decoder_reads,
    load_table,
    tiny_config,
    unpacked,
    with_picture,
)
from tests.engine.generation.requests import request
from tests.engine.tiny import tiny_language_model, tiny_llama, tiny_tokenizer
from tests.fakes.openai_server import FakeOpenAIServer

SERVED = ({"id": "tiny", "root": "models/tiny", "max_model_len": 512}, {"id": "nell", "root": "x", "parent": "tiny"})
START_TIMEOUT_S = 300.0


@asynccontextmanager
async def running(server: FakeOpenAIServer, **settings: Any) -> AsyncIterator[VLLMEngine]:
    engine = VLLMEngine(EngineConfig(**{"cache_dir": Path("unused"), "url": server.url, **settings}))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


async def chunks_of(engine: VLLMEngine, asked: GenerationRequest) -> list[ReplyChunk]:
    async with asyncio.timeout(30):
        return [chunk async for chunk in engine.generate(asked)]


async def text_of(engine: VLLMEngine, asked: GenerationRequest) -> str:
    return "".join(chunk.text for chunk in await chunks_of(engine, asked))


def always_the_same(_body: dict[str, Any]) -> list[str]:
    return ["Friday, ", "Saturday."]


@pytest.fixture
def embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineConfig:
    """A decoder with fusion weights, of which prompts are made here; its configuration."""
    config = tiny_config(tmp_path)
    monkeypatch.setattr(vllm, "_load_embedder", lambda config: PromptEmbedder(load_table(config), PictureFuser()))
    return config


# --- adapters, settings


async def test_an_adapter_goes_by_its_name() -> None:
    async with FakeOpenAIServer(models=SERVED) as server, running(server) as engine:
        await text_of(engine, request())
        await text_of(engine, replace(request(), adapter="nell"))
        assert [body["model"] for body in server.requests] == ["tiny", "nell"]
        with pytest.raises(RequestError, match='no adapter "ada": it has nell'):
            await text_of(engine, replace(request(), adapter="ada"))


async def test_an_adapter_of_the_configuration_is_known_too() -> None:
    models = (*SERVED, {"id": "later", "parent": "tiny"})
    async with FakeOpenAIServer(models=SERVED) as server, running(server, adapters=("later",)) as engine:
        server.models = models
        assert await text_of(engine, replace(request(), adapter="later"))
        with pytest.raises(RequestError, match="later, nell"):
            await text_of(engine, replace(request(), adapter="ada"))


async def test_vllm_is_asked_in_its_own_words() -> None:
    async with FakeOpenAIServer() as server, running(server) as engine:
        await text_of(engine, request(repetition_penalty=1.2, top_k=5))
    (body,) = server.requests
    assert body["repetition_penalty"] == 1.2
    assert "repeat_penalty" not in body
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "continue_final_message" not in body


# --- pictures


async def test_a_model_that_sees_gets_the_picture() -> None:
    async with FakeOpenAIServer(max_pictures=4) as server, running(server) as engine:
        await text_of(engine, with_picture("Look!", at=0))
    kinds = [part["type"] for part in server.requests[0]["messages"][-1]["content"]]
    assert kinds == ["image_url", "text"]


async def test_a_model_that_does_not_see_is_told_of_the_picture_in_words() -> None:
    async with FakeOpenAIServer() as server, running(server) as engine:
        for _ in range(2):
            await text_of(engine, with_picture("Look!", at=0))
        contents = [body["messages"][-1]["content"] for body in server.requests]
        assert [isinstance(content, str) for content in contents] == [False, True, True]
        assert "You cannot see it" in contents[-1]


async def test_a_picture_goes_as_a_fused_prefix(embeddings: EngineConfig) -> None:
    asked = with_picture("What is this?", "A cat.", "Are you sure?", at=2)
    async with (
        FakeOpenAIServer(models=SERVED, takes_embeddings=True, say=always_the_same) as server,
        running(server, decoder=embeddings.decoder) as engine,
    ):
        *_, last = chunks = await chunks_of(engine, asked)
        assert "".join(chunk.text for chunk in chunks) == "Friday, Saturday."
        assert last.stats is not None
        assert last.stats.has_fused_prefix
        body = server.requests[-1]
        assert server.paths[-1] == "/v1/completions"
        assert torch.equal(unpacked(body["prompt_embeds"]), as_the_decoder_reads(tiny_language_model(), asked, place=2))
        assert body["stop_token_ids"] == [2]
        assert len(body["logit_bias"]) > 200
        assert body["max_tokens"] == 8
        assert "chat_template_kwargs" not in body
        # A reply that has begun is a part of the prompt, and no message.
        begun = replace(asked, reply_start="Well,")
        assert await text_of(engine, begun)
        body = server.requests[-1]
        assert torch.equal(unpacked(body["prompt_embeds"]), as_the_decoder_reads(tiny_language_model(), begun, place=2))
        assert not {"continue_final_message", "add_generation_prompt"} & body.keys()
        # Without a picture nothing is lost by plain words.
        *_, last = await chunks_of(engine, request())
        assert last.stats is not None
        assert not last.stats.has_fused_prefix
        assert server.paths[-1] == "/v1/chat/completions"


async def test_a_fused_prompt_is_as_long_as_the_server_can_read(embeddings: EngineConfig) -> None:
    texts = [f"{number} " + "word " * 12 for number in range(9)]
    async with (
        FakeOpenAIServer(models=SERVED, takes_embeddings=True, say=always_the_same) as server,
        running(server, decoder=embeddings.decoder) as engine,
    ):
        *_, last = await chunks_of(engine, with_picture(*texts, at=8))
        assert last.stats is not None
        assert last.stats.num_dropped_turns == 4
        assert len(unpacked(server.requests[-1]["prompt_embeds"])) <= 512 - 8


async def test_a_server_without_embeddings_is_not_sent_any(
    embeddings: EngineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeOpenAIServer(models=SERVED) as server, running(server, decoder=embeddings.decoder) as engine:
        assert "--enable-prompt-embeds" in caplog.text
        assert await text_of(engine, with_picture("Look!", at=0))
        assert server.paths[-1] == "/v1/chat/completions"


async def test_a_server_with_another_model_is_not_sent_embeddings(
    embeddings: EngineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    # This one repeats what it read, and reads embeddings differently.
    async with (
        FakeOpenAIServer(models=SERVED, takes_embeddings=True) as server,
        running(server, decoder=embeddings.decoder) as engine,
    ):
        assert "another model than engine.decoder" in caplog.text
        assert await text_of(engine, with_picture("Look!", at=0))
        assert server.paths[-1] == "/v1/chat/completions"


@pytest.mark.parametrize("settings", [{"decoder": "something/else"}, {"decoder": "tiny", "fusion": "none"}])
async def test_nothing_is_loaded_for_a_decoder_that_the_server_does_not_run(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    def load(config: EngineConfig) -> None:
        raise AssertionError("nothing should be loaded")

    monkeypatch.setattr(vllm, "_load_embedder", load)
    async with FakeOpenAIServer(models=SERVED) as server, running(server, **settings) as engine:
        assert await text_of(engine, request())


async def test_embeddings_that_cannot_be_made_are_no_reason_to_stay_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(config: EngineConfig) -> None:
        raise WeightsError("the disk is full")

    monkeypatch.setattr("engine.backends.prompt_embedding.load_embedder", load)
    async with FakeOpenAIServer(models=SERVED) as server, running(server, decoder="tiny") as engine:
        assert "the disk is full" in caplog.text
        assert await text_of(engine, with_picture("Look!", at=0))


# --- the real thing


def save_servable(folder: Path) -> Path:
    """The tiny model with heads as wide as vLLM's attention wants them."""
    config = tiny_llama().config
    config.head_dim = 64
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@contextmanager
def real_server(folder: Path) -> Iterator[str]:
    """vLLM with the tiny model on a free port of this machine; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    model = save_servable(folder / "tiny")
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tiny", "--dtype", "float32"]
    command += ["--max-model-len", "256", "--max-num-seqs", "4", "--enforce-eager", "--enable-prompt-embeds"]
    environment = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait(5)
        log.close()


async def until_it_answers(url: str, log: Path) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT_S), httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    await client.get(f"{url}/models", timeout=2)
                    return
                except httpx.TransportError:
                    await asyncio.sleep(0.5)
    except TimeoutError:
        pytest.fail(f"vLLM did not start: {log.read_text(errors='replace')[-2000:]}")


@pytest.mark.process
@pytest.mark.timeout(420)
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed (docs/remote.md)")
async def test_a_real_server_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "_load_embedder", lambda config: PromptEmbedder(load_table(config), PictureFuser()))
    with real_server(tmp_path) as url:
        await until_it_answers(url, tmp_path / "log")
        config = EngineConfig(cache_dir=tmp_path, url=url, decoder=str(tmp_path / "tiny"))
        assert "the model is tiny" in await check(config)
        engine = VLLMEngine(config)
        await engine.start()
        try:
            greedy = {"temperature": 0.0, "top_k": 0, "seed": None, "max_new_tokens": 8}
            plain = await chunks_of(engine, request(**greedy))
            assert plain[-1].finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
            assert plain[-1].stats is not None
            assert plain[-1].stats.num_prompt_tokens > 0
            pictured = await chunks_of(engine, with_picture("Look!", at=0))
            assert pictured[-1].stats is not None
            assert pictured[-1].stats.has_fused_prefix
            assert await text_of(engine, request(**greedy)) == "".join(chunk.text for chunk in plain)
        finally:
            await engine.aclose()
