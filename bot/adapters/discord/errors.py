"""What discord.py raises, told in the bot's own errors.

Owns the meaning of status, error and close codes. Raises nothing itself.
"""

import aiohttp
import discord

from bot.errors import BotError, ChannelClosed, DeliveryError, MessageGone, RateLimited

# What a request may raise: discord.py's own errors, the network's, and what a nonsensical answer makes of its parsers.
REQUEST_ERRORS = (
    discord.DiscordException,
    aiohttp.ClientError,
    OSError,
    TimeoutError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    DeliveryError,
)
_EXPECTED = (discord.DiscordException, aiohttp.ClientError, OSError, TimeoutError)

DEFAULT_RETRY_AFTER_S = 5.0
MAX_DETAIL_LENGTH = 200

_REFUSED_CREDENTIALS = (
    "Discord refuses the bot's token. In the developer portal (https://discord.com/developers/applications) open your "
    "application, page “Bot”, press “Reset Token”, and set the new token as DISCORD_TOKEN."
)
_NO_MESSAGE_CONTENT = (
    "Discord does not let the bot read messages. In the developer portal (https://discord.com/developers/applications) "
    "open your application, page “Bot”, section “Privileged Gateway Intents”, switch on “Message Content Intent”, "
    "save, and start again. Or set discord.message_content = false: then the bot answers direct messages, mentions "
    "and “Reply in persona” only."
)
_OUTDATED = "Discord no longer understands this version of discord.py. Update discord.py and Commedia."

_FATAL_CLOSE_CODES = {
    4004: _REFUSED_CREDENTIALS,
    4010: _OUTDATED,
    4012: _OUTDATED,
    4013: _OUTDATED,
    4014: _NO_MESSAGE_CONTENT,
}
SHARDING_REQUIRED = 4011
# Unknown channel or server, missing access, no direct messages, missing permission.
_SHUT_OUT = {10003, 10004, 50001, 50007, 50013}
_UNKNOWN_MESSAGE = 10008
_KNOWN_REFUSALS = {
    10003: "the channel no longer exists",
    10008: "the message no longer exists",
    40005: "the file is too large for Discord",
    50007: "this person accepts no direct messages from the bot",
    50083: "the thread is archived",
    160005: "the thread is locked",
}


def fatal_cause(error: BaseException) -> str | None:
    """What an admin must do about `error`, if only an admin can help."""
    if isinstance(error, discord.LoginFailure):
        return _REFUSED_CREDENTIALS
    if isinstance(error, discord.HTTPException) and error.status == 401:
        return _REFUSED_CREDENTIALS
    if isinstance(error, discord.PrivilegedIntentsRequired):
        return _NO_MESSAGE_CONTENT
    if isinstance(error, discord.ConnectionClosed):
        return _FATAL_CLOSE_CODES.get(error.code)
    return None


def needs_sharding(error: BaseException) -> bool:
    """Whether the bot has grown into more servers than its connections may serve."""
    return isinstance(error, discord.ConnectionClosed) and error.code == SHARDING_REQUIRED


def is_shut_out(error: BaseException) -> bool:
    """Whether `error` tells that nothing can be said in that place for now, whatever it is."""
    is_refusal = isinstance(error, (discord.Forbidden, discord.NotFound))
    return is_refusal and isinstance(error, discord.HTTPException) and error.code in _SHUT_OUT


def is_expected(error: BaseException) -> bool:
    """Whether `error` is an everyday failure of network or platform, for which a log needs no traceback."""
    return isinstance(_root(error), _EXPECTED)


def describe(error: BaseException) -> str:
    """`error` in one short line."""
    root = _root(error)
    if isinstance(root, TimeoutError):
        return "Discord did not answer in time"
    if isinstance(root, (OSError, aiohttp.ClientError)):
        return _shorten(f"Discord cannot be reached ({root})")
    if isinstance(root, discord.DiscordException):
        return _shorten(str(root))
    if isinstance(root, BotError):
        return _shorten(str(root))
    return _shorten(f"Discord sent something unexpected ({type(root).__name__}: {root})")


def delivery_error(error: Exception, missing_permissions: tuple[str, ...] = ()) -> DeliveryError:
    """The bot's own error for a request that failed with `error`."""
    if isinstance(error, DeliveryError):
        return error
    if isinstance(error, discord.RateLimited):
        return RateLimited(error.retry_after)
    if not isinstance(error, discord.HTTPException):
        return DeliveryError(describe(error))
    if error.status == 429:
        return RateLimited(_retry_after(error))
    kind = MessageGone if error.code == _UNKNOWN_MESSAGE else ChannelClosed if is_shut_out(error) else DeliveryError
    if error.code in _KNOWN_REFUSALS:
        return kind(f"Discord refuses: {_KNOWN_REFUSALS[error.code]}")
    if isinstance(error, discord.Forbidden):
        return kind(_permissions_text(missing_permissions))
    if error.status >= 500:
        return DeliveryError(f"Discord is having trouble ({error.status}); try again later")
    return DeliveryError(_shorten(f"Discord refuses ({error.status}): {error.text or 'no reason given'}"))


def _permissions_text(missing: tuple[str, ...]) -> str:
    names = " and ".join(f"“{name}”" for name in missing) or "“View Channel” or “Send Messages”"
    return f"Discord refuses: the bot lacks the permission {names} here. Grant it in the channel's settings."


def _retry_after(error: discord.HTTPException) -> float:
    for header in ("Retry-After", "X-RateLimit-Reset-After"):
        try:
            return max(0.0, float(error.response.headers[header]))
        except (KeyError, ValueError):
            continue
    return DEFAULT_RETRY_AFTER_S


def _root(error: BaseException) -> BaseException:
    """discord.py stumbles over a refused first connection; the refusal itself is then the context of its error."""
    context = error.__context__
    is_stumble = isinstance(error, AttributeError) and isinstance(context, _EXPECTED)
    return context if is_stumble and context is not None else error


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_DETAIL_LENGTH else f"{line[: MAX_DETAIL_LENGTH - 1]}…"
