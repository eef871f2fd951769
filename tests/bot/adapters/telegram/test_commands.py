"""Commands: menu, typed, pressed."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from bot.adapters.pacing import Rate
from bot.adapters.telegram.buttons import CommandButtons
from bot.adapters.telegram.commands import APOLOGY, OUTDATED_BUTTON, menu_of
from bot.commands import Argument, Choice, Command, CommandCall, CommandReply, CommandTable, ReplyPicture
from bot.errors import PersonaError
from bot.types import Author, ChatKind, Room
from tests.bot.adapters.telegram.harness import FAST, RecordingHandler, eventually, serving
from tests.fakes.telegram import FakeTelegram

LONG_ID = "a-very-long-persona-id-that-fills-all-of-the-sixty-four-bytes-ok"
PERSONAS = ("luna", "marlow", LONG_ID)


class Recorder:
    """A table of commands that remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[str, ...], CommandCall]] = []
        self.table = CommandTable(
            (
                self.command(("persona", "list"), "Show all personas", reply=self.choices()),
                self.command(("persona", "use"), "Choose a persona", arguments=(self.name_argument(),)),
                self.command(("persona", "show"), "Show one", arguments=(self.name_argument(is_required=False),)),
                self.command(("reset",), "Start over"),
                self.command(("start",), "Say hello", reply=CommandReply("Welcome!")),
                self.command(("help",), "Explain the commands", reply=CommandReply("Help is here.")),
                Command(("fail",), "Fail", self.fail),
                Command(("crash",), "Crash", self.crash),
            )
        )

    def command(
        self,
        path: tuple[str, ...],
        description: str,
        *,
        arguments: tuple[Argument, ...] = (),
        reply: CommandReply | None = None,
    ) -> Command:
        async def run(call: CommandCall) -> CommandReply:
            self.calls.append((path, call))
            return reply or CommandReply(f"{' '.join(path)} {dict(call.arguments)}")

        return Command(path, description, run, arguments)

    def choices(self) -> CommandReply:
        choices = tuple(Choice(persona.title()[:12], persona) for persona in PERSONAS)
        return CommandReply("Who?", choices=choices, choice_path=("persona", "use"), choice_argument="name")

    def name_argument(self, *, is_required: bool = True) -> Argument:
        async def suggest(call: CommandCall, typed: str) -> tuple[Choice, ...]:
            return tuple(Choice(persona, persona) for persona in PERSONAS if persona.startswith(typed))

        return Argument("name", "Which persona", is_required=is_required, suggest=suggest)

    async def fail(self, call: CommandCall) -> CommandReply:
        raise PersonaError("No persona has that name.")

    async def crash(self, call: CommandCall) -> CommandReply:
        raise RuntimeError("secret inner workings")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def test_the_menu_is_registered(fake: FakeTelegram, recorder: Recorder) -> None:
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        await fake.wait_for(lambda: fake.my_commands)
        menu = {entry["command"]: entry["description"] for entry in fake.my_commands}
    assert list(menu) == ["persona", "reset", "start", "help", "fail", "crash"]
    assert menu["persona"] == "list | use | show: Show all personas"
    assert menu["reset"] == "Start over"


def test_the_menu_always_has_start_and_only_names_that_telegram_takes(recorder: Recorder) -> None:
    table = CommandTable((recorder.command(("up-date",), "x"), recorder.command(("reset",), "y" * 300)))
    menu = menu_of(table)
    assert [entry.command for entry in menu] == ["reset", "start"]
    assert len(menu[0].description) == 256


async def test_a_menu_that_must_wait_holds_up_nothing(
    fake: FakeTelegram, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    ada = fake.add_user("Ada")
    fake.flood("setMyCommands", retry_after=30)
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        fake.say(fake.private_chat(ada), ada, "/reset")
        await fake.wait_for(lambda: fake.sent)
        assert not fake.my_commands
    assert "menu is not up to date yet: Telegram asks for patience, 30 s" in caplog.text


async def test_a_menu_that_did_not_arrive_is_sent_again(fake: FakeTelegram, recorder: Recorder) -> None:
    fake.fail("setMyCommands", is_dropped=True)
    fake.fail("setMyCommands", status=404, body={"ok": False, "description": "Not Found"})
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        await fake.wait_for(lambda: fake.my_commands)


async def test_a_refused_menu_stops_nothing(fake: FakeTelegram, recorder: Recorder) -> None:
    ada = fake.add_user("Ada")
    fake.fail("setMyCommands", status=400, body={"ok": False, "description": "Bad Request: BOT_COMMAND_INVALID"})
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        fake.say(fake.private_chat(ada), ada, "/reset")
        await fake.wait_for(lambda: fake.sent)


@pytest.mark.parametrize(
    ("text", "path", "arguments"),
    [
        ("/persona use Luna", ("persona", "use"), {"name": "Luna"}),
        ("/persona use  Old  Man ", ("persona", "use"), {"name": "Old  Man"}),
        ("/PERSONA Use Luna", ("persona", "use"), {"name": "Luna"}),
        ("/persona@commedia_bot use Luna", ("persona", "use"), {"name": "Luna"}),
        ("/persona\nuse\nLuna", ("persona", "use"), {"name": "Luna"}),
        ("/persona show", ("persona", "show"), {}),
        ("/persona", ("persona", "list"), {}),
        ("/persona nonsense", ("persona", "list"), {}),
        ("/reset", ("reset",), {}),
        ("/reset@Commedia_Bot", ("reset",), {}),
        ("/start deep-link", ("start",), {}),
        ("/unknown thing", ("help",), {}),
    ],
)
async def test_typed_commands(
    fake: FakeTelegram, recorder: Recorder, text: str, path: tuple[str, ...], arguments: dict[str, str]
) -> None:
    ada = fake.add_user("Ada")
    handler = RecordingHandler()
    async with serving(fake, handler, commands=recorder.table):
        fake.say(fake.private_chat(ada), ada, text)
        await fake.wait_for(lambda: fake.sent)
    ((called, call),) = recorder.calls
    assert (called, dict(call.arguments)) == (path, arguments)
    assert call.room == Room("telegram", str(ada.id))
    assert call.kind is ChatKind.DIRECT
    assert call.author == Author("telegram", str(ada.id), "Ada")
    assert not handler.messages, "a command is no message"


async def test_commands_in_a_group(fake: FakeTelegram, recorder: Recorder) -> None:
    ada, robot = fake.add_user("Ada"), fake.add_user("Robot", is_bot=True)
    forum = fake.add_group("Forum", is_forum=True)
    topic = fake.add_topic(forum, "Dogs")
    handler = RecordingHandler()
    async with serving(fake, handler, commands=recorder.table):
        fake.say(forum, ada, "/reset@other_bot")
        fake.say(forum, ada, "/weather")
        fake.say(forum, robot, "/reset")
        ours = fake.say(forum, ada, "/persona use luna", thread_id=topic)
        reply = await fake.wait_for(lambda: fake.sent and fake.sent[0])
    ((path, call),) = recorder.calls
    assert path == ("persona", "use")
    assert call.room == Room("telegram", str(forum.id), str(topic))
    assert call.kind is ChatKind.GROUP
    assert (reply.reply_to, reply.thread_id) == (ours["message_id"], topic)
    assert not handler.messages


async def test_a_missing_argument_is_asked_for_with_buttons(fake: FakeTelegram, recorder: Recorder) -> None:
    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        fake.say(fake.private_chat(ada), ada, "/persona use")
        usage = await fake.wait_for(lambda: fake.sent and fake.sent[0])
        assert usage.text == "/persona use <name>\nWhich persona"
        fake.press(usage.buttons[0], ada)
        await fake.wait_for(lambda: len(fake.sent) == 2)
    ((_, call),) = recorder.calls
    assert dict(call.arguments) == {"name": "luna"}


@pytest.mark.parametrize("chosen", range(len(PERSONAS)))
async def test_a_button_works_even_after_a_restart(fake: FakeTelegram, recorder: Recorder, chosen: int) -> None:
    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        fake.say(fake.private_chat(ada), ada, "/persona")
        menu = await fake.wait_for(lambda: fake.sent and fake.sent[0])
    assert [button.text for button in menu.buttons] == ["Luna", "Marlow", "A-Very-Long-"]
    restarted = Recorder()
    async with serving(fake, RecordingHandler(), commands=restarted.table):
        query_id = fake.press(menu.buttons[chosen], ada)
        reply = await fake.wait_for(lambda: len(fake.sent) == 2 and fake.sent[1])
    assert fake.answered_callbacks == [query_id]
    ((path, call),) = restarted.calls
    assert (path, dict(call.arguments)) == (("persona", "use"), {"name": PERSONAS[chosen]})
    assert call.author.user_id == str(ada.id)
    assert reply.text.startswith("persona use")


async def test_a_press_is_confirmed_before_its_command_is_done(
    fake: FakeTelegram, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.adapters.telegram.commands._CONFIRM_AFTER_S", 0.01)
    ada = fake.add_user("Ada")
    may_go_on = asyncio.Event()

    async def wait(call: CommandCall) -> CommandReply:
        await may_go_on.wait()
        return CommandReply("done")

    slow_use = Command(("persona", "use"), "Choose", wait, (recorder.name_argument(),))
    table = CommandTable((recorder.command(("persona", "list"), "Show", reply=recorder.choices()), slow_use))
    async with serving(fake, RecordingHandler(), commands=table):
        fake.say(fake.private_chat(ada), ada, "/persona")
        menu = await fake.wait_for(lambda: fake.sent and fake.sent[0])
        query_id = fake.press(menu.buttons[0], ada)
        await fake.wait_for(lambda: fake.answered_callbacks == [query_id])
        assert len(fake.sent) == 1
        may_go_on.set()
        await fake.wait_for(lambda: len(fake.sent) == 2)


async def test_a_button_in_a_topic_answers_there(fake: FakeTelegram, recorder: Recorder) -> None:
    ada = fake.add_user("Ada")
    forum = fake.add_group("Forum", is_forum=True)
    topic = fake.add_topic(forum, "Dogs")
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        fake.say(forum, ada, "/persona", thread_id=topic)
        menu = await fake.wait_for(lambda: fake.sent and fake.sent[0])
        fake.press(menu.buttons[0], ada)
        reply = await fake.wait_for(lambda: len(fake.sent) == 2 and fake.sent[1])
    assert reply.thread_id == topic
    assert recorder.calls[-1][1].room == Room("telegram", str(forum.id), str(topic))


async def test_buttons_of_a_message_that_is_out_of_reach(fake: FakeTelegram, recorder: Recorder) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    data = CommandButtons(recorder.table).keyboard(recorder.choices())
    assert data is not None
    query = {"id": "9", "from": ada.json(), "chat_instance": "1", "data": data.inline_keyboard[0][0].callback_data}
    old_message = {"message_id": 1, "date": 0, "chat": chat.json()}
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        fake.inject({"callback_query": query | {"message": old_message}})
        fake.inject({"callback_query": query | {"id": "10"}})
        await fake.wait_for(lambda: fake.sent and len(fake.answered_callbacks) == 2)
    assert [path for path, _ in recorder.calls] == [("persona", "use")]


async def test_an_outdated_button_says_so(fake: FakeTelegram, recorder: Recorder) -> None:
    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        fake.say(fake.private_chat(ada), ada, "/persona")
        menu = await fake.wait_for(lambda: fake.sent and fake.sent[0])
    async with serving(fake, RecordingHandler(), commands=CommandTable(())):
        fake.press(menu.buttons[0], ada)
        answer = await fake.wait_for(lambda: fake.callback_answers and fake.callback_answers[0])
    assert (answer.text, answer.is_alert) == (OUTDATED_BUTTON, True)
    assert len(fake.sent) == 1


async def test_a_press_that_cannot_be_confirmed_still_runs(fake: FakeTelegram, recorder: Recorder) -> None:
    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        fake.say(fake.private_chat(ada), ada, "/persona")
        menu = await fake.wait_for(lambda: fake.sent and fake.sent[0])
        fake.fail("answerCallbackQuery", status=400, body={"ok": False, "description": "Bad Request: query is too old"})
        fake.press(menu.buttons[1], ada)
        await fake.wait_for(lambda: len(fake.sent) == 2)
    assert dict(recorder.calls[-1][1].arguments) == {"name": "marlow"}


async def test_errors_are_told(fake: FakeTelegram, recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        fake.say(fake.private_chat(ada), ada, "/fail")
        await fake.wait_for(lambda: len(fake.sent) == 1)
        fake.say(fake.private_chat(ada), ada, "/crash")
        await fake.wait_for(lambda: len(fake.sent) == 2)
    assert [sent.text for sent in fake.sent] == ["No persona has that name.", APOLOGY]
    assert "RuntimeError: secret inner workings" in caplog.text


async def test_an_answer_waits_out_a_flood_limit_and_survives_a_failure(
    fake: FakeTelegram, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler(), commands=recorder.table):
        fake.flood("sendMessage", retry_after=1)
        fake.say(fake.private_chat(ada), ada, "/reset")
        await fake.wait_for(lambda: fake.sent)
        refused, repeated = (call.at for call in fake.calls if call.method == "sendMessage")
        assert repeated - refused >= 1
        fake.fail("sendMessage", status=403, body={"ok": False, "description": "Forbidden: bot was kicked"})
        fake.say(fake.private_chat(ada), ada, "/reset")
        await eventually(lambda: "bot was kicked" in caplog.text)
        fake.say(fake.private_chat(ada), ada, "/help")
        await fake.wait_for(lambda: len(fake.sent) == 2)


async def test_answers_keep_to_the_pace_of_their_chat(fake: FakeTelegram, recorder: Recorder) -> None:
    ada, bob = fake.add_user("Ada"), fake.add_user("Bob")
    timing = replace(FAST, per_chat=Rate(1, 0.1))
    async with serving(fake, RecordingHandler(), commands=recorder.table, timing=timing):
        for _ in range(3):
            fake.say(fake.private_chat(ada), ada, "/help")
        await fake.wait_for(lambda: fake.sent)
        fake.say(fake.private_chat(bob), bob, "/help")
        await fake.wait_for(lambda: len(fake.sent) == 4)
    to_ada = [sent.versions[0].at for sent in fake.sent_to(fake.private_chat(ada))]
    assert all(later - earlier > 0.08 for earlier, later in pairwise(to_ada))
    assert fake.sent[-1].chat.id == ada.id, "the other chat did not wait for this one"


async def test_a_long_answer_is_split_and_the_buttons_stay_at_its_end(fake: FakeTelegram) -> None:
    recorder = Recorder()
    text = "\n".join(f"line {number} 🐕" for number in range(600))
    reply = CommandReply(
        text, choices=(Choice("Luna", "luna"),), choice_path=("persona", "use"), choice_argument="name"
    )
    use = recorder.command(("persona", "use"), "Choose", arguments=(recorder.name_argument(),))
    table = CommandTable((recorder.command(("long",), "Long", reply=reply), use))
    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler(), commands=table):
        fake.say(fake.private_chat(ada), ada, "/long")
        await fake.wait_for(lambda: fake.sent and fake.sent[-1].buttons)
    assert "\n".join(sent.text for sent in fake.sent) == text
    assert [len(sent.buttons) for sent in fake.sent] == [0, 1]


async def test_without_any_commands_there_is_still_an_answer(fake: FakeTelegram) -> None:
    ada = fake.add_user("Ada")
    async with serving(fake, RecordingHandler(), commands=CommandTable(())):
        fake.say(fake.private_chat(ada), ada, "/start")
        reply = await fake.wait_for(lambda: fake.sent and fake.sent[0])
    assert reply.text.startswith("I know these commands")


# Pictures


async def look(call: CommandCall) -> CommandReply:
    pictures = (ReplyPicture("a.png", b"first"), ReplyPicture("b.png", b"second"))
    return CommandReply(f"{len(call.files)} given", pictures=pictures)


LOOK = CommandTable((Command(("look",), "Look", look, takes_picture=True),))


async def test_an_album_with_a_command_as_its_caption_is_one_command(fake: FakeTelegram) -> None:
    ada, handler = fake.add_user("Ada"), RecordingHandler()
    chat = fake.private_chat(ada)
    async with serving(fake, handler, commands=LOOK):
        fake.say(chat, ada, "/look", album=[b"one", b"two"])
        await fake.wait_for(lambda: len(fake.sent_to(chat)) == 2)
    first, second = fake.sent_to(chat)
    assert (first.text, first.picture) == ("2 given", b"first")
    assert (second.text, second.picture) == ("", b"second")
    assert handler.messages == []


async def test_a_groups_caption_for_another_bot_is_left_alone(fake: FakeTelegram) -> None:
    ada, handler = fake.add_user("Ada"), RecordingHandler()
    group = fake.add_group("G")
    async with serving(fake, handler, commands=LOOK):
        fake.say(group, ada, "/look@other_bot", photo=b"one")
        fake.say(group, ada, "/look", photo=b"one")
        await fake.wait_for(lambda: len(fake.sent_to(group)) == 2)
    assert len(fake.sent) == 2


@pytest.mark.parametrize("reason", ["PHOTO_INVALID_DIMENSIONS", "IMAGE_PROCESS_FAILED"])
async def test_what_is_no_photo_for_telegram_goes_as_a_file(fake: FakeTelegram, reason: str) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    refusal = {"ok": False, "error_code": 400, "description": f"Bad Request: {reason}"}
    fake.fail("sendPhoto", status=400, body=refusal)
    async with serving(fake, RecordingHandler(), commands=LOOK):
        fake.say(chat, ada, "/look")
        await fake.wait_for(lambda: len(fake.sent_to(chat)) == 2)
    first, second = fake.sent_to(chat)
    assert (first.text, first.picture, first.is_document) == ("0 given", b"first", True)
    assert not second.is_document


async def test_a_picture_that_cannot_be_sent_does_not_take_the_words_along(
    fake: FakeTelegram, caplog: pytest.LogCaptureFixture
) -> None:
    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    refusal = {"ok": False, "error_code": 400, "description": "Bad Request: not enough rights to send media"}
    fake.fail("sendPhoto", status=400, body=refusal, times=3)
    async with serving(fake, RecordingHandler(), commands=LOOK):
        fake.say(chat, ada, "/look")
        await fake.wait_for(lambda: fake.num_calls("sendPhoto") == 3)
        await fake.wait_for(lambda: fake.sent_to(chat))
    assert [sent.text for sent in fake.sent_to(chat)] == ["0 given"]
    assert "Not enough rights" in caplog.text


async def test_a_slow_command_shows_that_it_is_at_work(fake: FakeTelegram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.telegram.commands._TYPING_AFTER_S", 0.01)
    release = asyncio.Event()

    async def slowly(call: CommandCall) -> CommandReply:
        await release.wait()
        return CommandReply("Done at last.")

    ada = fake.add_user("Ada")
    chat = fake.private_chat(ada)
    async with serving(fake, RecordingHandler(), commands=CommandTable((Command(("slow",), "Slow", slowly),))):
        fake.say(chat, ada, "/slow")
        await fake.wait_for(lambda: fake.chat_actions)
        assert not fake.sent_to(chat)
        release.set()
        await fake.wait_for(lambda: fake.sent_to(chat))
    assert fake.chat_actions[0].action == "typing"
