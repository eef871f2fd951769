"""When a persona answers."""

import pytest

from bot.access import is_meant_for
from bot.types import Author, ChatKind, IncomingMessage, Room
from engine.persona import Face, Persona, Triggers


def persona(**changes) -> Persona:
    values = {"id": "luna", "name": "Luna Moth", "summary": "A moth.", "greetings": ("Hi.",)} | changes
    return Persona.model_validate(values)


def message(text: str = "hello", *, kind=ChatKind.GROUP, mentions_bot=False, is_bot=False) -> IncomingMessage:
    return IncomingMessage(
        Room("discord", "1"), kind, "m", Author("discord", "u", "U", is_bot), text, mentions_bot=mentions_bot
    )


def answers(incoming: IncomingMessage, who: Persona, *, is_reply: bool = False) -> bool:
    return is_meant_for(incoming, who, is_reply_to_persona=is_reply)


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
