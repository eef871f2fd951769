"""How conversations begin."""

import pytest

from bot.commands import CommandCall
from bot.errors import CommandError, PersonaError
from bot.greeting import greetings_for, is_hello, title_of
from bot.types import ChatKind, NewTurn
from engine.types import Role
from tests.bot.chatting import LUNA, ROOM, Stage, in_group, message, picture_file
from tests.fakes.adapter import ANN
from tests.fakes.personas import a_persona

GREETINGS = ("Good evening, {{user}}.", "Who goes there?")


@pytest.mark.parametrize(
    "text",
    [
        "hi",
        "Hello!",
        "hey there",
        "Hi Hi",
        "¡Hola!",
        "你好！",
        "こんにちは。",
        "안녕",
        "Привет 👋",
        "HELLO my dear friend",
    ],
)
def test_a_hello(text: str) -> None:
    assert is_hello(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "👋",
        "hi, how are you?",
        "hello, who are you",
        "what's up",
        "hi?",
        "hint",
        "high there",
        "hello " * 20,
        "there hi",
    ],
)
def test_no_hello(text: str) -> None:
    assert not is_hello(text)


def test_groups_have_greetings_of_their_own_first() -> None:
    luna = a_persona("Luna", greetings=GREETINGS, group_greetings=("Hello everybody!", "Who goes there?"))
    assert greetings_for(luna, is_group=True) == ("Hello everybody!", "Who goes there?", "Good evening, friend.")
    assert greetings_for(luna, user_name="Ann") == ("Good evening, Ann.", "Who goes there?")


def test_a_title_is_short() -> None:
    assert title_of("a\nb") == "a b"
    assert len(title_of("word " * 50)) <= 60


async def greeted(stage: Stage, **changes: object) -> Stage:
    stage.library.personas = [a_persona("Luna", **({"greetings": GREETINGS} | changes)), a_persona("Max")]
    stage.with_options(greeting=frozenset({"fake"}))
    return stage


async def test_whoever_writes_for_the_first_time_is_greeted_and_answered(stage: Stage) -> None:
    await greeted(stage)
    assert await stage.say(message("What is that light?")) == ["Good evening, Ann.", "You said: What is that light?"]
    assert stage.heard() == ["Good evening, Ann.", "What is that light?"]
    assert await stage.say(message("And now?")) == ["You said: And now?"]


async def test_a_hello_is_answered_by_the_greeting_alone(stage: Stage) -> None:
    await greeted(stage)
    assert await stage.say(message("hi there")) == ["Good evening, Ann."]
    assert stage.engine.requests == []
    assert await stage.said() == ["hi there", "Good evening, Ann."]
    stage.with_options(resumed=frozenset({"fake"}))
    assert await stage.chat.resume("fake", lambda _room, _kind: stage.channel) == 0, "nothing is owed any more"


async def test_a_picture_is_more_than_a_hello(stage: Stage) -> None:
    await greeted(stage)
    assert len(await stage.say(message("hi", files=(picture_file(),)))) == 2


async def test_groups_and_other_platforms_are_not_greeted(stage: Stage) -> None:
    await greeted(stage)
    assert await stage.say(in_group("hi")) == ["You said: Ann: hi"]
    stage.with_options(greeting=frozenset({"elsewhere"}))
    await stage.chat.start_over(ROOM)
    assert await stage.say(message("hi")) == ["You said: hi"]


async def test_a_persona_without_greetings_lets_others_begin(stage: Stage) -> None:
    await greeted(stage, greetings=())
    assert await stage.chat.greet_once(ROOM) == ""
    assert await stage.say(message("hi")) == ["You said: hi"]
    assert await stage.say(in_group("", mentions_bot=True)) == ["I am listening."]


async def test_a_call_without_words_in_a_group_is_greeted_for_groups(stage: Stage) -> None:
    await greeted(stage, group_greetings=("Hello everybody!",))
    assert await stage.say(in_group("")) == ["Hello everybody!"]


async def test_choosing_a_greeting_replaces_it_until_something_is_said(stage: Stage) -> None:
    await greeted(stage)
    await stage.chat.greet_once(ROOM, user_name="Ann")
    await stage.chat.greet_with(ROOM, "Who goes there?")
    assert await stage.said() == ["Who goes there?"]
    await stage.conversations.append(LUNA, NewTurn(Role.USER, "Me", ANN))
    with pytest.raises(CommandError, match="/reset"):
        await stage.chat.greet_with(ROOM, "Good evening")
    assert await stage.said() == ["Who goes there?", "Me"]


async def test_swiping_a_greeting_shows_the_next_one(stage: Stage) -> None:
    await greeted(stage)
    await stage.chat.greet_once(ROOM, user_name="Ann")
    call = CommandCall(ROOM, ChatKind.DIRECT, ANN, {"direction": "next"}, channel=stage.channel)
    await stage.chat.steering.swipe(call)
    assert await stage.said() == ["Who goes there?"]
    await stage.chat.steering.swipe(call)
    assert await stage.said() == ["Good evening, Ann."], "after the last one comes the first one again"
    await stage.chat.steering.swipe(call)
    back = CommandCall(ROOM, ChatKind.DIRECT, ANN, {"direction": "back"}, channel=stage.channel)
    await stage.chat.steering.swipe(back)
    assert await stage.said() == ["Good evening, Ann."]
    await stage.chat.steering.swipe(call)
    assert await stage.said() == ["Who goes there?"]


async def test_a_newcomer_does_not_take_over_rooms_where_nobody_chose(stage: Stage) -> None:
    stage.with_options(default_persona=None)
    assert await stage.chat.chosen(ROOM) == "luna"
    stage.library.personas = [a_persona("Adam"), *stage.library.personas]
    assert await stage.chat.chosen(ROOM) == "luna"
    stage.library.personas = [a_persona("Adam"), a_persona("Max")]
    assert await stage.chat.chosen(ROOM) == "adam"


def test_a_stranger_is_called_so_in_the_personas_language() -> None:
    assert greetings_for(a_persona("Rosi", language="es", greetings=("¡Hola, {{user}}!",))) == ("¡Hola, amigo!",)
    assert greetings_for(a_persona("Rosi", language="tlh", greetings=("{{user}}",))) == ("friend",)


async def test_a_greeting_knows_the_time(stage: Stage) -> None:
    await greeted(stage, greetings=("It is {{time}}.",))
    text = await stage.chat.greet_once(ROOM)
    assert text is not None
    assert "{{" not in text
    assert any(sign.isdigit() for sign in text)


async def test_of_two_with_one_name_the_ids_are_told(stage: Stage) -> None:
    stage.library.personas = [a_persona("Luna"), a_persona("Luna", id="luna-2"), a_persona("Max")]
    with pytest.raises(PersonaError, match=r"Luna \(luna\), Luna \(luna-2\), Max\."):
        stage.chat.find_persona("nobody")


async def test_what_a_persona_is_is_no_label_of_its_words(stage: Stage) -> None:
    stage.library.personas = [a_persona("Luna", identity={"species": "goblin"}, nickname="Lu")]
    stage.script("Goblin: Lu: The dragon sleeps.")
    assert await stage.say(message("Hm")) == ["The dragon sleeps."]
