"""What the doctor makes of what platforms say, and that no secret is in it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot.findings import Finding, Level
from bot.platform_checks import check_discord, check_telegram
from bot.settings import Settings, read_settings

TOKEN = "123456789:AAabcdefghijklmnopqrstuvwxyz0123456"
SECRET = "what-telegram-must-say"
HOOK = "https://bot.example/telegram"
LUNA = {"id": "77", "name": "Luna", "flags": 1 << 19}
EVERYTHING = str(1 << 3)

Answer = httpx.Response | Exception


def settings(home: Path, **environment: str) -> Settings:
    return read_settings(environment={"COMMEDIA_HOME": str(home), **environment})


def client(answers: Mapping[str, Answer]) -> httpx.AsyncClient:
    """A client that gets these answers, by the end of the path that it asks for; 404 for any other."""

    def answer(request: httpx.Request) -> httpx.Response:
        found = answers.get(request.url.path.rpartition("/")[2], httpx.Response(404))
        if isinstance(found, Exception):
            raise found
        return found

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def ok(body: object) -> httpx.Response:
    return httpx.Response(200, json=body)


def result(body: object) -> httpx.Response:
    return ok({"ok": True, "result": body})


async def ask_discord(home: Path, answers: Mapping[str, Answer], **environment: str) -> list[Finding]:
    findings = await check_discord(settings(home, DISCORD_TOKEN=TOKEN, **environment), client(answers))
    assert_honest(findings)
    return findings


async def ask_telegram(home: Path, answers: Mapping[str, Answer], **environment: str) -> list[Finding]:
    findings = await check_telegram(settings(home, TELEGRAM_TOKEN=TOKEN, **environment), client(answers))
    assert_honest(findings)
    return findings


def assert_honest(findings: list[Finding]) -> None:
    """No secrets, and a remedy wherever something is wrong."""
    for finding in findings:
        for secret in (TOKEN, SECRET):
            assert secret not in finding.text + finding.remedy
        assert bool(finding.remedy) == (finding.level is not Level.OK)


async def test_platforms_without_tokens_are_hints(tmp_path: Path) -> None:
    for check in (check_discord, check_telegram):
        assert [finding.level for finding in await check(settings(tmp_path), client({}))] == [Level.HINT]


async def test_what_cannot_even_be_asked_is_a_problem(tmp_path: Path) -> None:
    async with httpx.AsyncClient() as real:
        findings = await check_discord(settings(tmp_path, DISCORD_TOKEN="tökén"), real)
        findings += await check_telegram(settings(tmp_path, TELEGRAM_TOKEN="a\x01b"), real)
    assert [finding.level for finding in findings] == [Level.PROBLEM] * 2
    assert all("cannot be reached" in finding.text for finding in findings)


# Discord


@pytest.mark.parametrize(
    ("answer", "level", "told"),
    [
        (ok(LUNA), Level.OK, "Luna"),
        (ok(LUNA | {"flags": 0}), Level.PROBLEM, "message content intent"),
        (ok(LUNA | {"flags": "none"}), Level.PROBLEM, "message content intent"),
        (httpx.Response(401, json={"message": "401: Unauthorized"}), Level.PROBLEM, "refused"),
        (httpx.Response(503, text="<html>"), Level.PROBLEM, "503"),
        (httpx.Response(200, text="<html>"), Level.PROBLEM, "200"),
        (httpx.ConnectError(f"no route with {TOKEN}"), Level.PROBLEM, "cannot be reached"),
    ],
)
async def test_discord_is_asked_for_token_and_intent(tmp_path: Path, answer: Answer, level: Level, told: str) -> None:
    (finding,) = await ask_discord(tmp_path, {"@me": answer})
    assert finding.level is level
    assert told in finding.text


@pytest.mark.parametrize("flags", [0, 1 << 18])
async def test_who_wants_no_message_content_needs_no_intent(tmp_path: Path, flags: int) -> None:
    answers = {"@me": ok(LUNA | {"flags": flags})}
    (finding,) = await ask_discord(tmp_path, answers, COMMEDIA_DISCORD__MESSAGE_CONTENT="false")
    assert finding.level is Level.OK
    assert "without message content" in finding.text


async def test_missing_permissions_are_named_with_an_invitation(tmp_path: Path) -> None:
    all_but_webhooks = 1 << 10 | 1 << 11 | 1 << 16 | 1 << 38 | 1 << 6 | 1 << 15
    guilds = [
        {"id": "1", "name": "Mine", "permissions": EVERYTHING},
        *(
            {"id": str(number), "name": f"Guild{number}\x1b", "permissions": str(all_but_webhooks)}
            for number in range(4)
        ),
        {"id": "9", "name": "Last", "permissions": str(all_but_webhooks & ~(1 << 6))},
    ]
    _, webhooks, reactions = await ask_discord(tmp_path, {"@me": ok(LUNA), "guilds": ok(guilds)})
    assert webhooks.text == "Manage Webhooks is missing in Guild0, Guild1, Guild2 and 2 more."
    assert reactions.text == "Add Reactions is missing in Last."
    assert "client_id=77&scope=bot+applications.commands&permissions=" in reactions.remedy
    invited_with = int(reactions.remedy.rpartition("=")[2])
    assert invited_with == all_but_webhooks | 1 << 29


async def test_a_bot_without_servers_is_invited(tmp_path: Path) -> None:
    _, finding = await ask_discord(tmp_path, {"@me": ok(LUNA), "guilds": ok([])})
    assert "in no server" in finding.text
    assert "https://discord.com/oauth2/authorize" in finding.remedy


@pytest.mark.parametrize("body", [{}, [1, None, {}], "text", None, [{"name": "x", "permissions": {}}]])
async def test_strange_answers_to_side_questions_are_no_obstacle(tmp_path: Path, body: Any) -> None:
    findings = await ask_discord(tmp_path, {"@me": ok(LUNA), "guilds": ok(body), "bot": ok(body)})
    assert findings[0].level is Level.OK


async def test_the_size_of_the_bot_is_told(tmp_path: Path) -> None:
    gateway = {"shards": 3, "session_start_limit": {"remaining": 900, "reset_after": 3_600_000}}
    _, size = await ask_discord(tmp_path, {"@me": ok(LUNA), "bot": ok(gateway)})
    assert (size.level, "shards: 3" in size.text) == (Level.OK, True)
    gateway["session_start_limit"] = {"remaining": 4, "reset_after": 2 * 3_600_000}
    _, _, starts = await ask_discord(tmp_path, {"@me": ok(LUNA), "bot": ok(gateway)})
    assert starts.level is Level.HINT
    assert "4 times more within 2 hours" in starts.text


# Telegram

BOT = {"username": "luna_bot", "can_read_all_group_messages": True}


@pytest.mark.parametrize(
    ("me", "webhook", "told"),
    [
        (BOT, "", ["@luna_bot"]),
        ({"username": "luna_bot"}, "", ["@luna_bot", "privacy mode"]),
        (BOT, "https://x", ["@luna_bot", "webhook"]),
    ],
)
async def test_telegram_is_asked_for_token_privacy_and_webhook(
    tmp_path: Path, me: dict[str, object], webhook: str, told: list[str]
) -> None:
    findings = await ask_telegram(tmp_path, {"getMe": result(me), "getWebhookInfo": result({"url": webhook})})
    assert len(findings) == len(told)
    assert all(word in finding.text for finding, word in zip(findings, told, strict=True))


@pytest.mark.parametrize(
    "answer", [httpx.Response(401), httpx.Response(404, json={"ok": False}), httpx.ConnectTimeout(TOKEN)]
)
async def test_a_wrong_telegram_token_is_said_without_showing_it(tmp_path: Path, answer: Answer) -> None:
    (finding,) = await ask_telegram(tmp_path, {"getMe": answer})
    assert finding.level is Level.PROBLEM


async def about_webhook(home: Path, info: object, *, url: str = HOOK) -> list[Finding]:
    answers = {"getMe": result(BOT), "getWebhookInfo": result(info)}
    hook = {"COMMEDIA_TELEGRAM__WEBHOOK_URL": url, "COMMEDIA_TELEGRAM__WEBHOOK_SECRET": SECRET}
    return (await ask_telegram(home, answers, **hook))[1:]


async def test_a_webhook_that_works(tmp_path: Path) -> None:
    long_ago = {"last_error_date": int(time.time()) - 90_000, "last_error_message": "Connection refused"}
    for info in ({"url": HOOK}, {"url": f"{HOOK}/", "pending_update_count": 3} | long_ago):
        (finding,) = await about_webhook(tmp_path, info)
        assert finding.level is Level.OK


async def test_a_webhook_that_is_not_registered_or_another_one(tmp_path: Path) -> None:
    for info in ({"url": ""}, {}, None, "text"):
        (finding,) = await about_webhook(tmp_path, info)
        assert (finding.level, "not registered" in finding.text) == (Level.HINT, True)
    for other in ("https://other.example/telegram", f"{HOOK}.other.example", f"{HOOK}/of-another-program"):
        (finding,) = await about_webhook(tmp_path, {"url": other})
        assert (finding.level, "another one" in finding.text) == (Level.PROBLEM, True)


async def test_a_webhook_that_fails_says_why(tmp_path: Path) -> None:
    info = {
        "url": HOOK,
        "pending_update_count": 5000,
        "last_error_date": int(time.time()) - 60,
        "last_error_message": f"Wrong response: 403 Forbidden {SECRET}\x1b",
    }
    failing, waiting = await about_webhook(tmp_path, info)
    assert failing.level is Level.PROBLEM
    assert failing.text.endswith("Wrong response: 403 Forbidden [redacted]")
    assert "127.0.0.1:8443" in failing.remedy
    assert waiting.level is Level.HINT
    assert "5000 messages" in waiting.text
    (finding,) = await about_webhook(tmp_path, info | {"last_error_date": 10**30, "pending_update_count": "x"})
    assert finding.level is Level.PROBLEM


@pytest.mark.parametrize("url", ["http://bot.example/x", "https://bot.example:9000/x", "https://bot.example:port/x"])
async def test_an_address_that_telegram_cannot_use(tmp_path: Path, url: str) -> None:
    finding, *_ = await about_webhook(tmp_path, {"url": ""}, url=url)
    assert (finding.level, "443, 80, 88, 8443" in finding.remedy) == (Level.PROBLEM, True)
