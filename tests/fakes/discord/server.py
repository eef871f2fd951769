"""`FakeDiscord`: the world, and what people do in it."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from tests.fakes.discord import rest
from tests.fakes.discord.faults import Fault
from tests.fakes.discord.gateway import Gateway, shard_of
from tests.fakes.discord.world import (
    PERMISSIONS,
    Attachment,
    Channel,
    ChannelType,
    Guild,
    Interaction,
    Message,
    Reaction,
    Request,
    Typing,
    User,
    Webhook,
    snowflake,
)

Found = TypeVar("Found")
File = tuple[str, str, bytes]
POLL_S = 0.05
MESSAGE_CONTENT_FLAG = 1 << 19  # as for a bot in fewer than a hundred servers


class FakeDiscord:
    """Discord on a port of its own. Everything the bot did is in the public attributes, oldest first."""

    def __init__(self, *, token: str = "fake-token") -> None:
        self.token = token
        self.application_id = snowflake()
        self.bot = User("commedia", "Commedia", is_bot=True)
        self.gateway = Gateway(token, bot_id=self.bot.id, ready=self._ready_events)
        self.users: dict[str, User] = {self.bot.id: self.bot}
        self.guilds: list[Guild] = []
        self.channels: dict[str, Channel] = {}
        self.messages: dict[str, Message] = {}
        self.webhooks: dict[str, Webhook] = {}
        self.moderators: set[str] = set()
        """Ids of people who may delete what others wrote, everywhere."""
        self.attachments: dict[str, Attachment] = {}
        self.assets: dict[str, bytes] = {}
        """Emoji and stickers of servers, as `emojis/1.png`."""
        self.typing: list[Typing] = []
        self.commands: list[dict[str, Any]] = []
        self.interactions: list[Interaction] = []
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.max_upload_bytes = 10 * 2**20
        self.gateway_url = ""
        self._origin = ""
        self._change = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        self.gateway.on_change(self.changed)
        self._runner = web.AppRunner(rest.build(self), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        # The gateway has a port of its own, as on Discord, so that no kept-alive connection is reused for it.
        for _ in range(2):
            await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        api_port, gateway_port = (address[1] for address in self._runner.addresses)
        self._origin = f"http://127.0.0.1:{api_port}"
        self.gateway_url = f"ws://127.0.0.1:{gateway_port}/gateway"
        self.gateway.url = self.gateway_url
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.gateway.close(1001)
        for attachment in self.attachments.values():
            attachment.is_endless = False
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def api_url(self) -> str:
        return self._origin + rest.API_PREFIX

    @property
    def cdn_url(self) -> str:
        return self._origin + rest.CDN_PREFIX

    @property
    def application_flags(self) -> int:
        return MESSAGE_CONTENT_FLAG if self.gateway.grants_message_content else 0

    # People and places

    def add_user(self, name: str, *, display_name: str | None = None, is_bot: bool = False) -> User:
        user = User(name, display_name or name.title(), is_bot)
        self.users[user.id] = user
        return user

    def add_guild(self, name: str, *, shard: tuple[int, int] = (0, 1)) -> Guild:
        """Add a server that, where there are `shard[1]` shards, belongs to `shard[0]`."""
        guild = Guild(name, self.bot, moderators=self.moderators)
        while shard_of(guild.id, shard[1]) != shard[0]:
            guild.id = str(int(guild.id) + (1 << 22))
        self.guilds.append(guild)
        self.gateway.dispatch("GUILD_CREATE", guild.wire())
        return guild

    def add_role(self, guild: Guild, name: str) -> str:
        """Add a role and return its id."""
        role_id = snowflake()
        guild.roles[role_id] = name
        self.gateway.dispatch("GUILD_CREATE", guild.wire())
        return role_id

    def add_channel(
        self,
        guild: Guild,
        name: str,
        *,
        denied: tuple[str, ...] = (),
        kind: ChannelType = ChannelType.TEXT,
        category: Channel | None = None,
    ) -> Channel:
        """Add a channel in which the bot is `denied` permissions, such as `("send_messages",)`."""
        return self._add_channel(Channel(name, kind, guild, category, denied=denied), "CHANNEL_CREATE")

    def remove_channel(self, channel: Channel) -> None:
        """Somebody deletes a channel or a thread, with all that was said there."""
        assert channel.guild is not None
        del self.channels[channel.id]
        channel.guild.channels.remove(channel)
        self._forget_what_was_in(channel)
        event = "THREAD_DELETE" if channel.type is ChannelType.PUBLIC_THREAD else "CHANNEL_DELETE"
        self.gateway.dispatch(event, channel.wire())

    def remove_guild(self, guild: Guild) -> None:
        """The bot is thrown out of a server."""
        self.guilds.remove(guild)
        for channel in guild.channels:
            del self.channels[channel.id]
            self._forget_what_was_in(channel)
        self.gateway.dispatch("GUILD_DELETE", {"id": guild.id})

    def _forget_what_was_in(self, channel: Channel) -> None:
        self.webhooks = {id_: webhook for id_, webhook in self.webhooks.items() if webhook.channel is not channel}
        self.messages = {id_: message for id_, message in self.messages.items() if message.channel is not channel}

    def add_thread(self, parent: Channel, name: str, *, is_announced: bool = True) -> Channel:
        """Add a thread. One that is not announced is unknown to the bot until it asks."""
        thread = Channel(name, ChannelType.PUBLIC_THREAD, parent.guild, parent)
        if is_announced:
            return self._add_channel(thread, "THREAD_CREATE")
        self.channels[thread.id] = thread
        return thread

    def add_dm(self, user: User) -> Channel:
        """The direct chat with `user`."""
        known = next((channel for channel in self.channels.values() if channel.recipient is user), None)
        if known is None:
            known = Channel("", ChannelType.DM, recipient=user)
            self.channels[known.id] = known
        return known

    # What people do

    def say(
        self,
        channel: Channel,
        author: User,
        text: str,
        *,
        files: Sequence[File] = (),
        reply_to: Message | None = None,
        is_reply_resolved: bool = True,
        message_type: int = 0,
        extra: dict[str, Any] | None = None,
    ) -> Message:
        """`author` writes `text` with `files` (name, mime, bytes). `extra` adds fields to the wire form."""
        attachments = [self.attach(channel, *file) for file in files]
        message = self.message(channel, author, {"content": text}, attachments=attachments, reply_to=reply_to)
        message.is_reply_resolved = is_reply_resolved
        message.type = message_type
        message.extra = extra or {}
        self.publish(message)
        return message

    def edit(self, message: Message, text: str) -> None:
        """Its author changes a message."""
        rest.revise(message, {"content": text})
        message.mentions = self._mentioned(text, message.reply_to)
        self.gateway.dispatch("MESSAGE_UPDATE", message.event())

    def unfurl(self, message: Message, *embeds: dict[str, Any]) -> None:
        """Discord shows what a link leads to, which changes the message, but not what was said."""
        message.extra |= {"embeds": list(embeds)}
        self.gateway.dispatch("MESSAGE_UPDATE", message.event())

    def delete(self, *messages: Message) -> None:
        """Somebody deletes messages of one channel: several at once are deleted in bulk."""
        for message in messages:
            self.messages.pop(message.id, None)
        channel = messages[0].channel
        where = {"channel_id": channel.id} | ({"guild_id": channel.guild.id} if channel.guild is not None else {})
        if len(messages) == 1:
            self.gateway.dispatch("MESSAGE_DELETE", {"id": messages[0].id} | where)
        else:
            self.gateway.dispatch("MESSAGE_DELETE_BULK", {"ids": [message.id for message in messages]} | where)
        self.changed()

    def react(self, message: Message, user: User, emoji: str, *, is_added: bool = True) -> None:
        """`user` puts an emoji under `message`, or takes it away. `name:id` is an emoji of a server's own."""
        reaction = Reaction(emoji, user)
        if is_added:
            message.reactions.append(reaction)
        else:
            message.reactions[:] = [found for found in message.reactions if found != reaction]
        name, _, emoji_id = emoji.partition(":")
        event: dict[str, Any] = {
            "user_id": user.id,
            "channel_id": message.channel.id,
            "message_id": message.id,
            "emoji": {"id": emoji_id or None, "name": name},
            "burst": False,
            "type": 0,
        }
        guild = message.channel.guild
        if guild is not None:
            event |= {"guild_id": guild.id}
        if guild is not None and is_added:
            event |= {"member": guild.member(user) | {"user": user.wire()}, "message_author_id": message.author.id}
        self.gateway.dispatch(f"MESSAGE_REACTION_{'ADD' if is_added else 'REMOVE'}", event)
        self.changed()

    def use_command(self, channel: Channel, user: User, *path: str, **arguments: str | bytes) -> Interaction:
        """`user` sends `/path` with `arguments`, of which bytes are pictures. The command must have been registered."""
        options: list[dict[str, Any]] = []
        attached: dict[str, Any] = {}
        for name, value in arguments.items():
            if isinstance(value, bytes):
                attachment = self.attach(channel, f"{name}.png", "image/png", value)
                attached[attachment.id] = attachment.wire()
                options.append({"type": 11, "name": name, "value": attachment.id})
            else:
                options.append({"type": 3, "name": name, "value": value})
        data = self._command_data(path, options) | {"resolved": {"attachments": attached}}
        return self._interact("command", 2, channel, user, data)

    def use_on(self, message: Message, user: User, entry: str) -> Interaction:
        """`user` chooses `entry` under "Apps" of `message`."""
        command = next((found for found in self.commands if found["name"] == entry and found.get("type") == 3), None)
        assert command is not None, f"there is no {entry!r} under messages, only {self.commands}"
        resolved = {"messages": {message.id: message.wire()}}
        data = {"id": command["id"], "name": entry, "type": 3, "target_id": message.id, "resolved": resolved}
        return self._interact("command", 2, message.channel, user, data)

    def complete(self, channel: Channel, user: User, *path: str, argument: str, typed: str) -> Interaction:
        """`user` has typed something as `argument` of `/path` and waits for suggestions."""
        options = [{"type": 3, "name": argument, "value": typed, "focused": True}]
        return self._interact("autocomplete", 4, channel, user, self._command_data(path, options))

    def press(self, message: Message, user: User, label: str) -> Interaction:
        """`user` presses the button, or picks the menu's entry, that is called `label` under `message`."""
        data = _component_data(message, label)
        return self._interact("component", 3, message.channel, user, data, message)

    def submit(self, asked: Interaction, user: User, text: str) -> Interaction:
        """`user` fills the field that the bot opened in answer to `asked`."""
        assert asked.modal is not None, "no field was opened"
        [field_] = [part for row in asked.modal["components"] for part in row.get("components") or [row["component"]]]
        filled = {"type": 4, "custom_id": field_["custom_id"], "value": text}
        data = {"custom_id": asked.modal["custom_id"], "components": [{"type": 1, "components": [filled]}]}
        return self._interact("modal", 5, asked.channel, user, data, asked.message)

    # What the bot did

    def is_own(self, message: Message) -> bool:
        """Whether the bot wrote it, as itself or through a webhook of its own."""
        if message.webhook is not None:
            return message.webhook.application_id == self.application_id
        return message.author is self.bot

    def bot_messages(self, channel: Channel | None = None) -> list[Message]:
        """The bot's messages, in one channel or all, with their edits."""
        own = [message for message in self.messages.values() if self.is_own(message)]
        return [message for message in own if channel is None or message.channel is channel]

    async def wait_for(self, predicate: Callable[[], Found], timeout_s: float = 20.0) -> Found:
        """Wait until `predicate` gives something true, and return it. Looks again after everything the bot does."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (found := predicate()):
                    self._change.clear()
                    # A predicate may also look at things that the fake does not hear of.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._change.wait(), POLL_S)
                return found
        except TimeoutError:
            raise AssertionError(f"waited {timeout_s} s in vain; {self._summary()}") from None

    async def wait_until_connected(self, timeout_s: float = 20.0) -> None:
        """Wait until a gateway session stands. What is said from here on reaches the bot."""
        await self.wait_for(lambda: self.gateway.is_connected, timeout_s)

    # What can go wrong (see `gateway` for its share)

    def fail_next(self, method: str, path: str, **fault: Any) -> Fault:
        """Let the next requests to `path` (`/channels/*/messages`, `/cdn/*`) fail; see `Fault` for how."""
        self.faults.append(Fault(method, path, **fault))
        return self.faults[-1]

    # For the other modules of the fake

    def changed(self) -> None:
        self._change.set()

    def attach(self, channel: Channel, name: str, mime: str, data: bytes) -> Attachment:
        attachment = Attachment(name, mime, data)
        attachment.url = f"{self.cdn_url}/attachments/{channel.id}/{attachment.id}/{name}"
        self.attachments[attachment.id] = attachment
        return attachment

    def message(
        self,
        channel: Channel,
        author: User,
        payload: dict[str, Any],
        *,
        attachments: list[Attachment] | None = None,
        reply_to: Message | None = None,
    ) -> Message:
        """A message as `payload` describes it, with the mentions that Discord finds in it."""
        content = payload.get("content") or ""
        return Message(
            channel,
            author,
            content,
            attachments=attachments or [],
            reply_to=reply_to,
            components=payload.get("components") or [],
            flags=payload.get("flags") or 0,
            request=payload,
            mentions=self._mentioned(content, reply_to),
            mention_roles=re.findall(r"<@&(\d+)>", content),
        )

    def publish(self, message: Message) -> None:
        """Let everyone see `message`, the bot included, as on Discord."""
        self.messages[message.id] = message
        message.channel.last_message_id = message.id
        self.gateway.dispatch("MESSAGE_CREATE", message.event())
        self.changed()

    def _mentioned(self, text: str, reply_to: Message | None) -> list[User]:
        mentioned = [self.users[id_] for id_ in re.findall(r"<@!?(\d+)>", text) if id_ in self.users]
        if reply_to is not None and reply_to.author not in mentioned:
            mentioned.append(reply_to.author)
        return mentioned

    def _add_channel(self, channel: Channel, event: str) -> Channel:
        assert channel.guild is not None
        self.channels[channel.id] = channel
        channel.guild.channels.append(channel)
        self.gateway.dispatch(event, channel.wire())
        return channel

    def _ready_events(self) -> list[tuple[str, dict[str, Any]]]:
        about = {
            "user": self.bot.wire(),
            "guilds": [{"id": guild.id, "unavailable": True} for guild in self.guilds],
            "application": {"id": self.application_id, "flags": self.application_flags},
        }
        return [("READY", about), *(("GUILD_CREATE", guild.wire()) for guild in self.guilds)]

    def _command_data(self, path: tuple[str, ...], options: list[dict[str, Any]]) -> dict[str, Any]:
        command = next((command for command in self.commands if command["name"] == path[0]), None)
        assert command is not None, f"no command /{path[0]}; there are {[found['name'] for found in self.commands]}"
        for option in options:
            if len(path) == 1:
                known = {registered["name"]: registered["type"] for registered in command["options"]}
                assert known.get(option["name"]) == option["type"], f"/{path[0]} has no such option: {option}"
        names = [option["name"] for option in command["options"]]
        for name in path[1:]:
            assert name in names, f"/{path[0]} has no {name}, only {names}"
            options = [{"type": 1, "name": name, "options": options}]
        return {"id": command["id"], "name": command["name"], "type": 1, "options": options}

    def _interact(
        self,
        kind: str,
        wire_type: int,
        channel: Channel,
        user: User,
        data: dict[str, Any],
        message: Message | None = None,
    ) -> Interaction:
        interaction = Interaction(kind, channel, user, data, message)
        self.interactions.append(interaction)
        event: dict[str, Any] = {
            "id": interaction.id,
            "application_id": self.application_id,
            "type": wire_type,
            "token": interaction.token,
            "version": 1,
            "attachment_size_limit": 10 * 2**20,
            "data": data,
            "channel": channel.wire(),
            "channel_id": channel.id,
            "entitlements": [],
            "authorizing_integration_owners": {},
            "context": 0 if channel.guild is not None else 1,
            "locale": "en-US",
            "app_permissions": "0",
        }
        if channel.guild is not None:
            permissions = PERMISSIONS["manage_messages"] if user.id in self.moderators else 0
            member = channel.guild.member(user) | {"user": user.wire(), "permissions": str(permissions)}
            event |= {"guild_id": channel.guild.id, "member": member}
        else:
            event |= {"user": user.wire()}
        if message is not None:
            event["message"] = message.wire()
        self.gateway.dispatch("INTERACTION_CREATE", event)
        return interaction

    def _summary(self) -> str:
        requests = [f"{request.method} {request.path} {request.status}" for request in self.requests[-8:]]
        return f"last requests {requests}; bot's messages {[message.content for message in self.bot_messages()][-4:]}"


def _component_data(message: Message, label: str) -> dict[str, Any]:
    for component in (component for row in message.components for component in row["components"]):
        if component.get("label") == label:
            return {"custom_id": component["custom_id"], "component_type": component["type"]}
        for option in component.get("options", []):
            if option["label"] == label:
                kind = component["type"]
                return {"custom_id": component["custom_id"], "component_type": kind, "values": [option["value"]]}
    raise AssertionError(f"nothing called {label!r} under {message.content!r}")
