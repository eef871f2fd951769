"""Updates that Telegram delivers by itself, at an address of ours.

Owns the small HTTP server: who is let in, what is refused, and when a delivery counts as arrived. Knows nothing of what
an update means, nor how the server is told of the address.
"""

import asyncio
import hmac
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from bot.adapters.telegram.updates import DeliveryLedger, RawUpdate

logger = logging.getLogger(__name__)

SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - its name, not what it says
MAX_UPDATE_BYTES = 1024 * 1024
# Telegram delivers so many at a time; the last ones are not kept waiting, so that there is always room for another.
MAX_CONNECTIONS = 100
_MAX_WAITING = 80
_READ_TIMEOUT_S = 10.0
_STOP_GRACE_S = 2.0


class _NoStrangers(logging.Filter):
    """What is no HTTP is answered with 400. aiohttp logs a traceback for each, and anybody may send any number."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_server_logger = logging.getLogger(f"{__name__}.server")
_server_logger.addFilter(_NoStrangers())


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where Telegram delivers updates: `url` is public, and leads to `host` and `port` here.

    A reverse proxy in front speaks `https`. `secret` is what Telegram says to be let in.
    """

    url: str
    host: str = "127.0.0.1"
    port: int = 8443
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)


class WebhookServer:
    """Takes deliveries, and calls `dispatch` for each that is new. Use it as an async context manager."""

    def __init__(
        self, webhook: Webhook, ledger: DeliveryLedger, dispatch: Callable[[RawUpdate], None], *, wait_s: float
    ) -> None:
        self._webhook = webhook
        self._ledger = ledger
        self._dispatch = dispatch
        self._wait_s = wait_s
        self._is_closing = False
        self._runner: web.AppRunner | None = None
        self.num_strangers = 0

    async def open(self) -> None:
        """Listen. Raises `OSError` where the port is taken."""
        app = web.Application(client_max_size=MAX_UPDATE_BYTES)
        app.router.add_post("/{path:.*}", self._take)  # whatever the proxy makes of the path: the secret decides
        runner = web.AppRunner(app, access_log=None, logger=_server_logger, shutdown_timeout=_STOP_GRACE_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._webhook.host, self._webhook.port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner

    def refuse(self) -> None:
        """From now on nothing arrives: what is delivered now comes again after the restart."""
        self._is_closing = True
        self._ledger.close()

    async def aclose(self) -> None:
        """Stop listening."""
        self.refuse()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        if not self._is_telegram(request):
            self.num_strangers += 1
            return web.Response(status=403)
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                update = json.loads(await request.read())
        except (ValueError, RecursionError):
            return web.Response(status=400, text="not JSON")
        except (TimeoutError, ConnectionError):
            return web.Response(status=408)
        update_id = update.get("update_id") if isinstance(update, dict) else None
        if not isinstance(update_id, int) or isinstance(update_id, bool):
            return web.Response(status=400, text="no update_id")
        if self._is_closing:
            return web.Response(status=503)
        return await self._arrive(update_id, update)

    async def _arrive(self, update_id: int, update: RawUpdate) -> web.Response:
        """Say that it arrived once somebody has it, or it was begun a while ago; not where the bot stops before."""
        if self._ledger.is_new(update_id):
            self._dispatch(update)
        wait_s = self._wait_s if self._ledger.num_waiting <= _MAX_WAITING else 0.0
        is_handed_over = await self._ledger.wait(update_id, wait_s)
        return web.Response(status=200 if is_handed_over or not self._is_closing else 503)

    def _is_telegram(self, request: web.Request) -> bool:
        said = request.headers.get(SECRET_HEADER, "")
        return hmac.compare_digest(said.encode(errors="replace"), self._webhook.secret.encode())
