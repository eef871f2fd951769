"""What is asked of a server, and how a refused request is changed. Pure."""

import dataclasses
import hashlib
from typing import Any

import pytest

from engine.backends.chat_request import (
    MAX_BANNED_FORMS,
    MAX_MENDINGS,
    Dialect,
    Draft,
    choose_adapter,
    picture_note,
    write_messages,
)
from engine.backends.chat_server import Refused
from engine.errors import PromptTooLong, RequestError
from engine.persona import Lexicon
from engine.types import GenerationRequest, Image, Insertion, Role, Turn
from tests.engine.generation.requests import NELL, request


def picture(data: bytes = b"\xff\xd8picture") -> Image:
    return Image(hashlib.sha256(data).hexdigest(), data)


def draft(asked: GenerationRequest | None = None, **dialect: Any) -> Draft:
    return Draft(asked or request(), "m", Dialect(**dialect))


def refused(reason: str, *, status: int = 400, field: str = "") -> Refused:
    return Refused(f"the server refuses: {reason}", status=status, reason=reason, field=field)


def test_the_conversation_goes_in_order() -> None:
    assert write_messages("Be kind.", request("Hi!", "Ahoy!", "How are you?").turns) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Ahoy!"},
        {"role": "user", "content": "How are you?"},
    ]


def test_every_setting_has_its_name_in_the_api() -> None:
    settings = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.2, "seed": 3}
    body = draft(request(max_new_tokens=9, stop=("\nUser:", ""), **settings)).body()
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are Nell, a pirate captain."},
            {"role": "user", "content": "Hi!"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "repeat_penalty": 1.2,
        "seed": 3,
        "stop": ["\nUser:"],
    }


def test_a_reply_that_has_begun_is_the_last_message() -> None:
    asked = dataclasses.replace(request("Hi!"), reply_start="Well, \n")
    going_on = {"continue_final_message": True, "add_generation_prompt": False}
    body = draft(asked, going_on=going_on).body()
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant"]
    assert body["messages"][-1]["content"] == "Well,"
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False
    assert draft(asked, is_strict=True).body()["messages"][-1] == {"role": "assistant", "content": "Well,"}
    for start in ("", " \n"):
        body = draft(dataclasses.replace(asked, reply_start=start), going_on=going_on).body()
        assert body["messages"][-1]["role"] == "user"
        assert not going_on.keys() & body.keys()


def test_the_beginning_of_a_reply_counts_towards_its_length() -> None:
    asked = request(*(f"turn {number}" for number in range(9)))
    long = dataclasses.replace(asked, reply_start="word " * 40)
    limit = draft(asked)._num_bytes() + 1
    assert draft(asked, too_long_bytes=limit).num_dropped_turns == 0
    assert draft(long, too_long_bytes=limit).num_dropped_turns > 0


def test_settings_that_change_nothing_are_not_sent() -> None:
    fields = draft(request(top_k=0, min_p=0.0, repetition_penalty=1.0, seed=None)).fields()
    assert fields.keys() == {"max_tokens", "temperature", "top_p", "stream_options"}


def test_banned_words_go_in_every_form_to_servers_that_take_them() -> None:
    persona = NELL.model_copy(update={"lexicon": Lexicon(banned=("landlubber", "AI"))})
    asked = request(persona=persona)
    forms = ["landlubber", "Landlubber", "LANDLUBBER", "AI", "ai"]
    assert draft(asked, banned_name="bad_words").fields()["bad_words"] == forms
    assert "bad_words" not in draft(asked).fields()
    assert "bad_words" not in draft(banned_name="bad_words").fields()
    many = persona.model_copy(update={"lexicon": Lexicon(banned=tuple(f"w{number}" for number in range(999)))})
    assert len(draft(request(persona=many), banned_name="bad_words").fields()["bad_words"]) == MAX_BANNED_FORMS


def test_biases_go_by_token() -> None:
    assert Draft(request(), "m", Dialect(), logit_bias={7: 1.5}).fields()["logit_bias"] == {"7": 1.5}


def test_a_picture_that_is_not_sent_is_named() -> None:
    turns = (Turn(Role.USER, "Look!", (picture(), picture(b"2"))), Turn(Role.USER, "And?", (picture(b"3"),)))
    first, second = write_messages("", turns)
    assert first["content"] == f"{picture_note(2)}\nLook!"
    assert second["content"] == f"{picture_note(1)}\nAnd?"


def test_the_newest_pictures_are_sent_where_there_is_a_bound() -> None:
    turns = (Turn(Role.USER, "Look!", (picture(b"1"), picture(b"\x89PNG 2"))), Turn(Role.USER, "", (picture(),)))
    first, second = write_messages("", turns, max_pictures=2)
    assert first["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORyAy"}},
        {"type": "text", "text": f"{picture_note(1)}\nLook!"},
    ]
    assert second["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")


def test_strict_models_get_question_and_answer_in_turns() -> None:
    turns = (
        Turn(Role.ASSISTANT, "Ahoy!"),
        Turn(Role.USER, "Hi."),
        Turn(Role.USER, "Look!", (picture(),)),
    )
    messages = write_messages("Be kind.", turns, is_strict=True, max_pictures=None)
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[0]["content"] == "Be kind."
    assert [part["type"] for part in messages[2]["content"]] == ["text", "image_url", "text"]
    assert [message["role"] for message in write_messages("", turns[:1], is_strict=True)] == ["user", "assistant"]


def contents(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


INSERTED = (Insertion("a"), Insertion("b", 1), Insertion("c", 2), Insertion("d", 9), Insertion("e", 0, "assistant"))
TALK = request("Hi!", "Ahoy!", "Who?").turns


def test_what_nobody_said_stands_among_the_turns() -> None:
    assert contents(write_messages("Be kind.", TALK, insertions=INSERTED)) == [
        ("system", "Be kind."),
        ("system", "d"),
        ("user", "Hi!"),
        ("system", "c"),
        ("assistant", "Ahoy!"),
        ("system", "b"),
        ("user", "Who?"),
        ("system", "a"),
        ("system", "e"),  # as the assistant's it would be the beginning of the reply
    ]
    assert write_messages("", TALK, insertions=(Insertion(" \n"),)) == write_messages("", TALK)


@pytest.mark.parametrize("how", [{"is_strict": True}, {"has_system_anywhere": False}])
def test_where_no_system_message_may_stand_among_them_it_joins_a_user(how: dict[str, bool]) -> None:
    first, *rest = contents(write_messages("Be kind.", TALK, insertions=INSERTED, **how))
    if "is_strict" in how:
        assert first == ("user", "Be kind.\n\nd\n\nHi!\n\nc")
    else:
        assert first == ("system", "Be kind.")
        assert rest.pop(0) == ("user", "d\n\nHi!\n\nc")
    assert rest == [("assistant", "Ahoy!"), ("user", "b\n\nWho?\n\na\n\ne")]


def test_what_joins_a_user_does_not_join_two_users() -> None:
    turns = (Turn(Role.USER, "one"), Turn(Role.USER, "two"))
    messages = write_messages("", turns, insertions=(Insertion("x", 1),), has_system_anywhere=False)
    assert contents(messages) == [("user", "one\n\nx"), ("user", "two")]


@pytest.mark.parametrize(
    "reason",
    ["System message must be at the beginning.", "only an initial optional system message is supported"],
)
def test_a_server_that_wants_its_system_message_first_is_obeyed(reason: str) -> None:
    first = draft(dataclasses.replace(request(), insertions=(Insertion("Psst."),)))
    first.mend(refused(reason))
    assert contents(first.body()["messages"])[1:] == [("user", "Hi!\n\nPsst.")]
    with pytest.raises(Refused):
        first.mend(refused(reason))
    with pytest.raises(Refused):
        draft().mend(refused(reason))


def test_what_is_inserted_counts_towards_the_length() -> None:
    asked = request(*(f"turn {number}" for number in range(9)))
    long = dataclasses.replace(asked, insertions=(Insertion("word " * 40),))
    limit = draft(asked)._num_bytes() + 1
    assert draft(long, too_long_bytes=limit).num_dropped_turns > 0
    assert contents(draft(long, too_long_bytes=limit).body()["messages"])[-1] == ("system", ("word " * 40).strip())


@pytest.mark.parametrize(
    "reason",
    [
        "Unknown parameter: 'top_k'.",
        "Unrecognized request argument supplied: top_k",
        '[{"type":"extra_forbidden","loc":["body","top_k"],"msg":"Extra inputs are not permitted"}]',
        "property 'top_k' is unsupported",
    ],
)
def test_a_field_that_a_server_does_not_know_is_never_sent_again(reason: str) -> None:
    first = draft(request(top_k=5))
    first.mend(refused(reason))
    assert "top_k" not in first.fields()
    assert "top_k" not in Draft(request(top_k=5), "m", first.dialect).fields()


def test_a_value_that_a_server_does_not_take_is_left_out_once() -> None:
    first = draft(request(temperature=1.9))
    first.mend(refused("temperature must be between 0 and 1", field="temperature"))
    assert "temperature" not in first.fields()
    assert "temperature" in Draft(request(), "m", first.dialect).fields()


def test_the_newer_name_of_the_limit_is_learnt() -> None:
    first = draft()
    first.mend(refused("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."))
    assert first.fields()["max_completion_tokens"] == 8
    assert "max_tokens" not in first.fields()


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("This model's maximum context length is 2048 tokens. However, your prompt contains 3031 input tokens", 400),
        ("the request exceeds the available context size, try increasing it (exceed_context_size_error)", 400),
        ("prompt is too long: 200001 tokens > 200000 maximum", 400),
        ("Request Entity Too Large", 413),
    ],
)
def test_the_oldest_turns_go_where_the_context_is_too_short(reason: str, status: int) -> None:
    texts = [str(number) for number in range(9)]
    first = draft(request(*texts))
    dropped = [0]
    while len(first.turns) > 1:
        first.mend(refused(reason, status=status))
        dropped.append(first.num_dropped_turns)
        assert first.turns[0].role is Role.USER
        assert first.body()["messages"][0]["role"] == "system"
    assert dropped == sorted(set(dropped))
    assert first.turns[0].text == "8"
    with pytest.raises(PromptTooLong, match="shorten"):
        first.mend(refused(reason, status=status))


def test_what_was_too_long_once_is_not_tried_again_but_not_for_ever() -> None:
    asked = request(*(f"{number} {'word ' * 50}" for number in range(9)))
    first = draft(asked)
    first.mend(refused("context length exceeded"))
    next_one = Draft(asked, "m", first.dialect)
    assert next_one.num_dropped_turns == first.num_dropped_turns == 2
    for _ in range(60):
        next_one = Draft(asked, "m", first.dialect)
    assert next_one.num_dropped_turns == 0


def test_models_without_a_system_role_are_obeyed() -> None:
    first = draft()
    first.mend(refused("System role not supported"))
    assert first.body()["messages"][0]["role"] == "user"
    with pytest.raises(Refused):
        first.mend(refused("System role not supported"))


@pytest.mark.parametrize(
    ("reason", "num_sent"),
    [("fake is not a multimodal model", 0), ("At most 1 image(s) may be provided in one prompt.", 1)],
)
def test_pictures_that_are_too_many_become_notes(reason: str, num_sent: int) -> None:
    asked = dataclasses.replace(request(), turns=(Turn(Role.USER, "Look!", (picture(), picture(b"2"))),))
    first = draft(asked, max_pictures=None)
    first.mend(refused(reason))
    content = first.body()["messages"][-1]["content"]
    assert str(content).count("image_url'") == 2 * num_sent
    assert "You cannot see" in str(content)
    assert first.dialect.max_pictures == num_sent


def test_what_cannot_be_mended_is_said() -> None:
    with pytest.raises(Refused, match="the moon is full"):
        draft().mend(refused("the moon is full"))


def test_mending_ends() -> None:
    first = draft(request(*(str(number) for number in range(20_001))))
    for _ in range(MAX_MENDINGS):
        first.mend(refused("context length"))
    with pytest.raises(Refused):
        first.mend(refused("context length"))


def test_an_adapter_goes_by_its_name() -> None:
    asked = dataclasses.replace(request(), adapter="nell")
    assert choose_adapter(asked, ("nell",), model="base") == "nell"
    assert choose_adapter(request(), ("nell",), model="base") == "base"
    with pytest.raises(RequestError, match="it has ada"):
        choose_adapter(asked, ("ada",), model="base")
