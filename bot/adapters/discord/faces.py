"""Personas' own names and pictures, by Discord's webhooks: one for a persona in a channel and all of its threads.

Owns making them, finding them again and mending them, and which webhook said what. Does not know what is said. A
webhook is ours by the application that made it; its name tells the persona, and by a few digits the picture that it was
given, so that a restart neither makes it twice nor uploads the picture again. What people read is the name that each
message brings. A webhook's token lets anybody write: it is kept in memory alone, and never told.
"""

import asyncio
import hashlib
import itertools
import logging
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote
from weakref import WeakValueDictionary

import discord
from discord.utils import MISSING

from bot.adapters.discord.errors import describe
from bot.adapters.discord.files import upload
from bot.adapters.discord.places import place_of
from bot.adapters.discord.recent import Recent
from bot.adapters.discord.troubles import WEBHOOK, Troubles
from bot.types import ChatKind, Speaker

logger = logging.getLogger(__name__)

FaceMode = Literal["several", "always", "never"]

# Of the fifteen that a channel may have: others need some too.
MAX_WEBHOOKS = 10
MAX_NAME_LENGTH = 80
MAX_REMEMBERED = 10_000
# So long a channel without the permission is left alone.
REFUSAL_S = 600.0
NO_PICTURE = "0" * 8
NO_PERMISSION = "the bot lacks the permission “Manage Webhooks”"
REASON = "A persona speaks under its own name and picture"

UNKNOWN_CHANNEL = 10003
UNKNOWN_WEBHOOK = 10015
TOO_MANY_WEBHOOKS = 30007
INVALID_TOKEN = 50027

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}
_FORBIDDEN_WORDS = re.compile(r"(cly)(de)|(dis)(cord)", re.IGNORECASE)
_FORBIDDEN_NAMES = {"everyone", "here", "system message"}


@dataclass(slots=True)
class Webhook:
    """One of our webhooks. `picture` tells which picture it was given; `used` grows with each use of any."""

    id: int
    token: str = field(repr=False)
    persona: str
    picture: str
    used: int = 0


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a webhook speaks: its channel, and the thread in it."""

    channel_id: int
    thread_id: int | None


class Faces:
    """Lets personas speak under their own names and pictures, where Discord allows it."""

    def __init__(
        self,
        troubles: Troubles,
        *,
        mode: FaceMode = "several",
        avatars_url: str | None = None,
    ) -> None:
        self._troubles = troubles
        self._is_enabled = mode != "never"
        self._avatars_url = avatars_url.rstrip("/") if avatars_url else None
        self._by_channel: Recent[int, dict[str, Webhook]] = Recent(MAX_REMEMBERED)
        self._speakers: Recent[int, tuple[Webhook, Spot]] = Recent(MAX_REMEMBERED)
        self._spots: Recent[int, Spot] = Recent(MAX_REMEMBERED)
        self._refused_until: Recent[int, float] = Recent(MAX_REMEMBERED)
        self._told: Recent[int, str] = Recent(MAX_REMEMBERED)
        self._refused_names: Recent[str, str] = Recent(MAX_REMEMBERED)
        self._digits: Recent[Path, tuple[tuple[int, int], str]] = Recent(MAX_REMEMBERED)
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._uses = itertools.count(1)

    async def send(
        self,
        client: discord.Client,
        channel_id: int,
        speaker: Speaker,
        text: str,
        content: Mapping[str, Any],
        *,
        picture: Path | None = None,
    ) -> str | None:
        """Say `text` with further `content` as `speaker`, and return the id; `None` where nobody can have a face."""
        spot = await self._spot(client, channel_id) if self._is_enabled else None
        if spot is None:
            return None
        avatar_url = self._avatar_url(speaker, text)
        # A webhook that somebody has deleted or moved meanwhile is made anew; a picture that Discord refuses is left
        # out, and a name stands in the text.
        for _ in range(3):
            webhook = await self._webhook(client, spot.channel_id, speaker)
            if webhook is None:
                return None
            try:
                message = await _partial(webhook, client).send(
                    text,
                    username=clean_name(speaker.name),
                    avatar_url=avatar_url or MISSING,
                    thread=_thread(spot),
                    wait=True,
                    **content,
                    **upload(picture),
                )
            except discord.HTTPException as error:
                if is_gone(error):
                    self._forget(spot.channel_id, webhook)
                elif error.code == UNKNOWN_CHANNEL and await self._is_elsewhere(client, spot.channel_id, webhook):
                    self._tell_of_move(spot.channel_id)
                elif error.status == 400 and "username" in error.text.casefold():
                    self._tell_of_name(speaker, describe(error))
                    return None
                elif error.status == 400 and avatar_url is not None:
                    avatar_url = None
                    self._tell_of_picture(f"{describe(error)}; is discord.avatars_url right?")
                else:
                    raise
                continue
            if message.channel.id != channel_id:
                self._forget(spot.channel_id, webhook)
                self._tell_of_move(spot.channel_id)
                # Others read along there: it must not stay.
                await message.delete()
                continue
            webhook.used = next(self._uses)
            self._speakers.put(message.id, (webhook, spot))
            return str(message.id)
        return None

    def has_said(self, message_id: int) -> bool:
        """Whether that message is known to be a webhook's."""
        return message_id in self._speakers

    async def find(self, client: discord.Client, channel_id: int, message_id: int) -> bool:
        """Ask Discord whether one of our webhooks said that message; after a restart nobody else knows."""
        message = await client.get_partial_messageable(channel_id).fetch_message(message_id)
        spot = await self._spot(client, channel_id)
        if message.webhook_id is None or spot is None:
            return False
        async with self._lock(spot.channel_id):
            own = self._by_channel.get(spot.channel_id) or await self._list(client, spot.channel_id)
        webhook = next((webhook for webhook in own.values() if webhook.id == message.webhook_id), None)
        if webhook is None:
            return False
        self._speakers.put(message_id, (webhook, spot))
        return True

    async def edit(self, client: discord.Client, message_id: int, changes: Mapping[str, Any]) -> None:
        """Change a message that a webhook said."""
        webhook, spot = self._speaker(message_id)
        await _partial(webhook, client).edit_message(message_id, thread=_thread(spot), **changes)

    async def delete(self, client: discord.Client, message_id: int) -> None:
        """Delete a message that a webhook said."""
        webhook, spot = self._speaker(message_id)
        await _partial(webhook, client).delete_message(message_id, thread=_thread(spot))

    def _speaker(self, message_id: int) -> tuple[Webhook, Spot]:
        known = self._speakers.get(message_id)
        if known is None:
            raise LookupError(f"no webhook is known to have said message {message_id}")
        return known

    async def _spot(self, client: discord.Client, channel_id: int) -> Spot | None:
        """Where a webhook for that channel belongs; `None` where there are none, as in direct chats."""
        channel = client.get_channel(channel_id)
        if channel is None and (known := self._spots.get(channel_id)) is not None:
            return known
        if channel is None:
            channel = await client.fetch_channel(channel_id)
        guild = getattr(channel, "guild", None)
        place = place_of(channel, channel_id, guild.id if guild is not None else None)
        if place.kind is ChatKind.DIRECT:
            return None
        thread_id = int(place.room.thread_id) if place.room.thread_id is not None else None
        spot = Spot(int(place.room.chat_id), thread_id)
        self._spots.put(channel_id, spot)
        return spot

    async def _webhook(self, client: discord.Client, channel_id: int, speaker: Speaker) -> Webhook | None:
        """The webhook of `speaker`, found, mended or made; `None` where Discord does not let us."""
        if self._is_refused(client, channel_id):
            return None
        async with self._lock(channel_id):
            try:
                own = self._by_channel.get(channel_id)
                if own is None:
                    own = await self._list(client, channel_id)
                return await self._fitting(client, channel_id, own, speaker)
            except discord.HTTPException as error:
                if error.status >= 500 or error.status == 429:
                    raise
                self._refuse(channel_id, describe(error))
                return None

    def _lock(self, channel_id: int) -> asyncio.Lock:
        """Held while the webhooks of a channel are found or changed, so that each is made once."""
        return self._locks.setdefault(channel_id, asyncio.Lock())

    async def _fitting(
        self, client: discord.Client, channel_id: int, own: dict[str, Webhook], speaker: Speaker
    ) -> Webhook | None:
        persona = clean_name(speaker.persona_id)
        picture = await asyncio.to_thread(self._digits_of, speaker.avatar)
        webhook = own.get(persona)
        if webhook is not None and webhook.picture == picture:
            return webhook
        data = await asyncio.to_thread(_read_picture, speaker.avatar)
        if webhook is not None:
            try:
                await self._mend(client, webhook, picture, data)
            except discord.NotFound:
                del own[persona]
            else:
                return webhook
        own[persona] = await self._make(client, channel_id, own, persona, picture, data)
        return own[persona]

    async def _list(self, client: discord.Client, channel_id: int) -> dict[str, Webhook]:
        """Our webhooks in a channel, by persona: those that our application made."""
        found: dict[str, Webhook] = {}
        for data in await client.http.channel_webhooks(channel_id):
            name, token = data.get("name") or "", data.get("token")
            if token and str(data.get("application_id")) == str(client.application_id):
                persona, _, picture = name.rpartition(" ")
                found[persona] = Webhook(int(data["id"]), token, persona, picture)
        self._by_channel.put(channel_id, found)
        return found

    async def _make(
        self,
        client: discord.Client,
        channel_id: int,
        own: dict[str, Webhook],
        persona: str,
        picture: str,
        data: bytes | None,
    ) -> Webhook:
        while len(own) >= MAX_WEBHOOKS:
            await self._drop_oldest(client, own)
        try:
            made = await self._create(client, channel_id, f"{persona} {picture}", data)
        except discord.HTTPException as error:
            if error.code != TOO_MANY_WEBHOOKS or not own:
                raise
            await self._drop_oldest(client, own)
            made = await self._create(client, channel_id, f"{persona} {picture}", data)
        return Webhook(int(made["id"]), str(made["token"]), persona, picture)

    async def _create(
        self, client: discord.Client, channel_id: int, name: str, data: bytes | None
    ) -> Mapping[str, Any]:
        encoded: Any = _as_data_url(data) if data is not None else None
        try:
            return await client.http.create_webhook(channel_id, name=name, avatar=encoded, reason=REASON)
        except discord.HTTPException as error:
            if encoded is None or error.status not in (400, 413) or error.code == TOO_MANY_WEBHOOKS:
                raise
            self._tell_of_picture(describe(error))
            return await client.http.create_webhook(channel_id, name=name, avatar=None, reason=REASON)

    async def _mend(self, client: discord.Client, webhook: Webhook, picture: str, data: bytes | None) -> None:
        name = f"{webhook.persona} {picture}"
        try:
            await _partial(webhook, client).edit(name=name, avatar=data)
        except (discord.HTTPException, ValueError) as error:
            if isinstance(error, discord.HTTPException) and error.status not in (400, 413):
                raise
            self._tell_of_picture(describe(error))
            await _partial(webhook, client).edit(name=name)
        webhook.picture = picture

    async def _drop_oldest(self, client: discord.Client, own: dict[str, Webhook]) -> None:
        oldest = min(own.values(), key=lambda webhook: (webhook.used, webhook.id))
        del own[oldest.persona]
        try:
            await _partial(oldest, client).delete()
        except discord.NotFound:
            logger.debug("a webhook that was to make room is gone already")

    async def _is_elsewhere(self, client: discord.Client, channel_id: int, webhook: Webhook) -> bool:
        """Whether that webhook is not in its channel any more. What the channel has is known then."""
        async with self._lock(channel_id):
            own = await self._list(client, channel_id)
        return all(other.id != webhook.id for other in own.values())

    def _forget(self, channel_id: int, webhook: Webhook) -> None:
        own = self._by_channel.get(channel_id)
        if own is not None and own.get(webhook.persona) is webhook:
            del own[webhook.persona]

    def _is_refused(self, client: discord.Client, channel_id: int) -> bool:
        """Whether it is known without asking that Discord will not let us."""
        channel = client.get_channel(channel_id)
        if isinstance(channel, discord.abc.GuildChannel):
            if channel.permissions_for(channel.guild.me).manage_webhooks:
                if self._told.get(channel_id) == NO_PERMISSION:
                    self._told.pop(channel_id)
            else:
                self._tell(channel_id, NO_PERMISSION)
                return True
        until = self._refused_until.get(channel_id)
        return until is not None and asyncio.get_running_loop().time() < until

    def _refuse(self, channel_id: int, why: str) -> None:
        self._refused_until.put(channel_id, asyncio.get_running_loop().time() + REFUSAL_S)
        self._tell(channel_id, why)

    def _tell(self, channel_id: int, why: str) -> None:
        """Note it once a channel: personas go on with their names in the text."""
        if channel_id not in self._told:
            self._told.put(channel_id, why)
            self._troubles.note(
                WEBHOOK,
                f"personas have no faces of their own in channel {channel_id}: {why}. Grant “Manage Webhooks” in the "
                "channel's settings, or set discord.faces to never.",
            )

    def _tell_of_name(self, speaker: Speaker, why: str) -> None:
        """Note it once a persona."""
        if self._refused_names.get(speaker.persona_id) != speaker.name:
            self._refused_names.put(speaker.persona_id, speaker.name)
            self._troubles.note(
                WEBHOOK,
                f"Discord does not take the name of persona {speaker.persona_id}, so it stands in the text: {why}. "
                "Give it another name.",
            )

    def _tell_of_move(self, channel_id: int) -> None:
        self._troubles.note(
            WEBHOOK,
            f"somebody moved a persona's webhook from channel {channel_id} to another one, so a new one is made: "
            "leave the bot's webhooks where they are",
        )

    def _tell_of_picture(self, why: str) -> None:
        self._troubles.note(WEBHOOK, f"Discord does not take a persona's picture, so it goes without: {why}")

    def _digits_of(self, path: Path | None) -> str:
        """The digits that tell a picture from others; it is read anew only where the file has changed."""
        try:
            status = path.stat() if path is not None else None
        except OSError:
            status = None
        if path is None or status is None:
            return NO_PICTURE
        version = (status.st_mtime_ns, status.st_size)
        known = self._digits.get(path)
        if known is None or known[0] != version:
            data = _read_picture(path)
            known = (version, hashlib.sha256(data).hexdigest()[:8] if data else NO_PICTURE)
            self._digits.put(path, known)
        return known[1]

    def _avatar_url(self, speaker: Speaker, text: str) -> str | None:
        if self._avatars_url is None:
            return None
        picture = speaker.avatar_for(text)
        return f"{self._avatars_url}/{quote(picture.name)}" if picture is not None else None


def is_gone(error: discord.HTTPException) -> bool:
    """Whether `error` tells that there is no such webhook any more."""
    return error.code in (UNKNOWN_WEBHOOK, INVALID_TOKEN)


def clean_name(name: str) -> str:
    """`name` as Discord lets a webhook be called: up to 80 characters, and neither Clyde nor Discord."""
    cleaned = _FORBIDDEN_WORDS.sub(lambda match: "·".join(filter(None, match.groups())), " ".join(name.split()))
    if cleaned.casefold() in _FORBIDDEN_NAMES:
        cleaned = f"·{cleaned}"
    return cleaned[:MAX_NAME_LENGTH].strip() or "Persona"


def _partial(webhook: Webhook, client: discord.Client) -> discord.Webhook:
    return discord.Webhook.partial(webhook.id, webhook.token, client=client)


def _thread(spot: Spot) -> discord.Object:
    nowhere: discord.Object = MISSING
    return discord.Object(spot.thread_id) if spot.thread_id is not None else nowhere


def _read_picture(path: Path | None) -> bytes | None:
    """A persona's picture. One that cannot be read is none."""
    try:
        return (path.read_bytes() or None) if path is not None else None
    except OSError as error:
        logger.warning("a persona's picture cannot be read: %s", error.strerror)
        return None


def _as_data_url(data: bytes) -> str | None:
    """A picture as Discord takes it, or `None` where it takes no such file."""
    for start, mime in _SIGNATURES.items():
        if data.startswith(start) and (mime != "image/webp" or data[8:12] == b"WEBP"):
            return f"data:{mime};base64,{b64encode(data).decode()}"
    return None
