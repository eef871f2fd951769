"""A Bot API server on a loopback socket, for the real client library.

First-class and small: it keeps Telegram's own rules (long polling with offsets, UTF-16 lengths, one poller per token,
refusals with the server's texts) and shows tests all that the bot did. Written from the Bot API's public description.

    async with FakeTelegram() as fake:
        ada = fake.add_user("Ada")
        chat = fake.private_chat(ada)
        ...  # start a bot with token=fake.token and api_url=fake.url, in this process or in another
        fake.say(chat, ada, "Hello", photo=jpeg)
        reply = await fake.wait_for(lambda: fake.sent and fake.sent[-1])
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import ClientError, ClientSession, web

from tests.fakes.telegram.state import (
    Button,
    CallbackAnswer,
    Chat,
    ChatAction,
    Draft,
    Json,
    SentMessage,
    User,
    Version,
    World,
    entity_problem,
    utf16_length,
)

T = TypeVar("T")

MAX_TEXT_LENGTH = 4096
MAX_CAPTION_LENGTH = 1024
MAX_ALERT_LENGTH = 200
MAX_ENTITIES = 100
MAX_DOWNLOAD_BYTES = 20 * 1024 * 1024
GENERAL_TOPIC = 1
ALLOWED_REACTIONS = frozenset(["👍", "👎", "❤", "🔥", "🥰", "👏", "😁", "🤔", "🎉", "👌", "🤣", "😢", "😱", "👀"])
_CHUNK_BYTES = 64 * 1024
_KINDS = {
    "message",
    "edited_message",
    "channel_post",
    "edited_channel_post",
    "callback_query",
    "message_reaction",
    "my_chat_member",
    "poll",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What a method answers instead of doing its work. `is_dropped` cuts the connection; a fault of only a delay
    does its work afterwards."""

    status: int | None = None
    body: Json | str | None = None
    delay_s: float = 0.0
    is_dropped: bool = False


class _Refusal(Exception):
    def __init__(self, status: int, description: str, parameters: Json | None = None) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.parameters = parameters or {}

    def response(self) -> web.Response:
        body: Json = {"ok": False, "error_code": self.status, "description": self.description}
        return web.json_response(
            body | ({"parameters": self.parameters} if self.parameters else {}), status=self.status
        )


@dataclass(frozen=True, slots=True)
class Call:
    """A request that the bot made."""

    method: str
    parameters: Json
    at: float


class FakeTelegram:
    """One bot's Telegram. Everything that people do is a method; everything that the bot did is a list."""

    def __init__(
        self, *, token: str = "123456:TEST-token_of-the-loopback-bot-0000", username: str = "commedia_bot"
    ) -> None:
        self.token = token
        self.url = ""
        self.bot = User(int(token.partition(":")[0]), "Commedia", username, is_bot=True)
        self.world = World()
        self.calls: list[Call] = []
        self.sent: list[SentMessage] = []
        self.chat_actions: list[ChatAction] = []
        self.my_commands: list[Json] = []
        self.answered_callbacks: list[str] = []
        self.callback_answers: list[CallbackAnswer] = []
        self.drafts: list[Draft] = []
        self.reactions: dict[tuple[int, int], list[str]] = {}
        self.unknown_methods: set[str] = set()
        self.webhook: Json = {}
        self.webhook_answers: list[int] = []
        self.webhook_error: Json = {}
        self.is_token_valid = True
        self._updates: dict[int, Json] = {}
        self._update_ids = count(500)
        self._callback_ids = count(1)
        self._album_ids = count(1)
        self._faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self._changed = asyncio.Condition()
        self._custom_emoji: dict[str, Json] = {}
        self._poller = 0
        self._is_delivering = False
        self._closing = False
        self._background: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/bot{token}/{method}", self._serve_method)
        app.router.add_get("/file/bot{token}/{path:.+}", self._serve_file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        await self._notify()
        if self._runner is not None:
            await self._runner.cleanup()

    # What people do

    def add_user(self, name: str, *, username: str | None = None, is_bot: bool = False) -> User:
        """A person, or another bot."""
        return self.world.add_user(name, username=username, is_bot=is_bot)

    def private_chat(self, user: User) -> Chat:
        """The chat of `user` with the bot; its id is the user's."""
        return self.world.chats.get(user.id) or self.world.add_chat("private", user.first_name, chat_id=user.id)

    def add_group(self, title: str, *, type_: str = "supergroup", is_forum: bool = False) -> Chat:
        """A group, or a channel with `type_="channel"`."""
        return self.world.add_chat(type_, title, is_forum=is_forum)

    def add_topic(self, group: Chat, name: str) -> int:
        """A topic of a forum; its thread id is that of the message that created it."""
        message = self.world.new_message(group, None, {"forum_topic_created": {"name": name, "icon_color": 0}})
        group.topics[message["message_id"]] = name
        return int(message["message_id"])

    def say(
        self,
        chat: Chat,
        user: User | None,
        text: str = "",
        *,
        photo: bytes | None = None,
        document: tuple[str, str | None, bytes] | None = None,
        sticker: bytes | None = None,
        reply_to: int | None = None,
        thread_id: int | None = None,
        album: Sequence[bytes] = (),
        claimed_size: int | None = None,
        extra: Json | None = None,
    ) -> Json:
        """Somebody writes; the message, or an album's first, as JSON. `extra` fields are added to it as they are."""
        world, common = self.world, dict(extra or {})
        if reply_to is not None:
            common["reply_to_message"] = self._quoted(chat, reply_to)
        elif thread_id is not None:
            creation = {"forum_topic_created": {"name": chat.topics[thread_id], "icon_color": 0}}
            common["reply_to_message"] = self._quoted(chat, thread_id) | creation
        if album:
            return self._say_album(chat, user, text, album, common, thread_id)
        has_media = photo is not None or document is not None or sticker is not None
        common |= world.text_fields(text, as_caption=has_media)
        if photo is not None:
            common |= world.photo_fields(photo, claimed_size=claimed_size)
        if document is not None:
            common |= world.document_fields(*document, claimed_size=claimed_size)
        if sticker is not None:
            common |= world.sticker_fields(sticker)
        message = world.new_message(chat, user, common, thread_id=thread_id)
        self.inject({"channel_post" if chat.type == "channel" else "message": message})
        return message

    def edit(self, chat: Chat, message: Json, text: str) -> None:
        """Somebody edits what they wrote, or the caption of a picture."""
        has_media = "photo" in message or "document" in message
        edited = message | self.world.text_fields(text, as_caption=has_media) | {"edit_date": int(time.time())}
        self.world.messages[chat.id, message["message_id"]] = edited
        self.inject({"edited_message": edited})

    def put_reaction(
        self, chat: Chat, user: User | None, message_id: int, *emoji: str, before: Sequence[str] = (), **fields: Any
    ) -> None:
        """Somebody sets the emoji under a message; an anonymous admin is `user=None` with `actor_chat`."""

        def reactions(names: Sequence[str]) -> list[Json]:
            return [
                {"type": "custom_emoji", "custom_emoji_id": name}
                if name.isdecimal()
                else {"type": "emoji", "emoji": name}
                for name in names
            ]

        changed: Json = {
            "chat": chat.json(),
            "message_id": message_id,
            "date": int(time.time()),
            "old_reaction": reactions(before),
            "new_reaction": reactions(emoji),
        }
        self.inject({"message_reaction": changed | ({"user": user.json()} if user else {}) | fields})

    def set_membership(self, chat: Chat, by: User, status: str, **fields: Any) -> None:
        """Somebody adds the bot, throws it out (`kicked`) or mutes it (`restricted`)."""
        member = {"user": self.bot.json(), "status": status}
        if status == "kicked":
            member["until_date"] = 0
        changed = {
            "chat": chat.json(),
            "from": by.json(),
            "date": int(time.time()),
            "old_chat_member": {"user": self.bot.json(), "status": "member"},
            "new_chat_member": member | fields,
        }
        self.inject({"my_chat_member": changed})

    def make_admin(self, chat: Chat, user: User, *, can_delete_messages: bool = True, is_owner: bool = False) -> None:
        """`user` administers the group from now on."""
        if is_owner:
            chat.admins[user.id] = {"user": user.json(), "status": "creator", "is_anonymous": False}
        else:
            rights = {"can_delete_messages": can_delete_messages}
            chat.admins[user.id] = {"user": user.json(), "status": "administrator"} | rights

    def add_custom_emoji(self, data: bytes) -> str:
        """A custom emoji; its id."""
        sticker = self.world.sticker_fields(data)["sticker"]
        emoji_id = f"54{len(self._custom_emoji):06}"
        self._custom_emoji[emoji_id] = sticker | {"type": "custom_emoji", "custom_emoji_id": emoji_id}
        return emoji_id

    def press(self, button: Button, user: User) -> str:
        """Somebody presses a button; the callback query's id."""
        query_id = str(next(self._callback_ids))
        message = self.world.messages[button.message.chat.id, button.message.message_id]
        self.inject(
            {
                "callback_query": {
                    "id": query_id,
                    "from": user.json(),
                    "message": message,
                    "chat_instance": str(button.message.chat.id),
                    "data": button.data,
                }
            }
        )
        return query_id

    def inject(self, fields: Json, *, update_id: int | None = None) -> int:
        """Deliver an update with these fields, whatever they are; its id."""
        number = next(self._update_ids) if update_id is None else update_id
        self._updates[number] = {"update_id": number} | fields
        self._notify_soon()
        self._deliver_soon()
        return number

    def poison(self) -> int:
        """An update that client libraries cannot parse: a callback query without `chat_instance`."""
        return self.inject({"callback_query": {"id": "1", "from": self.bot.json(), "data": "x"}})

    def move(self, group: Chat) -> Chat:
        """The group becomes a supergroup: its old id is refused from now on, with the new one named."""
        moved = self.world.add_chat("supergroup", group.title)
        group.moved_to = moved.id
        return moved

    def announce_move(self, group: Chat, moved: Chat) -> None:
        """Both chats say so, as Telegram's do."""
        self.inject({"message": self.world.new_message(group, None, {"migrate_to_chat_id": moved.id})})
        self.inject({"message": self.world.new_message(moved, None, {"migrate_from_chat_id": group.id})})

    # What goes wrong

    def fail(
        self,
        method: str,
        *,
        status: int | None = None,
        body: Json | str | None = None,
        delay_s: float = 0.0,
        is_dropped: bool = False,
        times: int = 1,
    ) -> None:
        """The next `times` calls of `method` (`file` for downloads) go wrong."""
        self._faults[method] += [Fault(status, body, delay_s, is_dropped)] * times
        self._notify_soon()  # a waiting poll ends, so that what goes wrong with polling shows at once

    def flood(self, method: str, *, retry_after: int, times: int = 1) -> None:
        """The next calls of `method` are answered 429."""
        description = f"Too Many Requests: retry after {retry_after}"
        body = {"ok": False, "error_code": 429, "description": description, "parameters": {"retry_after": retry_after}}
        self.fail(method, status=429, body=body, times=times)

    def revoke_token(self) -> None:
        """Every request is answered 401 from now on."""
        self.is_token_valid = False
        self._notify_soon()

    # What tests see

    @property
    def has_webhook(self) -> bool:
        """Whether updates are delivered, not asked for."""
        return bool(self.webhook.get("url"))

    @property
    def pending_update_ids(self) -> list[int]:
        """Updates that the bot has not acknowledged."""
        return sorted(self._updates)

    def sent_to(self, chat: Chat) -> list[SentMessage]:
        """The bot's messages in `chat`."""
        return [message for message in self.sent if message.chat is chat]

    def num_calls(self, method: str) -> int:
        """How often the bot called `method`."""
        return sum(call.method == method for call in self.calls)

    async def wait_for(self, predicate: Callable[[], T], timeout_s: float = 20.0) -> T:
        """The first true result of `predicate`, asked anew after everything that happens. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s), self._changed:
            while not (result := predicate()):
                await self._changed.wait()
            return result

    # The server

    async def _serve_method(self, request: web.Request) -> web.StreamResponse:
        token, method = request.match_info["token"], request.match_info["method"]
        parameters = await _read_parameters(request)
        self.calls.append(Call(method, parameters, time.monotonic()))
        await self._notify()
        try:
            self._check_token(token)
            if (answer := await self._fault(method, request)) is not None:
                return answer
            result = await self._call(method, parameters)
        except _Refusal as refusal:
            return refusal.response()
        finally:
            await self._notify()
        return web.json_response({"ok": True, "result": result})

    async def _serve_file(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(Call("file", {"path": request.match_info["path"]}, time.monotonic()))
        try:
            self._check_token(request.match_info["token"])
        except _Refusal as refusal:
            return refusal.response()
        if (answer := await self._fault("file", request)) is not None:
            return answer
        file = next((each for each in self.world.files.values() if each.path == request.match_info["path"]), None)
        if file is None:
            return web.Response(status=404)
        response = web.StreamResponse()  # chunked, like a server that does not say how much will come
        await response.prepare(request)
        for start in range(0, len(file.data), _CHUNK_BYTES):
            await response.write(file.data[start : start + _CHUNK_BYTES])
        await response.write_eof()
        return response

    def _check_token(self, token: str) -> None:
        if ":" not in token:
            raise _Refusal(404, "Not Found")
        if token != self.token or not self.is_token_valid:
            raise _Refusal(401, "Unauthorized")

    async def _fault(self, method: str, request: web.Request) -> web.Response | None:
        if not self._faults[method]:
            return None
        fault = self._faults[method].pop(0)
        await asyncio.sleep(fault.delay_s)
        if fault.is_dropped:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if fault.status is None and fault.body is None:
            return None
        text = fault.body if isinstance(fault.body, str) else json.dumps(fault.body or {})
        return web.Response(status=fault.status or 200, text=text, content_type="application/json")

    async def _call(self, method: str, parameters: Json) -> Any:
        if method == "getUpdates":
            return await self._get_updates(parameters)
        answer = _METHODS.get(method)
        if answer is None or method in self.unknown_methods:
            raise _Refusal(404, "Not Found: method not found")
        return answer(self, parameters)

    async def _get_updates(self, parameters: Json) -> list[Json]:
        """Long polling. A second poller ends the first, as Telegram does."""
        if self.has_webhook:
            raise _Refusal(409, "Conflict: can't use getUpdates method while webhook is active")
        for number in [number for number in self._updates if number < int(parameters.get("offset", 0))]:
            del self._updates[number]
        self._forget_unwanted(parameters.get("allowed_updates") or ())
        self._poller += 1
        me, deadline = self._poller, time.monotonic() + float(parameters.get("timeout", 0))
        await self._notify()
        while not self._updates and not self._closing and (left_s := deadline - time.monotonic()) > 0:
            await self._wait_for_change(left_s)
            self._forget_unwanted(parameters.get("allowed_updates") or ())
            if me != self._poller:
                raise _Refusal(409, "Conflict: terminated by other getUpdates request")
            if not self.is_token_valid:
                raise _Refusal(401, "Unauthorized")
            if self._faults["getUpdates"]:
                return []
        return [update for _, update in sorted(self._updates.items())][: int(parameters.get("limit", 100))]

    def _forget_unwanted(self, allowed: Sequence[str]) -> None:
        """Kinds of updates that the bot did not ask for are not kept for it."""
        unwanted = _KINDS - set(allowed) if allowed else set()
        for number in [number for number, update in self._updates.items() if unwanted & update.keys()]:
            del self._updates[number]

    async def _wait_for_change(self, timeout_s: float) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait(), timeout_s)
            except TimeoutError:
                return

    def _notify_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._notify())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # The methods

    def _get_me(self, _: Json) -> Json:
        return self.bot.json() | {"can_join_groups": True, "can_read_all_group_messages": False}

    def _delete_webhook(self, _: Json) -> bool:
        self.webhook = {}
        return True

    def _set_webhook(self, parameters: Json) -> bool:
        if not str(parameters.get("url", "")).startswith("http"):
            raise _Refusal(400, "Bad Request: bad webhook: invalid webhook URL specified")
        self.webhook = parameters
        self._deliver_soon()
        return True

    def _get_webhook_info(self, _: Json) -> Json:
        info = {"url": self.webhook.get("url", ""), "has_custom_certificate": False}
        return info | {"pending_update_count": len(self._updates)} | self.webhook_error

    def _deliver_soon(self) -> None:
        if self.has_webhook and not self._is_delivering:
            self._is_delivering = True
            task = asyncio.get_running_loop().create_task(self._deliver())
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _deliver(self) -> None:
        """Deliver what waits, all at a time, until each was taken with a 200."""
        try:
            async with ClientSession() as session:
                while self._updates and self.has_webhook and not self._closing:
                    self._forget_unwanted(self.webhook.get("allowed_updates") or ())
                    await asyncio.gather(*(self._deliver_one(session, number) for number in sorted(self._updates)))
                    await asyncio.sleep(0.01)
        finally:
            self._is_delivering = False

    async def _deliver_one(self, session: ClientSession, number: int) -> None:
        headers = {"X-Telegram-Bot-Api-Secret-Token": self.webhook.get("secret_token", "")}
        try:
            async with session.post(self.webhook["url"], json=self._updates[number], headers=headers) as response:
                self.webhook_answers.append(response.status)
                if response.status == 200:
                    self._updates.pop(number, None)
        except (ClientError, KeyError):
            self.webhook_answers.append(0)
        await self._notify()

    def _get_chat_administrators(self, parameters: Json) -> list[Json]:
        return list(self._chat(parameters).admins.values())

    def _get_custom_emoji_stickers(self, parameters: Json) -> list[Json]:
        return [self._custom_emoji[each] for each in parameters["custom_emoji_ids"] if each in self._custom_emoji]

    def _send_message_draft(self, parameters: Json) -> bool:
        chat = self._chat(parameters)
        if chat.type != "private":
            raise _Refusal(400, "Bad Request: message drafts can be sent only to private chats")
        if not parameters.get("draft_id"):
            raise _Refusal(400, "Bad Request: draft_id must be non-zero")
        text = str(parameters.get("text", ""))
        _checked_entities(parameters, text)
        draft = Draft(chat.id, parameters["draft_id"], text, time.monotonic(), parameters.get("message_thread_id"))
        self.drafts.append(draft)
        return True

    def _edit_message_reply_markup(self, parameters: Json) -> Json:
        sent = self._sent(parameters)
        buttons = _buttons(parameters, sent)
        if [(each.text, each.data) for each in buttons] == [(each.text, each.data) for each in sent.buttons]:
            raise _Refusal(400, "Bad Request: message is not modified: specified new message content and reply markup")
        sent.buttons = buttons
        return self.world.messages[sent.chat.id, sent.message_id]

    def _delete_message(self, parameters: Json) -> bool:
        chat, number = self._chat(parameters), int(parameters["message_id"])
        if self.world.messages.pop((chat.id, number), None) is None:
            raise _Refusal(400, "Bad Request: message to delete not found")
        for sent in self.sent:
            if sent.chat is chat and sent.message_id == number:
                sent.is_deleted = True
        return True

    def _set_message_reaction(self, parameters: Json) -> bool:
        chat = self._chat(parameters)
        names = [each["emoji"] for each in parameters.get("reaction") or ()]
        if not chat.takes_reactions or any(name not in ALLOWED_REACTIONS for name in names):
            raise _Refusal(400, "Bad Request: REACTION_INVALID")
        self.reactions[chat.id, int(parameters["message_id"])] = names
        return True

    def _set_my_commands(self, parameters: Json) -> bool:
        for command in parameters["commands"]:
            name, description = command["command"], command["description"]
            if not (name.isascii() and name.replace("_", "a").isalnum() and name == name.lower() and len(name) <= 32):
                raise _Refusal(400, "Bad Request: BOT_COMMAND_INVALID")
            if not 1 <= len(description) <= 256:
                raise _Refusal(400, "Bad Request: BOT_COMMAND_DESCRIPTION_INVALID")
        self.my_commands = parameters["commands"]
        return True

    def _send_chat_action(self, parameters: Json) -> bool:
        chat = self._chat(parameters)
        thread_id = parameters.get("message_thread_id")
        self.chat_actions.append(ChatAction(chat.id, thread_id, parameters["action"], time.monotonic()))
        return True

    def _send_message(self, parameters: Json) -> Json:
        chat, text = self._chat(parameters), _checked_text(parameters)
        entities = _checked_entities(parameters, text)
        thread_id = parameters.get("message_thread_id")
        if thread_id is not None and thread_id not in chat.topics:
            raise _Refusal(400, "Bad Request: message thread not found")
        reply_to = self._reply_target(chat, parameters)
        fields: Json = self.world.text_fields(text)
        fields["entities"] += entities
        if reply_to is not None:
            fields["reply_to_message"] = self._quoted(chat, reply_to)
        message = self.world.new_message(chat, self.bot, fields, thread_id=thread_id)
        versions = [Version(text, time.monotonic(), entities)]
        sent = SentMessage(message["message_id"], chat, thread_id, reply_to, parameters, versions)
        sent.buttons = _buttons(parameters, sent)
        self.sent.append(sent)
        return message

    def _send_photo(self, parameters: Json) -> Json:
        return self._send_file(parameters, "photo")

    def _send_document(self, parameters: Json) -> Json:
        return self._send_file(parameters, "document")

    def _send_sticker(self, parameters: Json) -> Json:
        return self._send_file(parameters, "sticker")

    def _send_animation(self, parameters: Json) -> Json:
        return self._send_file(parameters, "animation")

    def _send_file(self, parameters: Json, kind: str) -> Json:
        chat, caption = self._chat(parameters), str(parameters.get("caption", ""))
        upload = parameters.get(kind)
        known = self.world.files.get(upload) if isinstance(upload, str) else None
        if isinstance(upload, str) and known is None:
            raise _Refusal(400, "Bad Request: wrong file identifier/HTTP URL specified")
        if not isinstance(upload, web.FileField) and known is None:
            raise _Refusal(400, f"Bad Request: there is no {kind} in the request")
        if utf16_length(caption) > MAX_CAPTION_LENGTH:
            raise _Refusal(400, "Bad Request: message caption is too long")
        thread_id = parameters.get("message_thread_id")
        if thread_id is not None and thread_id not in chat.topics:
            raise _Refusal(400, "Bad Request: message thread not found")
        entities = _checked_entities(parameters, caption, name="caption_entities")
        data = known.data if known is not None else upload.file.read()
        reply_to = self._reply_target(chat, parameters)
        fields: Json = self.world.text_fields(caption, as_caption=True)
        if kind == "photo":
            fields |= self.world.photo_fields(data)
        elif kind == "sticker":
            fields |= self.world.sticker_fields(data)
        else:
            fields |= self.world.document_fields(upload.filename, upload.content_type, data)
            if kind == "animation":
                fields["animation"] = fields["document"] | {"width": 64, "height": 64, "duration": 1}
        if reply_to is not None:
            fields["reply_to_message"] = self._quoted(chat, reply_to)
        message = self.world.new_message(chat, self.bot, fields, thread_id=thread_id)
        versions = [Version(caption, time.monotonic(), entities)]
        sent = SentMessage(message["message_id"], chat, thread_id, reply_to, parameters, versions)
        sent.picture, sent.is_document, sent.kind = data, kind == "document", kind
        sent.buttons = _buttons(parameters, sent)
        self.sent.append(sent)
        return message

    def _edit_message_text(self, parameters: Json) -> Json:
        sent, text = self._sent(parameters), _checked_text(parameters)
        entities, buttons = _checked_entities(parameters, text), _buttons(parameters, sent)
        is_same_keyboard = [each.data for each in sent.buttons] == [each.data for each in buttons]
        if sent.text == text and sent.entities == entities and is_same_keyboard:
            raise _Refusal(
                400,
                "Bad Request: message is not modified: specified new message content and reply markup are exactly "
                "the same as a current content and reply markup of the message",
            )
        sent.versions.append(Version(text, time.monotonic(), entities))
        sent.buttons = buttons
        message = self.world.messages[sent.chat.id, sent.message_id]
        message |= self.world.text_fields(text) | {"edit_date": int(time.time())}
        return message

    def _sent(self, parameters: Json) -> SentMessage:
        chat, number = self._chat(parameters), int(parameters["message_id"])
        for sent in self.sent:
            if sent.chat is chat and sent.message_id == number and not sent.is_deleted:
                return sent
        raise _Refusal(400, "Bad Request: message to edit not found")

    def _answer_callback_query(self, parameters: Json) -> bool:
        query_id, text = parameters["callback_query_id"], str(parameters.get("text", ""))
        if utf16_length(text) > MAX_ALERT_LENGTH:
            raise _Refusal(400, "Bad Request: MESSAGE_TOO_LONG")
        self.answered_callbacks.append(query_id)
        self.callback_answers.append(CallbackAnswer(query_id, text, bool(parameters.get("show_alert"))))
        return True

    def _get_file(self, parameters: Json) -> Json:
        file = self.world.files.get(parameters["file_id"])
        if file is None:
            raise _Refusal(400, "Bad Request: wrong file_id or the file is temporarily unavailable")
        if file.claimed_size > MAX_DOWNLOAD_BYTES:
            raise _Refusal(400, "Bad Request: file is too big")
        return {
            "file_id": file.file_id,
            "file_unique_id": f"u-{file.file_id}",
            "file_size": file.claimed_size,
            "file_path": file.path,
        }

    def _chat(self, parameters: Json) -> Chat:
        chat = self.world.chats.get(int(parameters["chat_id"]))
        if chat is None:
            raise _Refusal(400, "Bad Request: chat not found")
        if chat.is_blocked:
            raise _Refusal(403, "Forbidden: bot was blocked by the user")
        if chat.moved_to is not None:
            description = "Bad Request: group chat was upgraded to a supergroup chat"
            raise _Refusal(400, description, {"migrate_to_chat_id": chat.moved_to})
        return chat

    def _reply_target(self, chat: Chat, parameters: Json) -> int | None:
        reply = parameters.get("reply_parameters")
        if reply is None:
            return None
        if (chat.id, reply["message_id"]) in self.world.messages:
            return int(reply["message_id"])
        if reply.get("allow_sending_without_reply"):
            return None
        raise _Refusal(400, "Bad Request: message to be replied not found")

    def _quoted(self, chat: Chat, message_id: int) -> Json:
        message = self.world.messages[chat.id, message_id]
        return {name: value for name, value in message.items() if name != "reply_to_message"}

    def _say_album(
        self, chat: Chat, user: User | None, text: str, album: Sequence[bytes], common: Json, thread_id: int | None
    ) -> Json:
        group_id = f"album-{next(self._album_ids)}"
        messages = []
        for number, picture in enumerate(album):
            caption = self.world.text_fields(text if number == 0 else "", as_caption=True)
            fields = common | self.world.photo_fields(picture) | caption | {"media_group_id": group_id}
            messages.append(self.world.new_message(chat, user, fields, thread_id=thread_id))
            self.inject({"message": messages[-1]})
        return messages[0]


_METHODS: dict[str, Callable[[FakeTelegram, Json], Any]] = {
    "getMe": FakeTelegram._get_me,
    "deleteWebhook": FakeTelegram._delete_webhook,
    "setMyCommands": FakeTelegram._set_my_commands,
    "sendChatAction": FakeTelegram._send_chat_action,
    "sendMessage": FakeTelegram._send_message,
    "sendPhoto": FakeTelegram._send_photo,
    "sendDocument": FakeTelegram._send_document,
    "editMessageText": FakeTelegram._edit_message_text,
    "answerCallbackQuery": FakeTelegram._answer_callback_query,
    "setWebhook": FakeTelegram._set_webhook,
    "getWebhookInfo": FakeTelegram._get_webhook_info,
    "getChatAdministrators": FakeTelegram._get_chat_administrators,
    "getCustomEmojiStickers": FakeTelegram._get_custom_emoji_stickers,
    "sendMessageDraft": FakeTelegram._send_message_draft,
    "sendSticker": FakeTelegram._send_sticker,
    "sendAnimation": FakeTelegram._send_animation,
    "editMessageReplyMarkup": FakeTelegram._edit_message_reply_markup,
    "deleteMessage": FakeTelegram._delete_message,
    "setMessageReaction": FakeTelegram._set_message_reaction,
    "getFile": FakeTelegram._get_file,
}


async def _read_parameters(request: web.Request) -> Json:
    """A request's parameters: form fields that hold JSON where they are no text."""
    if request.content_type == "application/json":
        return dict(await request.json())
    fields = {**request.query, **await request.post()}
    texts = {"text", "caption", "callback_query_id", "file_id", "action", "secret_token", "sticker", "photo"}
    return {name: value if name in texts else _decoded(value) for name, value in fields.items()}


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _checked_text(parameters: Json) -> str:
    text = str(parameters.get("text", ""))
    if not text.strip():
        raise _Refusal(400, "Bad Request: message text is empty")
    if utf16_length(text) > MAX_TEXT_LENGTH:
        raise _Refusal(400, "Bad Request: message is too long")
    return text


def _checked_entities(parameters: Json, text: str, *, name: str = "entities") -> list[Json]:
    entities = list(parameters.get(name) or ())
    if (problem := entity_problem(text, entities)) or len(entities) > MAX_ENTITIES:
        raise _Refusal(400, f"Bad Request: can't parse entities: {problem or 'too many of them'}")
    return entities


def _buttons(parameters: Json, message: SentMessage) -> list[Button]:
    markup = parameters.get("reply_markup") or {}
    found = [button for row in markup.get("inline_keyboard", ()) for button in row]
    for button in found:
        if not 1 <= len(button["callback_data"].encode()) <= 64:
            raise _Refusal(400, "Bad Request: BUTTON_DATA_INVALID")
        if not button["text"]:
            raise _Refusal(400, "Bad Request: text buttons are unallowed in the inline keyboard")
    return [Button(button["text"], button["callback_data"], message) for button in found]
