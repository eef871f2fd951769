"""Buttons under replies, commands for moderators, and questions that are answered by replying."""

import re
from dataclasses import dataclass, field

import pytest

from bot.adapters.base import ReplyChannel
from bot.adapters.telegram.commands import MODERATORS_ONLY
from bot.commands import Argument, Command, CommandCall, CommandReply, CommandTable
from bot.errors import CommandError, StoreError
from bot.types import Control, IncomingMessage
from tests.bot.adapters.telegram.harness import MemorySeen, RecordingHandler, eventually, serving, stay_silent
from tests.fakes.telegram import Chat, FakeTelegram, SentMessage, User

CONTROLS = (
    Control("◀", ("swipe",), "where", "back"),
    Control("↩", ("undo",)),
    Control("✏", ("edit",)),
    Control("👎", ("rate",), "rating", "bad"),
)


@dataclass
class Steering:
    """A table of commands that remembers its calls."""

    calls: list[tuple[str, CommandCall]] = field(default_factory=list)
    replies: dict[str, CommandReply] = field(default_factory=dict)
    prefilled: str = "what it *says* now"

    @property
    def table(self) -> CommandTable:
        text = Argument("text", "The new text", is_prose=True, prefill=self.prefill)
        where, rating = Argument("where", "Which way"), Argument("rating", "How good")
        return CommandTable(
            (
                self.command("swipe", (where,)),
                self.command("undo"),
                self.command("edit", (text,)),
                self.command("rate", (rating,)),
                self.command("purge", for_moderators=True),
                self.command("look", only_looks=True),
            )
        )

    def command(self, name: str, arguments: tuple[Argument, ...] = (), **others: bool) -> Command:
        async def run(call: CommandCall) -> CommandReply:
            self.calls.append((name, call))
            return self.replies.get(name, CommandReply(f"{name} is done"))

        return Command((name,), f"To {name}", run, arguments, **others)

    async def prefill(self, call: CommandCall) -> str:
        return self.prefilled

    @property
    def last(self) -> CommandCall:
        return self.calls[-1][1]


@pytest.fixture
def steering() -> Steering:
    return Steering()


async def with_controls(message: IncomingMessage, channel: ReplyChannel) -> None:
    await channel.send("I *am* here", controls=CONTROLS)


async def a_reply(fake: FakeTelegram, chat: Chat, user: User) -> SentMessage:
    num = len(fake.sent)
    fake.say(chat, user, "hi")
    return await fake.wait_for(lambda: len(fake.sent) > num and fake.sent[num])


async def test_a_control_runs_its_command_also_after_a_restart(fake: FakeTelegram, steering: Steering) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    async with serving(fake, RecordingHandler(with_controls), commands=steering.table):
        reply = await a_reply(fake, chat, ada)
    async with serving(fake, RecordingHandler(), commands=steering.table):
        fake.press(reply.buttons[0], ada)
        await eventually(lambda: steering.calls)
        call = steering.last
        assert dict(call.arguments) == {"where": "back"}
        assert call.message_id == str(reply.message_id)
        assert call.is_moderator, "in a chat of two there is nobody else"
        assert call.channel is not None
        await call.channel.edit(call.message_id, "Another one", controls=CONTROLS[:1])
    assert (reply.text, len(reply.buttons)) == ("Another one", 1)


async def test_a_silent_press_leaves_no_trace(fake: FakeTelegram, steering: Steering) -> None:
    ada = fake.add_user("Ada")
    steering.replies["undo"] = CommandReply("Taken back.", is_silent=True)
    async with serving(fake, RecordingHandler(with_controls), commands=steering.table):
        reply = await a_reply(fake, fake.private_chat(ada), ada)
        fake.press(reply.buttons[1], ada)
        answer = await fake.wait_for(lambda: fake.callback_answers and fake.callback_answers[0])
        await fake.wait_for(lambda: not fake.pending_update_ids)
    assert (answer.text, answer.is_alert) == ("", False)
    assert len(fake.sent) == 1


@pytest.mark.parametrize(("length", "is_alert"), [(200, True), (201, False)])
async def test_what_one_person_is_to_hear_comes_as_a_window(
    fake: FakeTelegram, steering: Steering, length: int, is_alert: bool
) -> None:
    ada = fake.add_user("Ada")
    steering.replies["undo"] = CommandReply("x" * length, is_private=True)
    async with serving(fake, RecordingHandler(with_controls), commands=steering.table):
        reply = await a_reply(fake, fake.add_group("G"), ada)
        fake.press(reply.buttons[1], ada)
        answer = await fake.wait_for(lambda: fake.callback_answers and fake.callback_answers[0])
        await fake.wait_for(lambda: not fake.pending_update_ids)
        if not is_alert:
            await fake.wait_for(lambda: len(fake.sent) == 2)
    assert answer.is_alert is is_alert
    assert len(fake.sent) == (1 if is_alert else 2)


async def test_a_window_that_came_too_late_becomes_a_message(fake: FakeTelegram, steering: Steering) -> None:
    ada = fake.add_user("Ada")
    steering.replies["undo"] = CommandReply("Nothing to take back.", is_private=True)
    fake.fail("answerCallbackQuery", status=400, body={"ok": False, "description": "Bad Request: query is too old"})
    async with serving(fake, RecordingHandler(with_controls), commands=steering.table):
        reply = await a_reply(fake, fake.private_chat(ada), ada)
        fake.press(reply.buttons[1], ada)
        await fake.wait_for(lambda: len(fake.sent) == 2)
    assert fake.sent[1].text == "Nothing to take back."


async def test_a_silent_command_in_a_group_is_answered_by_an_emoji(fake: FakeTelegram, steering: Steering) -> None:
    ada = fake.add_user("Ada")
    group = fake.add_group("G")
    steering.replies["undo"] = CommandReply("Taken back.", is_silent=True)
    async with serving(fake, RecordingHandler(), commands=steering.table):
        typed = fake.say(group, ada, "/undo")
        await fake.wait_for(lambda: fake.reactions)
        assert fake.reactions == {(group.id, typed["message_id"]): ["👌"]}
        assert not fake.sent
        group.takes_reactions = False
        fake.say(group, ada, "/undo")
        await fake.wait_for(lambda: fake.sent)
        fake.say(fake.private_chat(ada), ada, "/undo")
        await fake.wait_for(lambda: len(fake.sent) == 2)
    assert [sent.text for sent in fake.sent] == ["Taken back.", "Taken back."]


# Moderators


async def test_moderators_are_those_who_may_delete_messages(fake: FakeTelegram, steering: Steering) -> None:
    group = fake.add_group("G")
    owner, admin, weak, member = (fake.add_user(name) for name in ("Owner", "Admin", "Weak", "Member"))
    fake.make_admin(group, owner, is_owner=True)
    fake.make_admin(group, admin)
    fake.make_admin(group, weak, can_delete_messages=False)
    async with serving(fake, RecordingHandler(with_controls), commands=steering.table):
        reply = await a_reply(fake, group, member)
        for number, user in enumerate((owner, admin, weak, member), 1):
            fake.press(reply.buttons[0], user)
            await eventually(lambda number=number: len(steering.calls) == number)  # type: ignore[misc]
    assert [call.is_moderator for _, call in steering.calls] == [True, True, False, False]
    assert fake.num_calls("getChatAdministrators") == 1, "who moderates is asked once a minute"


async def test_a_command_for_moderators(fake: FakeTelegram, steering: Steering) -> None:
    group = fake.add_group("G")
    admin, member, anonymous = fake.add_user("Admin"), fake.add_user("Member"), fake.add_user("G", is_bot=True)
    linked = fake.add_group("News", type_="channel")
    fake.make_admin(group, admin)
    async with serving(fake, RecordingHandler(), commands=steering.table):
        fake.say(group, member, "/purge")
        await fake.wait_for(lambda: len(fake.sent) == 1)
        fake.say(group, None, "/purge", extra={"sender_chat": linked.json()})
        await fake.wait_for(lambda: len(fake.sent) == 2)
        assert not steering.calls
        assert {sent.text for sent in fake.sent} == {MODERATORS_ONLY.format(command="purge")}
        fake.say(group, admin, "/purge")
        await fake.wait_for(lambda: len(fake.sent) == 3)
        fake.say(group, anonymous, "/purge", extra={"sender_chat": group.json()})
        await fake.wait_for(lambda: len(fake.sent) == 4)
        fake.say(fake.private_chat(member), member, "/purge")
        await fake.wait_for(lambda: len(fake.sent) == 5)
    assert len(steering.calls) == 3


async def test_without_an_answer_nobody_moderates(fake: FakeTelegram, steering: Steering) -> None:
    group = fake.add_group("G")
    admin = fake.add_user("Admin")
    fake.make_admin(group, admin)
    fake.fail("getChatAdministrators", status=502, body={"ok": False})
    async with serving(fake, RecordingHandler(), commands=steering.table):
        fake.say(group, admin, "/purge")
        await fake.wait_for(lambda: fake.sent)
        assert not steering.calls
        fake.say(group, admin, "/purge")
        await eventually(lambda: steering.calls)


# Questions


async def press_edit(fake: FakeTelegram, reply: SentMessage, user: User) -> SentMessage:
    fake.press(reply.buttons[2], user)
    return await fake.wait_for(lambda: fake.sent[-1] is not reply and fake.sent[-1])


async def test_a_longer_text_is_asked_for_also_across_a_restart(fake: FakeTelegram, steering: Steering) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    steering.replies["edit"] = CommandReply("Changed.", is_silent=True)
    handler = RecordingHandler(with_controls)
    async with serving(fake, handler, commands=steering.table):
        reply = await a_reply(fake, chat, ada)
        question = await press_edit(fake, reply, ada)
    assert question.text == ("✏ The new text. Reply to this message with it.\n\nSo far, to copy:\nwhat it *says* now")
    assert question.special[-1] == ("pre", "what it *says* now")
    assert question.parameters["reply_markup"]["force_reply"] is True
    assert not steering.calls
    async with serving(fake, handler, commands=steering.table):
        fake.say(chat, ada, "I *was*\nhere", reply_to=question.message_id)
        await fake.wait_for(lambda: question.is_deleted)
    assert dict(steering.last.arguments) == {"text": "I *was*\nhere"}
    assert steering.last.message_id == str(reply.message_id)
    assert steering.last.reply_to is None
    assert len(handler.messages) == 1, "the answer is no message"
    assert len(fake.sent) == 2, "what can be seen already needs no words"


async def test_in_a_group_one_person_is_asked(fake: FakeTelegram, steering: Steering) -> None:
    ada, bob = fake.add_user("Ada"), fake.add_user("Bob")
    group = fake.add_group("G")
    async with serving(fake, RecordingHandler(with_controls), commands=steering.table):
        reply = await a_reply(fake, group, ada)
        question = await press_edit(fake, reply, bob)
        fake.say(group, bob, "new", reply_to=question.message_id)
        await fake.wait_for(lambda: fake.sent[-1].text == "edit is done")
    assert question.parameters["reply_markup"]["selective"] is True
    assert ("text_mention", "Bob") in question.special
    assert steering.last.author.user_id == str(bob.id)
    assert not steering.last.is_moderator


async def test_a_typed_command_asks_too(fake: FakeTelegram, steering: Steering) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    async with serving(fake, RecordingHandler(with_controls), commands=steering.table):
        reply = await a_reply(fake, chat, ada)
        fake.say(chat, ada, "/edit", reply_to=reply.message_id)
        question = await fake.wait_for(lambda: len(fake.sent) == 2 and fake.sent[1])
        fake.say(chat, ada, "new", reply_to=question.message_id)
        await eventually(lambda: steering.calls)
        assert steering.last.message_id == str(reply.message_id)
        fake.say(chat, ada, "/edit all  at\nonce", reply_to=reply.message_id)
        await eventually(lambda: len(steering.calls) == 2)
    assert dict(steering.last.arguments) == {"text": "all  at\nonce"}
    assert steering.last.reply_to is not None


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [(r"start=(.{12})\d+", r"start=\g<1>1"), (r"start=.{4}", "start=AAAA"), (r"start=", "begin=")],
)
async def test_a_question_cannot_be_forged(
    fake: FakeTelegram, steering: Steering, pattern: str, replacement: str
) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    handler = RecordingHandler(with_controls)
    async with serving(fake, handler, commands=steering.table):
        question = await press_edit(fake, await a_reply(fake, chat, ada), ada)
        stored = fake.world.messages[chat.id, question.message_id]
        stored["entities"][0]["url"] = re.sub(pattern, replacement, stored["entities"][0]["url"])
        fake.say(chat, ada, "new", reply_to=question.message_id)
        await eventually(lambda: len(handler.messages) == 2)
    assert not steering.calls


async def test_somebody_elses_question_is_none(fake: FakeTelegram, steering: Steering) -> None:
    ada = fake.add_user("Ada")
    chat, group = fake.private_chat(ada), fake.add_group("G")
    handler = RecordingHandler(with_controls)
    async with serving(fake, handler, commands=steering.table):
        question = await press_edit(fake, await a_reply(fake, chat, ada), ada)
        stored = fake.world.messages[chat.id, question.message_id]
        copied = fake.say(chat, ada, extra={"text": stored["text"], "entities": stored["entities"]})
        fake.say(chat, ada, "to a copy", reply_to=copied["message_id"])
        elsewhere = fake.world.new_message(group, fake.bot, {key: stored[key] for key in ("text", "entities")})
        fake.say(group, ada, "elsewhere", reply_to=elsewhere["message_id"])
        await eventually(lambda: len(handler.messages) == 4)
    assert not steering.calls


async def test_a_long_text_is_not_offered_to_copy(fake: FakeTelegram, steering: Steering) -> None:
    ada = fake.add_user("Ada")
    steering.prefilled = "x" * 4096
    async with serving(fake, RecordingHandler(with_controls), commands=steering.table):
        question = await press_edit(fake, await a_reply(fake, fake.private_chat(ada), ada), ada)
    assert "x" * 10 not in question.text


async def test_an_error_of_an_answered_question_is_told(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)

    async def fail(call: CommandCall) -> CommandReply:
        raise CommandError("That is not yours.")

    table = CommandTable((Command(("edit",), "Edit", fail, (Argument("text", "The text", is_prose=True),)),))
    async with serving(fake, RecordingHandler(with_controls), commands=table):
        reply = await a_reply(fake, chat, ada)
        fake.press(reply.buttons[0], ada)
        question = await fake.wait_for(lambda: len(fake.sent) == 2 and fake.sent[1])
        fake.say(chat, ada, "new", reply_to=question.message_id)
        await fake.wait_for(lambda: len(fake.sent) == 3)
    assert fake.sent[2].text == "That is not yours."


# Exactly once


async def test_a_press_that_comes_again_after_a_crash_is_not_repeated(fake: FakeTelegram, steering: Steering) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    seen = MemorySeen()
    async with serving(fake, RecordingHandler(with_controls), commands=steering.table, seen=seen):
        reply = await a_reply(fake, chat, ada)
        fake.press(reply.buttons[0], ada)
        fake.say(chat, ada, "/undo")
        await eventually(lambda: len(steering.calls) == 2)
        await fake.wait_for(lambda: not fake.pending_update_ids)
    pressed = {"id": "1", "from": ada.json(), "chat_instance": "1", "data": reply.buttons[0].data}
    stored = fake.world.messages[chat.id, reply.message_id]
    first, second = (int(event.partition(":")[2]) for _, event in seen.claimed)
    fake.inject({"callback_query": pressed | {"message": stored}}, update_id=first)
    fake.inject(
        {"message": {"message_id": 99, "date": 1, "chat": chat.json(), "from": ada.json()} | _command("/undo")},
        update_id=second,
    )
    handler = RecordingHandler(stay_silent)
    async with serving(fake, handler, commands=steering.table, seen=seen):
        fake.say(chat, ada, "last")
        await eventually(lambda: handler.messages)
        await fake.wait_for(lambda: not fake.pending_update_ids)
    assert sorted(name for name, _ in steering.calls) == ["swipe", "undo"]
    assert all(event.startswith(f"{fake.bot.id}:") for _, event in seen.claimed)


def _command(text: str) -> dict[str, object]:
    return {"text": text, "entities": [{"type": "bot_command", "offset": 0, "length": len(text)}]}


async def test_a_command_runs_although_its_claim_cannot_be_kept(
    fake: FakeTelegram, steering: Steering, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemorySeen):
        async def claim(self, platform: str, event: str) -> bool:
            raise StoreError("the disk is full")

    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler(), commands=steering.table, seen=Broken()):
        fake.say(fake.private_chat(ada), ada, "/undo")
        await fake.wait_for(lambda: fake.sent)
    assert len(steering.calls) == 1
    assert "the disk is full" in caplog.text


async def test_messages_are_not_claimed(fake: FakeTelegram, steering: Steering) -> None:
    ada = fake.add_user("Ada")
    seen = MemorySeen()
    async with serving(fake, RecordingHandler(), commands=steering.table, seen=seen):
        fake.say(fake.private_chat(ada), ada, "hi")
        await fake.wait_for(lambda: fake.sent)
    assert not seen.claimed, "the handler knows messages by their ids"
