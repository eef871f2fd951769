"""A voice is told from others by its own lines; a copy of a line is no voice."""

from bot.scoring.judges.voice import ASSISTANT, Voices, is_copy, leave_one_line_out, leave_one_out, voices_of
from engine.persona import Persona
from tests.fakes.personas import a_persona

PIRATE = (
    "Arr, the sea be rough today, matey!",
    "Arr, hand me the rum, ye landlubber!",
    "Arr, that be me ship, matey, and no other!",
)
POET = (
    "O gentle evening, how softly thou descendest.",
    "O silver moon, thou art my only lantern.",
    "How softly sighs the willow, O my heart.",
)


def cast() -> list[Persona]:
    def persona(name: str, lines: tuple[str, ...]) -> Persona:
        examples = tuple({"user": "?", "reply": line} for line in lines)
        return a_persona(name, examples=examples, greetings=(lines[0],))

    return [persona("Rex", PIRATE), persona("Ode", POET)]


def test_hears_whose_voice_it_is() -> None:
    voices = voices_of(cast(), "en")
    assert voices.num_voices == 3
    assert voices.closest("Arr, ye be late, matey!") == "rex"
    assert voices.closest("O gentle moon, how softly thou shinest.") == "ode"
    assert voices.closest("Sure! Is there anything else I can help you with today?") == ASSISTANT


def test_the_own_voice_is_closer_than_another() -> None:
    voices = voices_of(cast(), "en")
    text = "Arr, the rum be gone, matey!"
    assert voices.hear(text, "rex").closeness > 2 * voices.hear(text, "ode").closeness > 0


def test_a_copy_is_known_for_one() -> None:
    assert is_copy("arr the sea be rough today -- matey", PIRATE)
    assert not is_copy("Arr, the sea be calm, and the gulls be asleep on the mast, matey!", PIRATE)
    assert not is_copy("Arr!", PIRATE)
    assert is_copy("本猫是阿墨，这家书店的主人", ["本猫是阿墨，这家书店的主人喵。"])


def test_only_speakers_of_the_language_are_compared() -> None:
    assert voices_of([*cast(), a_persona("Amo", language="zh-Hans", greetings=("喵。",))], "zh").num_voices == 2


def test_each_line_is_told_by_the_others() -> None:
    heard = leave_one_line_out({"rex": PIRATE, "ode": POET})
    assert (heard.num_right, heard.num_lines, heard.num_voices) == (6, 6, 2)
    same = leave_one_line_out({"one": ("aaaa bbbb",), "other": ("cccc dddd", "eeee ffff")})
    assert same.num_right < same.num_lines
    # The greeting is an example, too: a line said twice would surely be told.
    assert leave_one_out(cast(), "en").num_lines == 6


def test_a_name_is_no_voice() -> None:
    examples = ({"user": "?", "reply": "Rex be here, and Rex be hungry!"}, {"user": "?", "reply": "Rex be gone!"})
    voices = voices_of([a_persona("Rex", examples=examples, greetings=("Arr!",)), *cast()[1:]], "en")
    assert voices.hear("Rex, Rex.", "rex").closeness < 0.05
    assert voices.closest("Rex Rex Rex, O gentle moon, how softly") == "ode"


def test_a_text_without_known_letters_is_nobodys() -> None:
    assert Voices({"a": ["abc def"]}).hear("", "a").closeness == 0
