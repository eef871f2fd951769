"""What is missing or wrong, and how to mend it: the checks behind `commedia doctor`.

Every check looks at one thing and gives findings; nothing is changed, but that the home folder is made. Platforms are
asked over plain HTTP, so that a broken client library can be told from a wrong token. Tokens never show up in findings.
"""

import asyncio
import importlib.util
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx

from bot.app import engine_config, required_models
from bot.errors import StoreError
from bot.personas.library import PersonaLibrary
from bot.settings import Settings
from bot.store.database import Database, head_revision

_DISCORD_API = "https://discord.com/api/v10"
_TELEGRAM_API = "https://api.telegram.org"
_MESSAGE_CONTENT_FLAGS = (1 << 18) | (1 << 19)
_FREE_BYTES_WANTED = 2_000_000_000
_TIMEOUT_S = 15


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    HINT = "hint"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw. `remedy` says what to do; it is empty where all is well."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Run every check and give the findings as they come."""
    yield check_home(settings)
    yield await check_database(settings)
    for finding in check_personas(settings):
        yield finding
    if settings.engine.backend in ("openai", "vllm"):
        yield await check_server(settings)
    else:
        for finding in await asyncio.to_thread(check_engine, settings):
            yield finding
    async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
        yield await check_discord(settings, client)
        for finding in await check_telegram(settings, client):
            yield finding


def check_home(settings: Settings) -> Finding:
    """Whether the home folder can be written and has room."""
    folder = settings.home.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = "Make the folder writable, or name another one in COMMEDIA_HOME."
        return Finding(Level.PROBLEM, "home folder", f"{folder} cannot be written: {error.strerror}.", remedy)
    free = shutil.disk_usage(folder).free
    text = f"{folder}, {free / 1e9:.1f} GB free."
    if free < _FREE_BYTES_WANTED:
        return Finding(Level.HINT, "home folder", text, "Free some space: weights and pictures are kept there.")
    return Finding(Level.OK, "home folder", text)


async def check_database(settings: Settings) -> Finding:
    """Whether the database can be opened, and is of this version."""
    database = Database(settings.database_path)
    try:
        revision = await database.revision()
    except StoreError as error:
        return Finding(Level.PROBLEM, "database", str(error), "See above; a copy of the file is worth keeping.")
    finally:
        await database.aclose()
    if revision is None:
        return Finding(Level.OK, "database", "none yet; it is made at the first start.")
    if revision != head_revision():
        return Finding(Level.HINT, "database", f"is at revision {revision}.", "`commedia run` upgrades it.")
    return Finding(Level.OK, "database", f"{settings.database_path}, up to date.")


def check_personas(settings: Settings) -> list[Finding]:
    """Whether every persona file can be used."""
    library = PersonaLibrary(settings.persona_folders())
    library.load()
    findings = [Finding(Level.PROBLEM, "persona", str(problem), "Mend the file.") for problem in library.problems]
    personas = library.all()
    if not personas:
        remedy = "`commedia persona new NAME` writes one to start from."
        return [*findings, Finding(Level.PROBLEM, "personas", "there is none.", remedy)]
    wanted = settings.chat.default_persona
    if wanted is not None and wanted not in {persona.id for persona in personas}:
        remedy = f"Set chat.default_persona to one of: {', '.join(persona.id for persona in personas)}."
        findings.append(Finding(Level.PROBLEM, "personas", f"the default persona {wanted} is not there.", remedy))
    return [*findings, Finding(Level.OK, "personas", ", ".join(persona.name for persona in personas) + ".")]


async def check_server(settings: Settings) -> Finding:
    """Whether an engine elsewhere answers, and with which model."""
    from engine.backends import openai, vllm
    from engine.errors import EngineError

    backend = settings.engine.backend
    check = vllm.check if backend == "vllm" else openai.check
    try:
        found = await check(engine_config(settings))
    except EngineError as error:
        remedy = "Check engine.url, engine.api_key and engine.model, and whether the server runs; docs/remote.md."
        return Finding(Level.PROBLEM, "engine", f"{backend}: {error}.", remedy)
    return Finding(Level.OK, "engine", f"{backend}: {found}.")


def check_engine(settings: Settings) -> list[Finding]:
    """Whether weights are in the cache, and which device would be used."""
    if settings.engine.backend == "echo":
        return [Finding(Level.HINT, "engine", "echo: it only repeats what is said.", 'Set engine.backend = "local".')]
    if settings.engine.backend == "ray" and importlib.util.find_spec("ray") is None:
        return [Finding(Level.PROBLEM, "engine", "ray: Ray is not installed.", 'Run pip install "commedia[ray]".')]
    from engine.device import describe_device
    from engine.errors import EngineError
    from engine.models.store import ModelStore

    wanted = required_models(settings)
    findings = [
        Finding(Level.OK, "weights", f"{status.model.name} is in the cache.")
        if status.is_ready
        else Finding(
            Level.HINT, "weights", f"{status.model.name} is not in the cache.", "`commedia models fetch` brings it."
        )
        for status in ModelStore(settings.cache_dir).list()
        if status.model.name in wanted
    ]
    if settings.engine.decoder not in wanted:
        findings.append(_check_decoder(settings))
    try:
        findings.append(Finding(Level.OK, "device", describe_device(settings.engine.device, settings.engine.dtype)))
    except EngineError as error:
        findings.append(Finding(Level.PROBLEM, "device", str(error), 'Set engine.device = "auto".'))
    return findings


def _check_decoder(settings: Settings) -> Finding:
    """Whether a decoder that Commedia does not bring by itself is there."""
    from engine.decoder.checkpoint import is_at_hand
    from engine.errors import EngineError

    name = settings.engine.decoder
    try:
        is_here = is_at_hand(name, settings.cache_dir)
    except EngineError as error:
        return Finding(Level.PROBLEM, "decoder", f"{error}.", "docs/models.md says what engine.decoder may name.")
    if is_here:
        return Finding(Level.OK, "decoder", f"{name} is on this machine.")
    return Finding(Level.HINT, "decoder", f"{name} is not here yet.", "The next start downloads it from Hugging Face.")


async def check_discord(settings: Settings, client: httpx.AsyncClient) -> Finding:
    """Whether the token is right and the message-content intent is on."""
    if settings.discord.token is None:
        remedy = "Put DISCORD_TOKEN=… into .env to serve Discord; docs/discord.md says where to get one."
        return Finding(Level.HINT, "Discord", "no token: off.", remedy)
    header = {"Authorization": f"Bot {settings.discord.token.get_secret_value()}"}
    url = (settings.discord.api_url or _DISCORD_API).rstrip("/")
    answer = await _ask(client, f"{url}/applications/@me", headers=header)
    if isinstance(answer, str):
        return Finding(Level.PROBLEM, "Discord", f"cannot be reached: {answer}.", "Check the network and the proxy.")
    status, body = answer
    if status == httpx.codes.UNAUTHORIZED:
        remedy = "Make a new token: discord.com/developers → your application → Bot → Reset Token."
        return Finding(Level.PROBLEM, "Discord", "the token is refused.", remedy)
    if status != httpx.codes.OK:
        return Finding(Level.PROBLEM, "Discord", f"answered {status}.", "Try again in a while.")
    if not int(body.get("flags") or 0) & _MESSAGE_CONTENT_FLAGS:
        remedy = "Switch it on: discord.com/developers → your application → Bot → Message Content Intent."
        return Finding(Level.PROBLEM, "Discord", "the message content intent is off.", remedy)
    return Finding(Level.OK, "Discord", f"the token is right; the application is {body.get('name')}.")


async def check_telegram(settings: Settings, client: httpx.AsyncClient) -> list[Finding]:
    """Whether the token is right, what privacy mode hides, and whether a webhook takes the messages away."""
    if settings.telegram.token is None:
        remedy = "Put TELEGRAM_TOKEN=… into .env to serve Telegram; @BotFather gives you one."
        return [Finding(Level.HINT, "Telegram", "no token: off.", remedy)]
    url = (settings.telegram.api_url or _TELEGRAM_API).rstrip("/")
    url = f"{url}/bot{settings.telegram.token.get_secret_value()}"
    answer = await _ask(client, f"{url}/getMe")
    if isinstance(answer, str):
        return [Finding(Level.PROBLEM, "Telegram", f"cannot be reached: {answer}.", "Check the network and the proxy.")]
    status, body = answer
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.NOT_FOUND):
        return [Finding(Level.PROBLEM, "Telegram", "the token is refused.", "Ask @BotFather for it: /token.")]
    if status != httpx.codes.OK:
        return [Finding(Level.PROBLEM, "Telegram", f"answered {status}.", "Try again in a while.")]
    bot = body.get("result") or {}
    findings = [Finding(Level.OK, "Telegram", f"the token is right; the bot is @{bot.get('username')}.")]
    if not bot.get("can_read_all_group_messages"):
        text = "privacy mode is on: in groups the bot sees only commands, mentions and replies to it."
        remedy = (
            "That is enough for most. To let it hear its name: @BotFather → /setprivacy → Disable, then add it again."
        )
        findings.append(Finding(Level.HINT, "Telegram", text, remedy))
    webhook = await _ask(client, f"{url}/getWebhookInfo")
    if not isinstance(webhook, str) and (webhook[1].get("result") or {}).get("url"):
        text = "a webhook is set elsewhere, and takes the messages away."
        findings.append(Finding(Level.PROBLEM, "Telegram", text, "Stop the other program; `commedia run` polls."))
    return findings


async def _ask(
    client: httpx.AsyncClient, url: str, *, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]] | str:
    """The status and JSON body of an answer, or in a few words why there is none. Never names the URL."""
    try:
        response = await client.get(url, headers=headers)
    except httpx.TimeoutException:
        return f"no answer within {_TIMEOUT_S} s"
    except httpx.TransportError as error:
        return f"no connection ({type(error).__name__})"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    except UnicodeEncodeError:
        return "the token has a character that no token has"
    try:
        body = response.json()
    except ValueError:
        return response.status_code, {}
    return response.status_code, body if isinstance(body, dict) else {}
