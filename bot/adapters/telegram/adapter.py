"""The Telegram adapter: connects, polls, survives what the network and the server do, and stops cleanly.

Owns the connection's life and its status. Knows no message: `dispatch` does.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from telegram.error import Conflict, InvalidToken, RetryAfter, TelegramError

from bot.adapters.base import Adapter, AdapterState, AdapterStatus, MessageHandler, retry_delays
from bot.adapters.telegram.client import MALFORMED_ANSWER, TelegramClient, retry_after_s
from bot.adapters.telegram.commands import publish_menu
from bot.adapters.telegram.dispatch import UpdateDispatcher
from bot.adapters.telegram.redaction import redact, token_kept_out_of_logs
from bot.adapters.telegram.updates import UpdateLedger
from bot.commands import CommandTable
from bot.errors import PlatformFatal

logger = logging.getLogger(__name__)

ASK_BOTFATHER = (
    "Telegram refuses the bot's token. Ask @BotFather for it (/mybots, the bot, API Token), set TELEGRAM_TOKEN, "
    "and start again."
)
OTHER_POLLER = (
    "another process polls this token: stop it, or ask @BotFather for a new token (/revoke). Trying again until then."
)

_TOKEN_SHAPE = re.compile(r"[0-9]+:[A-Za-z0-9_-]+")
_CONFIRM_TIMEOUT_S = 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the adapter is."""

    album_wait_s: float = 1.5
    long_poll_s: float = 30.0
    repeated_poll_s: float = 0.3
    first_retry_s: float = 1.0
    max_retry_s: float = 60.0


class TelegramAdapter(Adapter):
    """Serves one bot.

    `api_url` and `file_url` name another Bot API server, such as `http://127.0.0.1:8081`, without the `/bot` and
    `/file/bot` that follow; `file_url` left out is `api_url`.
    """

    name = "telegram"

    def __init__(
        self,
        token: str,
        *,
        handler: MessageHandler,
        commands: CommandTable,
        api_url: str | None = None,
        file_url: str | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._token = token.strip()
        self._handler = handler
        self._commands = commands
        self._api_url = api_url
        self._file_url = file_url
        self._timing = timing or Timing()
        self._status = AdapterStatus(AdapterState.STARTING)

    @property
    def status(self) -> AdapterStatus:
        """How it is doing right now."""
        return self._status

    async def run(self) -> None:
        """Connect, serve and reconnect until cancelled. Raises `PlatformFatal` where the token is wrong."""
        self._status = AdapterStatus(AdapterState.STARTING)
        try:
            self._check_settings()
            with token_kept_out_of_logs(self._token):
                await self._serve()
        except PlatformFatal as error:
            self._status = AdapterStatus(AdapterState.FAILED, str(error))
            raise
        except asyncio.CancelledError:
            self._status = AdapterStatus(AdapterState.STOPPED)
            raise

    async def _serve(self) -> None:
        client = TelegramClient(self._token, api_url=self._api_url, file_url=self._file_url)
        ledger = UpdateLedger()
        dispatcher = UpdateDispatcher(
            client,
            ledger,
            handler=self._handler,
            commands=self._commands,
            album_wait_s=self._timing.album_wait_s,
        )
        try:
            await self._keep_trying(client, client.initialize)
            await self._keep_trying(client, client.delete_webhook)  # while there is one, polling is refused
            # Beside the polling: a menu that is refused for an hour must not make the bot deaf for an hour.
            menu = asyncio.create_task(self._publish_menu(client), name="telegram menu")
            try:
                await self._poll(client, ledger, dispatcher)
            finally:
                menu.cancel()
        finally:
            await dispatcher.aclose()
            await self._confirm(client, ledger)
            await client.shutdown()

    async def _publish_menu(self, client: TelegramClient) -> None:
        last_reason = ""
        for next_s in retry_delays(first_s=self._timing.first_retry_s, max_s=self._timing.max_retry_s):
            delay_s = next_s
            try:
                await publish_menu(client, self._commands)
                return
            except RetryAfter as error:
                delay_s = retry_after_s(error)
                reason = f"Telegram asks for patience, {delay_s:.0f} s"
            except (TelegramError, *MALFORMED_ANSWER) as error:
                reason = redact(str(error) or type(error).__name__, self._token)
            if reason != last_reason:
                logger.warning("the command menu is not up to date yet: %s", reason)
            last_reason = reason
            await asyncio.sleep(delay_s)

    async def _poll(self, client: TelegramClient, ledger: UpdateLedger, dispatcher: UpdateDispatcher) -> None:
        while True:
            batch = await self._keep_trying(
                client,
                lambda: client.raw_updates(offset=ledger.offset, timeout_s=self._poll_timeout_s(ledger)),
            )
            self._status = AdapterStatus(AdapterState.RUNNING, _introduction(client))
            for raw in ledger.new_ones(batch):
                dispatcher.dispatch(raw)
            await asyncio.sleep(0)  # the tasks take their first step, and with it the updates
            if ledger.has_waiting:
                await asyncio.sleep(self._timing.repeated_poll_s)

    def _poll_timeout_s(self, ledger: UpdateLedger) -> float:
        """Long where all is well. A quick look shows that a trouble is over, and fetches an album's other items."""
        is_well = self._status.state is AdapterState.RUNNING and not ledger.has_waiting
        return self._timing.long_poll_s if is_well else 0.0

    async def _keep_trying(self, client: TelegramClient, step: Callable[[], Awaitable[T]]) -> T:
        """The result of `step`, which is tried until it works. Raises `PlatformFatal` for a wrong token."""
        delays_s = retry_delays(first_s=self._timing.first_retry_s, max_s=self._timing.max_retry_s)
        while True:
            delay_s, is_token_refused = next(delays_s), False
            try:
                return await step()
            except InvalidToken:
                # The library says so for every 401 and 404; getMe tells whether it is true.
                is_token_refused, reason = True, "Telegram refused a request as if the token were wrong"
            except RetryAfter as error:
                delay_s = retry_after_s(error)
                reason = f"Telegram asks for patience, {delay_s:.0f} s"
            except Conflict as error:
                reason = f"{OTHER_POLLER} (Telegram: {redact(error.message, self._token)})"
            except TelegramError as error:
                reason = f"Telegram cannot be reached: {redact(error.message, self._token)}"
            except MALFORMED_ANSWER as error:
                reason = f"Telegram's answer made no sense ({type(error).__name__})"
            # Outside the handlers, so that no error carries the library's text with the token along.
            if is_token_refused:
                if step == client.get_me:
                    raise PlatformFatal(self._why_refused())
                await self._keep_trying(client, client.get_me)
            self._report(reason)
            await asyncio.sleep(delay_s)

    def _check_settings(self) -> None:
        if not _TOKEN_SHAPE.fullmatch(self._token):
            raise PlatformFatal(f"That is no Telegram token; one looks like 123456:ABC-DEF. {ASK_BOTFATHER}")
        for name, url in (("telegram.api_url", self._api_url), ("telegram.file_url", self._file_url)):
            if url is not None and not url.startswith(("http://", "https://")):
                raise PlatformFatal(f"{name} must begin with http:// or https://, such as http://127.0.0.1:8081.")

    def _why_refused(self) -> str:
        return ASK_BOTFATHER if self._api_url is None else f"{ASK_BOTFATHER} Or telegram.api_url is no Bot API server."

    def _report(self, reason: str) -> None:
        if self._status.detail != reason:
            logger.warning("%s", reason)
        self._status = AdapterStatus(AdapterState.RECONNECTING, reason)

    async def _confirm(self, client: TelegramClient, ledger: UpdateLedger) -> None:
        """Tell the server what was handed over, so that the next start does not answer it again."""
        if ledger.offset == 0:
            return
        try:
            async with asyncio.timeout(_CONFIRM_TIMEOUT_S):
                await client.raw_updates(offset=ledger.offset, timeout_s=0, limit=1)
        except (TimeoutError, TelegramError, *MALFORMED_ANSWER) as error:
            reason = redact(str(error) or type(error).__name__, self._token)
            logger.warning("the last updates could not be confirmed and may come again: %s", reason)


def _introduction(client: TelegramClient) -> str:
    name = f"as @{client.username}"
    if client.bot.can_read_all_group_messages is False:
        return f"{name}; privacy mode is on, so in groups it sees only commands, mentions and replies"
    return name
