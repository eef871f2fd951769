"""When a persona answers that is alone in a room."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bot.access import effective_triggers
from bot.cast import who_answers
from bot.rooms import EVERYONE, RoomSettings, TriggerChanges
from bot.types import Author, ChatKind, IncomingMessage, RepliedMessage, Room
from engine.persona import Face, Persona, Triggers

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 22, 0, 0, tzinfo=UTC)


def persona(**changes) -> Persona:
    values = {"id": "luna", "name": "Luna Moth", "summary": "A moth.", "greetings": ("Hi.",)} | changes
    return Persona.model_validate(values)


def message(text: str = "hello", *, kind=ChatKind.GROUP, mentions_bot=False, is_bot=False) -> IncomingMessage:
    return IncomingMessage(
        Room("discord", "1"), kind, "m", Author("discord", "u", "U", is_bot), text, mentions_bot=mentions_bot
    )


def answers(
    incoming: IncomingMessage,
    who: Persona,
    *,
    is_reply: bool = False,
    now: datetime | None = None,
    roll: Callable[[], float] | None = None,
    settings: RoomSettings | None = None,
) -> bool:
    if is_reply:
        incoming = replace(incoming, reply_to=RepliedMessage("r", Author("discord", "b", "B"), "…", is_from_bot=True))
    replied_to = who if is_reply else None
    answering = who_answers(
        incoming, (), main=who, replied_to=replied_to, settings=settings or RoomSettings(), now=now, roll=roll
    )
    return answering == (who,)


def likely() -> float:
    return 0.0


def test_direct_chats_are_always_answered() -> None:
    silent = persona(triggers=Triggers(mention=False, reply=False, name=False))
    assert answers(message(kind=ChatKind.DIRECT), silent)


@pytest.mark.parametrize("kind", list(ChatKind))
def test_bots_are_never_answered(kind: ChatKind) -> None:
    assert not answers(message("Luna Moth", kind=kind, mentions_bot=True, is_bot=True), persona(), is_reply=True)


def test_talk_in_a_group_is_left_alone() -> None:
    assert not answers(message("the moon is bright"), persona())


@pytest.mark.parametrize(
    ("trigger", "incoming", "is_reply"),
    [
        ("mention", message(mentions_bot=True), False),
        ("reply", message(), True),
        ("name", message("and you, LUNA  moth?"), False),
    ],
)
def test_each_trigger_can_be_switched_off(trigger: str, incoming: IncomingMessage, is_reply: bool) -> None:
    assert answers(incoming, persona(), is_reply=is_reply)
    assert not answers(incoming, persona(triggers=Triggers(**{trigger: False})), is_reply=is_reply)


def test_the_name_on_the_platform_counts_too() -> None:
    assert answers(message("lunchen, come"), persona(platforms={"discord": Face(name="Lunchen")}))
    assert not answers(message("lunchen, come"), persona(platforms={"telegram": Face(name="Lunchen")}))


def test_trigger_words_call() -> None:
    assert answers(message("what a Lamp!"), persona(triggers=Triggers(words=("lamp",))))


def test_a_summons_needs_no_trigger() -> None:
    silent = persona(triggers=Triggers(mention=False, channels=("elsewhere",), quiet_hours=("00:00-23:59",)))
    assert answers(replace(message(), is_summons=True), silent, now=NOON)


@pytest.mark.parametrize(
    ("pattern", "text", "is_matched"),
    [
        (r"ships?\b", "two SHIPS", True),
        (r"ships?\b", "shipwright", False),
        (r"^\p{L}+\?$", "Où?", True),
        ("two  spaces", "two spaces", False),
    ],
)
def test_patterns_call(pattern: str, text: str, is_matched: bool) -> None:
    assert answers(message(text), persona(triggers=Triggers(patterns=(pattern,)))) is is_matched


def test_a_catastrophic_pattern_is_given_up_after_a_moment(caplog: pytest.LogCaptureFixture) -> None:
    endless = r"(a|aa)+x$"
    other = persona(triggers=Triggers(patterns=(endless, "lamp")))
    began = time.process_time()
    with caplog.at_level(logging.INFO):
        assert not answers(message("a" * 400), other)
        for _ in range(20):
            answers(message("a" * 400), other)
    assert time.process_time() - began < 0.3
    assert len(caplog.records) == 1
    assert endless not in caplog.text
    assert "aaaa" not in caplog.text
    assert answers(message("a lamp"), other)


def test_what_is_no_pattern_any_more_matches_nothing() -> None:
    kept_by_a_room = RoomSettings(triggers={EVERYONE: TriggerChanges(patterns=("(",), quiet_hours=("whenever",))})
    assert not answers(message("("), persona(), settings=kept_by_a_room, now=NOON)


def test_chance_is_for_what_is_said_to_nobody() -> None:
    chatty = persona(triggers=Triggers(chance=0.3, mention=False, reply=False))
    stranger = RepliedMessage("r", Author("discord", "v", "V"), "hello?")
    assert answers(message(), chatty, roll=lambda: 0.29)
    assert not answers(message(), chatty, roll=lambda: 0.3)
    assert not answers(message(), chatty)
    assert not answers(message(mentions_bot=True), chatty, roll=likely)
    assert not answers(message("@Kim are you there"), chatty, roll=likely)
    assert not answers(replace(message(), reply_to=stranger), chatty, roll=likely)
    assert answers(message("mail kim@example.org"), chatty, roll=likely)


def test_without_chance_nobody_rolls() -> None:
    def roll() -> float:
        raise AssertionError("rolled")

    assert not answers(message(), persona(), roll=roll)


@pytest.mark.parametrize("channel", ["1", "77", "Harbour", "#harbour", "ＨＡＲＢＯＵＲ"])
def test_only_in_its_channels(channel: str) -> None:
    placed = persona(triggers=Triggers(channels=("nowhere", channel)))
    room = Room("discord", "1", "77")
    here = replace(message(mentions_bot=True), room=room, room_names=("talk", "harbour"))
    assert answers(here, placed)
    assert not answers(replace(here, room=Room("discord", "2"), room_names=("harbour-2",)), placed)


@pytest.mark.parametrize(
    ("hours", "is_quiet"),
    [
        ("23:00-07:30", True),
        ("00:00-00:01", True),
        ("00:01-06:00", False),
        ("23:00-24:00", False),
        ("01:00-02:00 Europe/Berlin", True),
        ("01:00-02:00 America/Lima", False),
        ("01:00-02:00", False),
    ],
)
def test_quiet_hours(hours: str, is_quiet: bool) -> None:
    sleepy = persona(triggers=Triggers(words=("lamp",), chance=1.0, quiet_hours=(hours,)))
    for text in ("Luna Moth", "lamp", "hello"):
        assert answers(message(text), sleepy, now=MIDNIGHT, roll=likely) is not is_quiet
        assert answers(message(text), sleepy, now=NOON, roll=likely)
    assert answers(message(mentions_bot=True), sleepy, now=MIDNIGHT)
    assert answers(message(), sleepy, is_reply=True, now=MIDNIGHT)


def test_a_room_changes_triggers_for_everyone_and_for_one() -> None:
    settings = RoomSettings(
        triggers={
            EVERYONE: TriggerChanges(mention=False, words=("tide",)),
            "luna": TriggerChanges(mention=True, chance=0.5),
            "sol": TriggerChanges(reply=False),
        }
    )
    changed = effective_triggers(persona(triggers=Triggers(words=("lamp",), patterns=("x",))), settings)
    assert changed == Triggers(words=("tide",), patterns=("x",), chance=0.5)
    assert effective_triggers(persona(), RoomSettings()) == Triggers()
