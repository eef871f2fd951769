"""Pictures behind links that people write, fetched as a stranger's wish deserves: from public addresses alone.

Owns which links are looked at, where they may lead, and the limits. Knows neither platforms nor pictures: what comes
back is bytes, for `bot.media.pictures` to judge.

Names are resolved here, every address is checked, and the connection goes to one that was: a name cannot mean something
else a moment later. Redirects are followed one by one, each checked anew. Whatever fails inside, the sender hears the
same sentence, so that nobody can feel their way around a private network.
"""

import asyncio
import ipaddress
import logging
import re
import socket
from collections.abc import Callable
from functools import partial
from urllib.parse import unquote

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bot.errors import MediaError
from bot.types import IncomingFile

logger = logging.getLogger(__name__)

MAX_REDIRECTS = 3
MAX_URL_LENGTH = 2000
TIMEOUT_S = 10.0
MAX_CONCURRENT = 4
WEB_PORTS = frozenset({80, 443})
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")

_HEADERS = {"User-Agent": "Commedia/1 (picture links)", "Accept": "image/*", "Accept-Encoding": "identity"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LINK = re.compile(r"https?://[^\s<>\"'`|\\^{}\x00-\x1f\x7f，。！？、；：）】」》…]+", re.IGNORECASE)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)

# The registries of special addresses, by hand: older Pythons know fewer of them.
_NOT_FOR_EVERYBODY = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
            # Where a cloud's machine asks about itself, though the address looks like anybody's.
            "168.63.129.16/32",
            # Tunnels, whose real end is another address, and examples.
            *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        ),
    )
)
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


def is_public_address(text: str) -> bool:
    """Whether that IP address belongs to the internet, and to nothing on this machine, its network or its cloud."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not any(address in network for network in _NOT_FOR_EVERYBODY)


class LinkedPictures:
    """Finds links to pictures in messages, and fetches what they lead to.

    `hosts` are the only ones that may be asked, with their subdomains; none means any. `is_public`, `resolver` and
    `ports` exist for tests.
    """

    def __init__(
        self,
        *,
        max_links: int = 2,
        hosts: tuple[str, ...] = (),
        timeout_s: float = TIMEOUT_S,
        is_public: Callable[[str], bool] = is_public_address,
        resolver: Callable[[], AbstractResolver] = aiohttp.ThreadedResolver,
        ports: frozenset[int] = WEB_PORTS,
    ) -> None:
        self._max_links = max_links
        self._hosts = tuple(host.strip().strip(".").lower() for host in hosts if host.strip())
        self._timeout_s = timeout_s
        self._is_public = is_public
        self._resolver = resolver
        self._ports = ports
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)

    def find(self, text: str) -> tuple[str, ...]:
        """The links in `text` that seem to lead to pictures, each once, as many as are looked at."""
        links = dict.fromkeys(_without_end(match[0]) for match in _LINK.finditer(text))
        return tuple(link for link in links if self._is_wanted(link))[: self._max_links]

    def files(self, text: str) -> tuple[IncomingFile, ...]:
        """The pictures behind the links in `text`, not fetched yet. Reading one raises `MediaError` for its sender."""
        return tuple(IncomingFile(_name(link), None, None, partial(self._read, link)) for link in self.find(text))

    def _is_wanted(self, link: str) -> bool:
        url = _parsed(link)
        if url is None or not self._is_allowed(url):
            return False
        named = (url.path, f".{url.query.get('format', '')}")
        return any(name.lower().endswith(PICTURE_SUFFIXES) for name in named)

    def _is_allowed(self, url: URL) -> bool:
        host = _host(url)
        if host is None or url.user is not None or url.password is not None or url.port not in self._ports:
            return False
        return not self._hosts or any(host == allowed or host.endswith(f".{allowed}") for allowed in self._hosts)

    async def _read(self, link: str, max_bytes: int) -> bytes:
        try:
            # Waiting for a slot takes from the time, too: a few slow servers hold up nobody for long.
            async with asyncio.timeout(self._timeout_s), self._slots:
                return await self._follow(URL(link), max_bytes, place=_place(link))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # Neither the link, which is what somebody wrote, nor where it led to.
            logger.info("a linked picture could not be fetched: %s", type(error).__name__)
            raise _unreachable(_place(link)) from None

    async def _follow(self, url: URL, max_bytes: int, *, place: str) -> bytes:
        resolver = _PublicResolver(self._resolver(), self._is_public)
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True, limit=1)
        async with aiohttp.ClientSession(
            connector=connector,
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            auto_decompress=False,
            trust_env=False,
        ) as session:
            for _ in range(MAX_REDIRECTS + 1):
                if not self._is_allowed(url):
                    raise _unreachable(place)
                async with session.get(url, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        return await _body(response, max_bytes, place=place)
                    url = _target(url, response.headers.get("Location", ""), place=place)
        raise MediaError(f"The link to {place} goes round in circles. Please send the picture itself.")


class _PublicResolver(AbstractResolver):
    """Addresses as `inner` finds them. A name that leads to only one private address leads nowhere."""

    def __init__(self, inner: AbstractResolver, is_public: Callable[[str], bool]) -> None:
        self._inner = inner
        self._is_public = is_public

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if not found or not all(self._is_public(one["host"]) for one in found):
            raise OSError("not a public address")
        return found

    async def close(self) -> None:
        await self._inner.close()


async def _body(response: aiohttp.ClientResponse, max_bytes: int, *, place: str) -> bytes:
    if response.status != 200:
        raise MediaError(f"There is nothing to see at the link to {place}. Please send the picture itself.")
    if (
        not response.content_type.startswith("image/")
        or response.headers.get("Content-Encoding", "identity") != "identity"
    ):
        raise MediaError(f"The link to {place} leads to no picture. Please send the picture itself.")
    if (response.content_length or 0) > max_bytes:
        raise _too_large(place, max_bytes)
    received = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        received += chunk
        if len(received) > max_bytes:
            raise _too_large(place, max_bytes)
    return bytes(received)


def _target(url: URL, location: str, *, place: str) -> URL:
    if not location or len(location) > MAX_URL_LENGTH:
        raise _unreachable(place)
    target = url.join(URL(location))
    if target.scheme not in {"http", "https"}:
        raise _unreachable(place)
    return target


def _parsed(link: str) -> URL | None:
    if len(link) > MAX_URL_LENGTH:
        return None
    try:
        url = URL(link)
        return url if _host(url) is not None and url.port is not None else None
    except ValueError:
        return None


def _host(url: URL) -> str | None:
    """The host as it is asked for; `None` where it is an address in any spelling, or a name of the own network."""
    host = (url.raw_host or "").rstrip(".").lower()
    labels = host.split(".")
    if len(labels) < 2 or not all(labels) or not host.isascii() or ":" in host or len(host) > 253:
        return None
    # Whatever ends in a number is an address to some: 127.1, 0x7f.1, 2130706433.
    return None if _NUMBER.fullmatch(labels[-1]) else host


def _without_end(link: str) -> str:
    """`link` without what belongs to the sentence around it: stops, and brackets that it did not open."""
    while link and (link[-1] in ".,;:!?*_~" or any(_closes(link, pair) for pair in ("()", "[]"))):
        link = link[:-1]
    return link


def _closes(link: str, pair: str) -> bool:
    return link.endswith(pair[1]) and link.count(pair[0]) < link.count(pair[1])


def _name(link: str) -> str:
    return unquote(URL(link).name) or _place(link)


def _place(link: str) -> str:
    return (_host(URL(link)) or "there")[:60]


def _unreachable(place: str) -> MediaError:
    return MediaError(f"I could not reach the picture behind the link to {place}. Please send the picture itself.")


def _too_large(place: str, max_bytes: int) -> MediaError:
    return MediaError(f"The picture behind the link to {place} is larger than {max_bytes / 2**20:g} MiB.")
