"""What fits into a prompt: the order of worth, whole turns, no gaps."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from bot.personas.context import Room, take_newest, take_older
from bot.personas.prompt import Prepared, Scene, prepare
from bot.personas.recall import Recalled
from engine.persona import Persona
from engine.types import ContextSize, Image, Insertion, Role, SamplingSettings, Turn

SAMPLING = SamplingSettings(max_new_tokens=20)


@dataclass
class Words:
    """A word is a token."""

    size: ContextSize

    def context(self) -> ContextSize:
        return self.size

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def measure(max_tokens: int | None, *, per_turn: int = 0, per_picture: int = 0) -> Words:
    return Words(ContextSize(max_tokens, per_turn, per_picture))


def persona(**fields: object) -> Persona:
    return Persona.model_validate({"id": "mira", "name": "Mira", "summary": "Keeper.", "greetings": ["Hi"], **fields})


def talk(*texts: str) -> list[Turn]:
    """User and persona in turns, the user last."""
    roles = [Role.USER, Role.ASSISTANT]
    return [Turn(roles[(len(texts) - 1 - index) % 2], text) for index, text in enumerate(texts)]


def prepared(author: Persona, turns: Sequence[Turn], max_tokens: int | None, **scene: object) -> Prepared:
    return prepare(author, turns, sampling=SAMPLING, measure=measure(max_tokens), scene=Scene(**scene))


def cost(author: Persona) -> int:
    """The prompt of `author` alone."""
    return prepared(author, [Turn(Role.USER, "")], None).report.num_tokens


def test_without_a_limit_everything_is_there() -> None:
    author = persona(examples=[{"user": "a", "reply": "b"}], lore=[{"keys": ["sea"], "content": "Salt."}])
    found = prepared(author, talk("one", "two", "sea"), None)
    assert [turn.text for turn in found.request.turns] == ["one", "two", "sea"]
    assert found.request.insertions == (Insertion("You know: Salt.", 1),)
    assert (found.report.num_examples, found.report.max_tokens) == (1, None)


def test_the_question_is_there_even_where_nothing_fits() -> None:
    found = prepared(persona(), talk("one two three", "four", "word " * 50), 60)
    assert [turn.text for turn in found.request.turns] == ["word " * 50]
    assert found.report.num_turns_left_out == 2


def test_old_turns_go_first_and_whole() -> None:
    author = persona()
    # Room for the answer's 20 tokens, the prompt and 7 words.
    found = prepared(author, talk("a b c", "d e", "f g", "h", "i j k"), 20 + cost(author) + 7)
    assert [turn.text for turn in found.request.turns] == ["f g", "h", "i j k"]
    assert found.report.num_turns_left_out == 2


def test_what_is_kept_does_not_begin_with_an_answer() -> None:
    author = persona()
    found = prepared(author, talk("a b c", "d", "e", "f", "g"), 20 + cost(author) + 4)
    assert [turn.text for turn in found.request.turns] == ["e", "f", "g"]


def test_lore_is_worth_more_than_old_turns_and_less_than_the_last_exchange() -> None:
    author = persona(lore=[{"keys": ["sea"], "content": "Salt salt salt."}])
    turns = talk("old old old", "old", "near", "near", "sea")
    told = prepared(author, turns, 20 + cost(author) + 3 + 3)
    assert "Salt" in told.request.insertions[0].text
    assert [turn.text for turn in told.request.turns] == ["near", "near", "sea"]
    none_left = prepared(author, turns, 20 + cost(author) + 3 + 2)
    assert none_left.request.insertions == ()
    assert [one.name for one in none_left.report.lore.dropped] == ["sea"]


def test_the_first_example_is_worth_more_than_old_turns_and_the_others_less() -> None:
    author = persona(examples=[{"user": "e", "reply": "f"}, {"user": "g", "reply": "h"}])
    turns = talk("old", "old", "near", "near", "now")
    bare = cost(persona())
    one = prepared(author, turns, 20 + bare + 3 + 3 + 2)  # an example is three words, with its mark
    assert (one.report.num_examples, one.report.num_turns_left_out) == (1, 0)
    both = prepared(author, turns, 20 + bare + 3 + 3 + 2 + 3)
    assert (both.report.num_examples, both.report.num_examples_left_out) == (2, 0)
    none = prepared(author, turns, 20 + bare + 3 + 2)
    assert (none.report.num_examples, none.report.num_turns_left_out) == (0, 0)


def test_a_long_context_has_room_for_many_examples() -> None:
    author = persona(examples=[{"user": f"q{number}", "reply": "word " * 20} for number in range(20)])
    assert prepared(author, talk("hi"), 4096).report.num_examples == 2, "as many as have room in 250 letters"
    assert prepared(author, talk("hi"), 8192).report.num_examples == 20


def test_a_long_answer_takes_at_most_half_of_the_room() -> None:
    room = Room(measure(100), max_new_tokens=90)
    assert room.max_tokens == 50


def test_pictures_of_old_turns_go_before_their_words() -> None:
    picture = Image("d", b"")
    turns = [Turn(Role.USER, "a", (picture, picture)), Turn(Role.ASSISTANT, "b"), Turn(Role.USER, "c", (picture,))]
    room = Room(measure(100, per_picture=10), max_new_tokens=0)
    room.take(100 - 25)  # the question with its picture, two words, one more picture
    newest = take_newest([*turns[:1], *turns[2:]], room)
    assert newest == 1, "the exchange before it has no room with all of its pictures"
    fitted = take_older([*turns[:1], *turns[2:]], newest, room)
    assert [(turn.text, len(turn.images)) for turn in fitted.turns] == [("a", 1), ("c", 1)]
    assert fitted.num_pictures_left_out == 1


def test_what_is_recalled_is_told_once() -> None:
    author = persona(lore=[{"keys": ["sea"], "content": "Salt."}])
    recalled = (Recalled("sea", "Salt."), Recalled("age", "My age is 61."))
    found = prepared(author, talk("sea"), None, recalled=recalled)
    assert found.request.insertions == (Insertion("You know: My age is 61. Salt.", 1),)
    assert [one.name for one in found.report.recalled] == ["sea", "age"]
    elsewhere = persona(lore=[{"keys": ["sea"], "content": "Salt.", "position": "before_char"}])
    found = prepared(elsewhere, talk("sea"), None, recalled=recalled)
    assert found.request.insertions == (Insertion("You know: My age is 61.", 1),)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=12),
    st.integers(1, 200),
    st.lists(st.integers(1, 20), max_size=5),
)
def test_never_more_than_there_is_room_for(lengths: list[int], num_tokens: int, lore: list[int]) -> None:
    author = persona(
        lore=[{"constant": True, "content": f"w{index} " * length} for index, length in enumerate(lore)],
        examples=[{"user": "a b", "reply": "c d"}],
    )
    turns = talk(*("word " * length for length in lengths))
    found = prepared(author, turns, num_tokens)
    report, kept = found.report, found.request.turns
    assert report.max_tokens is not None
    needed = cost(persona()) + lengths[-1]
    assert report.num_tokens <= max(report.max_tokens, needed)
    assert list(kept) == turns[len(turns) - len(kept) :], "the newest, without gaps, and whole"
    words = len(found.request.system_prompt.split()) + sum(len(turn.text.split()) for turn in kept)
    words += sum(len(one.text.split()) for one in found.request.insertions)
    headings = 5  # what introduces examples and lore
    assert words <= max(report.max_tokens, needed) + headings


def test_of_an_old_turns_pictures_the_last_ones_stay() -> None:
    first, last = Image("first", b""), Image("last", b"")
    turns = [Turn(Role.USER, "a", (first, last)), Turn(Role.ASSISTANT, "b"), Turn(Role.USER, "c")]
    room = Room(measure(100, per_picture=10), max_new_tokens=0)
    room.take(100 - 13)
    fitted = take_older(turns, take_newest(turns, room), room)
    assert fitted.turns[0].images == (last,)
    assert fitted.num_pictures_left_out == 1


def test_instructions_take_their_room_before_older_turns_do() -> None:
    author, told = persona(), persona(post_history_instructions="one two three four five")
    turns = talk("a", "b", "c", "d", "e")
    room = cost(author) + len(turns) + SAMPLING.max_new_tokens
    assert len(prepared(author, turns, room).request.turns) == 5
    assert len(prepared(told, turns, room).request.turns) < 5
