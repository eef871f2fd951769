"""/describe, /find, /translate and /why: which picture or message is meant, and that no other conversation is used."""

import asyncio
import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.browsing import NOT_AN_ANSWER
from bot.chat import ChatOptions, ChatService
from bot.commands import NOT_DONE, NOT_SEEN, TOO_BUSY, CommandCall, CommandReply, build_commands
from bot.errors import BotError, CommandError, MediaError, StoreError
from bot.media import heatmap
from bot.picture_index import NUM_LOOKED_AT_CLOSELY, PictureIndex
from bot.replies import Pacing
from bot.seeing import (
    BUSY,
    MAX_AT_WORK_IN_A_ROOM,
    NO_PICTURE,
    NO_PICTURE_THERE,
    NO_PICTURES,
    NO_TEXT,
    PERSONA_HAS_CHANGED,
    SeeingService,
)
from bot.steering import NO_REPLY, NOT_MY_REPLY
from bot.types import Author, ChatKind, IncomingFile, IncomingMessage, RepliedMessage, Room
from engine.errors import DeviceError, EngineBusy, EngineError, NotAvailable
from engine.types import Embedding, Explanation, Image, Translation
from tests.fakes.adapter import ANN, BOT, FakeChannel, a_file
from tests.fakes.personas import MemoryLibrary, a_persona
from tests.fakes.seeing import COLOURS, ColourEngine, a_picture, colour_of
from tests.fakes.store import MemoryAttachments, MemoryConversations, MemoryEmbeddings, MemoryRooms

ROOM, OTHER_ROOM = Room("fake", "1"), Room("fake", "2")
BOB = Author("fake", "bob", "Bob")


class Studio:
    """The commands over a chat in memory, with an engine that sees colours."""

    def __init__(self) -> None:
        self.engine = ColourEngine()
        self.library = MemoryLibrary([a_persona("Luna"), a_persona("Max", language="de")])
        self.conversations = MemoryConversations()
        self.files = MemoryAttachments()
        self.embeddings = MemoryEmbeddings()
        self.index = PictureIndex(self.engine, self.embeddings, self.files)
        self.channels: dict[Room, FakeChannel] = {}
        options = ChatOptions(default_persona="luna", pacing=Pacing(first_wait_s=0.001))
        self.chat = ChatService(
            self.engine,
            self.library,
            self.conversations,
            MemoryRooms(),
            self.files,
            options=options,
            on_pictures=self.index.look_soon,
        )
        seeing = SeeingService(self.engine, self.chat, self.conversations, self.files, self.index)
        self.table = build_commands(self.chat, seeing)
        self._new_id = map("said-{}".format, itertools.count(1)).__next__

    async def say(
        self, text: str, *colours: str, room: Room = ROOM, author: Author = ANN, reply_to: RepliedMessage | None = None
    ) -> str:
        """Somebody says something with pictures, and is answered; the message's id."""
        channel = self.channels.setdefault(room, FakeChannel())
        files = tuple(a_file(a_picture(colour)) for colour in colours)
        message = IncomingMessage(room, ChatKind.DIRECT, self._new_id(), author, text, files, reply_to)
        async with asyncio.timeout(10):
            await self.chat.handle(message, channel)
        return message.message_id

    async def use(
        self,
        name: str,
        *,
        room: Room = ROOM,
        files: Sequence[IncomingFile] = (),
        reply_to: RepliedMessage | None = None,
        **arguments: str,
    ) -> CommandReply:
        command = self.table.find(name)
        assert command is not None
        call = CommandCall(room, ChatKind.DIRECT, ANN, arguments, tuple(files), reply_to)
        async with asyncio.timeout(10):
            return await command.run(call)

    def last_reply(self, room: Room = ROOM) -> RepliedMessage:
        sent = self.channels[room].sent[-1]
        return RepliedMessage(sent.id, BOT, sent.text, is_from_bot=True)

    async def indexed(self) -> None:
        """Until the background has looked at everything."""
        async with asyncio.timeout(10):
            while self.index._worker is not None and not self.index._worker.done():
                await asyncio.sleep(0)


@pytest.fixture
def studio() -> Studio:
    return Studio()


def a_message(message_id: str, text: str = "", *, files: Sequence[IncomingFile] = ()) -> RepliedMessage:
    return RepliedMessage(message_id, ANN, text, tuple(files))


# --- /describe


async def test_the_last_picture_is_described(studio: Studio) -> None:
    await studio.say("look", "red")
    await studio.say("and", "blue")
    await studio.say("nice?")
    assert (await studio.use("describe")).text == "It is blue."
    assert studio.engine.asked == [("blue", None, None)]


async def test_the_picture_replied_to_is_described(studio: Studio) -> None:
    first = await studio.say("look", "red")
    await studio.say("and", "blue")
    reply = await studio.use("describe", reply_to=a_message(first, "look"), question=" what  colour? ")
    assert reply.text == "It is red."
    assert studio.engine.asked == [("red", "what colour?", None)]


async def test_the_picture_that_comes_along_is_described_and_not_kept(studio: Studio) -> None:
    first = await studio.say("look", "red")
    along = [a_file(a_picture("green"))]
    assert (await studio.use("describe", files=along, reply_to=a_message(first))).text == "It is green."
    assert [colour_of(data) for data in studio.files.files.values()] == ["red"]


async def test_a_picture_replied_to_that_was_never_kept_is_fetched(studio: Studio) -> None:
    replied = a_message("by somebody", files=[a_file(a_picture("yellow"))])
    assert (await studio.use("describe", reply_to=replied)).text == "It is yellow."


async def test_the_answer_is_asked_for_in_the_personas_language(studio: Studio) -> None:
    await studio.chat.choose(ROOM, "max")
    await studio.say("schau", "red")
    await studio.use("describe")
    assert studio.engine.asked[-1] == ("red", None, "German")


async def test_without_a_picture_people_hear_what_to_do(studio: Studio) -> None:
    with pytest.raises(CommandError, match=NO_PICTURE):
        await studio.use("describe")
    earlier = await studio.say("hello")
    with pytest.raises(CommandError, match=NO_PICTURE_THERE):
        await studio.use("describe", reply_to=a_message(earlier, "hello"))
    with pytest.raises(MediaError):
        await studio.use("describe", files=[a_file(b"no picture", name="notes.txt")])


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (NotAvailable("I have no eyes: train some."), "I have no eyes: train some."),
        (EngineBusy("16 jobs"), TOO_BUSY),
        (DeviceError("cuda:1 in /home/admin broke"), NOT_SEEN),
        (EngineError("a bug in /home/admin"), NOT_SEEN),
    ],
)
async def test_what_the_engine_cannot_do_is_told_in_peoples_words(
    studio: Studio, failure: EngineError, told: str
) -> None:
    await studio.say("look", "red")
    await studio.indexed()
    studio.engine.failure = failure
    for name, arguments in (("describe", {}), ("find", {"words": "red"}), ("translate", {}), ("why", {})):
        if name == "why" and isinstance(failure, NotAvailable):
            assert (await studio.use(name)).text.endswith(told)  # what the prompt was made of is known all the same
            continue
        with pytest.raises(BotError) as caught:
            await studio.use(name, **arguments)
        assert str(caught.value) == told


async def test_a_picture_that_is_gone_is_the_admins_matter(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    await studio.say("look", "red")
    studio.files.files.clear()
    with pytest.raises(BotError, match=NOT_DONE):
        await studio.use("describe")
    assert "is gone" in caplog.text


# --- /find


async def test_an_earlier_picture_is_found_by_its_content(studio: Studio) -> None:
    for colour in ("red", "blue", "green"):
        await studio.say("look", colour)
    reply = await studio.use("find", words="something blue")
    assert [colour_of(picture.data) for picture in reply.pictures] == ["blue"]
    assert reply.pictures[0].name == "found-1.jpg"
    assert "Ann showed it on" in reply.text
    assert "blue" in reply.pictures[0].alt


async def test_where_nothing_fits_that_is_said(studio: Studio) -> None:
    with pytest.raises(CommandError, match=NO_PICTURES):
        await studio.use("find", words="red")
    await studio.say("look", "red")
    reply = await studio.use("find", words="something yellow")
    assert reply.pictures == ()
    assert "no picture here that fits “something yellow”" in reply.text
    with pytest.raises(CommandError, match="/find"):
        await studio.use("find", words="  ")


async def test_pictures_are_looked_at_once_and_after_the_reply(studio: Studio) -> None:
    await studio.say("look", "red")
    assert studio.channels[ROOM].texts, "the reply came first"
    await studio.indexed()
    assert studio.engine.looked_at == ["red"]
    await studio.use("find", words="red")
    await studio.say("again", "red")
    await studio.indexed()
    assert studio.engine.looked_at == ["red"]


async def test_new_weights_look_anew(studio: Studio) -> None:
    await studio.say("look", "red")
    await studio.indexed()
    studio.engine.weights = "colours-2"
    reply = await studio.use("find", words="red")
    assert studio.engine.looked_at == ["red", "red"]
    assert len(reply.pictures) == 1


async def test_an_engine_without_embeddings_is_asked_of_the_newest(studio: Studio) -> None:
    async def refuse() -> str:
        raise NotAvailable("no embeddings")

    studio.engine.space = refuse  # type: ignore[method-assign]
    await studio.say("look", "red")
    for _ in range(NUM_LOOKED_AT_CLOSELY):
        await studio.say("look", *COLOURS)
    assert [colour_of(one.data) for one in (await studio.use("find", words="blue")).pictures] == ["blue"]
    assert studio.engine.looked_at == []


async def test_an_engine_that_cannot_look_spoils_no_reply(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    studio.engine.failure = NotAvailable("no eyes")
    await studio.say("look", "red")
    await studio.indexed()
    assert studio.channels[ROOM].texts == ["You said: look"]
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_a_picture_whose_file_is_gone_is_left_out(studio: Studio) -> None:
    await studio.say("look", "red", "blue")
    await studio.indexed()
    gone = next(digest for digest, data in studio.files.files.items() if colour_of(data) == "red")
    del studio.files.files[gone]
    assert (await studio.use("find", words="red")).pictures == ()
    assert len((await studio.use("find", words="blue")).pictures) == 1


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_picture_that_the_engine_fails_on_spoils_no_search(studio: Studio, is_known: bool) -> None:
    """One crafted picture must not end /find for everybody in its conversation."""
    if not is_known:
        studio.engine.poisonous = "red"
    await studio.say("look", "red", "blue")
    await studio.indexed()
    studio.engine.poisonous = "red"
    assert [colour_of(one.data) for one in (await studio.use("find", words="blue")).pictures] == ["blue"]
    assert (await studio.use("find", words="red")).pictures == ()


async def test_pictures_that_the_engine_fails_on_are_not_said_not_to_fit(studio: Studio) -> None:
    await studio.say("look", "red")
    await studio.indexed()
    studio.engine.poisonous = "red"
    with pytest.raises(BotError, match=NOT_SEEN):
        await studio.use("find", words="red")


async def test_what_is_no_number_is_neither_kept_nor_shown(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_numbers(images: Sequence[Image]) -> tuple[Embedding, ...]:
        return tuple(Embedding(studio.engine.weights, (math.nan,) * len(COLOURS)) for _ in images)

    async def no_match(_text: str, images: Sequence[Image]) -> tuple[float, ...]:
        return (math.nan,) * len(images)

    with monkeypatch.context() as patched:
        patched.setattr(studio.engine, "embed_images", no_numbers)
        await studio.say("look", "red")
        await studio.indexed()
        assert studio.embeddings.known == {}
        assert (await studio.use("find", words="red")).pictures == ()
    assert len((await studio.use("find", words="red")).pictures) == 1
    monkeypatch.setattr(studio.engine, "match", no_match)
    assert (await studio.use("find", words="red")).pictures == ()


async def test_reset_forgets_pictures(studio: Studio) -> None:
    await studio.say("look", "red")
    await studio.chat.start_over(ROOM)
    for name, arguments in (("describe", {}), ("find", {"words": "red"}), ("why", {})):
        with pytest.raises(CommandError):
            await studio.use(name, **arguments)


async def test_the_index_can_be_closed_while_it_looks(studio: Studio) -> None:
    gate = asyncio.Event()

    async def wait_for_ever() -> str:
        await gate.wait()
        return ""

    studio.engine.space = wait_for_ever  # type: ignore[method-assign]
    await studio.say("look", "red")
    async with asyncio.timeout(5):
        await studio.index.aclose()
    await studio.index.aclose()


# --- no other conversation's picture, whatever happens

steps = st.lists(
    st.tuples(
        st.sampled_from([ROOM, OTHER_ROOM, Room("fake", "1", "7"), Room("other", "1")]),
        st.sampled_from(["luna", "max"]),
        st.sampled_from(["show", "show", "reset"]),
        st.sampled_from(sorted(COLOURS)),
    ),
    max_size=8,
)


@settings(max_examples=30, deadline=None)
@given(history=steps, asks=st.tuples(st.sampled_from([ROOM, OTHER_ROOM]), st.sampled_from(["luna", "max"])))
async def test_no_picture_leaks(history: list[tuple[Room, str, str, str]], asks: tuple[Room, str]) -> None:
    studio = Studio()
    own: dict[tuple[Room, str], list[str]] = {}
    messages: dict[tuple[Room, str], str] = {}
    for room, persona_id, action, colour in history:
        await studio.chat.choose(room, persona_id)
        if action == "show":
            own.setdefault((room, persona_id), []).append(colour)
            messages[room, persona_id] = await studio.say("look", colour, room=room)
        else:
            own.pop((room, persona_id), None)
            await studio.chat.start_over(room)
    room, persona_id = asks
    await studio.chat.choose(room, persona_id)
    shown = set(own.get(asks, ()))
    for colour in COLOURS:
        try:
            reply = await studio.use("find", room=room, words=colour)
        except CommandError:
            assert not shown
            continue
        assert [colour_of(picture.data) for picture in reply.pictures] == ([colour] if colour in shown else [])
    try:
        await studio.use("describe", room=room)
    except CommandError:
        assert not shown
    else:
        assert studio.engine.asked[-1][0] == own[asks][-1]
    for (elsewhere, _), message_id in messages.items():
        if elsewhere != room:
            # Somebody names a message of another room: its pictures are not there.
            with pytest.raises(CommandError):
                await studio.use("describe", room=room, reply_to=a_message(message_id))
            with pytest.raises(CommandError):
                await studio.use("why", room=room, reply_to=a_message(message_id))
    await studio.index.aclose()


# --- /translate


async def test_a_given_text_is_translated(studio: Studio) -> None:
    reply = await studio.use("translate", language="deutsch", text="A dog.")
    assert reply.text == "German: A dog."
    assert studio.engine.translated == [("A dog.", "German", ())]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("into", "french  A dog", ("A dog", "French")),
        ("The", "dog barks", ("The dog barks", "English")),
        ("it", "is late", ("it is late", "English")),
        ("it", "", ("You said: guten Tag", "Italian")),
        ("", "", ("You said: guten Tag", "English")),
    ],
)
async def test_language_and_text_are_told_apart(
    studio: Studio, language: str, text: str, expected: tuple[str, str]
) -> None:
    await studio.say("guten Tag")
    await studio.use("translate", language=language, text=text)
    assert studio.engine.translated[-1][:2] == expected


async def test_the_message_replied_to_is_translated_with_its_picture(studio: Studio) -> None:
    shown = await studio.say("Was ist das?", "green")
    await studio.say("other", "red")
    await studio.use("translate", language="en", reply_to=a_message(shown, "Was ist das?"))
    assert studio.engine.translated == [("Was ist das?", "English", ("green",))]


async def test_a_model_that_hardly_speaks_the_language_says_so(studio: Studio) -> None:
    reply = await studio.use("translate", language="Japanese", text="A dog.")
    assert reply.text.startswith("The model that runs me was not made for Japanese")
    assert reply.text.endswith("Japanese: A dog.")


async def test_without_words_there_is_nothing_to_translate(studio: Studio) -> None:
    with pytest.raises(CommandError, match=NO_TEXT):
        await studio.use("translate")
    with pytest.raises(CommandError, match=NO_TEXT):
        await studio.use("translate", reply_to=a_message("m", "  "))


async def test_languages_are_suggested(studio: Studio) -> None:
    command = studio.table.find("translate")
    assert command is not None
    suggest = command.arguments[0].suggest
    assert suggest is not None
    call = CommandCall(ROOM, ChatKind.DIRECT, ANN)
    assert [choice.value for choice in await suggest(call, "deut")] == []
    assert [choice.value for choice in await suggest(call, "deutsch")] == ["German"]
    assert [choice.value for choice in await suggest(call, "Ger")] == ["German"]
    assert len(await suggest(call, "")) == 25


# --- /why


async def test_the_last_reply_is_explained_as_it_was_asked(studio: Studio) -> None:
    await studio.say("hello")
    await studio.say("what is this?", "red")
    asked = studio.engine.requests[-1]
    reply = await studio.use("why")
    ((request, said),) = studio.engine.explained
    assert request == asked
    assert said == "You said: what is this?"
    (picture,) = reply.pictures
    assert picture.data.startswith(b"\x89PNG")
    assert picture.alt
    assert reply.is_private
    assert PERSONA_HAS_CHANGED not in reply.text


async def test_an_earlier_reply_is_explained_with_the_turns_up_to_there(studio: Studio) -> None:
    await studio.say("one", "red")
    first = studio.last_reply()
    await studio.say("two", "blue")
    await studio.use("why", reply_to=first)
    ((request, said),) = studio.engine.explained
    assert request == studio.engine.requests[0]
    assert said == "You said: one"


async def test_an_answer_about_an_earlier_picture_shows_that_one(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    await studio.say("look", "red")
    await studio.say("and what is it?")
    drawn: list[str] = []
    draw = heatmap.draw

    def watched(explanation: Explanation, pictures: Sequence[bytes], *, title: str) -> bytes:
        drawn.extend(map(colour_of, pictures))
        return draw(explanation, pictures, title=title)

    monkeypatch.setattr(heatmap, "draw", watched)
    reply = await studio.use("why")
    assert drawn == ["red"]
    assert len(reply.pictures) == 1


async def test_a_persona_that_has_changed_since_is_mentioned(studio: Studio) -> None:
    await studio.say("look", "red")
    studio.library.personas = [a_persona("Luna", summary="Luna is another one.")]
    assert PERSONA_HAS_CHANGED in (await studio.use("why")).text


async def test_a_reply_without_a_prefix_is_explained_in_words(studio: Studio) -> None:
    await studio.say("hello")
    reply = await studio.use("why")
    assert reply.pictures == ()
    assert reply.text


async def test_what_is_no_answer_cannot_be_explained(studio: Studio) -> None:
    with pytest.raises(CommandError, match=NO_REPLY):
        await studio.use("why")
    await studio.chat.greet_once(ROOM)
    with pytest.raises(CommandError, match=NOT_AN_ANSWER):
        await studio.use("why")
    said = await studio.say("hello")
    for message_id in (said, "never-seen"):
        with pytest.raises(CommandError, match="answer of mine"):
            await studio.use("why", reply_to=a_message(message_id))
    assert "answer of mine" in NOT_MY_REPLY


async def test_what_the_author_tells_nobody_is_named_by_its_kind_alone(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Explanation] = []
    draw = heatmap.draw

    def watched(explanation: Explanation, pictures: Sequence[bytes], *, title: str) -> bytes:
        drawn.append(explanation)
        return draw(explanation, pictures, title=title)

    monkeypatch.setattr(heatmap, "draw", watched)
    await studio.say("look", "red")
    reply = await studio.use("why")
    assert "butler" not in reply.text + reply.pictures[0].alt
    assert "persona: lore, traits: I am bold, pronouns" in reply.text
    assert [(one.kind, one.text) for one in drawn[0].facets][-1] == ("lore", "")
    assert drawn[0].facets[-1].share == pytest.approx(0.5)


async def test_one_room_does_not_take_all_the_engines_time(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    release = asyncio.Event()

    async def slowly(*_args: object, **_kwargs: object) -> Translation:
        await release.wait()
        return Translation("done", is_unsure=False)

    monkeypatch.setattr(studio.engine, "translate", slowly)
    running = [asyncio.create_task(studio.use("translate", text="a")) for _ in range(MAX_AT_WORK_IN_A_ROOM)]
    await asyncio.sleep(0)
    with pytest.raises(CommandError, match=BUSY):
        await studio.use("translate", text="one more")
    elsewhere = asyncio.create_task(studio.use("translate", room=OTHER_ROOM, text="a"))
    running.pop().cancel()
    await asyncio.sleep(0)
    again = asyncio.create_task(studio.use("translate", text="in its place"))
    await asyncio.sleep(0)
    release.set()
    assert {reply.text for reply in await asyncio.gather(elsewhere, again, *running)} == {"done"}


async def test_a_message_is_translated_without_a_picture_that_is_gone(studio: Studio) -> None:
    shown = await studio.say("Was ist das?", "green")
    studio.files.files.clear()
    await studio.use("translate", language="en", reply_to=a_message(shown, "Was ist das?"))
    assert studio.engine.translated == [("Was ist das?", "English", ())]


async def test_a_greeting_is_no_answer_to_what_was_said_before_it(studio: Studio) -> None:
    await studio.say("look", "red")
    await studio.say("")
    with pytest.raises(CommandError, match=NOT_AN_ANSWER):
        await studio.use("why")


async def test_a_broken_store_is_for_the_log(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_args: object, **_kwargs: object) -> object:
        raise StoreError("/home/admin/var is full")

    monkeypatch.setattr(studio.conversations, "pictures_of", full)
    with pytest.raises(BotError, match=NOT_DONE):
        await studio.use("find", words="red")
