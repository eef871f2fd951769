"""What there is on the fake Discord: people, places, messages, interactions. Plain records, and their wire form.

Ids are strings, as on the wire. Times are `time.monotonic()`.
"""

import itertools
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

DISCORD_EPOCH_MS = 1_420_070_400_000
PERMISSIONS = {
    "add_reactions": 1 << 6,
    "view_channel": 1 << 10,
    "send_messages": 1 << 11,
    "manage_messages": 1 << 13,
    "attach_files": 1 << 15,
    "read_message_history": 1 << 16,
    "manage_webhooks": 1 << 29,
    "send_messages_in_threads": 1 << 38,
}
ALL_PERMISSIONS = ((1 << 50) - 1) & ~(1 << 3)  # everything but administrator, which would override every denial
EPHEMERAL = 1 << 6

_counter = itertools.count(1)


def snowflake() -> str:
    """A new id. It carries the time, as Discord's do."""
    return str(((int(time.time() * 1000) - DISCORD_EPOCH_MS) << 22) | (next(_counter) & 0x3FFFFF))


class ChannelType(IntEnum):
    TEXT = 0
    DM = 1
    VOICE = 2
    CATEGORY = 4
    NEWS = 5
    PUBLIC_THREAD = 11
    STAGE = 13
    FORUM = 15


@dataclass(eq=False)
class User:
    name: str
    display_name: str
    is_bot: bool = False
    id: str = field(default_factory=snowflake)

    @property
    def mention(self) -> str:
        return f"<@{self.id}>"

    def wire(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "username": self.name,
            "global_name": self.display_name,
            "discriminator": "0000" if self.is_bot else "0",
            "avatar": None,
            "bot": self.is_bot,
        }


@dataclass(eq=False)
class Guild:
    name: str
    bot: User
    id: str = field(default_factory=snowflake)
    bot_role_id: str = field(default_factory=snowflake)
    moderator_role_id: str = field(default_factory=snowflake)
    roles: dict[str, str] = field(default_factory=dict)
    moderators: set[str] = field(default_factory=set)
    """Ids of people who may delete what others wrote."""
    channels: list["Channel"] = field(default_factory=list)

    def wire(self) -> dict[str, Any]:
        plain = [channel.wire() for channel in self.channels if channel.type is not ChannelType.PUBLIC_THREAD]
        threads = [channel.wire() for channel in self.channels if channel.type is ChannelType.PUBLIC_THREAD]
        return {
            "id": self.id,
            "name": self.name,
            "owner_id": "1",
            "unavailable": False,
            "member_count": 1,
            "roles": self._roles(),
            "channels": plain,
            "threads": threads,
            "members": [self.member(self.bot) | {"user": self.bot.wire()}],
        }

    def member(self, user: User) -> dict[str, Any]:
        roles = [self.bot_role_id] if user is self.bot else []
        roles += [self.moderator_role_id] if user.id in self.moderators else []
        return {"roles": roles, "flags": 0, "nick": None, "joined_at": "2026-01-01T00:00:00+00:00"}

    def _roles(self) -> list[dict[str, Any]]:
        def role(id_: str, name: str, **more: Any) -> dict[str, Any]:
            permissions = str(ALL_PERMISSIONS)
            plain = {"id": id_, "name": name, "position": 0, "permissions": permissions, "color": 0, "hoist": False}
            return plain | {"managed": False, "mentionable": True, "flags": 0} | more

        own = role(self.bot_role_id, self.bot.name, managed=True, tags={"bot_id": self.bot.id})
        weak = {"permissions": str(ALL_PERMISSIONS & ~PERMISSIONS["manage_messages"])}
        others = [role(id_, name, **weak) for id_, name in self.roles.items()]
        return [role(self.id, "@everyone", **weak), own, role(self.moderator_role_id, "moderators"), *others]


@dataclass(eq=False)
class Channel:
    name: str
    type: ChannelType
    guild: Guild | None = None
    parent: "Channel | None" = None
    recipient: User | None = None
    denied: tuple[str, ...] = ()
    last_message_id: str | None = None
    id: str = field(default_factory=snowflake)

    @property
    def mention(self) -> str:
        return f"<#{self.id}>"

    def wire(self) -> dict[str, Any]:
        base: dict[str, Any] = {"id": self.id, "type": int(self.type), "name": self.name, "position": 0, "flags": 0}
        base |= {"last_message_id": self.last_message_id}
        if self.guild is not None:
            base |= {"guild_id": self.guild.id, "permission_overwrites": self._overwrites(self.guild)}
        if self.recipient is not None:
            base |= {"recipients": [self.recipient.wire()]}
        if self.type is ChannelType.PUBLIC_THREAD and self.parent is not None:
            base |= self._thread_fields(self.parent)
        elif self.parent is not None:
            base |= {"parent_id": self.parent.id}
        if self.type in (ChannelType.VOICE, ChannelType.STAGE):
            base |= {"bitrate": 64000, "user_limit": 0, "rtc_region": None}
        if self.type is ChannelType.FORUM:
            base |= {"available_tags": [], "default_sort_order": None, "default_forum_layout": 0}
            base |= {"default_reaction_emoji": None}
        return base

    def _overwrites(self, guild: Guild) -> list[dict[str, Any]]:
        deny = sum(PERMISSIONS[name] for name in self.denied)
        return [{"id": guild.id, "type": 0, "allow": "0", "deny": str(deny)}] if deny else []

    def _thread_fields(self, parent: "Channel") -> dict[str, Any]:
        metadata = {"archived": False, "auto_archive_duration": 1440, "archive_timestamp": _iso_now(), "locked": False}
        return {
            "parent_id": parent.id,
            "owner_id": "1",
            "message_count": 0,
            "member_count": 1,
            "thread_metadata": metadata,
        }


@dataclass(eq=False)
class Attachment:
    name: str
    mime: str
    data: bytes = field(repr=False)
    url: str = ""
    is_endless: bool = False
    """The CDN sends it again and again, without saying how long it is."""
    id: str = field(default_factory=snowflake)

    def wire(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "filename": self.name,
            "content_type": self.mime,
            "size": len(self.data),
            "url": self.url,
            "proxy_url": self.url,
        }


@dataclass(eq=False)
class Webhook:
    """A webhook of a channel. `avatars` are all pictures that it ever had, as they were uploaded."""

    channel: Channel
    name: str
    application_id: str | None
    avatars: list[str | None]
    id: str = field(default_factory=snowflake)
    token: str = field(default_factory=lambda: f"webhook-{snowflake()}")

    def wire(self) -> dict[str, Any]:
        guild_id = self.channel.guild.id if self.channel.guild is not None else None
        own = {"application_id": self.application_id, "avatar": None, "token": self.token}
        return {"id": self.id, "type": 1, "name": self.name, "channel_id": self.channel.id, "guild_id": guild_id} | own


@dataclass(frozen=True)
class Reaction:
    emoji: str
    user: User


@dataclass(frozen=True)
class Edit:
    content: str
    at: float


@dataclass(frozen=True)
class Typing:
    channel: Channel
    at: float


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    status: int
    at: float


@dataclass(eq=False)
class Message:
    channel: Channel
    author: User
    content: str
    attachments: list[Attachment] = field(default_factory=list)
    reply_to: "Message | None" = None
    is_reply_resolved: bool = True
    type: int = 0
    components: list[dict[str, Any]] = field(default_factory=list)
    flags: int = 0
    request: dict[str, Any] = field(default_factory=dict, repr=False)
    """What the bot sent to create it."""
    extra: dict[str, Any] = field(default_factory=dict, repr=False)
    """Wire fields beyond those above."""
    mentions: list[User] = field(default_factory=list, repr=False)
    mention_roles: list[str] = field(default_factory=list, repr=False)
    webhook: Webhook | None = field(default=None, repr=False)
    reactions: list[Reaction] = field(default_factory=list, repr=False)
    edits: list[Edit] = field(default_factory=list)
    first_content: str = ""
    created_at: float = field(default_factory=time.monotonic)
    id: str = field(default_factory=snowflake)
    _iso: str = field(default_factory=lambda: _iso_now())

    def __post_init__(self) -> None:
        self.first_content = self.content

    @property
    def is_ephemeral(self) -> bool:
        return bool(self.flags & EPHEMERAL)

    @property
    def versions(self) -> list[str]:
        """Every text it ever had, the first one first."""
        return [self.first_content, *(edit.content for edit in self.edits)]

    def wire(self, *, with_reference: bool = True) -> dict[str, Any]:
        base: dict[str, Any] = {
            "id": self.id,
            "channel_id": self.channel.id,
            "author": self.author.wire(),
            "content": self.content,
            "type": self.type or (19 if self.reply_to else 0),
            "timestamp": self._iso,
            "edited_timestamp": self._edited_iso(),
            "tts": False,
            "pinned": False,
            "flags": self.flags,
            "mention_everyone": "@everyone" in self.content,
            "mentions": [user.wire() for user in self.mentions],
            "mention_roles": self.mention_roles,
            "attachments": [attachment.wire() for attachment in self.attachments],
            "embeds": [],
            "components": self.components,
        }
        if self.webhook is not None:
            base |= {"webhook_id": self.webhook.id, "application_id": self.webhook.application_id}
        if self.reply_to is not None and with_reference:
            base["message_reference"] = {"type": 0, "message_id": self.reply_to.id, "channel_id": self.channel.id}
            if self.is_reply_resolved:
                base["referenced_message"] = self.reply_to.wire(with_reference=False)
        return base | self.extra

    def _edited_iso(self) -> str | None:
        if not self.edits:
            return None
        return (datetime.now(UTC) - timedelta(seconds=time.monotonic() - self.edits[-1].at)).isoformat()

    def event(self) -> dict[str, Any]:
        """The wire form in a gateway event, which tells the guild as well."""
        guild = self.channel.guild
        if guild is None or self.webhook is not None:
            return self.wire() | ({"guild_id": guild.id} if guild is not None else {})
        return self.wire() | {"guild_id": guild.id, "member": guild.member(self.author)}


@dataclass(eq=False)
class Interaction:
    """Something a person did with the bot, and all that the bot answered."""

    kind: str
    channel: Channel
    user: User
    data: dict[str, Any]
    message: Message | None = None
    token: str = field(default_factory=lambda: f"interaction-{snowflake()}")
    id: str = field(default_factory=snowflake)
    created_at: float = field(default_factory=time.monotonic)
    answered_at: float | None = None
    callback_type: int | None = None
    is_deferred: bool = False
    is_ephemeral: bool = False
    choices: list[dict[str, Any]] | None = None
    original: Message | None = None
    modal: dict[str, Any] | None = None
    messages: list[Message] = field(default_factory=list)
    """The original response and what followed; deleted ones are gone."""

    @property
    def text(self) -> str:
        return "\n".join(message.content for message in self.messages)

    @property
    def pictures(self) -> tuple[bytes, ...]:
        return tuple(attachment.data for message in self.messages for attachment in message.attachments)


def _iso_now() -> str:
    return datetime.now(UTC).isoformat()
