"""Everything that is asked of Ray: a connection, an application, its replicas' answers.

Owns the translation of Ray's errors into ours, and the thread on which Ray's blocking calls run. Knows no prompts and
no queues. Ray is imported on first use.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from engine.backends.ray_serve.deployment import Cluster, config_of_replica, name_of, options_of, share_of
from engine.backends.ray_serve.replica import BuildEngine, EngineReplica, Item, refusal_in
from engine.config import EngineConfig
from engine.errors import ConfigurationError, EngineBusy, EngineError, ServerError
from engine.types import EngineLoad, GenerationRequest

logger = logging.getLogger(__name__)

# Requests and replies are small, and pictures have been made small: Ray's own default is a third of the memory.
OBJECT_STORE_BYTES = 200 * 2**20
CONNECT_TIMEOUT_S = 5.0
POLL_S = 0.25
WAITING_NEWS_S = 30.0
LOADS_TIMEOUT_S = 5.0

T = TypeVar("T")


class Answers(Protocol):
    """A reply on its way. `cancel` ends it where it is made; it may be called at any time, and again."""

    def __aiter__(self) -> AsyncIterator[Item]: ...
    async def __anext__(self) -> Item: ...
    def cancel(self) -> None: ...


class Application(Protocol):
    """Replicas that run somewhere. All of it raises `EngineError`."""

    async def open(self) -> None:
        """Have them run."""

    def stream(self, request: GenerationRequest, *, session: str) -> Answers:
        """Have a replica reply; the same one to the same `session`, if that can be."""

    async def ask(self, name: str, *arguments: object, session: str = "", **named: object) -> object:
        """Have a replica's engine do `name`; an `EngineError` of its own is returned."""

    async def loads(self) -> dict[str, EngineLoad]:
        """How busy each replica is, by its name."""

    async def close(self) -> None:
        """Have them end."""


class RayApplication:
    """An `Application` on the Ray cluster of `RAY_ADDRESS`, or on a Ray of its own that ends with it."""

    def __init__(self, config: EngineConfig, build: BuildEngine) -> None:
        self._config = config
        self._build = build
        self._name = name_of(config)
        self._address = os.environ.get("RAY_ADDRESS") or None
        self._is_connected = False
        self._is_deployed = False
        self._handle: Any = None
        # One thread, for as long as Ray is in use: Ray's processes end with the thread that has started them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commedia-ray")

    async def open(self) -> None:
        """Connect and deploy; wait for the first replicas for as long as they need to load."""
        await self._call(self._connect)
        _take_back(signal.SIGTERM)
        await self._call(self._deploy)
        await self._wait_until_running()
        self._handle = await self._call(self._get_handle)

    def stream(self, request: GenerationRequest, *, session: str) -> Answers:
        """Have a replica reply."""
        handle = self._handle.options(stream=True, session_id=session)
        return _RayAnswers(handle.generate.remote(request))

    async def ask(self, name: str, *arguments: object, session: str = "", **named: object) -> object:
        """Have a replica's engine do `name`. Cancelling the task cancels it there."""
        response = self._handle.options(session_id=session).ask.remote(name, *arguments, **named)
        try:
            with _translated():
                return await response
        except asyncio.CancelledError:
            response.cancel()
            raise

    async def loads(self) -> dict[str, EngineLoad]:
        """How busy each replica is."""
        # Asked again and again: while no replica is there, the log need not say so each time.
        with _translated(logging.DEBUG):
            responses = self._handle.broadcast("load")
            return dict(await responses.results_async(timeout_s=LOADS_TIMEOUT_S))

    async def close(self) -> None:
        """Take the application away, and Ray too if it was started for it."""
        try:
            await self._call(self._disconnect)
        finally:
            self._thread.shutdown(wait=False)

    async def _wait_until_running(self) -> None:
        started = told = asyncio.get_running_loop().time()
        while True:
            status = await self._call(self._status)
            if status is None:
                raise ServerError("the application vanished from Ray while it was deployed: start again")
            if status.status == "RUNNING":
                return
            # The deployments' own messages are the longer ones, and the first to come.
            text = "\n".join([status.message, *(each.message for each in status.deployments.values())])
            if status.status == "DEPLOY_FAILED":
                raise refusal_in(text) or ServerError(
                    f"no replica of the engine could start; Ray says: {_last_line(text)}. Its logs say more (the "
                    'folder "serve" in the session\'s logs). Every machine needs commedia[ray] of the same version'
                )
            now = asyncio.get_running_loop().time()
            if now - told >= WAITING_NEWS_S:
                told = now
                logger.info("Waited %.0f s for the engine's replicas. Ray says: %s", now - started, _last_line(text))
            await asyncio.sleep(POLL_S)

    async def _call(self, call: Callable[[], T]) -> T:
        with _translated():
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    # --- on the thread

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # A Ray that has gone away shall not be started anew in the middle of some call.
        os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
        if self._address is None:
            # Its name says Windows and macOS, but everywhere it lets Ray's processes listen on the loopback address
            # alone. Like those above it is read when Ray is imported.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            # Ray's workers make way for everything else, which is for work in the background: a busy machine would
            # leave whoever chats waiting.
            os.environ.setdefault("RAY_worker_niceness", "0")
        elif "://" in self._address:
            raise ConfigurationError(
                f"RAY_ADDRESS is {self._address!r}, but replies cannot stream through Ray's client: run commedia on a "
                'machine of the cluster, and set RAY_ADDRESS to its "host:port", or to "auto"'
            )
        elif ":" in self._address:
            _require_listening(self._address)
        ray = _import_ray()
        if ray.is_initialized():
            return
        options: dict[str, Any] = {"address": self._address or "local", "log_to_driver": False}
        if self._address is None:
            options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        with _quiet("ray"):
            try:
                ray.init(configure_logging=False, **options)
            except (ConnectionError, OSError, RuntimeError, TimeoutError, ValueError) as error:
                raise _unusable(self._address, _why_unusable(error)) from error
        self._is_connected = True

    def _deploy(self) -> None:
        serve = _serve()
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        # No replica is to be reached but through Ray, so nothing needs to listen for HTTP.
        serve.start(proxy_location="Disabled")
        self._is_deployed = True
        status = serve.status().applications.get(self._name)
        if status is not None and status.status in ("RUNNING", "DEPLOYING", "UNHEALTHY"):
            return
        share = share_of(self._config, self._cluster())
        deployment = serve.deployment(EngineReplica, **options_of(self._config, share))
        target = deployment.bind(config_of_replica(self._config, share), self._build)
        serve.run_many(
            [serve.RunTarget(target, name=self._name, route_prefix=None)], wait_for_applications_running=False
        )

    def _cluster(self) -> Cluster:
        ray = _import_ray()
        total = ray.cluster_resources()
        cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        return Cluster(total.get("CPU", 0), total.get("GPU", 0), max(cpus, default=0), self._address is not None)

    def _status(self) -> Any:  # noqa: ANN401 - Ray's own
        return _serve().status().applications.get(self._name)

    def _get_handle(self) -> Any:  # noqa: ANN401 - Ray's own
        handle = _serve().get_app_handle(self._name)
        # Makes its router now, and not while the first chat waits.
        handle.options(stream=True)
        return handle

    def _disconnect(self) -> None:
        with _quiet("ray"):
            if self._handle is not None:
                # It reports to Serve from time to time, and would go on after the end.
                self._handle.shutdown()
                self._handle = None
            # A Ray of our own takes everything along.
            if self._is_deployed and not (self._is_connected and self._address is None):
                _serve().delete(self._name)
            if self._is_connected:
                _import_ray().shutdown()
        self._is_deployed = self._is_connected = False


class _RayAnswers:
    """A streamed response, with Ray's errors translated."""

    def __init__(self, response: Any) -> None:  # noqa: ANN401 - Ray's own
        self._response = response
        self._is_cancelled = False

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        try:
            item: Item = await self._response.__anext__()
        except (asyncio.CancelledError, StopAsyncIteration):
            raise
        except Exception as error:
            if self._is_cancelled:
                raise asyncio.CancelledError from None
            raise _translate(error) from error
        return item

    def cancel(self) -> None:
        self._is_cancelled = True
        with _translated():
            self._response.cancel()


@contextlib.contextmanager
def _translated(level: int = logging.WARNING) -> Iterator[None]:
    """Turn what Ray raises into an `EngineError` with a remedy, and log it at `level`."""
    try:
        yield
    except (EngineError, asyncio.CancelledError, StopAsyncIteration):
        raise
    except Exception as error:
        raise _translate(error, level) from error


def _translate(error: Exception, level: int = logging.WARNING) -> EngineError:
    """What `error` is for people. The boundary to Ray, whose errors have no common base: each is logged, and told to
    whoever waits."""
    logger.log(level, "%s: %s", type(error).__name__, _last_line(str(error)))
    exceptions, serve = importlib.import_module("ray.exceptions"), importlib.import_module("ray.serve.exceptions")
    if isinstance(error, serve.BackPressureError):
        return EngineBusy("all engines are busy, and too many wait already: try again in a moment")
    if isinstance(error, exceptions.RayActorError | exceptions.NodeDiedError | exceptions.WorkerCrashedError):
        return ServerError(
            "the engine that was answering has gone away in the middle of it: send the message again, another one "
            "takes it. Ray's logs say why it went"
        )
    if isinstance(error, exceptions.RayTaskError):
        return EngineError(f"the engine failed on this ({type(error.cause).__name__}); the replica's log says more")
    return ServerError(f"Ray did not answer ({type(error).__name__}): look at `ray status`, then try again")


def _take_back(number: signal.Signals) -> None:
    """Give a signal back to Python's handler. Ray puts one of its own below it, which reports a crash and lets the
    process abort three seconds later: no time to let replies end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, signal.getsignal(number))


def _require_listening(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise _unusable(address, str(error)) from error


def _why_unusable(error: Exception) -> str:
    if "InvalidAuthToken" in f"{error} {error.__cause__}":
        return "it asks for a token: set RAY_AUTH_MODE=token, and copy ~/.ray/auth_token from where it was started"
    return _last_line(str(error))


def _unusable(address: str | None, reason: str) -> ServerError:
    where = f"at {address}" if address else "on this machine"
    return ServerError(
        f"Ray {where} cannot be used: {reason}. Look at `ray status` there, and at RAY_ADDRESS; without RAY_ADDRESS, a "
        "Ray of its own is started"
    )


def _import_ray() -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ConfigurationError(
            'engine.backend = "ray" needs Ray: pip install "commedia[ray]", or set engine.backend = "local"'
        ) from None


def _serve() -> Any:  # noqa: ANN401 - a module
    return importlib.import_module("ray.serve")


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library's warnings about its own habits out of the log."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else "nothing"
