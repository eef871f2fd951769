"""HTTP to a server that speaks OpenAI's API: which models it has, and one streamed answer at a time.

Owns addresses, keys, time limits, which failures are worth another try, and what each means in words. Knows neither
personas nor queues. Secrets go out in headers and URLs, and nowhere else: errors and logs name scheme and host. A
server may send what it likes, for as long as it likes: how much is read, and how long, is bounded here.
"""

import asyncio
import contextlib
import email.utils
import ipaddress
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import httpx
from httpx_sse import EventSource

from engine.backends.chat_answers import Piece, ServedModel, read_error, read_model, read_piece, reason_of
from engine.errors import ConfigurationError, RequestError, ServerError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
LIST_TIMEOUT_S = 15.0
END_TIMEOUT_S = 0.25
MAX_ERROR_BYTES = 1 << 16
# Of a list of models, of an answer that is not streamed, and of one event of a stream that is.
MAX_ANSWER_BYTES = 1 << 24
MAX_TOLD_CHARACTERS = 300
MAX_TOLD_NAMES = 12
MIN_SECRET_LENGTH = 4
# What `json` and a wrong shape raise.
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
# What a proxy or a server under load answers while somebody else still holds it up.
PASSING_STATUSES = frozenset({429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
MENDABLE_STATUSES = frozenset({400, 404, 413, 415, 422})


@dataclass(frozen=True, slots=True)
class Patience:
    """How often, and how long after a failure, a reply that has not begun is asked for again."""

    max_tries: int = 3
    first_wait_s: float = 0.5
    max_wait_s: float = 30.0


class Refused(RequestError):
    """The server does not take this request as it is. `reason` is all that it said, for who can mend the request."""

    def __init__(self, text: str, *, status: int, reason: str, field: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.field = field


class _Passing(Exception):
    """A failure that may be gone at the next try; `error` is what to say if not."""

    def __init__(self, error: ServerError, *, wait_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_s = wait_s


class ChatServer:
    """One server. `label` is how messages call it."""

    def __init__(
        self,
        url: str | None,
        *,
        api_key: str | None = None,
        max_silence_s: float = 120.0,
        patience: Patience | None = None,
    ) -> None:
        """`max_silence_s` bounds the time to the first piece of an answer, and between two."""
        address = _parse(url)
        self.label = _label(address)
        self._max_silence_s = max_silence_s
        self._patience = patience or Patience()
        self._secrets = _secrets(address, api_key)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        auth = httpx.BasicAuth(address.username, address.password) if address.username and not api_key else None
        self._client = httpx.AsyncClient(
            # Without user, password and query: httpx logs every URL.
            base_url=address.copy_with(username=None, password=None, query=None),
            headers=_checked(headers),
            auth=auth,
            # A server on this machine is asked directly, whatever proxies the environment names.
            trust_env=not _is_loopback(address),
            transport=_WithQuery(address.params) if address.params else None,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            timeout=httpx.Timeout(max_silence_s, connect=CONNECT_TIMEOUT_S),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def models(self) -> tuple[ServedModel, ...]:
        """What the server has; nothing where it keeps no list. Raises `ServerError`."""
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S), self._client.stream("GET", "models") as response:
                data = await _beginning(response, MAX_ANSWER_BYTES)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, TimeoutError) as error:
            raise self._unreachable(error) from None
        if response.status_code in (401, 403):
            raise self._wrong_key(response.status_code)
        if response.status_code in (404, 405, 501):
            return ()
        if response.is_redirect:
            raise self._elsewhere()
        if response.status_code != httpx.codes.OK:
            raise ServerError(f"{self.label} answers {response.status_code} when asked for its models: see its log")
        try:
            return tuple(read_model(entry) for entry in json.loads(data)["data"] or ())
        except MALFORMED:
            raise ServerError(
                f"{self.label} does not speak OpenAI's API at the path of engine.url: most servers have it at /v1, as "
                "in http://127.0.0.1:11434/v1"
            ) from None

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        """One answer, piece by piece. Until its first words, what may pass is tried again.

        Raises `ServerError` with a remedy, `Refused` where the request itself is at fault.
        """
        has_begun = False
        for num_tries in range(1, self._patience.max_tries + 1):
            try:
                async with aclosing(self._stream_once(path, body)) as pieces:
                    while True:
                        async with asyncio.timeout(self._max_silence_s) as limit:
                            piece = await anext(pieces, None)
                        if piece is None:
                            return
                        has_begun = has_begun or bool(piece.text)
                        yield piece
            except TimeoutError:
                if not limit.expired():
                    raise
                raise self._silent() from None
            except _Passing as failure:
                wait_s = self._wait_s(failure, num_tries)
                if has_begun or num_tries == self._patience.max_tries or wait_s > self._patience.max_wait_s:
                    raise failure.error from None
                logger.info("%s; trying again in %.1f s", failure, wait_s)
                await asyncio.sleep(wait_s)

    async def _stream_once(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        try:
            async with self._client.stream("POST", path, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise self._failure(response, await _beginning(response, MAX_ERROR_BYTES))
                async for piece in self._pieces(response):
                    yield piece
        except _TooMuch:
            raise self._no_answer() from None
        except httpx.ConnectError as error:
            raise _Passing(self._unreachable(error)) from None
        except httpx.TimeoutException as error:
            raise (self._silent() if isinstance(error, httpx.ReadTimeout) else self._unreachable(error)) from None
        except httpx.TransportError:
            raise _Passing(self._vanished()) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self._unreachable(error) from None

    async def _pieces(self, response: httpx.Response) -> AsyncIterator[Piece]:
        if "text/event-stream" not in response.headers.get("content-type", ""):
            yield self._whole(await _beginning(response, MAX_ANSWER_BYTES))
            return
        is_whole = False
        bounded = _Bounded(response)
        # All that it asks for are headers and text.
        events = EventSource(cast(httpx.Response, bounded)).aiter_sse()
        async for event in events:
            bounded.num_pending = 0
            if event.data.strip() == "[DONE]":
                await _run_out(events)
                return
            if event.data:
                piece = self._read(event.data)
                is_whole = is_whole or piece.finish is not None
                yield piece
        if not is_whole:
            raise _Passing(self._vanished())

    def _whole(self, data: bytes) -> Piece:
        """The answer of a server that does not stream."""
        piece = self._read(data.decode("utf-8", "replace"))
        return Piece(piece.text, piece.finish or "stop", piece.usage)

    def _read(self, data: str) -> Piece:
        try:
            content = json.loads(data)
            if content.get("error") or content.get("object") == "error":
                raise self._told_failure(content)
            return read_piece(content)
        except MALFORMED:
            raise self._no_answer() from None

    def _told_failure(self, content: dict[str, Any]) -> Exception:
        """An error that came in place of a piece, after the server had said that all is well."""
        reason, field, code = reason_of(content)
        if code in {str(status) for status in MENDABLE_STATUSES}:
            return Refused(self._refusal(reason), status=int(code), reason=reason, field=field)
        told = self._safe(reason) or "it does not say why"
        return _Passing(ServerError(f"{self.label} failed in the middle of a reply: {told}"))

    def _failure(self, response: httpx.Response, data: bytes) -> Exception:
        """What an answer other than 200 means."""
        status = response.status_code
        reason, field, code = reason_of(read_error(data))
        if status in (401, 403):
            return self._wrong_key(status)
        if status in MENDABLE_STATUSES:
            return Refused(self._refusal(reason, status=status), status=status, reason=reason, field=field)
        if code == "insufficient_quota":
            return ServerError(f"the account at {self.label} has no credit left: {self._safe(reason)}")
        told = f" ({self._safe(reason)})" if reason else ""
        if status == httpx.codes.TOO_MANY_REQUESTS:
            wait_s = _retry_after_s(response.headers)
            when = "in a while" if wait_s is None else f"in {wait_s:.0f} s"
            return _Passing(
                ServerError(f"{self.label} asks for patience{told}: try again {when}, or lower engine.max_running"),
                wait_s=wait_s,
            )
        if status in PASSING_STATUSES:
            error = ServerError(f"{self.label} failed with status {status}{told}: see its log, then try again")
            return _Passing(error, wait_s=_retry_after_s(response.headers))
        if response.is_redirect:
            return self._elsewhere()
        return ServerError(f"{self.label} answers with status {status}{told}: see its log")

    def _wait_s(self, failure: _Passing, num_tries: int) -> float:
        if failure.wait_s is not None:
            return max(failure.wait_s, 0.0)
        return min(math.ldexp(self._patience.first_wait_s, num_tries - 1), self._patience.max_wait_s)

    def _refusal(self, reason: str, *, status: int = 400) -> str:
        return f"{self.label} refuses this request: {self._safe(reason) or f'status {status}'}"

    def _wrong_key(self, status: int) -> ServerError:
        return ServerError(
            f"{self.label} refuses the key ({status}): check engine.api_key"
            if self._secrets
            else f"{self.label} wants a key ({status}): set engine.api_key"
        )

    def _elsewhere(self) -> ServerError:
        return ServerError(f"{self.label} sends us elsewhere: set engine.url to where it really is")

    def _no_answer(self) -> ServerError:
        return ServerError(
            f"{self.label} sent something that is no answer of OpenAI's API: check that engine.url names its chat "
            "API, and that nothing in between changes answers"
        )

    def _unreachable(self, error: Exception) -> ServerError:
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            why = "no answer in time"
        else:
            why = self._safe(str(error)) or type(error).__name__
        return ServerError(f"{self.label} cannot be reached ({why}): start it there, or correct engine.url")

    def _vanished(self) -> ServerError:
        return ServerError(f"{self.label} vanished in the middle of a reply: see its log, then ask again")

    def _silent(self) -> ServerError:
        return ServerError(
            f"{self.label} has said nothing for {self._max_silence_s:g} s: see whether it is overloaded, or raise "
            "engine.max_step_s"
        )

    def _safe(self, text: str) -> str:
        """What a server said, short, on one line and without our secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return _on_one_line(text)


class _TooMuch(Exception):
    """An event that does not end."""


class _Bounded:
    """A response's text. Raises `_TooMuch` where more than `MAX_ANSWER_BYTES` come between two events."""

    def __init__(self, response: httpx.Response) -> None:
        self.headers = response.headers
        self.num_pending = 0
        self._response = response

    async def aiter_text(self) -> AsyncIterator[str]:
        async for text in self._response.aiter_text():
            self.num_pending += len(text)
            if self.num_pending > MAX_ANSWER_BYTES:
                raise _TooMuch
            yield text


class _WithQuery(httpx.AsyncBaseTransport):
    """Adds the query of the configured URL at the last moment, since it may hold a key and httpx logs URLs."""

    def __init__(self, query: httpx.QueryParams) -> None:
        self._query = query
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        complete = httpx.Request(
            request.method,
            request.url.copy_merge_params(self._query),
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        return await self._inner.handle_async_request(complete)

    async def aclose(self) -> None:
        await self._inner.aclose()


def choose_model(wanted: str | None, served: tuple[ServedModel, ...], *, label: str) -> str:
    """The model to ask for: the configured one, or the only one there is."""
    names = [model.name for model in served]
    if wanted is not None:
        # Servers such as Ollama know models by shorter names than they list: "llama3.2" is "llama3.2:latest".
        if names and not any(name == wanted or name.startswith(f"{wanted}:") for name in names):
            raise unknown_model(wanted, names, label=label)
        return wanted
    roots = [model.name for model in served if model.parent is None]
    if len(roots) != 1:
        raise ConfigurationError(f"set engine.model: {label} has {_listed(names)}")
    return roots[0]


def unknown_model(wanted: str, names: list[str], *, label: str) -> ConfigurationError:
    """`wanted` is not among `names`."""
    return ConfigurationError(f'{label} has no model "{wanted}": set engine.model to one that it has, {_listed(names)}')


def _listed(names: list[str]) -> str:
    shown = ", ".join(_on_one_line(name) for name in names[:MAX_TOLD_NAMES])
    more = f" and {len(names) - MAX_TOLD_NAMES} more" if len(names) > MAX_TOLD_NAMES else ""
    return f"{shown}{more}" if names else "no list of models to choose from"


def _parse(url: str | None) -> httpx.URL:
    if not url:
        raise ConfigurationError(
            'this backend needs engine.url, the address of a server, such as "http://127.0.0.1:11434/v1"'
        )
    try:
        address = httpx.URL(url)
        host = address.host
    except (httpx.InvalidURL, UnicodeError, TypeError):
        raise ConfigurationError('engine.url is no address: it should look like "http://127.0.0.1:11434/v1"') from None
    if address.scheme not in ("http", "https") or not host:
        raise ConfigurationError('engine.url must begin with http:// or https://, as "http://127.0.0.1:11434/v1"')
    return address


def _label(address: httpx.URL) -> str:
    port = f":{address.port}" if address.port is not None else ""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{address.scheme}://{host}{port}"


def _secrets(address: httpx.URL, api_key: str | None) -> tuple[str, ...]:
    # Some want their key in the place of the user's name.
    user = "" if address.password else address.username
    found = {api_key or "", user, address.password, *address.params.values()}
    return tuple(sorted((text for text in found if len(text) >= MIN_SECRET_LENGTH), key=len, reverse=True))


def _checked(headers: dict[str, str]) -> dict[str, str]:
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        raise ConfigurationError("engine.api_key has a character that no key has: copy it again")
    return headers


def _is_loopback(address: httpx.URL) -> bool:
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


async def _run_out(events: AsyncIterator[object]) -> None:
    """Read to the very end, where that comes soon: then the connection serves the next reply too."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_TIMEOUT_S):
            async for _ in events:
                pass


def _on_one_line(text: str) -> str:
    """Somebody else's words, short enough to be told; nothing in them steers a terminal."""
    printable = "".join(character if character.isprintable() else " " for character in text[: MAX_TOLD_CHARACTERS + 1])
    line = " ".join(printable.split())
    return line if len(text) <= MAX_TOLD_CHARACTERS else f"{line[:MAX_TOLD_CHARACTERS]}…"


async def _beginning(response: httpx.Response, max_bytes: int) -> bytes:
    """As much of an answer as is worth reading."""
    data = bytearray()
    async for part in response.aiter_bytes():
        data += part
        if len(data) >= max_bytes:
            break
    return bytes(data[:max_bytes])


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """In seconds, from a number of seconds or a date."""
    told = headers.get("retry-after")
    if told is None:
        return None
    try:
        seconds = float(told)
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(told).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
