"""Whether Discord and Telegram let the bot do its work: what `commedia doctor` asks them.

They are asked over plain HTTP, so that a broken client library can be told from a wrong token. Nothing is changed
there. Secrets never show up in findings. Knows no adapter.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx

from bot.findings import Finding, Level
from bot.logs import Redaction
from bot.settings import Settings

TIMEOUT_S = 15
_DISCORD_API = "https://discord.com/api/v10"
_TELEGRAM_API = "https://api.telegram.org"
_MESSAGE_CONTENT_FLAGS = (1 << 18) | (1 << 19)
_ADMINISTRATOR = 1 << 3
# The first four for any answer at all, the others for faces, reactions, pictures and stickers.
_PERMISSIONS = {
    "View Channels": 1 << 10,
    "Send Messages": 1 << 11,
    "Read Message History": 1 << 16,
    "Send Messages in Threads": 1 << 38,
    "Manage Webhooks": 1 << 29,
    "Add Reactions": 1 << 6,
    "Attach Files": 1 << 15,
}
_MAX_NAMES = 3
_MAX_GUILDS_ASKED = 200
_FEW_STARTS = 50
_MANY_WAITING = 100
_WEBHOOK_PORTS = (443, 80, 88, 8443)
_LAST_DATE = 2**32


async def check_discord(settings: Settings, client: httpx.AsyncClient) -> list[Finding]:
    """Whether the token is right and the message-content intent as wanted, what the bot may do, and how big it is."""
    if settings.discord.token is None:
        remedy = "Put DISCORD_TOKEN=… into .env to serve Discord; docs/discord.md says where to get one."
        return [Finding(Level.HINT, "Discord", "no token: off.", remedy)]
    header = {"Authorization": f"Bot {settings.discord.token.get_secret_value()}"}
    url = (settings.discord.api_url or _DISCORD_API).rstrip("/")
    answer = await _ask(client, f"{url}/applications/@me", headers=header)
    if isinstance(answer, str):
        return [Finding(Level.PROBLEM, "Discord", f"cannot be reached: {answer}.", "Check the network and the proxy.")]
    status, application = answer
    if status == httpx.codes.UNAUTHORIZED:
        remedy = "Make a new token: discord.com/developers → your application → Bot → Reset Token."
        return [Finding(Level.PROBLEM, "Discord", "the token is refused.", remedy)]
    if status != httpx.codes.OK or not isinstance(application, dict):
        return [Finding(Level.PROBLEM, "Discord", f"answered {status}.", "Try again in a while.")]
    guilds = await _ask(client, f"{url}/users/@me/guilds?limit={_MAX_GUILDS_ASKED}", headers=header)
    gateway = await _ask(client, f"{url}/gateway/bot", headers=header)
    return [
        _check_intent(settings, application),
        *_check_permissions(application, _body(guilds)),
        *_check_size(_body(gateway)),
    ]


def _check_intent(settings: Settings, application: Mapping[str, Any]) -> Finding:
    is_on = bool(_number(application.get("flags")) & _MESSAGE_CONTENT_FLAGS)
    if is_on or not settings.discord.message_content:
        is_used = (
            "" if settings.discord.message_content else "; without message content, as discord.message_content says"
        )
        text = f"the token is right; the application is {_printable(application.get('name'))}{is_used}."
        return Finding(Level.OK, "Discord", text)
    remedy = (
        "Switch it on: discord.com/developers → your application → Bot → Message Content Intent. "
        "Or set discord.message_content = false: then the bot hears direct messages, mentions and its menu entries."
    )
    return Finding(Level.PROBLEM, "Discord", "the message content intent is off.", remedy)


def _check_permissions(application: Mapping[str, Any], guilds: object) -> Iterator[Finding]:
    """What the bot may not do in its servers. A hint: single channels may allow more, or less."""
    if not isinstance(guilds, list):
        return
    invitation = (
        f"https://discord.com/oauth2/authorize?client_id={application.get('id')}&scope=bot+applications.commands"
        f"&permissions={sum(_PERMISSIONS.values())}"
    )
    if not guilds:
        yield Finding(Level.HINT, "Discord", "the bot is in no server yet.", f"Invite it: {invitation}")
    known = [guild for guild in guilds if isinstance(guild, dict) and "permissions" in guild]
    for name, permission in _PERMISSIONS.items():
        lacking = [guild for guild in known if not _number(guild["permissions"]) & (permission | _ADMINISTRATOR)]
        if lacking:
            remedy = f"Give the bot's role that permission, or have an admin open {invitation}"
            yield Finding(Level.HINT, "Discord", f"{name} is missing in {_named(lacking)}.", remedy)


def _named(guilds: Sequence[Mapping[str, Any]]) -> str:
    names = [_printable(guild.get("name")) for guild in guilds[:_MAX_NAMES]]
    more = f" and {len(guilds) - _MAX_NAMES} more" if len(guilds) > _MAX_NAMES else ""
    return f"{', '.join(names)}{more}"


def _check_size(gateway: object) -> Iterator[Finding]:
    """How many connections Discord recommends, and how often the bot may still connect today."""
    if not isinstance(gateway, dict) or "shards" not in gateway:
        return
    text = f"recommended shards: {_number(gateway['shards'])}; Commedia opens as many by itself."
    yield Finding(Level.OK, "Discord", text)
    limit = gateway.get("session_start_limit")
    if isinstance(limit, dict) and _number(limit.get("remaining")) < _FEW_STARTS:
        hours = _number(limit.get("reset_after")) / 3_600_000
        text = f"it may connect only {_number(limit.get('remaining'))} times more within {hours:.0f} hours."
        remedy = "Do not restart it over and over; look into the log for what makes it reconnect."
        yield Finding(Level.HINT, "Discord", text, remedy)


async def check_telegram(settings: Settings, client: httpx.AsyncClient) -> list[Finding]:
    """Whether the token is right, what privacy mode hides, and whether messages come the way that is set."""
    if settings.telegram.token is None:
        remedy = "Put TELEGRAM_TOKEN=… into .env to serve Telegram; @BotFather gives you one."
        return [Finding(Level.HINT, "Telegram", "no token: off.", remedy)]
    url = (settings.telegram.api_url or _TELEGRAM_API).rstrip("/")
    url = f"{url}/bot{settings.telegram.token.get_secret_value()}"
    answer = await _ask(client, f"{url}/getMe")
    if isinstance(answer, str):
        return [Finding(Level.PROBLEM, "Telegram", f"cannot be reached: {answer}.", "Check the network and the proxy.")]
    status, _ = answer
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.NOT_FOUND):
        return [Finding(Level.PROBLEM, "Telegram", "the token is refused.", "Ask @BotFather for it: /token.")]
    if status != httpx.codes.OK:
        return [Finding(Level.PROBLEM, "Telegram", f"answered {status}.", "Try again in a while.")]
    bot, webhook = _result(answer), _result(await _ask(client, f"{url}/getWebhookInfo"))
    findings = [Finding(Level.OK, "Telegram", f"the token is right; the bot is @{bot.get('username')}.")]
    if not bot.get("can_read_all_group_messages"):
        text = "privacy mode is on: in groups the bot sees only commands, mentions and replies to it."
        remedy = (
            "That is enough for most. To let it hear its name: @BotFather → /setprivacy → Disable, then add it again."
        )
        findings.append(Finding(Level.HINT, "Telegram", text, remedy))
    return [*findings, *_check_delivery(settings, webhook)]


def _check_delivery(settings: Settings, webhook: Mapping[str, Any]) -> Iterator[Finding]:
    wanted, known = settings.telegram.webhook_url, str(webhook.get("url") or "")
    if wanted is None:
        if known:
            text = "a webhook is set elsewhere, and takes the messages away."
            remedy = "Stop the other program; `commedia run` polls. Or set telegram.webhook_url to be sent them."
            yield Finding(Level.PROBLEM, "Telegram", text, remedy)
        return
    yield from _check_address(wanted)
    if not known:
        remedy = "`commedia run` registers it at its start."
        yield Finding(Level.HINT, "Telegram", "the webhook is not registered yet.", remedy)
        return
    if known.rstrip("/") != wanted.rstrip("/"):
        remedy = "Restart Commedia, which registers its own; if it is taken away again, another program has the token."
        yield Finding(Level.PROBLEM, "Telegram", "the webhook that is registered is another one.", remedy)
        return
    problem = _recent_failure(settings, webhook)
    yield problem or Finding(Level.OK, "Telegram", "messages are delivered to the webhook.")
    waiting = _number(webhook.get("pending_update_count"))
    if waiting >= _MANY_WAITING:
        remedy = "They come once the webhook answers; see above, and whether `commedia run` is running."
        yield Finding(Level.HINT, "Telegram", f"{waiting} messages wait to be delivered.", remedy)


def _check_address(url: str) -> Iterator[Finding]:
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        port, parts = 0, urlsplit("")
    if parts.scheme != "https" or port not in _WEBHOOK_PORTS:
        ports = ", ".join(str(port) for port in _WEBHOOK_PORTS)
        remedy = f"Set telegram.webhook_url to an https address on one of the ports {ports}."
        yield Finding(Level.PROBLEM, "Telegram", "Telegram delivers to no such webhook address.", remedy)


def _recent_failure(settings: Settings, webhook: Mapping[str, Any]) -> Finding | None:
    failed_at = datetime.fromtimestamp(min(max(0, _number(webhook.get("last_error_date"))), _LAST_DATE), UTC)
    if failed_at < datetime.now(UTC) - timedelta(days=1):
        return None
    said = Redaction(settings.secrets())(_printable(webhook.get("last_error_message")))
    text = f"could not deliver to the webhook, the last time at {failed_at:%Y-%m-%d %H:%M} UTC: {said}"
    place = f"{settings.telegram.webhook_host}:{settings.telegram.webhook_port}"
    remedy = f"Check that telegram.webhook_url leads, by https, to {place}, where `commedia run` listens."
    return Finding(Level.PROBLEM, "Telegram", text, remedy)


async def _ask(
    client: httpx.AsyncClient, url: str, *, headers: dict[str, str] | None = None
) -> tuple[int, object] | str:
    """The status and JSON body of an answer, or in a few words why there is none. Never names the URL."""
    try:
        response = await client.get(url, headers=headers)
    except httpx.TimeoutException:
        return f"no answer within {TIMEOUT_S} s"
    except httpx.TransportError as error:
        return f"no connection ({type(error).__name__})"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    except UnicodeEncodeError:
        return "the token has a character that no token has"
    try:
        return response.status_code, response.json()
    except ValueError:
        return response.status_code, None


def _body(answer: tuple[int, object] | str) -> object:
    """What was answered, or nothing where that went wrong: it is asked for beside what matters."""
    return answer[1] if not isinstance(answer, str) and answer[0] == httpx.codes.OK else None


def _result(answer: tuple[int, object] | str) -> dict[str, Any]:
    body = _body(answer)
    found = body.get("result") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}


def _number(value: object) -> int:
    """A whole number that may come as text, and 0 for anything else."""
    try:
        return int(value) if isinstance(value, (int, float, str)) else 0
    except (ValueError, OverflowError):
        return 0


def _printable(text: object) -> str:
    """What others chose, without what a terminal would take for a command."""
    return "".join(char for char in str(text) if char.isprintable())
