"""The Telegram adapter: connects, fetches or takes updates, survives what network and server do, and stops cleanly.

Owns the connection's life and its status. Knows no message: `dispatch` does.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from telegram import WebhookInfo
from telegram.error import BadRequest, Conflict, InvalidToken, RetryAfter, TelegramError

from bot.adapters.base import (
    Adapter,
    AdapterState,
    AdapterStatus,
    IncidentLog,
    MessageHandler,
    SeenEvents,
    retry_delays,
)
from bot.adapters.pacing import Pacer, Rate
from bot.adapters.telegram.buttons import CommandButtons
from bot.adapters.telegram.channel import TelegramChannel
from bot.adapters.telegram.chats import PLATFORM, KnownChats
from bot.adapters.telegram.client import MALFORMED_ANSWER, UPDATE_KINDS, TelegramClient, retry_after_s
from bot.adapters.telegram.commands import publish_menu
from bot.adapters.telegram.connection import Connection
from bot.adapters.telegram.dispatch import Ledger, UpdateDispatcher
from bot.adapters.telegram.redaction import redact, token_kept_out_of_logs
from bot.adapters.telegram.updates import DeliveryLedger, RawUpdate, UpdateLedger
from bot.adapters.telegram.webhook import MAX_CONNECTIONS, Webhook, WebhookServer
from bot.commands import CommandTable
from bot.errors import PlatformFatal
from bot.types import ChatKind, Room

logger = logging.getLogger(__name__)

ASK_BOTFATHER = (
    "Telegram refuses the bot's token. Ask @BotFather for it (/mybots, the bot, API Token), set TELEGRAM_TOKEN, "
    "and start again."
)
OTHER_POLLER = (
    "another process polls this token: stop it, or ask @BotFather for a new token (/revoke). Trying again until then."
)

# What Telegram allows: a message a second in a chat with short bursts, twenty a minute in a group, thirty a second.
PER_CHAT = Rate(3, 3.0, num_urgent=1)
PER_GROUP = Rate(20, 60.0, num_urgent=5)
OVERALL = Rate(30, 1.0, num_urgent=10)

_TOKEN_SHAPE = re.compile(r"[0-9]+:[A-Za-z0-9_-]+")
_SECRET_SHAPE = re.compile(r"[A-Za-z0-9_-]{1,256}")
_CONFIRM_TIMEOUT_S = 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the adapter is, and at what pace it may write: in each chat, in a group beside it, and over all."""

    album_wait_s: float = 1.5
    long_poll_s: float = 30.0
    repeated_poll_s: float = 0.3
    first_retry_s: float = 1.0
    max_retry_s: float = 60.0
    webhook_wait_s: float = 10.0
    webhook_check_s: float = 60.0
    per_chat: Rate | None = PER_CHAT
    per_group: Rate | None = PER_GROUP
    overall: Rate | None = OVERALL


class TelegramAdapter(Adapter):
    """Serves one bot.

    `api_url` and `file_url` name another Bot API server, such as `http://127.0.0.1:8081`, without the `/bot` and
    `/file/bot` that follow; `file_url` left out is `api_url`. With a `webhook` Telegram delivers what people write,
    else the bot asks for it. `seen` knows which commands were run before a restart; `incidents` hears of troubles.
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
        webhook: Webhook | None = None,
        seen: SeenEvents | None = None,
        incidents: IncidentLog | None = None,
    ) -> None:
        self._token = token.strip()
        self._handler = handler
        self._commands = commands
        self._api_url = api_url
        self._file_url = file_url
        self._timing = timing or Timing()
        self._webhook = webhook
        self._seen = seen
        self._incidents = incidents
        self._connection: Connection | None = None
        self._status = AdapterStatus(AdapterState.STARTING)

    @property
    def status(self) -> AdapterStatus:
        """How it is doing right now."""
        return self._status

    def channel(self, room: Room, kind: ChatKind) -> TelegramChannel | None:
        """Where to write to `room`; `None` while there is no connection, and for rooms of elsewhere."""
        if self._connection is None or room.platform != self.name or not room.chat_id.lstrip("-").isdecimal():
            return None
        return TelegramChannel(
            self._connection,
            chat_id=int(room.chat_id),
            thread_id=int(room.thread_id) if room.thread_id is not None else None,
            kind=kind,
        )

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
        try:
            await self._keep_trying(client, client.initialize)
            if self._webhook is None:
                await self._serve_by_polling(client)
            else:
                await self._serve_by_webhook(client, self._webhook)
        finally:
            await client.shutdown()

    async def _serve_by_polling(self, client: TelegramClient) -> None:
        ledger = UpdateLedger()
        try:
            async with self._dispatching(client, ledger) as dispatcher:
                await self._keep_trying(client, client.delete_webhook)  # while there is one, polling is refused
                await self._poll(client, ledger, dispatcher)
        finally:
            await self._confirm(client, ledger)

    async def _serve_by_webhook(self, client: TelegramClient, webhook: Webhook) -> None:
        ledger = DeliveryLedger()
        async with self._dispatching(client, ledger) as dispatcher:
            server = WebhookServer(webhook, ledger, dispatcher.dispatch, wait_s=self._timing.webhook_wait_s)
            try:
                await self._keep_trying(client, server.open)
                await self._keep_trying(client, lambda: self._register(client, webhook))
                await self._watch(client, webhook, server)
            finally:
                server.refuse()
                await dispatcher.aclose()
                await server.aclose()

    @contextlib.asynccontextmanager
    async def _dispatching(self, client: TelegramClient, ledger: Ledger) -> AsyncIterator[UpdateDispatcher]:
        """All that is there while updates come."""
        timing = self._timing
        chats = KnownChats(client, incidents=self._incidents, on_move=self._handler.handle_move)
        pacer = Pacer(per_chat=timing.per_chat, per_group=timing.per_group, overall=timing.overall)
        connection = Connection(client, chats, CommandButtons(self._commands), pacer)
        dispatcher = UpdateDispatcher(
            connection,
            ledger,
            handler=self._handler,
            commands=self._commands,
            album_wait_s=timing.album_wait_s,
            seen=self._seen,
        )
        # Beside all else: a menu that is refused for an hour must not make the bot deaf for an hour.
        menu = asyncio.create_task(self._publish_menu(client), name="telegram menu")
        self._connection = connection
        try:
            yield dispatcher
        finally:
            self._connection = None
            menu.cancel()
            await dispatcher.aclose()
            await chats.aclose()

    async def _register(self, client: TelegramClient, webhook: Webhook) -> None:
        await client.set_webhook(
            webhook.url,
            allowed_updates=list(UPDATE_KINDS),
            max_connections=MAX_CONNECTIONS,
            secret_token=webhook.secret,
        )

    async def _watch(self, client: TelegramClient, webhook: Webhook, server: WebhookServer) -> None:
        """Look from time to time whether Telegram can deliver, and to us."""
        seen_error_at = datetime.now(UTC)  # what failed while nobody listened is over
        num_strangers = 0
        while True:
            info = await self._keep_trying(client, client.get_webhook_info)
            if info.url != webhook.url:
                detail = "another program took the webhook of this bot, so it was set again: stop that program"
                self._note_incident("webhook", detail)
                await self._keep_trying(client, lambda: self._register(client, webhook))
            trouble = self._new_trouble(info, seen_error_at)
            if trouble:
                seen_error_at = info.last_error_date or seen_error_at
                self._note_incident("webhook", trouble)
            if server.num_strangers > num_strangers:
                detail = f"{server.num_strangers - num_strangers} calls of the webhook without its secret were refused"
                self._note_incident(
                    "webhook", f"{detail}; if Telegram's own are among them, see telegram.webhook_secret"
                )
                num_strangers = server.num_strangers
            introduction = f"{_introduction(client)}; by webhook"
            detail = f"{introduction}; {trouble}" if trouble else introduction
            self._status = AdapterStatus(AdapterState.RUNNING, detail)
            await asyncio.sleep(self._timing.webhook_check_s)

    def _new_trouble(self, info: WebhookInfo, seen_error_at: datetime) -> str:
        """Why Telegram could not deliver, if that is new."""
        if info.last_error_date is None or info.last_error_date <= seen_error_at:
            return ""
        said = redact(info.last_error_message or "no reason given", self._token)
        return f"Telegram could not deliver to the webhook ({said}): check the address, the proxy and its certificate"

    def _note_incident(self, kind: str, detail: str) -> None:
        if self._connection is not None:
            self._connection.chats.incidents.note(PLATFORM, kind, detail)

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
            asked_offset, batch = await self._keep_trying(client, lambda: self._ask(client, ledger))
            self._status = AdapterStatus(AdapterState.RUNNING, _introduction(client))
            for raw in ledger.new_ones(batch, asked_offset=asked_offset):
                dispatcher.dispatch(raw)
            await asyncio.sleep(0)  # the tasks take their first step, and with it the updates
            # The server would repeat what waits at once, again and again.
            await ledger.wait_until_clear(self._timing.repeated_poll_s)

    async def _ask(self, client: TelegramClient, ledger: UpdateLedger) -> tuple[int, list[RawUpdate]]:
        offset = ledger.offset
        return offset, await client.raw_updates(offset=offset, timeout_s=self._poll_timeout_s(ledger))

    def _poll_timeout_s(self, ledger: UpdateLedger) -> float:
        """Long where all is well. A quick look shows that a trouble is over, and fetches an album's other items."""
        is_well = self._status.state is AdapterState.RUNNING and not ledger.has_waiting
        return self._timing.long_poll_s if is_well else 0.0

    async def _keep_trying(self, client: TelegramClient, step: Callable[[], Awaitable[T]]) -> T:
        """The result of `step`, which is tried until it works. Raises `PlatformFatal` for a wrong token."""
        delays_s = retry_delays(first_s=self._timing.first_retry_s, max_s=self._timing.max_retry_s)
        while True:
            delay_s, is_token_refused, is_webhook_set = next(delays_s), False, False
            try:
                return await step()
            except InvalidToken:
                # The library says so for every 401 and 404; getMe tells whether it is true.
                is_token_refused, reason = True, "Telegram refused a request as if the token were wrong"
            except RetryAfter as error:
                delay_s = retry_after_s(error)
                reason = f"Telegram asks for patience, {delay_s:.0f} s"
            except OSError as error:
                reason = f"telegram.webhook_port cannot be listened on ({error.strerror}): set another one"
            except BadRequest as error:
                reason = f"Telegram refuses a request: {redact(error.message, self._token)}"
            except Conflict as error:
                is_webhook_set = "webhook" in error.message.lower()
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
            if is_webhook_set:
                await self._drop_webhook(client)
            await asyncio.sleep(delay_s)

    async def _drop_webhook(self, client: TelegramClient) -> None:
        """While there is one, polling is refused. Should it fail, it is tried again with the next refusal."""
        with contextlib.suppress(TelegramError, *MALFORMED_ANSWER):
            await client.delete_webhook()

    def _check_settings(self) -> None:
        if not _TOKEN_SHAPE.fullmatch(self._token):
            raise PlatformFatal(f"That is no Telegram token; one looks like 123456:ABC-DEF. {ASK_BOTFATHER}")
        for name, url in (("telegram.api_url", self._api_url), ("telegram.file_url", self._file_url)):
            if url is not None and not url.startswith(("http://", "https://")):
                raise PlatformFatal(f"{name} must begin with http:// or https://, such as http://127.0.0.1:8081.")

        if self._webhook is not None:
            self._check_webhook(self._webhook)

    def _check_webhook(self, webhook: Webhook) -> None:
        if not webhook.url.startswith("https://") and not (self._api_url and webhook.url.startswith("http://")):
            raise PlatformFatal("telegram.webhook_url must begin with https://: Telegram delivers to no other address.")
        if not _SECRET_SHAPE.fullmatch(webhook.secret):
            raise PlatformFatal("telegram.webhook_secret may hold only A-Z, a-z, 0-9, _ and -, at most 256 of them.")

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
