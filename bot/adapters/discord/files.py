"""Files that lie on Discord's CDN, and files on their way there.

Owns downloading them within a limit. Does not look at what is in them: `bot.media` does.
"""

from pathlib import Path
from typing import Any

import aiohttp
import discord

from bot.errors import MediaError

CHUNK_BYTES = 64 * 1024
ATTACHMENTS = ("https://cdn.discordapp.com/attachments/", "https://media.discordapp.net/attachments/")
TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10, sock_read=20)


def is_attachment(url: str) -> bool:
    """Whether `url` leads to something that was uploaded to Discord, and not to anybody's server."""
    return url.startswith(ATTACHMENTS)


def upload(picture: Path | None) -> dict[str, Any]:
    """The arguments that send `picture` along. To be made anew for each try: an upload is read to its end."""
    return {"file": discord.File(picture, filename=picture.name)} if picture is not None else {}


class Downloads:
    """Downloads from absolute addresses. It never sends the bot's token along."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def read(self, url: str, name: str, max_bytes: int) -> bytes:
        """The file at `url`, called `name` in errors. Raises `MediaError` as soon as it exceeds `max_bytes`."""
        try:
            # Identity, so that a small compressed answer cannot become a large one in memory.
            async with self._open_session().get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise MediaError(f"Discord no longer offers “{name}”; please send it again.")
                return await _read_within(response, name, max_bytes)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            raise MediaError(f"“{name}” could not be downloaded from Discord; please send it again.") from None

    async def aclose(self) -> None:
        """End all downloads."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}, auto_decompress=False
            )
        return self._session


async def _read_within(response: aiohttp.ClientResponse, name: str, max_bytes: int) -> bytes:
    if response.content_length is not None and response.content_length > max_bytes:
        raise _too_large(name, max_bytes)
    data = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        data += chunk
        if len(data) > max_bytes:
            raise _too_large(name, max_bytes)
    return bytes(data)


def _too_large(name: str, max_bytes: int) -> MediaError:
    limit = f"{max_bytes / 2**20:.1f} MiB" if max_bytes >= 2**20 else f"{max_bytes / 2**10:.1f} KiB"
    return MediaError(f"“{name}” is too large: at most {limit} are taken.")
