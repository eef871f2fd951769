from pathlib import Path

import httpx
import pytest

from bot import doctor
from bot.doctor import (
    Level,
    check_database,
    check_discord,
    check_engine,
    check_home,
    check_personas,
    check_server,
    check_telegram,
)
from bot.settings import Settings, read_settings
from tests.fakes.openai_server import FakeOpenAIServer

TOKEN = "123456789:AAE-abcdefghijklmnopqrstuvwxyz01234"


def settings(home: Path, **environment: str) -> Settings:
    return read_settings(environment={"COMMEDIA_HOME": str(home), **environment})


def client(*answers: httpx.Response | Exception) -> httpx.AsyncClient:
    """A client whose requests get `answers` one after the other."""
    waiting = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        match waiting.pop(0):
            case Exception() as error:
                raise error
            case response:
                return response

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("answer", "level", "told"),
    [
        (httpx.Response(200, json={"name": "Luna", "flags": 1 << 19}), Level.OK, "Luna"),
        (httpx.Response(200, json={"name": "Luna", "flags": 0}), Level.PROBLEM, "message content intent"),
        (httpx.Response(401, json={"message": "401: Unauthorized"}), Level.PROBLEM, "refused"),
        (httpx.Response(503, text="<html>"), Level.PROBLEM, "503"),
        (httpx.ConnectError(f"no route with {TOKEN}"), Level.PROBLEM, "cannot be reached"),
    ],
)
async def test_discord_is_asked_for_token_and_intent(
    tmp_path: Path, answer: httpx.Response | Exception, level: Level, told: str
) -> None:
    finding = await check_discord(settings(tmp_path, DISCORD_TOKEN=TOKEN), client(answer))
    assert finding.level is level
    assert told in finding.text
    assert TOKEN not in finding.text + finding.remedy
    assert bool(finding.remedy) == (level is not Level.OK)


@pytest.mark.parametrize(
    ("me", "webhook", "told"),
    [
        ({"username": "luna_bot", "can_read_all_group_messages": True}, "", ["@luna_bot"]),
        ({"username": "luna_bot"}, "", ["@luna_bot", "privacy mode"]),
        ({"username": "luna_bot", "can_read_all_group_messages": True}, "https://x", ["@luna_bot", "webhook"]),
    ],
)
async def test_telegram_is_asked_for_token_privacy_and_webhook(
    tmp_path: Path, me: dict[str, object], webhook: str, told: list[str]
) -> None:
    answers = client(
        httpx.Response(200, json={"ok": True, "result": me}),
        httpx.Response(200, json={"ok": True, "result": {"url": webhook}}),
    )
    findings = await check_telegram(settings(tmp_path, TELEGRAM_TOKEN=TOKEN), answers)
    assert len(findings) == len(told)
    assert all(word in finding.text for finding, word in zip(findings, told, strict=True))


@pytest.mark.parametrize(
    "answer", [httpx.Response(401), httpx.Response(404, json={"ok": False}), httpx.ConnectTimeout(TOKEN)]
)
async def test_a_wrong_telegram_token_is_said_without_showing_it(
    tmp_path: Path, answer: httpx.Response | Exception
) -> None:
    (finding,) = await check_telegram(settings(tmp_path, TELEGRAM_TOKEN=TOKEN), client(answer))
    assert finding.level is Level.PROBLEM
    assert TOKEN not in finding.text + finding.remedy


async def test_platforms_without_tokens_are_hints(tmp_path: Path) -> None:
    assert (await check_discord(settings(tmp_path), client())).level is Level.HINT
    assert [finding.level for finding in await check_telegram(settings(tmp_path), client())] == [Level.HINT]


def test_an_unusable_home_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert check_home(settings(tmp_path / "file" / "home")).level is Level.PROBLEM
    assert check_home(settings(tmp_path / "new")).level in (Level.OK, Level.HINT)


async def test_the_database_is_only_looked_at(tmp_path: Path) -> None:
    assert (await check_database(settings(tmp_path))).level is Level.OK
    assert not list(tmp_path.iterdir())
    (tmp_path / "commedia.db").write_bytes(b"this is no database at all" * 100)
    assert (await check_database(settings(tmp_path))).level is Level.PROBLEM


def test_persona_problems_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "personas"
    folder.mkdir()
    chosen = {"COMMEDIA_PERSONAS": str(folder), "COMMEDIA_CHAT__DEFAULT_PERSONA": "nobody"}
    assert [f.level for f in check_personas(settings(tmp_path, **chosen))] == [Level.PROBLEM]
    (folder / "ann.yaml").write_text("name: Ann\nsummary: A test.\ngreetings: [Hello]\n")
    (folder / "bad.yaml").write_text("name: [")
    findings = check_personas(settings(tmp_path, **chosen))
    assert [finding.level for finding in findings] == [Level.PROBLEM, Level.PROBLEM, Level.OK]
    assert "bad.yaml" in findings[0].text
    assert "nobody" in findings[1].text
    assert "Ann" in findings[2].text


async def test_what_cannot_even_be_asked_is_a_problem(tmp_path: Path) -> None:
    async with httpx.AsyncClient() as real:
        discord = await check_discord(settings(tmp_path, DISCORD_TOKEN="tökén"), real)
        (telegram,) = await check_telegram(settings(tmp_path, TELEGRAM_TOKEN="a\x01b"), real)
    for finding in (discord, telegram):
        assert finding.level is Level.PROBLEM
        assert "cannot be reached" in finding.text


@pytest.mark.parametrize(
    ("decoder", "level", "told"),
    [
        ("some-body/some-model", Level.HINT, "is not here yet"),
        ("/no/such/folder", Level.PROBLEM, "no folder"),
        (".", Level.OK, "is on this machine"),
    ],
)
def test_another_decoder_is_looked_for(tmp_path: Path, decoder: str, level: Level, told: str) -> None:
    findings = check_engine(settings(tmp_path, COMMEDIA_ENGINE__DECODER=decoder))
    (finding,) = (finding for finding in findings if finding.subject == "decoder")
    assert finding.level is level
    assert told in finding.text
    assert not [finding for finding in findings if finding.subject == "weights"]


@pytest.mark.parametrize("backend", ["openai", "vllm"])
async def test_a_server_is_asked_which_model_it_has(tmp_path: Path, backend: str) -> None:
    async with FakeOpenAIServer() as server:
        chosen = {"COMMEDIA_ENGINE__BACKEND": backend, "COMMEDIA_ENGINE__URL": server.url}
        finding = await check_server(settings(tmp_path, **chosen))
    assert finding.level is Level.OK
    assert finding.text.startswith(f"{backend}: ")


async def test_a_server_that_is_not_there_is_a_problem_and_its_key_stays_secret(tmp_path: Path) -> None:
    async with FakeOpenAIServer() as server:
        url = server.url
    chosen = {
        "COMMEDIA_ENGINE__BACKEND": "openai",
        "COMMEDIA_ENGINE__URL": url,
        "COMMEDIA_ENGINE__API_KEY": "s3cret-key",
    }
    finding = await check_server(settings(tmp_path, **chosen))
    assert finding.level is Level.PROBLEM
    assert "s3cret-key" not in f"{finding.text}{finding.remedy}"


def test_ray_has_to_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    (finding,) = check_engine(settings(tmp_path, COMMEDIA_ENGINE__BACKEND="ray"))
    assert finding.level is Level.PROBLEM
    assert "commedia[ray]" in finding.remedy
