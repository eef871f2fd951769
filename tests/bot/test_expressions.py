"""Which face suits a text."""

import pytest

from bot.expressions import EMOTIONS, expression_for
from engine.persona import Expression, Persona

ALL_FACES = {name: Expression(reaction="🙂") for name in EMOTIONS}

# Written before the tables were looked at again: (what is said, the emotions that it may be taken for).
LABELLED = [
    ("Haha, you should have seen his face!", {"amusement", "joy"}),
    ("*chuckles* Another hero without boots.", {"amusement"}),
    ("Shiny! 😄 Grub makes good price!", {"joy"}),
    ("We did it! 🎉🎉", {"excitement"}),
    ("*sighs* The lamp has gone out again.", {"disappointment", "sadness"}),
    ("Oh no, the parcel arrived broken 😢", {"sadness"}),
    ("I am so sorry about that.", {"remorse"}),
    ("Thank you so much for the picture!", {"gratitude"}),
    ("谢谢你的鱼干。", {"gratitude"}),
    ("哈哈，本猫才不信。", {"amusement"}),
    ("（叹气）又下雨了。", {"disappointment", "sadness"}),
    ("哼，才不是为了你。", {"annoyance"}),
    ("*脸红* 不许看！", {"embarrassment"}),
    ("Wow, a whole bag of coins!", {"surprise", "excitement"}),
    ("*gasps* The dragon is awake!", {"surprise", "fear"}),
    ("*trembling* Do not open that door.", {"fear", "nervousness"}),
    ("😱 it moved!", {"fear", "surprise"}),
    ("Ugh, another adventurer without money.", {"annoyance", "disgust"}),
    ("*growls* Give it back.", {"anger"}),
    ("You did WHAT? 😡", {"anger"}),
    ("I love you too ❤️", {"love"}),
    ("*hugs you tightly*", {"caring", "love"}),
    ("*tilts her head* And what is under it?", {"curiosity", "confusion"}),
    ("Hmm 🤔 why does the pot fall?", {"curiosity", "confusion"}),
    ("Aha! So that is how it works.", {"realization", "surprise"}),
    ("Phew, that was close.", {"relief"}),
    ("Que maravilha! Enjoy every pastry.", {"excitement", "admiration", "joy"}),
    ("Obrigado, amigo!", {"gratitude"}),
    ("Yuck, who put that in the soup?", {"disgust"}),
    ("*puffs out his chest* Best shop in Deepmaw.", {"pride"}),
    ("Well done! You found it yourself.", {"approval", "admiration", "pride"}),
    ("*wipes away a tear* He never came back.", {"sadness", "grief"}),
    ("*smiles warmly* Sit down, child.", {"joy", "caring"}),
    ("😂😂😂 no", {"amusement"}),
    ("Fingers crossed 🤞", {"optimism"}),
    ("*nods slowly* Good.", {"approval"}),
    ("I can't stop crying since she left.", {"sadness", "grief"}),
    ("That is the most beautiful thing I have ever seen.", {"admiration", "joy", "love"}),
    ("I'm furious with you.", {"anger"}),
    ("My heart is pounding, what if it finds us?", {"fear", "nervousness"}),
]
NEUTRAL = [
    "The museum opens at nine.",
    "Please send me your order number.",
    "I have no hat.",
    "I am afraid not, the shop is closed.",
    "Sorry, what was the question?",
    "Chapter two begins with a ship.",
    "Use **bold** for titles and *italics* for ships.",
    "2 * 3 * 4 is 24.",
    "the file is called my_smile_file_name",
    "It is about ten degrees here.",
    "You can thank the baker for it.",
    "No, thanks.",
    "不用谢。",
    "本猫在书架上。",
    "书店十点开门。",
    "Water boils at 100 °C.",
    "*opens the door and waits*",
    "She lives in Omagh, by the river.",
    "The ferry leaves at noon ⛴️",
    "Sunny tomorrow ☀️ with some wind.",
    "- first\n- second\n- third",
    "Turn left at the café, amigo.",
    "What is the capital of Peru?",
    "He laughed at the joke in the third act.",
    "To cry is human, the book says.",
    "I love pastries with cinnamon.",
    "(see the note below)",
    "Wowbagger is a character in a book.",
    "The angry dwarf sells maps.",
    "",
]


def persona(**expressions: Expression) -> Persona:
    values = {"id": "p", "name": "P", "summary": "s", "greetings": ("g",), "expressions": expressions or ALL_FACES}
    return Persona.model_validate(values)


def shown(text: str, who: Persona | None = None) -> str | None:
    found = expression_for(text, who or persona())
    return found[0] if found is not None else None


def test_most_of_what_is_felt_is_seen_and_rarely_what_is_not() -> None:
    seen = [(shown(text), allowed) for text, allowed in LABELLED]
    num_right = sum(name in allowed for name, allowed in seen)
    num_wrong = sum(name is not None and name not in allowed for name, allowed in seen)
    num_imagined = sum(shown(text) is not None for text in NEUTRAL)
    assert num_right >= 0.85 * len(LABELLED)
    assert num_wrong + num_imagined <= 0.05 * (len(LABELLED) + len(NEUTRAL))


def test_there_are_as_many_emotions_as_go_emotions_has() -> None:
    assert len(EMOTIONS) == len(set(EMOTIONS)) == 28


def test_the_personas_own_cues_come_first() -> None:
    who = persona(**ALL_FACES | {"smug": Expression(cues=("told you", "🍎"))})
    assert shown("Told you! 😂😂", who) == "smug"
    assert shown("an apple🍎and 😂", who) == "smug"
    assert shown("I retold your tale 😂", who) == "amusement"


def test_a_cue_may_be_an_emoji_in_any_variant_or_a_word_of_any_script() -> None:
    who = persona(wave=Expression(cues=("👋🏽",)), purr=Expression(cues=("喵",)), old=Expression(cues=("\ufe0f",)))
    assert shown("hi 👋", who) == "wave"
    assert shown("hi👋🏿!", who) == "wave"
    assert shown("刚睡醒喵。", who) == "purr"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("😢😂😂", "amusement"),
        ("😂 and then 😢", "sadness"),
        ("*laughs* 😢", "sadness"),
        ("haha *sighs*", "disappointment"),
        ("❤", "love"),
        ("👍🏾", "approval"),
        ("🤷‍♀️", "confusion"),
        ("😮‍💨", "relief"),
        ("😮", "surprise"),
    ],
)
def test_which_sign_counts(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_the_nearest_face_will_do_and_none_is_none() -> None:
    who = persona(Happy=Expression(reaction="😄"), sadness=Expression())
    assert shown("haha", who) == "Happy"
    assert shown("😭", who) == "sadness"
    assert shown("😡", who) is None
    assert expression_for("😂", persona().model_copy(update={"expressions": {}})) is None


def test_with_its_name_comes_the_expression() -> None:
    face = Expression(reaction="😄", cues=("shiny",))
    assert expression_for("Shiny!", persona(joy=face)) == ("joy", face)


def test_a_long_text_takes_no_time() -> None:
    for text in ("a" * 20_000, "*" * 20_000, "*laughs " * 3_000, "ha" * 10_000 + "x", "（" * 20_000):
        expression_for(text, persona())
