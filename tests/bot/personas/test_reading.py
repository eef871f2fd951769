from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.personas.document import UnreadableDocument, parse_document
from bot.personas.reading import MAX_PROBLEMS, InvalidPersona, read_persona
from tests.bot.personas.conftest import MIRA, WritePersona


def problems_of(path: Path) -> list[tuple[int | None, int | None, str]]:
    with pytest.raises(InvalidPersona) as caught:
        read_persona(path)
    return [(problem.line, problem.column, problem.message) for problem in caught.value.problems]


def only_problem_of(path: Path) -> str:
    with pytest.raises(InvalidPersona) as caught:
        read_persona(path)
    assert len(caught.value.problems) == 1
    return str(caught.value).removeprefix(f"{path}:")


def test_a_minimal_persona(write: WritePersona) -> None:
    persona = read_persona(write("mira.yaml"))
    assert (persona.id, persona.name, persona.greetings) == ("mira", "Mira", ("Ahoy!",))


def test_all_problems_at_once_in_the_order_of_the_file(write: WritePersona) -> None:
    path = write(
        "bad.yaml",
        base="""\
name: Mira
greeting: hi
traits: curious
voice:
  formality: cosual
examples:
  - user: hi
avatar: missing.png
sampling: {temperature: 9, top_k: "5"}
name: Nora
""",
    )
    assert problems_of(path) == [
        (1, 1, "`summary` is missing; add for example `summary: Keeper of a lighthouse who collects storms.`"),
        (1, 1, '`greetings` is missing; add for example `greetings: ["Ahoy! What brings you up all those stairs?"]`'),
        (2, 1, "`greeting` is not a known key; did you mean `greetings`?"),
        (3, 9, "`traits` must be a list: each item on a line of its own, after `- `"),
        (5, 14, "`voice.formality` must be one of `casual`, `neutral`, `formal`; did you mean `casual`?"),
        (7, 5, "`examples.1.reply` is missing; add for example `reply: Windswept, thank you!`"),
        (8, 9, "avatar file not found: there is no `missing.png` in the persona's folder"),
        (9, 25, "`sampling.temperature` must be at most 2"),
        (9, 35, "`sampling.top_k` must be a whole number such as `50`, without quotes"),
        (10, 1, "`name` is already in line 1; keep one of them"),
    ]


def test_a_problem_reads_as_file_line_column(write: WritePersona) -> None:
    path = write(more="colour: red\n")
    with pytest.raises(InvalidPersona) as caught:
        read_persona(path)
    assert str(caught.value).startswith(f"{path}:5:1: `colour` is not a known key; the keys are `name`, ")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("identity: {specis: cat}", "5:12: `specis` is not a known key in `identity`; did you mean `species`?"),
        ("first_mes: Hello", "5:1: `first_mes` is not a known key; did you mean `greetings`?"),
        ("pronouns: she/her", "5:1: `pronouns` belongs under `identity`"),
        ("platforms: {discrod: {}}", "5:13: `discrod` is not a known key in `platforms`; did you mean `discord`?"),
        ("traits:", "5:1: `traits` is empty; give it a value or remove it"),
        ('scenario: "  "', "5:11: `scenario` is empty; give it a value or remove it"),
        ("language: English", "5:11: `language` must be a language code such as `en`, `de` or `zh-Hans`"),
        ("scenario: [a]", "5:11: `scenario` must be a text, not a list"),
        ("identity: {age: {a: b}}", "5:17: `identity.age` must be a text, not `key: value` lines"),
        ("voice: loud", "5:8: `voice` must consist of `key: value` lines; the keys are `style`, `formality`, `length`"),
        ("triggers: {mention: maybe}", "5:21: `triggers.mention` must be `true` or `false`"),
        ("sampling: {min_p: true}", "5:19: `sampling.min_p` must be a number such as `0.8`, without quotes"),
        ("lexicon: {emoji_rate: .nan}", "5:23: `lexicon.emoji_rate` must be at most 5"),
        ("sampling: {top_p: 0}", "5:19: `sampling.top_p` must be more than 0"),
        ("lore: [{content: x}]", "5:8: `lore.1` would never be told: give it `keys`, or `constant: true`"),
        ("creator: " + "x" * 501, "5:10: `creator` is longer than 500 characters; shorten it"),
        ("id: other", "5:1: the id is the file's name, `mira`: remove this line or rename the file"),
        ("scenario: !!python/name:os.system x", "5:11: the tag `!!python/name:os.system` is not supported; remove it"),
        ("<<: {creator: x}", "5:1: merging with `<<` is not supported; write the lines out"),
        ("? [a]\n: b", "5:3: a key must be a plain word; if this is a text, put it in quotes"),
        ("extensions: {a: &a [*a]}", "5:17: `*` refers to something that contains itself, at line 5; write it out"),
    ],
)
def test_schema_problems_in_plain_words(write: WritePersona, lines: str, expected: str) -> None:
    assert only_problem_of(write(more=lines + "\n")) == expected


def test_an_empty_list_of_greetings_lets_others_begin(write: WritePersona) -> None:
    assert read_persona(write(base="name: A\nsummary: b\ngreetings: []\n")).greetings == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", " the file is empty; `commedia persona new NAME` writes one to start from"),
        ("- a", "1:1: the file must consist of `key: value` lines"),
        ("a: b: c", '1:5: a text with ": " in it must be in quotes; if this is a key, mend its indentation'),
        ("a:\n\tb: c", "2:1: a tab is used for indentation; use spaces"),
        ("a:\n  - *waves* hi", "2:5: a text that begins with `*` or `&` must be in quotes"),
        ("a: @me", "1:4: a text that begins with '@' must be in quotes"),
        ("a:\n  - {{user}} is here", "2:14: a text that begins with `{{` must be in quotes"),
        ('a: "open', "1:4: this quote is never closed"),
        ('a: "\\q"', "1:6: a backslash has a meaning inside double quotes; use single quotes around the text"),
        ("a: [1, 2\nb: 3", "1:4: a comma or the closing `]` is missing for what begins here"),
        ("a:\n  - b\n c: d", "3:2: this does not fit the lines above; mend the indentation, or the quotes of the text"),
        ("a: 1\n---\nb: 2", "2:1: `---` begins a second document; keep one persona a file"),
        ("ok: é\na: \x07", "2:4: a control character (U+0007) is in the text; remove it"),
        ("[" * 5000, " lists and mappings are nested too deeply"),
        ("a: " + "[" * 40 + "]" * 40, "1:36: lists and mappings are nested deeper than 32 levels"),
    ],
)
def test_syntax_errors_in_plain_words(write: WritePersona, text: str, expected: str) -> None:
    assert only_problem_of(write(base=text)) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a: b\nc: \xff\n", "2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: b".encode("utf-16"), " the file is saved as UTF-16; save it as UTF-8"),
        (b"#" * (512 * 1024 + 1), " the file is larger than 512 KiB; a persona is a short text, split it"),
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "mira.yaml"
    path.write_bytes(data)
    assert only_problem_of(path) == expected


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "mira.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MIRA.encode())
    assert read_persona(path).name == "Mira"


def test_aliases_may_not_unfold_without_end(write: WritePersona) -> None:
    lines = ["extensions:", "  a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"  a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(12)]
    assert "aliases (`*name`) unfold to far more text than the file holds" in only_problem_of(
        write(more="\n".join(lines))
    )


def test_small_aliases_work(write: WritePersona) -> None:
    persona = read_persona(write(more="traits: &t [kind, shy]\nlook: *t\n"))
    assert persona.look == ("kind", "shy")


def test_a_text_keeps_the_authors_spelling(write: WritePersona) -> None:
    more = """\
version: 1.0
language: no
tags: [yes, 12:30, 2024-01-01, 0x10, ~x]
identity: {age: 007, home: 12}
extensions: {level: 3, since: 2024-01-01, ok: yes}
"""
    persona = read_persona(write(more=more))
    assert (persona.version, persona.language) == ("1.0", "no")
    assert persona.tags == ("yes", "12:30", "2024-01-01", "0x10", "~x")
    assert persona.identity.age == 7
    assert persona.identity.home == "12"
    assert persona.extensions == {"level": 3, "since": "2024-01-01", "ok": True}


def test_a_text_or_number_that_yaml_takes_for_a_truth_value(write: WritePersona) -> None:
    assert read_persona(write(more="identity: {age: yes}\n")).identity.age == "yes"


def test_a_number_too_long_for_python(write: WritePersona) -> None:
    assert only_problem_of(write(more=f"sampling: {{top_k: {'9' * 5000}}}\n")).endswith("without quotes")


@pytest.mark.parametrize("name", ["Mira.yaml", "mi ra.yaml", "-mira.yaml", "米.yaml", f"{'m' * 65}.yaml"])
def test_the_files_name_is_the_id(write: WritePersona, name: str) -> None:
    assert only_problem_of(write(name)).startswith(" the file's name becomes the persona's id: rename ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert only_problem_of(tmp_path / "mira.yaml") == " the file cannot be read: No such file or directory"


def test_an_avatar_beside_the_file(write: WritePersona, tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "mira.png").write_bytes(b"png")
    assert read_persona(write(more="avatar: faces/mira.png\n")).avatar == "faces/mira.png"


@pytest.mark.parametrize(
    ("avatar", "expected"),
    [
        ("../mira.png", "lies outside the persona's folder"),
        ("/etc/passwd", "lies outside the persona's folder"),
        ("link.png", "lies outside the persona's folder"),
        ("loop.png", "cannot be read"),
        ("https://example.org/mira.png", "not a web address"),
        ('"a\\0b.png"', "control characters"),
        ("mira.yaml", "an avatar must be one of .png, "),
        (".", "avatar file not found"),
        ("x" * 300 + ".png", "cannot be read"),
    ],
)
def test_avatars_that_are_refused(write: WritePersona, tmp_path: Path, avatar: str, expected: str) -> None:
    folder = tmp_path / "personas"
    path = write("personas/mira.yaml", f"avatar: {avatar}\n")
    (tmp_path / "mira.png").write_bytes(b"png")
    (folder / "link.png").symlink_to(tmp_path / "mira.png")
    (folder / "loop.png").symlink_to("loop.png")
    assert expected in only_problem_of(path)


def test_an_avatar_of_one_platform_is_checked_too(write: WritePersona) -> None:
    problem = only_problem_of(write(more="platforms:\n  discord: {avatar: x.png}\n"))
    assert problem.startswith("6:21: avatar file not found")


def test_mistakes_in_triggers(write: WritePersona) -> None:
    path = write(
        more="""\
triggers:
  patterns: ["(", 'ships?\\b', "\\bship", "a{1000}{1000}"]
  chance: 2
  quiet_hours: [23-7, "25:00-01:00", "22:00-07:00 Mars/Base", 23:00-07:30, "12:00-12:00"]
  chanels: [harbour]
"""
    )
    hours = "`triggers.quiet_hours.{}` {}"
    assert problems_of(path) == [
        (
            *(6, 14),
            "`triggers.patterns.1` is no regular expression: missing ) at position 1; to find it as it stands, use "
            "`words`",
        ),
        (
            *(6, 31),
            '`triggers.patterns.3` has a control character in it; where it is in double quotes, such as `"\\b"`, use '
            "single ones",
        ),
        (
            6,
            41,
            "`triggers.patterns.4` repeats too much; use smaller numbers in `{ }`, and fewer repeats inside of repeats",
        ),
        (7, 11, "`triggers.chance` must be at most 1"),
        (8, 17, hours.format(1, "must be hours such as `23:00-07:30`, or `23:00-07:30 Europe/Berlin`")),
        (8, 23, hours.format(2, "has no time of day in `25:00`; the hours run from `00:00` to `24:00`")),
        (
            *(8, 38),
            hours.format(
                3, "names the zone `Mars/Base`, which is not known here; write one such as `Europe/Berlin`, or none"
            ),
        ),
        (
            *(8, 76),
            hours.format(5, "begins when it ends; for the whole day write two, `00:00-12:00` and `12:00-24:00`"),
        ),
        (9, 3, "`chanels` is not a known key in `triggers`; did you mean `channels`?"),
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("expressions: [joy]", "5:14: `expressions` must consist of `key: value` lines; the keys are `admiration`, "),
        (
            "expressions: {joy: {avtar: x}}",
            "5:21: `avtar` is not a known key in `expressions.joy`; did you mean `avatar`?",
        ),
        ("expressions: {joy: {reaction: laugh}}", "5:31: `expressions.joy.reaction` must be one emoji, such as `😄`"),
        ("expressions: {joy: {cues: haha}}", "5:27: `expressions.joy.cues` must be a list: "),
        ("expressions: {joy: {avatar: x.png}}", "5:29: avatar file not found: there is no `x.png` "),
        ("expressions: {joy: {sticker: x.png}}", "5:30: sticker file not found: there is no `x.png` "),
        ("expressions: {joy: {sticker: mira.yaml}}", "5:30: a sticker must be one of .png, .webp, .gif"),
        ("expressions: {joy: {sticker: ../x.png}}", "5:30: the sticker `../x.png` lies outside the persona's folder; "),
        ("talkativeness: loud", "5:16: `talkativeness` must be a number such as `0.8`, without quotes"),
    ],
)
def test_mistakes_in_expressions(write: WritePersona, lines: str, expected: str) -> None:
    assert only_problem_of(write(more=f"{lines}\n")).startswith(expected)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_is_in_a_file_is_answered_plainly(data: bytes) -> None:
    # Any other exception than the document's own fails the test.
    with suppress(UnreadableDocument):
        parse_document(data)


yaml_ish = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "user", "x", "style", "discord", "patterns", "quiet_hours", "cues"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)
fields = st.sampled_from(
    [
        *("name", "identity", "voice", "examples", "lexicon", "sampling", "lore", "platforms", "avatar", "zz"),
        *("triggers", "talkativeness", "expressions"),
    ]
)


@given(st.dictionaries(fields, yaml_ish, max_size=4))
def test_whatever_stands_in_a_field_is_answered_plainly(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    import yaml

    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    with pytest.raises(InvalidPersona) as caught:
        read_persona(path)
    for problem in caught.value.problems:
        assert "Input should" not in problem.message
        assert "pydantic" not in problem.message


@pytest.mark.parametrize("number", ["1" + ":59" * 400 + ".5", "9" * 6000, "1e999999", "1" + ":59" * 4000, ".nan"])
def test_monstrous_numbers_are_no_reason_to_fail(write: WritePersona, number: str) -> None:
    assert "far" in read_persona(write("mira.yaml", f"extensions:\n  far: {number}\n")).extensions


def test_a_file_of_another_kind_is_not_described_to_its_end(write: WritePersona) -> None:
    problems = problems_of(write("mira.yaml", "".join(f"key_{number}: 1\n" for number in range(500))))
    assert len(problems) == MAX_PROBLEMS + 1
    assert "mend these first" in problems[-1][2]
