from datetime import UTC, datetime, time, timedelta, timezone

import pytest
from pydantic import ValidationError

from engine.persona import Expression, Facet, LoreEntry, Persona, Triggers, compile_pattern, parse_quiet_hours

FULL = {
    "id": "mira",
    "name": " Mira\n Vane ",
    "summary": "Keeper of a lighthouse.",
    "identity": {"pronouns": "she/her", "age": 27, "home": "Gannet."},
    "look": ["Red coat."],
    "traits": ["kind."],
    "background": "Born at sea.",
    "voice": {"style": ["Short words."]},
    "goals": ["Find a storm."],
    "greetings": ["Ahoy!"],
    "examples": [{"user": "Hi", "reply": "Ahoy there!"}],
    "lore": [{"keys": ["bell"], "content": "The bell sank."}, {"content": "It rains.", "constant": True}],
    "platforms": {"discord": {"name": "M"}},
    "extensions": {"x": {"y": [1, None, "z"]}},
}


def test_facets_are_sentences_in_the_order_of_the_schema() -> None:
    assert list(Persona.model_validate(FULL).facets()) == [
        Facet("name", "My name is Mira Vane."),
        Facet("summary", "Keeper of a lighthouse."),
        Facet("pronouns", "My pronouns are she/her."),
        Facet("age", "My age is 27."),
        Facet("home", "My home is Gannet."),
        Facet("look", "Red coat."),
        Facet("traits", "I am kind."),
        Facet("background", "Born at sea."),
        Facet("voice", "Short words."),
        Facet("goals", "Find a storm."),
        Facet("examples", "Ahoy there!"),
        Facet("lore", "The bell sank."),
        Facet("lore", "It rains."),
    ]


def test_a_dump_can_be_read_back() -> None:
    persona = Persona.model_validate(FULL)
    assert Persona.model_validate_json(persona.model_dump_json()) == persona
    assert "is_constant" not in persona.model_dump_json()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Nora"},
        {"lore": [{"keys": ["bell"], "content": "The bell sank."}]},
        {"extensions": {"x": {"y": [1, None, "w"]}}},
        {"sampling": {"temperature": 0.7}},
    ],
)
def test_the_digest_sees_every_change(change: dict[str, object]) -> None:
    digest = Persona.model_validate(FULL).digest()
    assert digest == Persona.model_validate(FULL).digest()
    assert digest != Persona.model_validate({**FULL, **change}).digest()


def test_a_persona_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Persona.model_validate(FULL).name = "Nora"


def test_lore_that_would_never_be_told() -> None:
    with pytest.raises(ValidationError, match="would never be told"):
        LoreEntry(content="x")
    assert LoreEntry(content="x", is_constant=True) == LoreEntry.model_validate({"content": "x", "constant": True})


@pytest.mark.parametrize(
    "sampling", [{"temperature": "0.7"}, {"top_k": True}, {"temperature": 2.1}, {"max_new_tokens": 0}, {"seed": 1}]
)
def test_sampling_is_strict(sampling: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Persona.model_validate({**FULL, "sampling": sampling})


@pytest.mark.parametrize("text", ["23:00-07:30", " 23:00 - 07:30 ", "23:00–07:30"])
def test_quiet_hours_may_be_written_loosely(text: str) -> None:
    hours = parse_quiet_hours(text)
    assert (hours.begin, hours.end, hours.zone) == (time(23), time(7, 30), None)


@pytest.mark.parametrize(
    "text", ["", "23-7", "24:01-01:00", "12:60-13:00", "12:00-12:00", "1:00-2:00 Europe", "1:00-2:00 ../etc", "x"]
)
def test_quiet_hours_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be hours|no time of day|begins when|names the zone"):
        parse_quiet_hours(text)


@pytest.mark.parametrize(
    ("text", "hour", "is_quiet"),
    [
        ("23:00-07:00", 22, False),
        ("23:00-07:00", 23, True),
        ("23:00-07:00", 0, True),
        ("23:00-07:00", 7, False),
        ("09:00-17:00", 9, True),
        ("09:00-17:00", 17, False),
        ("20:00-24:00", 23, True),
        ("20:00-24:00", 0, False),
        ("00:00-01:00 Asia/Tokyo", 15, True),
        ("00:00-01:00 Asia/Tokyo", 0, False),
    ],
)
def test_when_it_is_quiet(text: str, hour: int, is_quiet: bool) -> None:
    now = datetime(2026, 6, 1, hour, tzinfo=UTC)
    assert parse_quiet_hours(text).holds(now) is is_quiet


def test_without_a_zone_the_clock_is_that_of_now() -> None:
    now = datetime(2026, 6, 1, 23, tzinfo=UTC).astimezone(timezone(timedelta(hours=-8)))
    assert parse_quiet_hours("15:00-16:00").holds(now)


@pytest.mark.parametrize("text", ["(", "a{1000}{1000}", "(?:a{500}){500}", "a\x08", "[", "\\L<x>", "*"])
def test_patterns_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"no regular expression|repeats too much|control character"):
        compile_pattern(text)
    with pytest.raises(ValidationError):
        Triggers(patterns=(text,))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 30 + "a" + "+)" * 30,
        "(" * 14 + "a" + "{1,})" * 14,
        "(" * 13 + "a" + "{2})" * 13,
        "(?x)" + "(" * 13 + "a" + " {2})" * 13,
        "(" * 13 + "a" + "(?#why){2})" * 13,
        "(?:" + "[(]a?" * 80 + "){ 1, 100 }",
        "(?:" + r"\[a?" * 80 + "){,100}",
    ],
)
def test_patterns_that_would_take_all_memory_are_refused_before_they_are_compiled(text: str) -> None:
    with pytest.raises(ValueError, match="repeats too much"):
        compile_pattern(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(?:(?:(?:ab*)*c?)*d?){0,20}", "abcd"),
        (r"\b(?:\w+[.,!]?\s+){3,40}really\b", "this is it, is it really"),
        (r"[^]()]{1,300}\)", "a)"),
        (r"(\d{1,3}\.){3}\d{1,3}", "10.0.0.1"),
        ("a{1000}", "a" * 1000),
    ],
)
def test_patterns_that_people_write_are_no_trouble(text: str, found: str) -> None:
    assert compile_pattern(text).search(found.upper())


def test_patterns_are_kept_as_they_are() -> None:
    assert Triggers(patterns=(" a  b ",)).patterns == (" a  b ",)
    assert compile_pattern("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.mark.parametrize("emoji", ["😄", "❤️", "👍🏽", "🇩🇪", "1️⃣", "👩‍🚀"])
def test_reactions_are_emoji(emoji: str) -> None:
    assert Expression(reaction=emoji).reaction == emoji


@pytest.mark.parametrize("text", ["", "joy", ":smile:", "😄 😄", "1"])
def test_reactions_that_are_none(text: str) -> None:
    with pytest.raises(ValidationError):
        Expression(reaction=text)


def test_the_digest_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    persona = Persona.model_validate(FULL)
    digest = persona.digest()
    other = persona.model_copy(update={"name": "Somebody else"})
    assert other.digest() != digest
    monkeypatch.setattr(Persona, "model_dump_json", None)
    assert persona.digest() == digest
