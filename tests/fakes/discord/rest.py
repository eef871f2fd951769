"""The HTTP API and the CDN: what the bot asks for, checked as Discord checks it, and kept in the world's records."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.discord.world import (
    EPHEMERAL,
    Attachment,
    Channel,
    ChannelType,
    Edit,
    Interaction,
    Message,
    Reaction,
    Request,
    Typing,
    User,
    Webhook,
    snowflake,
)

if TYPE_CHECKING:
    from tests.fakes.discord.server import FakeDiscord

API_PREFIX = "/api/v10"
CDN_PREFIX = "/cdn"
MAX_CONTENT_LENGTH = 2000
MAX_WEBHOOKS = 15
FORBIDDEN_NAMES = ("clyde", "discord")
ENTRY_UNDER_A_MESSAGE = 3
INTERACTION_DEADLINE_S = 3.0
COMMAND_NAME = re.compile(r"[-_\w]{1,32}")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiError(Exception):
    """An answer in Discord's form of an error."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message}


def build(fake: "FakeDiscord") -> web.Application:
    """The web application that serves `fake`."""
    rest = Rest(fake)
    app = web.Application(middlewares=[rest.middleware], client_max_size=32 * 2**20)
    app.router.add_get("/gateway", fake.gateway.serve)
    app.router.add_get(f"{CDN_PREFIX}/attachments/{{channel}}/{{attachment}}/{{name}}", rest.download)
    app.router.add_get(f"{CDN_PREFIX}/{{kind:emojis|stickers}}/{{name}}", rest.asset)
    for method, path, handler in rest.routes():
        app.router.add_route(method, API_PREFIX + path, handler)
    return app


class Rest:
    """All routes."""

    def __init__(self, fake: "FakeDiscord") -> None:
        self._fake = fake
        self._by_nonce: dict[tuple[str, str], Message] = {}

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path and handler of each; the first that fits is taken."""
        webhook = "/webhooks/{application}/{token}"
        return [
            ("GET", "/users/@me", self.me),
            ("POST", "/users/@me/channels", self.open_dm),
            ("GET", "/applications/@me", self.application),
            ("GET", "/oauth2/applications/@me", self.application),
            ("GET", "/gateway/bot", self.gateway_bot),
            ("PUT", "/applications/{application}/commands", self.put_commands),
            ("GET", "/channels/{channel}", self.get_channel),
            ("POST", "/channels/{channel}/typing", self.type),
            ("POST", "/channels/{channel}/messages", self.send),
            ("GET", "/channels/{channel}/messages/{message}", self.get_message),
            ("GET", "/channels/{channel}/messages", self.history),
            ("PATCH", "/channels/{channel}/messages/{message}", self.edit),
            ("DELETE", "/channels/{channel}/messages/{message}", self.delete),
            ("PUT", "/channels/{channel}/messages/{message}/reactions/{emoji}/@me", self.react),
            ("GET", "/channels/{channel}/webhooks", self.list_webhooks),
            ("POST", "/channels/{channel}/webhooks", self.create_webhook),
            ("PATCH", "/webhooks/{webhook}", self.edit_webhook),
            ("DELETE", "/webhooks/{webhook}", self.delete_webhook),
            ("POST", "/interactions/{interaction}/{token}/callback", self.interaction_callback),
            ("POST", webhook, self.follow_up),
            ("PATCH", webhook, self.edit_webhook),
            ("DELETE", webhook, self.delete_webhook),
            ("PATCH", f"{webhook}/messages/@original", self.edit_original),
            ("DELETE", f"{webhook}/messages/@original", self.delete_original),
            ("PATCH", f"{webhook}/messages/{{message}}", self.edit_through),
            ("DELETE", f"{webhook}/messages/{{message}}", self.delete_through),
        ]

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Faults first, then the token, then the route; every request is recorded."""
        path = request.path.removeprefix(API_PREFIX)
        response = await self._faulty(request, path)
        if response is None:
            response = await self._served(request, handler)
        if not request.path.startswith("/gateway"):
            self._fake.requests.append(Request(request.method, path, response.status, time.monotonic()))
        self._fake.changed()
        return response

    async def _faulty(self, request: web.Request, path: str) -> web.StreamResponse | None:
        fault = next((fault for fault in self._fake.faults if fault.matches(request.method, path)), None)
        return await fault.apply(request) if fault is not None else None

    async def _served(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        is_api = request.path.startswith(API_PREFIX)
        carries_own_token = request.path.startswith(f"{API_PREFIX}/interactions") or "token" in request.match_info
        needs_token = is_api and not carries_own_token
        try:
            if needs_token and request.headers.get("Authorization") != f"Bot {self._fake.token}":
                raise ApiError(401, 0, "401: Unauthorized")
            return await handler(request)
        except ApiError as error:
            return answer(error.body, status=error.status)

    async def me(self, _request: web.Request) -> web.Response:
        return answer(self._fake.bot.wire())

    async def application(self, _request: web.Request) -> web.Response:
        owner = {"id": "1", "username": "owner", "discriminator": "0", "avatar": None}
        about = {"id": self._fake.application_id, "name": "Commedia", "description": "", "icon": None}
        return answer(
            about
            | {"bot_public": False, "bot_require_code_grant": False, "owner": owner, "verify_key": ""}
            | {"flags": self._fake.application_flags}
        )

    async def put_commands(self, request: web.Request) -> web.Response:
        commands = await request.json()
        for command in commands:
            (check_entry if command.get("type") == ENTRY_UNDER_A_MESSAGE else check_command)(command)
        added = {"application_id": self._fake.application_id, "version": "1"}
        self._fake.commands[:] = [{"description": ""} | command | added | {"id": snowflake()} for command in commands]
        return answer(self._fake.commands)

    async def open_dm(self, request: web.Request) -> web.Response:
        user = self._fake.users.get(str((await request.json())["recipient_id"]))
        if user is None:
            raise ApiError(404, 10013, "Unknown User")
        return answer(self._fake.add_dm(user).wire())

    async def get_channel(self, request: web.Request) -> web.Response:
        return answer(self._channel(request).wire())

    async def type(self, request: web.Request) -> web.Response:
        self._fake.typing.append(Typing(self._writable_channel(request), time.monotonic()))
        return web.Response(status=204)

    async def send(self, request: web.Request) -> web.Response:
        channel = self._writable_channel(request)
        payload, attachments = await self._payload(request, channel)
        check_content(payload, attachments)
        nonce = (channel.id, str(payload.get("nonce")))
        if payload.get("enforce_nonce") and (known := self._by_nonce.get(nonce)) is not None:
            return answer(known.wire())
        reply_to = self._referenced(payload, channel)
        message = self._fake.message(channel, self._fake.bot, payload, attachments=attachments, reply_to=reply_to)
        self._by_nonce[nonce] = message
        self._fake.publish(message)
        return answer(message.wire())

    async def get_message(self, request: web.Request) -> web.Response:
        return answer(self._message(request).wire())

    async def history(self, request: web.Request) -> web.Response:
        channel = self._channel(request)
        self._require(channel, "view_channel", 50001, "Missing Access")
        self._require(channel, "read_message_history", 50013, "Missing Permissions")
        said = [message for message in self._fake.messages.values() if message.channel is channel]
        after, limit = int(request.query.get("after", 0)), int(request.query.get("limit", 50))
        found = sorted((message for message in said if int(message.id) > after), key=lambda message: int(message.id))
        chosen = found[:limit] if after else found[-limit:]
        return answer([message.wire() for message in reversed(chosen)])

    async def gateway_bot(self, _request: web.Request) -> web.Response:
        return answer(self._fake.gateway.about())

    async def delete(self, request: web.Request) -> web.Response:
        message = self._message(request)
        if message.author is not self._fake.bot:
            self._require(message.channel, "manage_messages", 50013, "Missing Permissions")
        self._fake.delete(message)
        return web.Response(status=204)

    async def react(self, request: web.Request) -> web.Response:
        message = self._message(request)
        self._require(message.channel, "add_reactions", 50013, "Missing Permissions")
        message.reactions.append(Reaction(request.match_info["emoji"], self._fake.bot))
        return web.Response(status=204)

    async def list_webhooks(self, request: web.Request) -> web.Response:
        channel = self._hooked_channel(request)
        return answer([webhook.wire() for webhook in self._fake.webhooks.values() if webhook.channel is channel])

    async def create_webhook(self, request: web.Request) -> web.Response:
        channel, body = self._hooked_channel(request), await request.json()
        check_name(body["name"])
        if sum(webhook.channel is channel for webhook in self._fake.webhooks.values()) >= MAX_WEBHOOKS:
            raise ApiError(400, 30007, "Maximum number of webhooks reached (15)")
        webhook = Webhook(channel, body["name"], self._fake.application_id, [body.get("avatar")])
        self._fake.webhooks[webhook.id] = webhook
        return answer(webhook.wire())

    async def edit_webhook(self, request: web.Request) -> web.Response:
        webhook, body = self._changeable_webhook(request), await request.json()
        if "name" in body:
            check_name(body["name"])
            webhook.name = body["name"]
        if "avatar" in body:
            webhook.avatars.append(body["avatar"])
        return answer(webhook.wire())

    async def delete_webhook(self, request: web.Request) -> web.Response:
        webhook = self._changeable_webhook(request)
        del self._fake.webhooks[webhook.id]
        return web.Response(status=204)

    async def edit(self, request: web.Request) -> web.Response:
        message = self._message(request)
        if message.author is not self._fake.bot:
            raise ApiError(403, 50005, "Cannot edit a message authored by another user")
        payload, _ = await self._payload(request, message.channel)
        check_content(payload, message.attachments)
        revise(message, payload)
        self._fake.gateway.dispatch("MESSAGE_UPDATE", message.event())
        return answer(message.wire())

    async def interaction_callback(self, request: web.Request) -> web.Response:
        interaction = self._interaction(request)
        if time.monotonic() - interaction.created_at > INTERACTION_DEADLINE_S:
            raise ApiError(404, 10062, "Unknown interaction")
        if interaction.callback_type is not None:
            raise ApiError(400, 40060, "Interaction has already been acknowledged.")
        body, attachments = await self._payload(request, interaction.channel)
        data = body.get("data") or {}
        interaction.callback_type = body["type"]
        interaction.answered_at = time.monotonic()
        interaction.is_ephemeral = bool(data.get("flags", 0) & EPHEMERAL)
        if body["type"] == 4:
            check_content(data, attachments)
            self._add_response(interaction, data, attachments, is_original=True)
        elif body["type"] == 5:
            interaction.is_deferred = True
        elif body["type"] == 8:
            interaction.choices = data["choices"]
        elif body["type"] == 9:
            check_modal(data)
            interaction.modal = data
        resource = {"type": body["type"]}
        if interaction.original is not None:
            resource["message"] = interaction.original.wire()
        return answer({"interaction": {"id": interaction.id, "type": 2}, "resource": resource})

    async def follow_up(self, request: web.Request) -> web.Response:
        if not self._is_interaction(request):
            return await self._execute(request)
        interaction = self._interaction(request)
        payload, attachments = await self._payload(request, interaction.channel)
        check_content(payload, attachments)
        if interaction.is_deferred and interaction.original is None:
            # As on Discord, the first follow-up fills the "thinking" message, whatever visibility it asks for.
            return answer(self._fill_deferred(interaction, payload, attachments).wire())
        return answer(self._add_response(interaction, payload, attachments, is_original=False).wire())

    async def edit_original(self, request: web.Request) -> web.Response:
        interaction = self._interaction(request)
        payload, attachments = await self._payload(request, interaction.channel)
        check_content(payload, attachments)
        if interaction.original is None and interaction.is_deferred:
            return answer(self._fill_deferred(interaction, payload, attachments).wire())
        if interaction.original is None:
            raise ApiError(404, 10008, "Unknown Message")
        revise(interaction.original, payload)
        return answer(interaction.original.wire())

    async def delete_original(self, request: web.Request) -> web.Response:
        interaction = self._interaction(request)
        if interaction.original is None and not interaction.is_deferred:
            raise ApiError(404, 10008, "Unknown Message")
        interaction.is_deferred = False
        interaction.messages = [message for message in interaction.messages if message is not interaction.original]
        interaction.original = None
        return web.Response(status=204)

    async def edit_through(self, request: web.Request) -> web.Response:
        message = self._message_through(request)
        payload, _ = await self._payload(request, message.channel)
        check_content(payload, message.attachments)
        revise(message, payload)
        self._fake.gateway.dispatch("MESSAGE_UPDATE", message.event())
        return answer(message.wire())

    async def delete_through(self, request: web.Request) -> web.Response:
        self._fake.delete(self._message_through(request))
        return web.Response(status=204)

    async def _execute(self, request: web.Request) -> web.Response:
        """A webhook says something, in its channel or in a thread of it."""
        webhook = self._webhook_of(request)
        channel = self._place(request, webhook)
        payload, attachments = await self._payload(request, channel)
        check_content(payload, attachments)
        name = payload.get("username") or webhook.name
        check_name(name)
        speaker = User(name, name, is_bot=True, id=webhook.id)
        message = self._fake.message(channel, speaker, payload, attachments=attachments)
        message.webhook = webhook
        self._fake.publish(message)
        return answer(message.wire())

    def _place(self, request: web.Request, webhook: Webhook) -> Channel:
        if "thread_id" not in request.query:
            if webhook.channel.type is ChannelType.FORUM:
                raise ApiError(400, 220001, "Webhooks posted to forum channels must have a thread_name or thread_id")
            return webhook.channel
        thread = self._fake.channels.get(request.query["thread_id"])
        if thread is None or thread.parent is not webhook.channel:
            raise ApiError(404, 10003, "Unknown Channel")
        return thread

    def _message_through(self, request: web.Request) -> Message:
        if self._is_interaction(request):
            messages = self._interaction(request).messages
            found = next((known for known in messages if known.id == request.match_info["message"]), None)
        else:
            webhook = self._webhook_of(request)
            place = self._place(request, webhook)
            found = self._fake.messages.get(request.match_info["message"])
            if found is not None and (found.webhook is not webhook or found.channel is not place):
                found = None
        if found is None:
            raise ApiError(404, 10008, "Unknown Message")
        return found

    def _is_interaction(self, request: web.Request) -> bool:
        return request.match_info["application"] == self._fake.application_id

    def _changeable_webhook(self, request: web.Request) -> Webhook:
        """Whoever has a webhook's token may change it; others need the permission."""
        if "token" in request.match_info:
            return self._webhook_of(request)
        webhook = self._webhook(request.match_info["webhook"])
        self._require(webhook.channel, "manage_webhooks", 50013, "Missing Permissions")
        return webhook

    def _webhook_of(self, request: web.Request) -> Webhook:
        webhook = self._webhook(request.match_info["application"])
        if webhook.token != request.match_info["token"]:
            raise ApiError(401, 50027, "Invalid Webhook Token")
        return webhook

    def _webhook(self, webhook_id: str) -> Webhook:
        webhook = self._fake.webhooks.get(webhook_id)
        if webhook is None:
            raise ApiError(404, 10015, "Unknown Webhook")
        return webhook

    def _hooked_channel(self, request: web.Request) -> Channel:
        channel = self._channel(request)
        if channel.type in (ChannelType.DM, ChannelType.PUBLIC_THREAD, ChannelType.CATEGORY):
            raise ApiError(400, 50024, "Cannot execute action on this channel type")
        self._require(channel, "manage_webhooks", 50013, "Missing Permissions")
        return channel

    def _require(self, channel: Channel, permission: str, code: int, message: str) -> None:
        if permission in channel.denied:
            raise ApiError(403, code, message)

    async def download(self, request: web.Request) -> web.StreamResponse:
        attachment = self._fake.attachments.get(request.match_info["attachment"])
        if attachment is None:
            return web.Response(status=404, text="This content is no longer available.")
        response = web.StreamResponse(headers={"Content-Type": attachment.mime})
        if not attachment.is_endless:
            response.content_length = len(attachment.data)
        await response.prepare(request)
        try:
            await response.write(attachment.data)
            while attachment.is_endless:
                await response.write(attachment.data)
                await asyncio.sleep(0)
        except ConnectionError:
            attachment.is_endless = False
        return response

    async def asset(self, request: web.Request) -> web.Response:
        data = self._fake.assets.get("{kind}/{name}".format(**request.match_info))
        return web.Response(body=data) if data is not None else web.Response(status=404)

    def _channel(self, request: web.Request) -> Channel:
        channel = self._fake.channels.get(request.match_info["channel"])
        if channel is None:
            raise ApiError(404, 10003, "Unknown Channel")
        return channel

    def _writable_channel(self, request: web.Request) -> Channel:
        channel = self._channel(request)
        if "view_channel" in channel.denied:
            raise ApiError(403, 50001, "Missing Access")
        needed = "send_messages_in_threads" if channel.type is ChannelType.PUBLIC_THREAD else "send_messages"
        if needed in channel.denied:
            raise ApiError(403, 50013, "Missing Permissions")
        return channel

    def _message(self, request: web.Request) -> Message:
        channel = self._channel(request)
        message = self._fake.messages.get(request.match_info["message"])
        if message is None or message.is_ephemeral or message.channel is not channel:
            raise ApiError(404, 10008, "Unknown Message")
        return message

    def _interaction(self, request: web.Request) -> Interaction:
        token = request.match_info["token"]
        interaction = next((found for found in self._fake.interactions if found.token == token), None)
        if interaction is None:
            raise ApiError(404, 10062, "Unknown interaction")
        return interaction

    def _referenced(self, payload: dict[str, Any], channel: Channel) -> Message | None:
        reference = payload.get("message_reference")
        if reference is None:
            return None
        message = self._fake.messages.get(str(reference["message_id"]))
        if (message is None or message.channel is not channel) and reference.get("fail_if_not_exists", True):
            raise ApiError(400, 50035, "Invalid Form Body: unknown message")
        return message

    async def _payload(self, request: web.Request, channel: Channel) -> tuple[dict[str, Any], list[Attachment]]:
        """The JSON of a request, and the files that a multipart one carries."""
        if not request.content_type.startswith("multipart/"):
            return await request.json(), []
        form = await request.post()
        files = [value for value in form.values() if isinstance(value, web.FileField)]
        if any(file.file.seek(0, 2) > self._fake.max_upload_bytes for file in files):
            raise ApiError(413, 40005, "Request entity too large")
        for file in files:
            file.file.seek(0)
        attachments = [self._fake.attach(channel, file.filename, file.content_type, file.file.read()) for file in files]
        return json.loads(str(form["payload_json"])), attachments

    def _fill_deferred(
        self, interaction: Interaction, payload: dict[str, Any], attachments: list[Attachment]
    ) -> Message:
        kept = EPHEMERAL if interaction.is_ephemeral else 0
        return self._add_response(interaction, payload | {"flags": kept}, attachments, is_original=True)

    def _add_response(
        self, interaction: Interaction, payload: dict[str, Any], attachments: list[Attachment], *, is_original: bool
    ) -> Message:
        message = self._fake.message(interaction.channel, self._fake.bot, payload, attachments=attachments)
        interaction.messages.append(message)
        if is_original:
            interaction.original = message
        if message.is_ephemeral:
            self._fake.messages[message.id] = message
        else:
            self._fake.publish(message)
        return message


def answer(body: Any, *, status: int = 200) -> web.Response:
    """JSON with exactly the content type that discord.py looks for."""
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json")


def revise(message: Message, payload: dict[str, Any]) -> None:
    """Change a message as an edit asks."""
    if "content" in payload:
        message.content = payload["content"] or ""
        message.edits.append(Edit(message.content, time.monotonic()))
    if "components" in payload:
        message.components = payload["components"] or []


def check_content(payload: dict[str, Any], attachments: list[Attachment]) -> None:
    """Refuse what Discord refuses."""
    content = payload.get("content") or ""
    if len(content) > MAX_CONTENT_LENGTH:
        raise ApiError(400, 50035, "Invalid Form Body")
    if not content.strip() and not attachments and "content" in payload:
        raise ApiError(400, 50006, "Cannot send an empty message")
    rows = payload.get("components") or []
    for row in rows:
        check_row(row)
    ids = [component["custom_id"] for row in rows for component in row["components"]]
    if len(rows) > 5 or len(set(ids)) != len(ids):
        raise ApiError(400, 50035, "Invalid Form Body: duplicated custom id, or too many rows")


def check_row(row: dict[str, Any]) -> None:
    for component in row["components"]:
        if not 1 <= len(component["custom_id"]) <= 100 or len(component.get("options", [])) > 25:
            raise ApiError(400, 50035, "Invalid Form Body")
    if not 1 <= len(row["components"]) <= 5:
        raise ApiError(400, 50035, "Invalid Form Body")


def check_name(name: str) -> None:
    """What a webhook may be called."""
    if not 1 <= len(name.strip()) <= 80 or any(word in name.lower() for word in FORBIDDEN_NAMES):
        raise ApiError(400, 50035, "Invalid Form Body")


def check_modal(data: dict[str, Any]) -> None:
    """A field to fill: its names are short, and what stands in it already is not too long."""
    is_named = 1 <= len(data["title"]) <= 45 and 1 <= len(data["custom_id"]) <= 100
    for row in data["components"]:
        part = row.get("component") or row["components"][0]
        label = row.get("label") or part.get("label") or ""
        if not is_named or not 1 <= len(label) <= 45 or len(part.get("value") or "") > 4000:
            raise ApiError(400, 50035, "Invalid Form Body")


def check_entry(entry: dict[str, Any]) -> None:
    """What stands under a message is a name that people read, and nothing else."""
    if not 1 <= len(entry["name"]) <= 32 or entry.get("description"):
        raise ApiError(400, 50035, "Invalid Form Body")


def check_command(command: dict[str, Any]) -> None:
    is_named = COMMAND_NAME.fullmatch(command["name"]) and command["name"] == command["name"].lower()
    if not is_named or not 1 <= len(command["description"]) <= 100:
        raise ApiError(400, 50035, "Invalid Form Body")
    for option in command.get("options", []):
        check_command(option)
