"""What one browser's conversations are, without a browser."""

import asyncio
from collections.abc import Callable

import pytest

from bot.adapters.base import ReplyChannel
from bot.adapters.web.channel import MAX_FILE_BYTES
from bot.adapters.web.session import MAX_DRAWN, MAX_FILES, Session, Sessions, Upload
from bot.adapters.web.transcript import Bubble, Speaker
from bot.commands import Command, CommandCall, CommandReply, CommandTable, ReplyPicture
from bot.errors import DeliveryError, MediaError
from bot.types import IncomingMessage
from tests.bot.adapters.web.rehearsal import GREETINGS, RehearsalChat, rehearsal_commands

PNG = b"\x89PNG\r\n\x1a\n and more"


class WatchingView:
    """A tab that writes down what it is told."""

    def __init__(self) -> None:
        self.bubbles: list[Bubble] = []
        self.finished: list[str] = []
        self.num_refreshes = 0

    def show_bubble(self, bubble: Bubble) -> None:
        self.bubbles.append(bubble)

    def show_activity(self) -> None:
        pass

    def show_finished(self, text: str) -> None:
        self.finished.append(text)

    def refresh(self) -> None:
        self.num_refreshes += 1


@pytest.fixture
def view() -> WatchingView:
    return WatchingView()


@pytest.fixture
async def session(chat: RehearsalChat, view: WatchingView) -> Session:
    session = Session("someone", chat, browser=chat, commands=rehearsal_commands(chat))
    session.watch(view)
    await session.open()
    return session


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


async def answered(session: Session) -> None:
    await until(lambda: not session.is_answering)


def texts(session: Session) -> list[str]:
    return [bubble.text for bubble in session.transcript]


async def test_a_new_conversation_begins_with_the_greeting(session: Session) -> None:
    assert texts(session) == [GREETINGS["mina"]]


async def test_a_message_is_answered_in_growing_bubbles(
    session: Session, chat: RehearsalChat, view: WatchingView
) -> None:
    await session.say("  Hello  ")
    assert texts(session)[1:] == ["Hello"]
    assert session.is_waiting
    await answered(session)
    assert texts(session)[1:] == ["Hello", chat.lines["mina"]]
    assert len(view.bubbles) > 10
    assert len({bubble.id for bubble in view.bubbles}) == 2
    assert view.finished == [chat.lines["mina"]]
    [message] = chat.received
    assert (message.text, message.room, message.author.user_id) == ("Hello", session.room, "someone")


async def test_waiting_ends_with_the_first_words(session: Session, chat: RehearsalChat) -> None:
    chat.seconds_per_word = 10
    await session.say("Hello")
    await until(lambda: not session.is_waiting)
    assert session.is_answering
    await session.aclose()


async def test_nothing_is_sent_for_nothing(session: Session, chat: RehearsalChat) -> None:
    await session.say("  \n ")
    assert chat.received == []
    assert len(texts(session)) == 1


async def test_messages_while_an_answer_runs_are_passed_on(session: Session, chat: RehearsalChat) -> None:
    chat.gate.clear()
    await session.say("one")
    await session.say("two")
    await until(lambda: len(chat.received) == 2)
    chat.gate.set()
    await answered(session)
    assert texts(session)[1:3] == ["one", "two"]
    assert len(texts(session)) == 5


async def test_stop_ends_the_oldest_answer_only(session: Session, chat: RehearsalChat) -> None:
    chat.gate.clear()
    await session.say("one")
    await session.say("two")
    await until(lambda: len(chat.received) == 2)
    session.stop()
    await until(lambda: "Stopped before an answer came." in texts(session))
    chat.gate.set()
    await answered(session)
    assert texts(session)[1:] == ["one", "two", "Stopped before an answer came.", chat.lines["mina"]]


async def test_stop_before_the_first_step_still_ends_the_exchange(session: Session, chat: RehearsalChat) -> None:
    await session.say("one")
    session.stop()
    await answered(session)
    assert chat.received == []
    assert texts(session)[-1] == "Stopped before an answer came."


async def test_a_stopped_answer_keeps_what_was_shown(session: Session, chat: RehearsalChat) -> None:
    chat.seconds_per_word = 10
    await session.say("one")
    await until(lambda: not session.is_waiting)
    session.stop()
    await answered(session)
    assert texts(session)[-1].startswith("Oh,")


async def test_a_closed_tab_loses_no_reply(session: Session, chat: RehearsalChat, view: WatchingView) -> None:
    chat.gate.clear()
    await session.say("Hello")
    session.unwatch(view)
    chat.gate.set()
    await answered(session)
    assert session.is_idle
    await session.open()
    assert texts(session) == [GREETINGS["mina"], "Hello", chat.lines["mina"]]


async def test_all_tabs_of_a_browser_hear_of_everything(session: Session, view: WatchingView) -> None:
    other = WatchingView()
    session.watch(other)
    await session.say("Hello")
    await answered(session)
    assert other.bubbles == view.bubbles


async def test_each_browser_has_its_own_conversation(chat: RehearsalChat) -> None:
    sessions = Sessions(chat, browser=chat, commands=rehearsal_commands(chat))
    ann, ben = sessions.of("ann"), sessions.of("ben")
    assert sessions.of("ann") is ann
    for session in (ann, ben):
        session.watch(WatchingView())
        await session.open()
    await ann.say("I am Ann")
    await answered(ann)
    assert "I am Ann" in texts(ann)
    assert texts(ben) == [GREETINGS["mina"]]
    await sessions.aclose()


async def test_each_persona_keeps_its_conversation(session: Session, chat: RehearsalChat, view: WatchingView) -> None:
    await session.say("Hello")
    await answered(session)
    await session.choose("brask")
    assert texts(session) == [GREETINGS["brask"]]
    assert view.num_refreshes == 1
    await session.choose("mina")
    assert texts(session) == [GREETINGS["mina"], "Hello", chat.lines["mina"]]


async def test_a_reply_goes_on_in_its_own_conversation(
    session: Session, chat: RehearsalChat, view: WatchingView
) -> None:
    chat.seconds_per_word = 0.001
    await session.say("Hello")
    await until(lambda: not session.is_waiting)
    await session.choose("brask")
    assert not session.is_answering
    num_shown = len(view.bubbles)
    await until(lambda: not session._exchanges)
    assert texts(session) == [GREETINGS["brask"]]
    assert len(view.bubbles) == num_shown
    assert view.finished == []
    await session.choose("mina")
    assert texts(session) == [GREETINGS["mina"], "Hello", chat.lines["mina"]]


async def test_switching_back_finds_the_reply_still_running(session: Session, chat: RehearsalChat) -> None:
    chat.gate.clear()
    await session.say("Hello")
    await until(lambda: bool(chat.received))
    await session.choose("brask")
    await session.choose("mina")
    assert texts(session) == [GREETINGS["mina"], "Hello"]
    assert session.is_waiting
    chat.gate.set()
    await answered(session)
    assert texts(session)[-1] == chat.lines["mina"]


async def test_an_unknown_persona_is_a_notice(session: Session) -> None:
    await session.choose("nobody")
    assert texts(session)[-1] == "There is no persona nobody."
    assert session.persona_id == "mina"


async def test_start_over_stops_the_reply_and_greets_anew(session: Session, chat: RehearsalChat) -> None:
    chat.gate.clear()
    await session.say("Hello")
    await until(lambda: bool(chat.received))
    await session.start_over()
    assert not session.is_answering
    assert texts(session) == [GREETINGS["mina"]]


async def test_without_personas_the_page_says_so_and_recovers(chat: RehearsalChat) -> None:
    cards, chat.cards = chat.cards, ()
    session = Session("someone", chat, browser=chat, commands=rehearsal_commands(chat))
    session.watch(WatchingView())
    await session.open()
    await session.open()
    assert texts(session) == ["There is no persona yet: put one into personas/."]
    chat.cards = cards
    await session.open()
    assert texts(session) == [GREETINGS["mina"]]


# Files


async def test_a_picture_is_shown_from_memory_then_from_the_store(session: Session, chat: RehearsalChat) -> None:
    chat.gate.clear()
    upload_id = session.add_upload(Upload("dog.png", "image/png", PNG))
    await session.say("Look", (upload_id,))
    [picture] = list(session.transcript)[-1].pictures
    assert (picture.name, picture.url) == ("dog.png", f"/sent/{upload_id}")
    assert session.upload(upload_id) is not None
    chat.gate.set()
    await answered(session)
    [picture] = list(session.transcript)[1].pictures
    assert picture.url is not None
    assert picture.url.startswith("/picture/")
    assert session.upload(upload_id) is None
    assert await chat.received[0].files[0].read(1000) == PNG


async def test_a_stopped_answer_leaves_the_picture(session: Session, chat: RehearsalChat) -> None:
    chat.gate.clear()
    await session.say("Look", (session.add_upload(Upload("dog.png", "image/png", PNG)),))
    await until(lambda: bool(chat.received))
    session.stop()
    await answered(session)
    [picture] = list(session.transcript)[1].pictures
    assert (picture.url or "").startswith("/picture/")


async def test_an_answer_that_never_began_leaves_the_pictures_name(session: Session) -> None:
    await session.say("Look", (session.add_upload(Upload("dog.png", "image/png", PNG)),))
    session.stop()
    await answered(session)
    [picture] = list(session.transcript)[1].pictures
    assert (picture.name, picture.url) == ("dog.png", None)


async def test_a_file_that_is_taken_back_while_it_waits_to_be_sent(session: Session, chat: RehearsalChat) -> None:
    upload_id = session.add_upload(Upload("dog.png", "image/png", PNG))
    async with session._moving:
        sending = asyncio.create_task(session.say("Look", (upload_id,)))
        await asyncio.sleep(0)
        session.remove_upload(upload_id)
    with pytest.raises(MediaError, match="attach it again"):
        await sending
    assert chat.received == []


async def test_a_refused_picture_leaves_its_name_and_the_reason(session: Session) -> None:
    upload_id = session.add_upload(Upload("evil.svg", "image/svg+xml", b"<svg/>"))
    await session.say("", (upload_id,))
    await answered(session)
    question, answer = list(session.transcript)[1:]
    assert [(picture.name, picture.url) for picture in question.pictures] == [("evil.svg", None)]
    assert "no picture I can see" in answer.text


def test_a_file_over_the_limit_is_refused(session: Session) -> None:
    with pytest.raises(MediaError, match=r"big\.png is too large: at most 20 MB"):
        session.add_upload(Upload("big.png", "image/png", bytes(MAX_FILE_BYTES + 1)))


async def test_the_reader_of_a_file_holds_its_own_limit() -> None:
    with pytest.raises(MediaError, match="too large"):
        await Upload("dog.png", None, PNG).read(3)


async def test_too_many_files_are_refused(session: Session) -> None:
    ids = tuple(session.add_upload(Upload("dog.png", None, PNG)) for _ in range(MAX_FILES + 1))
    with pytest.raises(MediaError, match="at most 4"):
        await session.say("Look", ids)


async def test_one_file_is_enough_where_the_bot_looks_at_one(chat: RehearsalChat) -> None:
    sessions = Sessions(chat, browser=chat, commands=rehearsal_commands(chat), max_files=1)
    session = sessions.of("someone")
    ids = tuple(session.add_upload(Upload("dog.png", None, PNG)) for _ in range(2))
    with pytest.raises(MediaError, match="at most 1"):
        await session.say("Look", ids)


async def test_a_lost_file_is_asked_for_again(session: Session, chat: RehearsalChat) -> None:
    with pytest.raises(MediaError, match="attach it again"):
        await session.say("Look", ("gone",))
    assert chat.received == []


def test_files_that_are_never_sent_do_not_pile_up(session: Session) -> None:
    ids = [session.add_upload(Upload("dog.png", None, PNG)) for _ in range(2 * MAX_FILES + 3)]
    kept = [upload_id for upload_id in ids if session.upload(upload_id)]
    assert kept == ids[3:]


async def test_a_file_on_its_way_is_not_removed(session: Session, chat: RehearsalChat) -> None:
    chat.gate.clear()
    sent, unsent = (session.add_upload(Upload("dog.png", None, PNG)) for _ in range(2))
    await session.say("Look", (sent,))
    session.remove_upload(sent)
    session.remove_upload(unsent)
    assert session.upload(sent)
    assert not session.upload(unsent)
    await session.aclose()


async def test_an_overlong_message_is_refused(session: Session) -> None:
    with pytest.raises(MediaError, match="too long"):
        await session.say("x" * 20_001)


# Commands


async def test_a_typed_command_is_run_not_sent(session: Session, chat: RehearsalChat) -> None:
    await session.say("/help")
    assert texts(session)[-1] == "Just write, or add a picture."
    assert list(session.transcript)[-1].speaker is Speaker.NOTICE
    assert chat.received == []


async def test_choices_are_offered_and_picked(session: Session) -> None:
    await session.say("/persona list")
    offer = list(session.transcript)[-1].offer
    assert offer is not None
    assert offer.choices[1].label == "Captain Brask"
    await session.run_choice(offer, "brask")
    assert session.persona_id == "brask"
    assert texts(session) == [GREETINGS["brask"]]


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("/nonsense now", "There is no command /nonsense. /help lists what there is."),
        ("/persona use", "/persona use needs name."),
        ("/persona use nobody", "There is no persona nobody."),
    ],
)
async def test_a_slip_in_a_command_is_explained(session: Session, text: str, notice: str) -> None:
    await session.say(text)
    assert texts(session)[-1] == notice


async def test_a_command_that_forgets_clears_the_page(session: Session) -> None:
    await session.say("Hello")
    await answered(session)
    await session.say("/reset")
    assert texts(session) == [GREETINGS["mina"], "All forgotten."]


async def test_a_path_is_no_command(session: Session, chat: RehearsalChat) -> None:
    await session.say("/usr/bin is full")
    await answered(session)
    assert chat.received[0].text == "/usr/bin is full"


# Trouble


async def test_a_handler_that_fails_ends_the_exchange_with_a_notice(
    session: Session, chat: RehearsalChat, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(message: IncomingMessage, channel: ReplyChannel) -> None:
        raise RuntimeError("the stage collapsed")

    chat.script = fail
    await session.say("Hello")
    await answered(session)
    assert texts(session)[-1] == "Something went wrong. The log of the bot says what."
    assert "the stage collapsed" in caplog.text


async def test_only_own_messages_can_be_edited(session: Session, chat: RehearsalChat) -> None:
    refused: list[DeliveryError] = []

    async def meddle(message: IncomingMessage, channel: ReplyChannel) -> None:
        try:
            await channel.edit(message.message_id, "changed")
        except DeliveryError as error:
            refused.append(error)

    chat.script = meddle
    await session.say("Hello")
    await answered(session)
    assert refused
    assert texts(session)[-1] == "Hello"


async def test_idle_browsers_are_forgotten(chat: RehearsalChat, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(chat, browser=chat, commands=rehearsal_commands(chat))
    old, watched = sessions.of("old"), sessions.of("watched")
    watched.watch(WatchingView())
    monkeypatch.setattr("bot.adapters.web.session.KEEP_IDLE_S", -1.0)
    sessions.of("new")
    assert sessions.of("watched") is watched
    assert sessions.of("old") is not old


# Commands with pictures, which take their time


class Looker:
    """A command that waits until it is told to answer."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.calls: list[CommandCall] = []

    async def run(self, call: CommandCall) -> CommandReply:
        self.calls.append(call)
        await self.gate.wait()
        return CommandReply("I see it.", pictures=(ReplyPicture("a.png", PNG, alt="a dog"),))

    def session(self, chat: RehearsalChat) -> Session:
        look = Command(("look",), "Look", self.run, takes_picture=True, only_looks=True)
        session = Session("someone", chat, browser=chat, commands=CommandTable((look,)))
        session.watch(WatchingView())
        return session


async def test_a_slow_command_holds_nobody_up(chat: RehearsalChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.web.session.PROMPT_ANSWER_S", 0.01)
    looker = Looker()
    session = looker.session(chat)
    await session.open()
    assert await session.say("/look") is None
    assert session.is_waiting
    looker.gate.set()
    await answered(session)
    answer = list(session.transcript)[-1]
    assert (answer.speaker, answer.text) == (Speaker.NOTICE, "I see it.")
    [shown] = answer.pictures
    assert shown.name == "a dog"
    drawn = session.drawn((shown.url or "").removeprefix("/drawn/"))
    assert drawn is not None
    assert drawn.data == PNG
    assert texts(session)[0] == GREETINGS["mina"], "the conversation stands as it was"


async def test_a_slow_command_can_be_stopped(chat: RehearsalChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.web.session.PROMPT_ANSWER_S", 0.01)
    session = Looker().session(chat)
    await session.say("/look")
    session.stop()
    await answered(session)
    await session.say("/look")
    async with asyncio.timeout(5):
        await session.aclose()
    assert not session.is_answering


async def test_a_picture_goes_along_with_a_command(chat: RehearsalChat) -> None:
    looker = Looker()
    looker.gate.set()
    session = looker.session(chat)
    upload_id = session.add_upload(Upload("dog.png", "image/png", PNG))
    await session.say("/look", (upload_id,))
    await answered(session)
    [call] = looker.calls
    assert [await file.read(1000) for file in call.files] == [PNG]
    question = list(session.transcript)[-2]
    assert (question.speaker, question.text, len(question.pictures)) == (Speaker.USER, "/look", 1)
    assert chat.received == []
    with pytest.raises(MediaError, match="got lost"):
        await session.say("/look", ("gone",))


async def test_drawn_pictures_are_kept_for_a_while(chat: RehearsalChat) -> None:
    looker = Looker()
    looker.gate.set()
    session = looker.session(chat)
    for _ in range(MAX_DRAWN + 3):
        await session.say("/look")
        await answered(session)
    kept = [
        session.drawn((shown.url or "").removeprefix("/drawn/"))
        for bubble in session.transcript
        for shown in bubble.pictures
    ]
    assert [found is not None for found in kept] == [False] * 3 + [True] * MAX_DRAWN
