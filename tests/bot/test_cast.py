"""Who speaks where several personas are."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.cast import num_shared_words, who_answers, who_speaks_next
from bot.rooms import EVERYONE, RoomSettings, TriggerChanges
from bot.types import Author, ChatKind, IncomingMessage, RepliedMessage, Room
from engine.persona import Face, LoreEntry, Persona, Triggers

NIGHT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


def persona(name: str, **changes) -> Persona:
    values = {
        "id": name.lower().replace(" ", "-"),
        "name": name,
        "summary": "Somebody.",
        "greetings": ("Hi.",),
    } | changes
    return Persona.model_validate(values)


LUNA = persona("Luna", summary="A moth who loves lamps.", triggers=Triggers(words=("lamp",)))
SOL = persona("Sol", summary="A baker of bread.", traits=("warm",), lore=(LoreEntry(keys=("rye bread",), content="."),))
ANNA = persona("Anna")
ANNA_LEE = persona("Anna Lee")
AMO = persona("阿墨", id="amo", summary="猫。", triggers=Triggers(words=("书店",)))
CAST = (LUNA, SOL, ANNA, ANNA_LEE)


def message(text: str = "hello", *, kind=ChatKind.GROUP, mentions_bot=False, is_bot=False, display_name="U", **more):
    author = Author("discord", "u", display_name, is_bot)
    return IncomingMessage(Room("discord", "1"), kind, "m", author, text, mentions_bot=mentions_bot, **more)


def reply(text: str = "hello", *, to_bot: bool = True, **more) -> IncomingMessage:
    author = Author("discord", "b" if to_bot else "v", "Luna")
    return message(text, reply_to=RepliedMessage("r", author, "…", is_from_bot=to_bot), **more)


def answering(incoming: IncomingMessage, cast=CAST, *, main=LUNA, replied_to=None, changes=None, **more) -> list[str]:
    room = changes or RoomSettings()
    return [who.id for who in who_answers(incoming, cast, main=main, replied_to=replied_to, settings=room, **more)]


def nobody_rolls() -> float:
    raise AssertionError("rolled")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", []),
        ("Sol, and you, LUNA? Sol?", ["sol", "luna"]),
        ("Solar panels", []),
        ("Anna Lee!", ["anna-lee"]),
        ("Anna Lee and Anna", ["anna-lee", "anna"]),
        ("anna, sol, luna, anna lee", ["anna", "sol", "luna"]),
        ("bring a lamp", ["luna"]),
        ("Sol, bring a lamp", ["sol", "luna"]),
    ],
)
def test_in_a_group_those_who_are_named_or_called(text: str, expected: list[str]) -> None:
    assert answering(message(text), roll=lambda: 0.0) == expected


def test_no_more_than_may() -> None:
    assert answering(message("anna, sol, luna"), max_answers=1) == ["anna"]
    assert answering(message("anna"), max_answers=0) == []


def test_the_chosen_one_need_not_be_listed() -> None:
    assert answering(message("Luna"), ()) == ["luna"]
    assert answering(message("Luna"), (), main=None) == []


def test_a_mention_is_for_the_chosen_one_unless_another_is_named() -> None:
    assert answering(message("hello", mentions_bot=True)) == ["luna"]
    assert answering(message("hello Sol", mentions_bot=True)) == ["sol"]
    assert answering(message("hello", mentions_bot=True), main=None) == []


def test_a_reply_is_for_whom_it_replies_to() -> None:
    assert answering(reply(), replied_to=SOL) == ["sol"]
    assert answering(reply("and Luna?"), replied_to=SOL) == ["sol", "luna"]
    assert answering(reply(mentions_bot=True), replied_to=SOL) == ["sol"]
    assert answering(reply()) == ["luna"]  # nobody knows any more who said that
    assert answering(reply("what, Sol?")) == ["sol"]
    assert answering(reply(to_bot=False)) == []
    gone = persona("Gone")
    assert answering(reply(), replied_to=gone) == ["gone"]


def test_namesakes_are_one() -> None:
    double = persona("Luna", id="luna-2")
    assert answering(message("Luna"), (double,)) == ["luna"]


def test_names_of_the_platform_and_of_scripts_without_spaces() -> None:
    there = persona("Maren", platforms={"discord": Face(name="Old Maren")})
    assert answering(message("old maren, hi"), (there,)) == ["maren"]
    assert answering(message("你好阿墨，Luna在吗"), (LUNA, AMO)) == ["amo", "luna"]


def test_display_names_are_no_identity() -> None:
    assert answering(message(display_name="Sol")) == []
    assert answering(reply(to_bot=False)) == []  # by somebody who calls himself Luna
    assert answering(message("hi", display_name="Sol", mentions_bot=True)) == ["luna"]
    assert answering(message("@Sol hi", mentioned_names=("Sol",))) == []
    assert answering(message("@Sol hi, and Sol too", mentioned_names=("Sol",))) == ["sol"]
    assert answering(message("@Anna Lee hi", mentioned_names=("Anna", "Anna Lee"))) == []
    assert answering(message("@Sol hi")) == ["sol"]  # nobody of that name is mentioned


@pytest.mark.parametrize("kind", list(ChatKind))
def test_bots_are_never_answered(kind: ChatKind) -> None:
    assert answering(message("Luna", kind=kind, mentions_bot=True, is_bot=True), roll=lambda: 0.0) == []


def test_chance_brings_each_by_itself_and_only_to_what_is_said_to_nobody() -> None:
    changes = RoomSettings(triggers={EVERYONE: TriggerChanges(chance=0.5)})
    rolls = iter([0.6, 0.1, 0.9, 0.2])
    assert answering(message(), changes=changes, roll=lambda: next(rolls)) == ["sol", "anna-lee"]
    for spoken_to in (message("Sol?"), reply(to_bot=False), message("@kim hi"), message(mentions_bot=True)):
        answering(spoken_to, changes=changes, roll=nobody_rolls)


def test_a_name_that_does_not_wake_leaves_nothing_to_chance() -> None:
    changes = RoomSettings(triggers={EVERYONE: TriggerChanges(name=False, chance=1.0)})
    assert answering(message("Sol is nice"), changes=changes, roll=nobody_rolls) == []
    assert answering(message("Sol?", mentions_bot=True), changes=changes, roll=nobody_rolls) == ["sol"]


def test_rooms_switch_triggers_off_for_one() -> None:
    changes = RoomSettings(
        triggers={"sol": TriggerChanges(reply=False, name=False), "luna": TriggerChanges(mention=False)}
    )
    assert answering(reply(), replied_to=SOL, changes=changes) == []
    assert answering(message(mentions_bot=True), changes=changes) == []
    assert answering(message("Sol and Anna"), changes=changes) == ["anna"]


def test_quiet_hours_and_channels_hold_for_each() -> None:
    changes = RoomSettings(triggers={"sol": TriggerChanges(quiet_hours=("23:00-07:00",))})
    assert answering(message("Sol, Luna"), changes=changes, now=NIGHT) == ["luna"]
    assert answering(message("Sol", mentions_bot=True), changes=changes, now=NIGHT) == ["sol"]
    assert answering(reply(), replied_to=SOL, changes=changes, now=NIGHT) == ["sol"]
    placed = persona("Sol", triggers=Triggers(channels=("kitchen",)))
    assert answering(message("Sol"), (placed,)) == []
    assert answering(message("Sol", room_names=("kitchen",)), (placed,)) == ["sol"]


def test_in_a_direct_chat_somebody_always_answers() -> None:
    silent = RoomSettings(triggers={EVERYONE: TriggerChanges(mention=False, reply=False, name=False)})
    direct = message(kind=ChatKind.DIRECT)
    assert answering(direct, changes=silent) == ["luna"]
    assert answering(direct, last=SOL) == ["sol"]
    assert answering(direct, last=persona("Gone")) == ["luna"]
    assert answering(replace(direct, text="Anna? Sol?"), last=LUNA, changes=silent) == ["anna", "sol"]
    assert answering(reply(kind=ChatKind.DIRECT), replied_to=ANNA, last=SOL) == ["anna"]
    assert answering(direct, main=None) == []


def test_a_summons_is_answered_by_the_chosen_one_or_those_named() -> None:
    silent = RoomSettings(triggers={EVERYONE: TriggerChanges(mention=False, channels=("elsewhere",))})
    assert answering(message(is_summons=True), changes=silent, last=SOL) == ["luna"]
    assert answering(reply(is_summons=True), replied_to=SOL, changes=silent) == ["luna"]
    assert answering(message("as Sol", is_summons=True), changes=silent) == ["sol"]


# --- among themselves


def next_one(text: str, speaker=LUNA, cast=CAST, *, depth=0, max_depth=2, already=(), roll=lambda: 0.99, **more):
    room = more.pop("changes", RoomSettings())
    who = who_speaks_next(
        text, speaker, cast, depth=depth, max_depth=max_depth, already=already, settings=room, roll=roll, **more
    )
    return who.id if who is not None else None


def test_who_is_named_speaks_next() -> None:
    assert next_one("What do you say, Sol? Or Anna?", roll=nobody_rolls) == "sol"
    assert next_one("I am Luna, and I said so") is None
    assert next_one("Sol!", changes=RoomSettings(triggers={"sol": TriggerChanges(name=False)})) is None


def test_a_longer_name_of_the_speaker_names_nobody_else() -> None:
    assert next_one("Anna Lee is what they call me", ANNA_LEE) is None


def test_nobody_at_the_bound() -> None:
    assert next_one("Sol?", depth=1) == "sol"
    assert next_one("Sol?", depth=2) is None
    assert next_one("Sol?", max_depth=0) is None


@pytest.mark.parametrize("text", ["", "  ", "🎉🎉", "?!", "…"])
def test_nothing_said_wakes_nobody(text: str) -> None:
    assert next_one(text, roll=nobody_rolls) is None


def test_the_better_a_text_suits_the_likelier() -> None:
    assert next_one("fresh rye bread, so warm", roll=lambda: 0.49) == "sol"
    assert next_one("fresh rye bread, so warm", roll=lambda: 0.5) is None
    assert next_one("it is warm", roll=lambda: 0.24) == "sol"
    assert next_one("it is warm", roll=lambda: 0.25) is None
    assert next_one("cold rain", cast=(SOL,), roll=lambda: 0.049) == "sol"
    assert next_one("cold rain", cast=(SOL,), roll=lambda: 0.05) is None


def test_whom_a_text_suits_best_is_asked_first() -> None:
    assert next_one("lamps and warm rye bread", ANNA, roll=lambda: 0.04) == "sol"
    assert next_one("a moth in love with lamps", ANNA, roll=lambda: 0.04) == "luna"


def test_the_silent_never_join_in_and_who_spoke_leaves_the_word() -> None:
    silent = persona("Sol", summary="A baker of warm bread.", talkativeness=0.0)
    assert next_one("warm bread", cast=(silent,), roll=lambda: 0.0) is None
    assert next_one("rye bread, warm", already=("sol",), roll=lambda: 0.3) is None
    assert next_one("rye bread, warm", already=("luna",), roll=lambda: 0.3) == "sol"


def test_who_sleeps_or_is_elsewhere_hears_nothing() -> None:
    changes = RoomSettings(triggers={"sol": TriggerChanges(quiet_hours=("23:00-07:00",))})
    assert next_one("Sol?", changes=changes, now=NIGHT) is None
    placed = persona("Sol", triggers=Triggers(channels=("kitchen",)))
    assert next_one("Sol?", cast=(placed,), message=message()) is None
    assert next_one("Sol?", cast=(placed,), message=message(room_names=("kitchen",))) == "sol"
    assert next_one("Sol?", cast=(placed,), message=message(kind=ChatKind.DIRECT)) == "sol"


@pytest.mark.parametrize(
    ("text", "who", "expected"),
    [
        ("BREAD and the rye bread", SOL, 2),
        ("breadcrumbs", SOL, 0),
        ("a moth who who", LUNA, 1),
        ("Lamp!", LUNA, 1),
        ("去书店吧", AMO, 1),
    ],
)
def test_shared_words(text: str, who: Persona, expected: int) -> None:
    assert num_shared_words(text, who) == expected


TALK = st.lists(st.sampled_from(["Luna", "Sol", "Anna Lee", "bread", "lamp", "🎉", "and"]), max_size=8).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(TALK, min_size=1, max_size=5), st.integers(0, 6), st.lists(st.floats(0, 0.999), min_size=1, max_size=9))
def test_talk_ends_however_chatty_they_are(texts: list[str], max_depth: int, drawn: list[float]) -> None:
    chatty = tuple(who.model_copy(update={"talkativeness": 1.0}) for who in CAST)
    num_rolls = 0

    def roll() -> float:
        nonlocal num_rolls
        num_rolls += 1
        return drawn[num_rolls % len(drawn)]

    speaker, spoken = chatty[0], [chatty[0].id]
    for depth in range(100):
        following = who_speaks_next(
            texts[depth % len(texts)],
            speaker,
            chatty,
            depth=depth,
            max_depth=max_depth,
            already=spoken,
            settings=RoomSettings(),
            roll=roll,
        )
        if following is None:
            break
        assert following.id != speaker.id
        speaker = following
        spoken.append(speaker.id)
    assert len(spoken) - 1 <= max_depth
