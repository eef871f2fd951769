"""The composition root: settings → store → engine → chat → adapters, and back down in the opposite order.

The only place that names implementations. Knows what is put together, not how any part works.
"""

import asyncio
import contextlib
import importlib.util
import logging
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from filelock import FileLock, Timeout

from bot.adapters.base import Adapter, AdapterState, AdapterStatus
from bot.admins import Admins
from bot.chat import ChatOptions, ChatService
from bot.commands import CommandTable, build_commands
from bot.errors import BotError, SettingsError, StoreError
from bot.guarding.engine import GuardedEngine
from bot.incidents import Incidents
from bot.media.links import LinkedPictures
from bot.media.pictures import PictureLimits
from bot.metrics import Metrics
from bot.persona_commands import persona_commands
from bot.personas.library import PersonaLibrary
from bot.personas.prompt import HouseRules
from bot.personas.recall import Recall
from bot.picture_index import PictureIndex
from bot.room_commands import room_commands
from bot.seeing import SeeingService
from bot.settings import Settings
from bot.store.attachments import AttachmentStore, write_atomically
from bot.store.database import Database
from bot.store.incidents import IncidentRecords
from bot.store.ratings import Ratings
from bot.store.remedies import store_errors
from bot.store.repositories import Conversations, PictureEmbeddings, Rooms
from bot.store.seen import SeenEvents
from bot.types import ChatKind
from engine.config import EngineConfig
from engine.types import Engine, ReplyEngine, SamplingSettings

logger = logging.getLogger(__name__)

_STATUS_INTERVAL_S = 0.25
_PRUNE_INTERVAL_S = 86_400
_MIN_SECRET_LENGTH = 32
_CONTROLS = {
    "always": frozenset(ChatKind),
    "direct": frozenset({ChatKind.DIRECT}),
    "never": frozenset[ChatKind](),
}


@dataclass(frozen=True, slots=True)
class Application:
    """Everything that runs, but for the adapters."""

    settings: Settings
    library: PersonaLibrary
    attachments: AttachmentStore
    chat: ChatService
    commands: CommandTable
    engine: Engine
    seen: SeenEvents
    incidents: Incidents
    metrics: Metrics


@contextlib.asynccontextmanager
async def open_application(settings: Settings, *, seed: int | None = None) -> AsyncIterator[Application]:
    """Open the store, load personas and the model; close them in the end. `seed` makes every reply repeatable.

    Raises `SettingsError`, `StoreError` or `EngineError`, each saying what to do.
    """
    prepare_home(settings.home)
    library = PersonaLibrary(settings.persona_folders(), cache=settings.home / "cards")
    library.load()
    async with contextlib.AsyncExitStack() as stack:
        database = Database(settings.database_path)
        stack.push_async_callback(database.aclose)
        await database.upgrade()
        engine = build_engine(settings)
        stack.push_async_callback(engine.aclose)
        seen, incidents = SeenEvents(database), Incidents(IncidentRecords(database), secrets=settings.secrets())
        metrics = Metrics(load=engine.load, incidents=incidents.counts)
        answering = guarded(engine, settings, metrics)
        await answering.start()
        attachments = AttachmentStore(settings.home / "attachments", database)
        index = PictureIndex(engine, PictureEmbeddings(database), attachments)
        stack.push_async_callback(index.aclose)
        conversations, rooms = Conversations(database), Rooms(database)
        options, has_ratings = chat_options(settings, seed=seed), settings.chat.ratings
        await stack.enter_async_context(_running(incidents.run(), seen.run()))
        links = LinkedPictures(hosts=settings.pictures.link_hosts) if settings.pictures.links else None
        recall = Recall(engine)
        stack.push_async_callback(recall.aclose)
        chat = ChatService(
            answering,
            library,
            conversations,
            rooms,
            attachments,
            options=options,
            on_pictures=index.look_soon,
            ratings=Ratings(database) if has_ratings else None,
            links=links,
            counting=metrics,
            measure=engine,
            recall=recall,
        )
        stack.push_async_callback(chat.aclose)
        seeing = SeeingService(engine, chat, conversations, attachments, index, picture_limits=options.picture_limits)
        more = (
            *persona_commands(library, settings.own_persona_folder(), _admins(settings)),
            *room_commands(chat, rooms),
        )
        commands = build_commands(chat, seeing, steering=chat.steering, more=more, has_ratings=has_ratings)
        yield Application(settings, library, attachments, chat, commands, engine, seen, incidents, metrics)


async def serve(settings: Settings) -> int:
    """Run every platform until a signal, or until none is left. Returns the exit status."""
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_single_process(settings.home))
        stack.enter_context(_signals(stop))
        async with _given_up_on(stop) as is_given_up:
            application = await stack.enter_async_context(open_application(settings))
        if is_given_up():
            logger.info("Stopped before everything was loaded.")
            return 0
        adapters = build_adapters(application)
        if not adapters:
            raise SettingsError("Nothing to serve: set web.enabled = true, DISCORD_TOKEN or TELEGRAM_TOKEN.")
        return await _serve_all(application, adapters, stop)


def prepare_home(home: Path) -> None:
    """Make the home folder. Raises `SettingsError` where that is impossible."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"The home folder {home.absolute()} cannot be made: {error.strerror}. Name another one in COMMEDIA_HOME."
        ) from None


def build_engine(settings: Settings) -> Engine:
    """The engine that `engine.backend` names. Imports torch only on the engine's own thread."""
    config = engine_config(settings)
    match config.backend:
        case "echo":
            from engine.backends.echo import EchoEngine

            return EchoEngine(seconds_per_word=0.05)  # slow enough to see a reply stream
        case "openai":
            from engine.backends.openai import OpenAIEngine

            return OpenAIEngine(config)
        case "vllm":
            from engine.backends.vllm import VLLMEngine

            return VLLMEngine(config)
        case "ray":
            from engine.backends.ray_serve import RayEngine

            return RayEngine(config)
        case "local":
            from engine.service import EngineService

            return EngineService(config)


def required_models(settings: Settings) -> list[str]:
    """The catalogued models that these settings need on this machine before the start.

    Of an engine elsewhere that is none: vLLM's brings what its fused prefixes need once the server proves to take them.
    """
    from engine.models.catalogue import CATALOGUE, is_catalogued

    if settings.engine.backend not in ("local", "ray"):
        return []
    is_default = is_catalogued(settings.engine.decoder)
    needs_encoders = settings.engine.fusion != "none" and (is_default or settings.engine.fusion_weights is not None)
    encoders = [model.name for model in CATALOGUE if model.part != "decoder"] if needs_encoders else []
    return [settings.engine.decoder, *encoders] if is_default else encoders


def guarded(engine: Engine, settings: Settings, metrics: Metrics) -> ReplyEngine:
    """`engine` with its replies kept in their parts, where that is wanted. A rehearsal has none."""
    if not settings.chat.guard or settings.engine.backend == "echo":
        return engine
    return GuardedEngine(engine, max_tries=settings.chat.guard_tries, counting=metrics.guarded)


def require_installed(settings: Settings) -> None:
    """Raises `SettingsError` where the engine needs a package that is not there: before weights are brought for it."""
    if settings.engine.backend == "ray" and importlib.util.find_spec("ray") is None:
        raise SettingsError(
            'engine.backend = "ray" needs Ray: pip install "commedia[ray]", or set engine.backend = "local".'
        )


def engine_config(settings: Settings) -> EngineConfig:
    """What the engine needs to know of the settings."""
    options = dict(settings.engine)
    del options["drain_s"]
    api_key = settings.engine.api_key
    options["api_key"] = api_key.get_secret_value() if api_key is not None else None
    return EngineConfig(cache_dir=settings.cache_dir, sampling=sampling_defaults(settings), **options)


def sampling_defaults(settings: Settings, *, seed: int | None = None) -> SamplingSettings:
    """The sampling settings that personas start from."""
    return SamplingSettings(seed=seed, **dict(settings.sampling))


def chat_options(settings: Settings, *, seed: int | None = None) -> ChatOptions:
    """What the chat service needs to know of the settings."""
    return ChatOptions(
        default_persona=settings.chat.default_persona,
        max_history_turns=settings.chat.max_history_turns,
        max_waiting_messages=settings.chat.max_waiting_messages,
        merge_waiting=settings.chat.merge_waiting,
        max_exchange=settings.chat.max_exchange,
        has_controls=_CONTROLS[settings.chat.controls],
        always_faces=frozenset({"discord"} if settings.discord.faces == "always" else ()),
        resume_s=settings.chat.resume_s,
        resumed=frozenset({"discord", "telegram"}),
        timezone=_timezone(settings.chat.timezone),
        greeting=frozenset({"discord", "telegram"} if settings.chat.greet else ()),
        house=HouseRules(settings.chat.system_prompt, settings.chat.post_history_instructions),
        max_pictures=settings.pictures.max_per_message,
        picture_limits=PictureLimits(max_bytes=settings.pictures.max_bytes, max_pixels=settings.pictures.max_pixels),
        sampling=sampling_defaults(settings, seed=seed),
    )


def _admins(settings: Settings) -> Admins:
    """Those that are named, and whoever sits at the terminal. A platform's name alone is everybody there."""
    names = settings.chat.admins
    return Admins(names, frozenset({"console", *(name for name in names if ":" not in name)}))


def _timezone(name: str | None) -> tzinfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingsError(f"chat.timezone: there is no zone {name!r}. Name one such as Europe/Berlin.") from None


def build_adapters(application: Application) -> list[Adapter]:
    """An adapter for every platform that is switched on."""
    settings, chat, commands = application.settings, application.chat, application.commands
    adapters: list[Adapter] = []
    if settings.web.enabled:
        from bot.adapters.web import WebAdapter

        adapters.append(
            WebAdapter(
                host=settings.web.host,
                port=settings.web.port,
                handler=chat,
                browser=chat,
                commands=commands,
                storage_secret=_page_secret(settings.home),
                max_files=settings.pictures.max_per_message,
                monitor=application.metrics,
            )
        )
    if settings.discord.token is not None:
        from bot.adapters.discord import DiscordAdapter

        adapters.append(
            DiscordAdapter(
                settings.discord.token.get_secret_value(),
                handler=chat,
                commands=commands,
                api_url=settings.discord.api_url,
                gateway_url=settings.discord.gateway_url,
                message_content=settings.discord.message_content,
                faces=settings.discord.faces,
                avatars_url=settings.discord.avatars_url,
                catch_up_s=settings.discord.catch_up_s,
                seen=application.seen,
                incidents=application.incidents,
            )
        )
    if settings.telegram.token is not None:
        from bot.adapters.telegram import TelegramAdapter, Webhook

        telegram = settings.telegram
        webhook = None
        if telegram.webhook_url is not None:
            webhook = Webhook(telegram.webhook_url, telegram.webhook_host, telegram.webhook_port)
            if telegram.webhook_secret is not None:
                webhook = replace(webhook, secret=telegram.webhook_secret.get_secret_value())
        adapters.append(
            TelegramAdapter(
                settings.telegram.token.get_secret_value(),
                handler=chat,
                commands=commands,
                api_url=settings.telegram.api_url,
                file_url=settings.telegram.file_url or settings.telegram.api_url,
                webhook=webhook,
                seen=application.seen,
                incidents=application.incidents,
            )
        )
    return adapters


async def _serve_all(application: Application, adapters: Sequence[Adapter], stop: asyncio.Event) -> int:
    """Serve side by side; one that ends takes no other along."""
    for line in _invitations(application.settings):
        logger.info("%s", line)
    background = [
        asyncio.create_task(application.library.watch(), name="persona watch"),
        asyncio.create_task(_report_changes(adapters), name="status report"),
        asyncio.create_task(_prune_daily(application.attachments), name="attachment pruning"),
        *(asyncio.create_task(_resume(application.chat, adapter), name="unanswered messages") for adapter in adapters),
    ]
    for job in background:
        job.add_done_callback(_report_failure)
    application.metrics.watch(adapters)
    running = {asyncio.create_task(adapter.run(), name=adapter.name): adapter for adapter in adapters}
    stopped = asyncio.create_task(stop.wait())
    pending: set[asyncio.Task[object]] = {*running, stopped}
    has_failed = False
    try:
        while len(pending) > 1 and not stopped.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                has_failed |= _report_end(task)
        # While the adapters still run: the replies are to be shown.
        await _drain(application)
    finally:
        await _cancel([*background, stopped, *running])
    logger.info("Stopped.")
    return int(has_failed and not stop.is_set())


async def _drain(application: Application) -> None:
    """Let replies end, and then what commands have asked of the engine; nothing new is taken."""
    drain_s = application.settings.engine.drain_s
    ends_at = time.monotonic() + drain_s
    if not await application.chat.drain(drain_s):
        logger.warning("Some replies did not end within %g s (engine.drain_s) and are broken off.", drain_s)
    await application.engine.aclose(drain_s=max(0.0, ends_at - time.monotonic()))


@contextlib.asynccontextmanager
async def _given_up_on(stop: asyncio.Event) -> AsyncIterator[Callable[[], bool]]:
    """Give up what is done inside as soon as `stop` is set; the function that it gives says whether that was so."""
    patience = asyncio.timeout(None)
    now = asyncio.get_running_loop().time

    async def give_up() -> None:
        await stop.wait()
        patience.reschedule(now())

    watcher = asyncio.create_task(give_up(), name="stop while starting")
    try:
        async with patience:
            yield patience.expired
    except TimeoutError:
        if not patience.expired():
            raise
    finally:
        await _cancel([watcher])


async def _report_changes(adapters: Sequence[Adapter]) -> None:
    """Log every change of an adapter's status, until cancelled."""
    last: dict[str, AdapterStatus] = {}
    while True:
        for adapter in adapters:
            status = adapter.status
            if status != last.get(adapter.name):
                last[adapter.name] = status
                level = logging.WARNING if status.state is AdapterState.RECONNECTING else logging.INFO
                logger.log(level, "%s is %s%s", adapter.name, status.state, status.detail and f": {status.detail}")
        await asyncio.sleep(_STATUS_INTERVAL_S)


async def _resume(chat: ChatService, adapter: Adapter) -> None:
    """Once `adapter` can write, answer what was left unanswered when the bot ended before."""
    while True:
        if adapter.status.state is AdapterState.RUNNING:
            break
        await asyncio.sleep(_STATUS_INTERVAL_S)
    try:
        if num_answered := await chat.resume(adapter.name, adapter.channel):
            logger.info("answered what was left unanswered on %s before the start: %d", adapter.name, num_answered)
    except StoreError as error:
        logger.error("messages that were left unanswered on %s cannot be found: %s", adapter.name, error)


@contextlib.asynccontextmanager
async def _running(*jobs: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run `jobs` beside what is done inside, and end them after it."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield
    finally:
        await _cancel(tasks)


async def _prune_daily(attachments: AttachmentStore) -> None:
    """Delete pictures that no conversation shows any more, now and every day, until cancelled."""
    while True:
        try:
            if num_deleted := await attachments.prune():
                logger.info("%d pictures that no conversation shows any more were deleted", num_deleted)
        except StoreError as error:
            logger.error("pictures of forgotten conversations could not be deleted: %s", error)
        await asyncio.sleep(_PRUNE_INTERVAL_S)


def _report_end(task: asyncio.Task[object]) -> bool:
    """Log how an adapter ended; whether it failed."""
    if task.cancelled():
        logger.error("%s is off: it was cancelled from within, which is a bug in Commedia", task.get_name())
        return True
    error = task.exception()
    if error is None:
        logger.info("%s has ended.", task.get_name())
    elif isinstance(error, BotError):
        logger.error("%s is off: %s", task.get_name(), error)
    else:
        logger.error("%s is off: this is a bug in Commedia", task.get_name(), exc_info=error)
    return error is not None


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s has ended: this is a bug in Commedia", task.get_name(), exc_info=error)


async def _cancel(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _invitations(settings: Settings) -> Iterator[str]:
    if settings.discord.token is None:
        yield "To add Discord: put DISCORD_TOKEN=… into .env (docs/discord.md says where to get one)."
    if settings.telegram.token is None:
        yield "To add Telegram: put TELEGRAM_TOKEN=… into .env (@BotFather gives you one; docs/telegram.md)."


@contextlib.contextmanager
def _single_process(home: Path) -> Iterator[None]:
    """Two processes on one home would answer every message twice."""
    prepare_home(home)
    lock = FileLock(home / "commedia.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise SettingsError(
            f"Another `commedia run` already uses {home.absolute()}. Stop it, or name another folder in COMMEDIA_HOME."
        ) from None
    except OSError as error:
        raise SettingsError(
            f"The home folder {home.absolute()} cannot be written: {error.strerror}. Name another one in COMMEDIA_HOME."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM sets `stop`; a second Ctrl-C ends the process at once."""
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop.set()
        logger.info("Stopping; press Ctrl-C again to stop at once.")

    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ask_to_stop)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def _page_secret(home: Path) -> str:
    """The key that signs the page's cookies, so that browsers keep their conversation across restarts."""
    file = home / "page-secret"
    with store_errors(file):
        secret = file.read_bytes() if file.exists() else b""
        if len(secret) < _MIN_SECRET_LENGTH:  # a power cut or a full disk may have left a part of it
            secret = secrets.token_urlsafe(_MIN_SECRET_LENGTH).encode("ascii")
            write_atomically(file, secret)
    return secret.decode("ascii", "replace")
