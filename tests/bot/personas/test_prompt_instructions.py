"""Instructions, nicknames, places of lore and macros: what character cards say, in the prompt."""

from datetime import UTC, datetime
from typing import Any

import pytest

from bot.greeting import greetings_for
from bot.personas.prompt import HouseRules, Scene, prepare
from engine.persona import Persona
from engine.types import GenerationRequest, Insertion, Role, SamplingSettings, Turn

ASKED = "Stay in character as Mira. Answer in English, in two to four sentences."


def persona(**fields: Any) -> Persona:
    return Persona.model_validate({"id": "mira", "name": "Mira", "summary": "Keeper.", "greetings": ["Hi"], **fields})


def request_for(author: Persona, *texts: str, house: HouseRules | None = None, **scene: Any) -> GenerationRequest:
    turns = [
        Turn(Role.USER if number % 2 == 0 else Role.ASSISTANT, text) for number, text in enumerate(texts or ("hi",))
    ]
    prepared = prepare(author, turns, sampling=SamplingSettings(), house=house or HouseRules(), scene=Scene(**scene))
    return prepared.request


def test_a_system_prompt_of_its_own_stands_in_place_of_the_general_one() -> None:
    prompt = request_for(persona(system_prompt="You write {{char}}'s lines for {{user}}.")).system_prompt
    assert prompt.splitlines() == ["You write Mira's lines for friend.", "You are Mira. Keeper."]


def test_original_calls_for_the_general_one() -> None:
    prompt = request_for(persona(system_prompt="{{original}} Never rhyme.")).system_prompt
    assert prompt.splitlines()[0] == f"{ASKED} Never rhyme."
    house = HouseRules(system_prompt="Be {{char}}.")
    assert request_for(persona(system_prompt="<{{ORIGINAL}}>"), house=house).system_prompt.startswith("<Be Mira.>")
    assert request_for(persona(), house=house).system_prompt.splitlines()[-1] == "Be Mira."


def test_instructions_after_the_conversation() -> None:
    house = HouseRules(post_history_instructions="Be brief, {{char}}.")
    assert request_for(persona()).insertions == ()
    assert request_for(persona(), house=house).insertions == (Insertion("Be brief, Mira."),)
    own = persona(post_history_instructions="{{original}} Rhyme.")
    assert request_for(own, house=house).insertions == (Insertion("Be brief, Mira. Rhyme."),)
    assert request_for(own).insertions == (Insertion("Rhyme."),)


def test_notes_and_tests_are_in_no_prompt() -> None:
    author = persona(
        notes="SECRET", tests={"facts": [{"ask": "SECRET?", "expect": ["SECRET"]}], "pressure": ["SECRET"]}
    )
    request = request_for(author, "SECRETLY?")
    assert "SECRET" not in request.system_prompt
    assert request.insertions == ()


def test_a_nickname_is_what_texts_call_it() -> None:
    prompt = request_for(persona(nickname="Mi", background="{{char}} was born at sea.")).system_prompt
    assert "You are Mi." in prompt
    assert "Mi was born at sea." in prompt


def test_other_languages_are_named() -> None:
    assert "Answer in English or Spanish, in" in request_for(persona(also_speaks=["es-MX", "en"])).system_prompt
    assert "（也会说" in request_for(persona(language="zh", also_speaks=["en"])).system_prompt


def test_the_beginning_of_a_description_is_not_told_twice() -> None:
    author = persona(summary="A keeper of storms…", background="A keeper of storms and bells. Old.")
    assert request_for(author).system_prompt.count("A keeper of storms") == 1


def test_a_description_in_lines_keeps_them_where_they_are_a_form() -> None:
    form = "Name: Mira\nAge: 27\n\nLikes:  rain\nHates: sun"
    assert "Name: Mira\nAge: 27\nLikes: rain\nHates: sun" in request_for(persona(background=form)).system_prompt


@pytest.mark.parametrize(
    ("position", "after", "before"),
    [
        ("before_char", None, "You are Mira."),
        ("before_desc", None, "You are Mira."),
        ("after_desc", "Born at sea.", "You are: kind."),
        ("personality", "You are: kind.", "Now: It rains."),
        ("scenario", "Now: It rains.", "How you talk:"),
        ("before_examples", "Now: It rains.", "How you talk:"),
        ("after_examples", "Ahoy!", ASKED),
        ("after_char", "You are talking with Ann.", None),
    ],
)
def test_lore_stands_where_its_author_wants_it(position: str, after: str | None, before: str | None) -> None:
    author = persona(
        background="Born at sea.",
        traits=["kind"],
        scenario="It rains",
        examples=[{"user": "Hi", "reply": "Ahoy!"}],
        lore=[{"constant": True, "content": "LORE of {{char}}.", "position": position}],
    )
    lines = request_for(author, user_name="Ann").system_prompt.splitlines()
    place = lines.index("LORE of Mira.")
    if after is not None:
        assert lines[place - 1].startswith(after)
    if before is not None:
        assert lines[place + 1].startswith(before)


def test_lore_among_the_turns() -> None:
    author = persona(
        lore=[
            {"constant": True, "content": "Deep.", "position": "at_depth", "depth": 3, "role": "assistant", "order": 2},
            {"constant": True, "content": "Deeper.", "position": "at_depth", "depth": 3, "order": 1},
            {"constant": True, "content": "Known.", "order": 3},
        ],
        post_history_instructions="Rhyme.",
    )
    assert request_for(author, "a", "b", "c").insertions == (
        Insertion("Deeper.", 3, "system"),
        Insertion("Deep.", 3, "assistant"),
        Insertion("You know: Known.", 1),
        Insertion("Rhyme."),
    )


def test_lore_may_switch_instructions_off() -> None:
    author = persona(
        system_prompt="Mine.",
        post_history_instructions="Rhyme.",
        lore=[
            {"keys": ["storm"], "content": "@@disable_ui_prompt system_prompt\nA."},
            {"keys": ["storm"], "content": "@@disable_ui_prompt post_history_instructions\nB."},
        ],
    )
    assert "Mine." in request_for(author).system_prompt
    silenced = request_for(author, "storm")
    assert "Mine." not in silenced.system_prompt
    assert "Rhyme." not in " ".join(one.text for one in silenced.insertions)


def test_lore_may_switch_the_general_instructions_off() -> None:
    author = persona(lore=[{"keys": ["storm"], "content": "@@disable_ui_prompt system_prompt\nA."}])
    assert ASKED in request_for(author).system_prompt
    assert ASKED not in request_for(author, "storm").system_prompt


def test_lore_knows_which_greeting_came_first() -> None:
    author = persona(
        greetings=["Hi {{user}}.", "Who goes there?"],
        lore=[{"constant": True, "content": "@@is_greeting 1\nShe is afraid."}],
    )
    turns = [Turn(Role.ASSISTANT, "Who goes there?"), Turn(Role.USER, "Me.")]
    first = [Turn(Role.ASSISTANT, "Hi Ann."), Turn(Role.USER, "Me.")]
    for told, is_told in ((turns, True), (first, False)):
        scene = Scene(user_name="Ann")
        request = prepare(author, told, sampling=SamplingSettings(), scene=scene).request
        assert any("afraid" in one.text for one in request.insertions) is is_told


def test_a_greeting_with_chance_in_it_is_known_again() -> None:
    author = persona(
        greetings=["{{pick:a,b,c,d,e,f,g,h}} {{random:1,2,3,4,5,6,7,8}}", "Who goes there?"],
        lore=[{"constant": True, "content": f"@@is_greeting {number}\nGreeting {number}."} for number in (0, 1)],
    )
    said = greetings_for(author, user_name="Ann", conversation="room/mira")[0]
    turns = [Turn(Role.ASSISTANT, said), Turn(Role.USER, "Me.")]
    scene = Scene(user_name="Ann", conversation="room/mira", seed="room/mira/2")
    request = prepare(author, turns, sampling=SamplingSettings(), scene=scene).request
    told = " ".join(one.text for one in request.insertions)
    assert ("Greeting 0." in told, "Greeting 1." in told) == (True, False)


def test_a_conversation_that_somebody_else_began_had_no_greeting() -> None:
    author = persona(lore=[{"constant": True, "content": "@@is_greeting 0\nShe is afraid."}])
    asked, greeted = Turn(Role.USER, "Me."), Turn(Role.ASSISTANT, "Hi")
    for turns, num_before, is_told in (([asked], 0, False), ([greeted, asked], 0, True), ([asked], 30, True)):
        scene = Scene(num_before=num_before)
        request = prepare(author, turns, sampling=SamplingSettings(), scene=scene).request
        assert any("afraid" in one.text for one in request.insertions) is is_told


def test_chance_and_time_come_from_the_scene() -> None:
    author = persona(background="{{random:a,b,c,d,e,f,g,h}} {{pick:1,2,3,4,5,6,7,8}} at {{time}}.")
    now = datetime(2026, 11, 22, 13, 37, tzinfo=UTC)

    def told(number: int) -> str:
        scene = {"seed": f"room/{number}", "conversation": "room", "now": now}
        return next(line for line in request_for(author, **scene).system_prompt.splitlines() if " at " in line)

    assert told(1) == told(1)
    lines = {told(number) for number in range(40)}
    assert len({line[0] for line in lines}) > 1
    assert len({line[2] for line in lines}) == 1
    assert all("37" in line for line in lines)


def test_a_user_called_like_a_macro_stays_so_and_writes_no_markers() -> None:
    author = persona(background="{{user}} is here.", system_prompt="{{original}} {{user}}")
    prompt = request_for(author, user_name="{{char}} <|im_start|>").system_prompt
    assert "{{" not in prompt
    assert "<|" not in prompt
    assert prompt.count("Mira") == 2  # in the general instructions and in "You are Mira."


def test_whoever_else_speaks_is_named_for_the_guard() -> None:
    assert request_for(persona(), user_name="Ann", speakers=("Max", "Ann")).speakers == ("Max", "Ann")
