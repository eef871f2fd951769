"""The way to a server and back, over real HTTP, and all that can go wrong on it."""

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from engine.backends import chat_server
from engine.backends.chat_server import Patience
from engine.backends.openai import OpenAIEngine, check
from engine.config import EngineConfig
from engine.errors import (
    AskerBusy,
    ConfigurationError,
    EngineBusy,
    EngineClosing,
    EngineError,
    NotAvailable,
    PromptTooLong,
    RequestError,
    ServerError,
)
from engine.types import Asker, FinishReason, GenerationRequest, QueuePlace, ReplyChunk, Role, Turn
from tests.engine.generation.requests import request
from tests.fakes.openai_server import End, FakeOpenAIServer, Fault, Raw, Starts, Step, Vanish, last_text

ROOT = Path(__file__).parent.parent.parent.parent
KEY = "sk-very-secret-key"


def config(server: FakeOpenAIServer, **settings: Any) -> EngineConfig:
    return EngineConfig(cache_dir=Path("unused"), **{"url": server.url, **settings})


@asynccontextmanager
async def running(server: FakeOpenAIServer, *, max_tries: int = 3, **settings: Any) -> AsyncIterator[OpenAIEngine]:
    patience = Patience(max_tries=max_tries, first_wait_s=0.01, max_wait_s=1.0)
    engine = OpenAIEngine(config(server, **settings), patience=patience)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


async def chunks_of(engine: OpenAIEngine, asked: GenerationRequest | None = None) -> list[ReplyChunk]:
    async with asyncio.timeout(10):
        return [chunk async for chunk in engine.generate(asked or request())]


async def text_of(engine: OpenAIEngine, asked: GenerationRequest | None = None) -> str:
    return "".join(chunk.text for chunk in await chunks_of(engine, asked))


async def until_error(engine: OpenAIEngine) -> tuple[str, EngineError]:
    """What came, and what ended it."""
    text = ""
    async with asyncio.timeout(10):
        try:
            async for chunk in engine.generate(request(max_new_tokens=50)):
                text += chunk.text
        except EngineError as error:
            return text, error
    raise AssertionError("there was no error")


def asked_by(user: str, room: str = "room", **settings: Any) -> GenerationRequest:
    return replace(request(f"I am {user}.", **settings), asker=Asker(user, room))


# --- finding the server


async def test_the_only_model_is_taken() -> None:
    async with FakeOpenAIServer() as server, running(server) as engine:
        assert await text_of(engine) == "You said Hi!: 1 2 3 4 5 6 7"
        assert server.requests[0]["model"] == "fake"
        assert engine.load().device == server.url.removesuffix("/v1")


async def test_of_several_models_one_has_to_be_named() -> None:
    async with FakeOpenAIServer(models=({"id": "llama3.2:latest"}, {"id": "qwen"})) as server:
        with pytest.raises(ConfigurationError, match=r"set engine\.model.*llama3\.2:latest, qwen"):
            await OpenAIEngine(config(server)).start()
        with pytest.raises(ConfigurationError, match=r'no model "gpt".*llama3\.2:latest, qwen'):
            await OpenAIEngine(config(server, model="gpt")).start()
        # Ollama's short form.
        async with running(server, model="llama3.2"):
            pass


@pytest.mark.parametrize(
    ("entry", "max_tokens"),
    [
        ({}, None),
        ({"max_model_len": 4096}, 4096),
        ({"meta": {"n_ctx": 2048, "n_ctx_train": 131072}}, 2048),
        ({"max_context_length": 32768, "loaded_context_length": 8192}, 8192),
        ({"context_length": "many", "meta": None, "context_window": True}, None),
        ({"max_model_len": -1}, None),
    ],
)
async def test_the_context_is_what_the_server_says(entry: dict[str, Any], max_tokens: int | None) -> None:
    async with FakeOpenAIServer(models=({"id": "fake", **entry},)) as server, running(server) as engine:
        assert engine.context().max_tokens == max_tokens


async def test_of_several_models_the_context_is_that_of_the_one_in_use() -> None:
    models = ({"id": "small", "max_model_len": 512}, {"id": "fake", "max_model_len": 4096})
    async with FakeOpenAIServer(models=models) as server, running(server, model="fake") as engine:
        assert engine.context().max_tokens == 4096


async def test_a_server_that_is_not_there_is_named() -> None:
    async with FakeOpenAIServer() as server:
        pass
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:\d+ cannot be reached .*engine\.url"):
        await OpenAIEngine(config(server)).start()


@pytest.mark.parametrize(
    "url", [None, "", "127.0.0.1:1/v1", "ftp://example.org", "http://", "http://[::1", "http://xn--a/v1"]
)
def test_an_address_that_is_none_is_refused(url: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"http://127\.0\.0\.1:11434/v1"):
        asyncio.run(OpenAIEngine(EngineConfig(cache_dir=Path("unused"), url=url)).start())


async def test_a_wrong_key_is_told_without_the_key() -> None:
    async with FakeOpenAIServer(api_key=KEY) as server:
        with pytest.raises(ServerError, match=r"wants a key .*set engine\.api_key"):
            await OpenAIEngine(config(server)).start()
        with pytest.raises(ServerError, match=r"refuses the key .*check engine\.api_key") as raised:
            await OpenAIEngine(config(server, api_key="sk-wrong-and-secret")).start()
        assert "sk-wrong" not in str(raised.value)
        async with running(server, api_key=KEY) as engine:
            assert await text_of(engine)


async def test_secrets_stay_out_of_logs_and_errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with FakeOpenAIServer() as server:
        url = f"{server.url.replace('//', '//ann:pass-word@')}?key={KEY}"
        async with running(server, url=url, max_tries=1) as engine:
            assert await text_of(engine)
            server.faults = [Fault(500, {"error": {"message": f"no luck with {KEY} and pass-word"}})]
            _, error = await until_error(engine)
            server.faults = [Fault(400, {"error": {"message": f"no luck with {KEY}"}})]
            _, refusal = await until_error(engine)
        await server.stop()
        with pytest.raises(ServerError) as raised:
            await OpenAIEngine(config(server, url=url)).start()
    assert server.paths[0] == f"/v1/chat/completions?key={KEY}"
    assert server.headers[0]["Authorization"].startswith("Basic ")
    told = f"{error} {refusal} {raised.value} {caplog.text} {engine.load()}"
    assert "no luck" in told
    assert KEY not in told
    assert "pass-word" not in told


async def test_check_says_what_answers() -> None:
    async with FakeOpenAIServer() as server:
        assert "the model is fake" in await check(config(server))
        with pytest.raises(ConfigurationError, match="nope"):
            await check(config(server, model="nope"))


async def test_a_key_in_the_place_of_a_user_is_a_secret_too() -> None:
    async with FakeOpenAIServer() as server, running(server, url=server.url.replace("//", f"//{KEY}@")) as engine:
        server.faults = [Fault(400, {"error": {"message": f"what is {KEY}?"}})]
        assert KEY not in str((await until_error(engine))[1])


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"[" * 100_000, "does not speak OpenAI's API"),
        (200, b" " * 2000, "does not speak OpenAI's API"),
        (301, b"", "sends us elsewhere"),
        (200, json.dumps({"data": [{"id": "\x1b[31m\n" + "m" * 900}, {"id": "n"}]}).encode(), "set engine.model"),
    ],
)
async def test_a_list_that_is_none_is_told(
    status: int, body: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_server, "MAX_ANSWER_BYTES", 1000 if body.isspace() else chat_server.MAX_ANSWER_BYTES)
    async with FakeOpenAIServer(list_fault=Fault(status, body)) as server:
        with pytest.raises(EngineError, match=words) as raised:
            await OpenAIEngine(config(server)).start()
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 500


async def test_a_list_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "LIST_TIMEOUT_S", 0.2)

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                await asyncio.wait([asyncio.create_task(reader.read(1 << 16))], timeout=0.02)
        writer.close()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    async with server, asyncio.timeout(5):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        with pytest.raises(ServerError, match="no answer in time"):
            await OpenAIEngine(EngineConfig(cache_dir=Path("unused"), url=url)).start()


# --- a reply


async def test_what_it_cost_is_the_servers_word() -> None:
    async with FakeOpenAIServer() as server, running(server) as engine:
        *_, last = await chunks_of(engine)
        assert last.finish_reason is FinishReason.LENGTH
        assert last.stats is not None
        assert (last.stats.num_prompt_tokens, last.stats.num_cached_tokens, last.stats.num_new_tokens) == (10, 4, 8)
        load = engine.load()
        assert (load.num_replies, load.num_prompt_tokens, load.num_cached_tokens, load.num_new_tokens) == (1, 10, 4, 8)


async def test_a_server_that_tells_no_cost_and_no_end_is_understood() -> None:
    async with FakeOpenAIServer(has_usage=False, ends_with_done=False) as server, running(server) as engine:
        *_, last = await chunks_of(engine)
        assert last.finish_reason is FinishReason.LENGTH
        assert last.stats is not None
        assert last.stats.num_new_tokens == 8


async def test_a_server_that_heeds_no_limit_is_cut() -> None:
    async with FakeOpenAIServer(heeds_limit=False) as server, running(server) as engine:
        *_, last = chunks = await chunks_of(engine, request(max_new_tokens=3))
        assert "".join(chunk.text for chunk in chunks) == "You said Hi!: 1 2"
        assert last.finish_reason is FinishReason.LENGTH
        await until(lambda: server.num_open == 0)
        assert server.num_closed_early == 1


async def test_a_server_that_says_all_at_once_is_cut() -> None:
    async with FakeOpenAIServer(say=lambda _: ["x" * 1_000_000]) as server, running(server) as engine:
        *pieces, last = await chunks_of(engine, request(max_new_tokens=10))
        assert 0 < len("".join(piece.text for piece in pieces)) <= 1000
        assert last.finish_reason is FinishReason.LENGTH


async def test_half_a_character_is_none() -> None:
    half = Raw('data: {"choices": [{"delta": {"content": "a\\ud800b"}}]}\n\n')
    async with FakeOpenAIServer(say=lambda _: [half]) as server, running(server) as engine:
        assert await text_of(engine) == "a?b"


async def test_what_comes_after_the_end_is_no_error() -> None:
    ended = Raw('data: {"choices": [{"delta": {"content": "Done."}, "finish_reason": "stop"}]}\n\n')
    late = Raw('data: {"error": {"message": "too late", "code": 400}}\n\n')
    async with FakeOpenAIServer(say=lambda _: [ended, late]) as server, running(server) as engine:
        assert await text_of(engine) == "Done."


async def test_all_characters_arrive() -> None:
    text = "line\u2028next\u0085 \U0001f642 \r\n\n末"
    async with FakeOpenAIServer(say=lambda _: list(text)) as server, running(server) as engine:
        assert await text_of(engine, request(max_new_tokens=99)) == text


async def test_a_server_that_does_not_stream_is_understood() -> None:
    whole = {"choices": [{"message": {"content": "All at once."}, "finish_reason": "stop"}], "usage": None}
    async with FakeOpenAIServer(faults=[Fault(200, whole)]) as server, running(server) as engine:
        assert await text_of(engine) == "All at once."


async def test_thoughts_are_not_shown() -> None:
    thought = Raw('data: {"choices": [{"delta": {"reasoning_content": "Hm.", "content": null}}]}\n\n: a comment\n\n')
    async with FakeOpenAIServer(say=lambda _: [thought, "Yes."]) as server, running(server) as engine:
        assert await text_of(engine) == "Yes."


async def test_one_connection_serves_one_reply_after_another() -> None:
    async with FakeOpenAIServer() as server, running(server) as engine:
        for _ in range(3):
            await text_of(engine)
        assert server.num_connections == 1


async def test_closing_a_reply_closes_the_stream_at_once() -> None:
    async with FakeOpenAIServer(delay_s=0.01) as server, running(server) as engine:
        async with aclosing(engine.generate(request(max_new_tokens=10**6))) as reply:
            async for _ in reply:
                break
        assert engine.load().num_running == 0
        await until(lambda: server.num_open == 0)
        assert server.num_closed_early == 1


async def test_a_reply_that_takes_too_long_ends_with_what_came() -> None:
    async with FakeOpenAIServer(delay_s=0.02) as server, running(server) as engine:
        *_, last = chunks = await chunks_of(engine, request(max_new_tokens=10**6, max_duration_s=0.3))
        assert "".join(chunk.text for chunk in chunks).startswith("You said Hi!: 1 2")
        assert last.finish_reason is FinishReason.TIME
        async with running(server, max_reply_s=0.1) as hurried:
            *_, last = await chunks_of(hurried, request(max_new_tokens=10**6))
            assert last.finish_reason is FinishReason.TIME


# --- failures


async def test_patience_is_kept_when_asked_for() -> None:
    async with (
        FakeOpenAIServer(faults=[Fault(429, headers={"Retry-After": "0.2"})]) as server,
        running(server) as engine,
    ):
        began = time.monotonic()
        assert await text_of(engine)
        assert time.monotonic() - began >= 0.2
        server.faults = [Fault(429, headers={"Retry-After": formatdate(time.time() + 90, usegmt=True)})]
        _, error = await until_error(engine)
        assert isinstance(error, ServerError)
        assert "asks for patience: try again in 90 s" in str(error).replace("89 s", "90 s")
        assert len(server.requests) == 3


@pytest.mark.parametrize("told", ["nan", "inf"])
async def test_patience_without_an_end_is_not_kept(told: str) -> None:
    async with (
        FakeOpenAIServer(faults=[Fault(429, headers={"Retry-After": told})]) as server,
        running(server) as engine,
    ):
        assert await text_of(engine)


async def test_no_credit_is_not_worth_another_try() -> None:
    fault = Fault(429, {"error": {"message": "You exceeded your quota.", "code": "insufficient_quota"}})
    async with FakeOpenAIServer(faults=[fault]) as server, running(server) as engine:
        assert "no credit" in str((await until_error(engine))[1])
        assert len(server.requests) == 1


async def test_a_failure_before_the_first_word_is_tried_again() -> None:
    async with (
        FakeOpenAIServer(faults=[Fault(503), Fault(502, "<h1>Bad gateway</h1>")]) as server,
        running(server) as engine,
    ):
        assert await text_of(engine)
        assert len(server.requests) == 3
        server.faults = [Fault(500, {"error": "out of memory"})] * 9
        _, error = await until_error(engine)
        assert isinstance(error, ServerError)
        assert "failed with status 500 (out of memory)" in str(error)
        assert len(server.requests) == 6
        assert engine.load().num_failures == 1


async def test_a_connection_that_breaks_before_the_first_word_is_tried_again() -> None:
    steps = iter([[Vanish()], ["Here ", "I am."]])
    async with FakeOpenAIServer(say=lambda _: next(steps)) as server, running(server) as engine:
        assert await text_of(engine) == "Here I am."


async def test_a_server_that_vanishes_in_the_middle_fails_that_reply_alone() -> None:
    goes_on = asyncio.Event()

    def say(body: dict[str, Any]) -> Iterator[Step]:
        if last_text(body) == "Hi!":
            yield from ("Once ", "upon", goes_on, Vanish())
        yield from ("All ", goes_on, "is well.")

    async with FakeOpenAIServer(say=say) as server, running(server) as engine:
        other = asyncio.create_task(text_of(engine, request("The other one")))
        failing = asyncio.create_task(until_error(engine))
        await until(lambda: server.num_open == 2)
        goes_on.set()
        text, error = await failing
        assert text == "Once upon"
        assert isinstance(error, ServerError)
        assert "vanished" in str(error)
        assert await other == "All is well."
        assert len(server.requests) == 2


async def test_a_stream_that_only_ends_has_vanished() -> None:
    async with FakeOpenAIServer(say=lambda _: ["Once ", End()]) as server, running(server) as engine:
        text, error = await until_error(engine)
        assert text == "Once "
        assert "vanished" in str(error)


@pytest.mark.parametrize(
    "sent",
    [
        "data: {nonsense\n\n",
        "data: [1]\n\n",
        'data: {"choices": [{"delta": 1}]}\n\n',
        'data: {"usage": {"prompt_tokens": Infinity}}\n\n',
        f"data: {'[' * 100_000}\n\n",
    ],
)
async def test_what_is_no_answer_is_told(sent: str) -> None:
    async with FakeOpenAIServer(say=lambda _: ["Once ", Raw(sent)]) as server, running(server) as engine:
        text, error = await until_error(engine)
        assert text == "Once "
        assert isinstance(error, ServerError)
        assert "engine.url" in str(error)


@pytest.mark.parametrize("line", ["data: word\n", "word "])
async def test_an_event_without_an_end_is_not_waited_for(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "MAX_ANSWER_BYTES", 10_000)
    async with FakeOpenAIServer(say=lambda _: ["Once ", Raw(line * 5000), 30.0]) as server, running(server) as engine:
        text, error = await until_error(engine)
        assert text == "Once "
        assert "no answer of OpenAI's API" in str(error)
        await until(lambda: server.num_open == 0)


async def test_a_page_of_nothing_but_brackets_is_read_at_once() -> None:
    async with FakeOpenAIServer(faults=[Fault(400, b"<" * 65_536)]) as server, running(server) as engine:
        began = time.monotonic()
        assert isinstance((await until_error(engine))[1], RequestError)
        assert time.monotonic() - began < 1


async def test_a_page_in_place_of_an_answer_is_told() -> None:
    async with (
        FakeOpenAIServer(faults=[Fault(200, "<html>Welcome to the wifi</html>")]) as server,
        running(server) as engine,
    ):
        _, error = await until_error(engine)
    assert "no answer of OpenAI's API" in str(error)


@pytest.mark.parametrize("number", [0, 1])
async def test_an_error_inside_the_stream_is_told(number: int) -> None:
    told = Raw('data: {"error": {"message": "CUDA out of memory", "code": 500}}\n\n')
    async with FakeOpenAIServer(say=lambda _: [*["Once "] * number, told]) as server, running(server) as engine:
        text, error = await until_error(engine)
        assert text == "Once " * number
        assert isinstance(error, ServerError)
        assert "CUDA out of memory" in str(error)
        # Before the first word it may pass.
        assert len(server.requests) == (1 if number else 3)


@pytest.mark.parametrize(("reason", "words"), [("content_filter", "content filter"), ("abort", "gave this reply up")])
async def test_a_reply_that_the_server_gives_up_is_an_error(reason: str, words: str) -> None:
    ended = Raw(f"data: {json.dumps({'choices': [{'delta': {}, 'finish_reason': reason}]})}\n\n")
    async with FakeOpenAIServer(say=lambda _: ["Once ", ended]) as server, running(server) as engine:
        text, error = await until_error(engine)
        assert text == "Once "
        assert words in str(error)


@pytest.mark.parametrize("said", [[], ["Once "]])
async def test_a_server_that_falls_silent_is_given_up(said: list[str]) -> None:
    async with FakeOpenAIServer(say=lambda _: [*said, 30.0]) as server, running(server, max_step_s=0.2) as engine:
        text, error = await until_error(engine)
        assert text == "".join(said)
        assert isinstance(error, ServerError)
        assert "said nothing for 0.2 s" in str(error)
        await until(lambda: server.num_open == 0)


async def test_a_model_that_is_gone_is_told_with_those_that_are_there() -> None:
    async with FakeOpenAIServer() as server, running(server) as engine:
        server.models = ({"id": "other"},)
        _, error = await until_error(engine)
    assert 'no model "fake"' in str(error)
    assert "other" in str(error)


async def test_a_refusal_is_told_in_the_servers_words() -> None:
    async with (
        FakeOpenAIServer(faults=[Fault(400, {"error": {"message": "The moon is full."}})]) as server,
        running(server) as engine,
    ):
        _, error = await until_error(engine)
        assert isinstance(error, RequestError)
        assert "The moon is full." in str(error)
        assert await text_of(engine)


async def test_fields_that_the_server_does_not_know_are_found_out_once() -> None:
    known = {"temperature", "top_p", "max_tokens", "stream_options", "stop", "seed"}
    async with FakeOpenAIServer(known_fields=known) as server, running(server) as engine:
        asked = request(top_k=5, min_p=0.1, repetition_penalty=1.1)
        assert await text_of(engine, asked)
        num_asked = len(server.requests)
        assert num_asked == 5
        assert await text_of(engine, asked)
        assert len(server.requests) == num_asked + 1


async def test_old_turns_are_dropped_where_the_context_is_short() -> None:
    texts = [f"{number} " + "word " * 20 for number in range(9)]
    async with FakeOpenAIServer(max_context_bytes=500) as server, running(server) as engine:
        *_, last = await chunks_of(engine, request(*texts))
        assert last.stats is not None
        assert last.stats.num_dropped_turns == 6
        sent = server.requests[-1]["messages"]
        assert [sent[0]["role"], sent[-1]["content"]] == ["system", texts[-1]]
        with pytest.raises(PromptTooLong):
            await text_of(engine, request("word " * 200))


async def test_pictures_become_notes() -> None:
    from tests.engine.backends.test_chat_request import picture

    asked = replace(request(), turns=(Turn(Role.USER, "Look!", (picture(),)),))
    async with FakeOpenAIServer() as server, running(server) as engine:
        await text_of(engine, asked)
    assert server.requests[0]["messages"][-1]["content"].startswith("[A picture came with this message.")


# --- many at once


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_no_more_are_asked_at_once_than_configured() -> None:
    async with FakeOpenAIServer(delay_s=0.002) as server, running(server, max_running=2) as engine:
        replies = await asyncio.gather(*(text_of(engine, request(str(number))) for number in range(7)))
        assert server.max_open == 2
        assert replies == [f"You said {number}: 1 2 3 4 5 6 7" for number in range(7)]


async def test_whoever_waits_is_told_where() -> None:
    goes_on = asyncio.Event()
    async with (
        FakeOpenAIServer(say=lambda body: [goes_on, last_text(body)]) as server,
        running(server, max_running=1) as engine,
    ):
        first = asyncio.create_task(text_of(engine, asked_by("ann")))
        await until(lambda: server.num_open == 1)
        waiting = engine.generate(asked_by("bob"))
        async with asyncio.timeout(10):
            told = await anext(waiting)
        assert told == ReplyChunk("", queue=QueuePlace(1, None))
        assert engine.load().num_waiting == 1
        goes_on.set()
        assert await first == "I am ann."
        *_, last = [chunk async for chunk in waiting]
        assert last.stats is not None
        assert last.stats.queue_s > 0


async def test_one_person_does_not_hold_up_another() -> None:
    order: list[str] = []

    def say(body: dict[str, Any]) -> list[Step]:
        order.append(last_text(body))
        return [0.02, "Yes."]

    async with FakeOpenAIServer(say=say) as server, running(server, max_running=1, max_waiting_per_user=9) as engine:
        flood = [asyncio.create_task(text_of(engine, asked_by("ann"))) for _ in range(6)]
        await until(lambda: server.num_open == 1)
        await text_of(engine, asked_by("bob", "elsewhere"))
        assert order.index("I am bob.") <= 2
        await asyncio.gather(*flood)


async def test_one_person_has_a_bounded_number_of_replies_open() -> None:
    async with FakeOpenAIServer(delay_s=0.05) as server, running(server, max_waiting_per_user=2) as engine:
        tasks = [asyncio.create_task(text_of(engine, asked_by("ann", max_new_tokens=4))) for _ in range(2)]
        await until(lambda: server.num_open == 2)
        with pytest.raises(AskerBusy):
            await text_of(engine, asked_by("ann"))
        assert await text_of(engine, asked_by("bob", max_new_tokens=1))
        await asyncio.gather(*tasks)
        assert await text_of(engine, asked_by("ann", max_new_tokens=1))


async def test_nobody_waits_for_ever() -> None:
    async with (
        FakeOpenAIServer(say=lambda _: ["Well… ", 30.0]) as server,
        running(server, max_running=1, max_wait_s=0.1) as engine,
    ):
        first = asyncio.create_task(text_of(engine))
        await until(lambda: server.num_open == 1)
        with pytest.raises(EngineBusy, match="try again"):
            await text_of(engine)
        assert engine.load().num_waiting == 0
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_whoever_stops_waiting_leaves_no_trace() -> None:
    goes_on = asyncio.Event()
    async with (
        FakeOpenAIServer(say=lambda body: [goes_on, last_text(body)]) as server,
        running(server, max_running=1) as engine,
    ):
        first = asyncio.create_task(text_of(engine))
        await until(lambda: server.num_open == 1)
        waiting = [asyncio.create_task(text_of(engine, request(str(number)))) for number in range(3)]
        await until(lambda: engine.load().num_waiting == 3)
        waiting[0].cancel()
        waiting[1].cancel()
        await until(lambda: engine.load().num_waiting == 1)
        goes_on.set()
        assert [await first, await waiting[2]] == ["Hi!", "2"]
        assert (engine.load().num_running, len(server.requests)) == (0, 2)


async def test_closing_waits_only_so_long() -> None:
    async with FakeOpenAIServer(say=lambda _: ["Well… ", 30.0]) as server, running(server) as engine:
        reply = asyncio.create_task(chunks_of(engine))
        await until(lambda: server.num_open == 1)
        closing = asyncio.create_task(engine.aclose(drain_s=0.2))
        await asyncio.sleep(0.05)
        with pytest.raises(EngineClosing):
            await text_of(engine)
        assert not reply.done()
        await closing
        *_, last = await reply
        assert last.finish_reason is FinishReason.CANCELLED
        await until(lambda: server.num_open == 0)


async def test_before_the_start_nothing_is_answered() -> None:
    with pytest.raises(EngineError, match="not running"):
        await text_of(OpenAIEngine(EngineConfig(cache_dir=Path("unused"), url="http://127.0.0.1:1/v1")))


async def test_what_needs_eyes_is_refused_in_words_for_people() -> None:
    async with FakeOpenAIServer() as server, running(server) as engine:
        for asked in (
            engine.space(),
            engine.embed_text("a cat"),
            engine.embed_images([]),
            engine.match("a cat", []),
            engine.translate("cat", language="French"),
            engine.explain(request(), "Ahoy!"),
        ):
            with pytest.raises(NotAvailable, match=r"docs/remote\.md"):
                await asked


def test_importing_it_brings_no_torch() -> None:
    code = "import sys, engine.backends.openai, engine.backends.vllm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


# --- replies that have begun


@pytest.mark.parametrize("starts", [Starts.GOES_ON, Starts.REPEATS, Starts.WANTS_MARK])
async def test_a_reply_goes_on_whatever_the_server_makes_of_it(starts: Starts) -> None:
    async with FakeOpenAIServer(starts=starts) as server, running(server) as engine:
        for _ in range(2):
            *_, last = chunks = await chunks_of(engine, replace(request(), reply_start="You said Hi!: 1 2 "))
            text = "".join(chunk.text for chunk in chunks)
            assert text.startswith("3 4 5")
            assert last.finish_reason is FinishReason.LENGTH
        # That the server wants it marked is known from the first refusal on.
        assert len(server.requests) == 2 + (starts is Starts.WANTS_MARK)
        assert await text_of(engine) == "You said Hi!: 1 2 3 4 5 6 7"


async def test_a_server_that_cannot_go_on_is_told_to_whoever_asked() -> None:
    async with FakeOpenAIServer(starts=Starts.REFUSES) as server, running(server) as engine:
        for _ in range(2):
            with pytest.raises(RequestError, match="cannot go on with a reply that has begun: ask for a new one"):
                await chunks_of(engine, replace(request(), reply_start="You said"))
        assert await text_of(engine) == "You said Hi!: 1 2 3 4 5 6 7"


async def test_a_server_that_has_nothing_to_add_adds_nothing() -> None:
    async with FakeOpenAIServer(say=lambda body: ["That is", " all."]) as server, running(server) as engine:
        *_, last = chunks = await chunks_of(engine, replace(request(), reply_start="That is all."))
        assert "".join(chunk.text for chunk in chunks) == ""
        assert last.finish_reason is FinishReason.STOP


async def test_a_stop_string_may_have_begun_before() -> None:
    asked = replace(request(stop=("Hi!: 1 2",)), reply_start="You said Hi!: 1")
    async with FakeOpenAIServer() as server, running(server) as engine:
        *_, last = chunks = await chunks_of(engine, asked)
        assert "".join(chunk.text for chunk in chunks) == ""
        assert last.finish_reason is FinishReason.STOP
