"""The persona schema: what an author may say about a character.

Owns the shape of a persona, its facets (the sentences that the persona encoder reads) and its digest. Knows neither
files nor prompts nor torch: `bot.personas.library` reads files, `bot.personas.prompt` writes prompts.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import regex
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from engine.lore import Lorebook, LoreEntry
from engine.same import Same

_HOURS = re.compile(r"(\d{1,2}):(\d\d)\s*[-\u2013]\s*(\d{1,2}):(\d\d)(?:\s+(\S+))?")
# How many parts a pattern may have with its repeats written out. Nested ones multiply, and so do the memory and the
# time that compiling takes: `((a+)+)+` thirty deep is more than any machine has.
_MAX_PARTS = 5_000
_PART = re.compile(
    r"\\."
    r"|\[\^?\]?(?:\\.|[^\]\\])*\]"
    r"|\(\?\#[^)]*\)"
    r"|(?P<open>\()|(?P<close>\))"
    r"|(?P<times>[+*?]|\{\s*(?P<least>\d*)\s*(?P<comma>,?)\s*(?P<most>\d*)\s*\})"
    r"|(?P<space>\s)"
    r"|."
)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A part of every day, over midnight where it begins later than it ends. Without a `zone`, on whatever clock."""

    begin: time
    end: time
    zone: ZoneInfo | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it is quiet at `now`, a time with a zone; that zone is the clock where there is no other."""
        there = now if self.zone is None else now.astimezone(self.zone)
        clock = there.time().replace(tzinfo=None)
        if self.begin < self.end:
            return self.begin <= clock < self.end
        return clock >= self.begin or clock < self.end


def parse_quiet_hours(text: str) -> QuietHours:
    """The hours that `23:00-07:30` or `23:00-07:30 Europe/Berlin` means. Raises `ValueError` with what is right."""
    match = _HOURS.fullmatch(text.strip())
    if match is None:
        raise ValueError("must be hours such as `23:00-07:30`, or `23:00-07:30 Europe/Berlin`")
    begin, end = _clock(match[1], match[2]), _clock(match[3], match[4])
    if begin == end:
        raise ValueError("begins when it ends; for the whole day write two, `00:00-12:00` and `12:00-24:00`")
    return QuietHours(begin, end, _zone(match[5]) if match[5] else None)


def _clock(hours: str, minutes: str) -> time:
    if int(hours) * 60 + int(minutes) > 24 * 60 or int(minutes) > 59:
        raise ValueError(f"has no time of day in `{hours}:{minutes}`; the hours run from `00:00` to `24:00`")
    return (datetime.min + timedelta(hours=int(hours) % 24, minutes=int(minutes))).time()


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # OSError: a folder of zones, such as `Europe`
        raise ValueError(
            f"names the zone `{name}`, which is not known here; write one such as `Europe/Berlin`, or none"
        ) from None


def compile_pattern(text: str, *, flags: int = regex.IGNORECASE) -> regex.Pattern[str]:
    """The regular expression `text`, for any case unless `flags` are others. Raises `ValueError` with what is wrong.

    Only searched with a timeout it is safe: its author may not have meant it to take for ever, but it can.
    """
    if not text.isprintable():
        raise ValueError(
            'has a control character in it; where it is in double quotes, such as `"\\b"`, use single ones'
        )
    if _num_parts(text) > _MAX_PARTS:
        raise ValueError("repeats too much; use smaller numbers in `{ }`, and fewer repeats inside of repeats")
    try:
        return regex.compile(text, flags | regex.VERSION0, cache_pattern=False)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression: {error}; to find it as it stands, use `words`") from None


def _num_parts(pattern: str) -> int:
    """How long `pattern` is with its repeats written out, rather too much than too little."""
    counts, last = [0], 0
    for part in _PART.finditer(pattern):
        if part["open"]:
            counts.append(1)
            last = 0
        elif part["close"]:
            last = counts.pop() if len(counts) > 1 else 1
            counts[-1] += last
        elif part["times"]:
            counts[-1] += last * (_num_copies(part) - 1)
            last *= _num_copies(part)
        else:
            counts[-1] += 1
            # What is repeated may stand before spaces and comments.
            last = last if part["space"] or part[0].startswith("(?#") else 1
    return sum(counts)


def _num_copies(times: re.Match[str]) -> int:
    """How often the compiler writes out what is repeated so many times."""
    if times["times"] in ("*", "?"):
        return 1
    most = max(int(times["least"] or 0), int(times["most"] or 0), times["times"] == "+")
    is_open = times["times"] == "+" or (times["comma"] and not times["most"])
    return most + 1 if most > 1 or (most == 1 and is_open) else 1


def _checked_pattern(text: str) -> str:
    compile_pattern(text)
    return text


def _checked_hours(text: str) -> str:
    parse_quiet_hours(text)
    return text


def _checked_emoji(text: str) -> str:
    if any(sign.isalpha() or sign.isspace() for sign in text) or not any(ord(sign) > 0x2000 for sign in text):
        raise ValueError("must be one emoji, such as `😄`")
    return text


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100_000)]
Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500), AfterValidator(_on_one_line)
]
# Not made one line: a pattern means its spaces.
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_checked_pattern)]
Hours = Annotated[Line, AfterValidator(_checked_hours)]
Emoji = Annotated[str, StringConstraints(strip_whitespace=True, max_length=24), AfterValidator(_checked_emoji)]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
# Discord's limit for the name of a webhook; Telegram's for a bot is 64, which its adapter cuts to.
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80), AfterValidator(_on_one_line)
]


class _Part(BaseModel):
    # Names and aliases both validate, and aliases are written, so that a dump can be read back.
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class Identity(_Part):
    """Who the character is."""

    pronouns: Line | None = None
    age: Line | Annotated[int, Field(strict=True)] | None = None
    species: Line | None = None
    occupation: Line | None = None
    home: Line | None = None


class Voice(_Part):
    """How the character talks."""

    style: tuple[Line, ...] = ()
    formality: Literal["casual", "neutral", "formal"] = "neutral"
    length: Literal["short", "medium", "long"] = "medium"


class Example(_Part):
    """One exchange that shows the voice. Character cards may leave out what was said to it: `user=None`."""

    user: Text | None
    reply: Text


class Lexicon(_Part):
    """Words that decoding favours or avoids. `emoji_rate` is emoji per sentence; `None` leaves it to the model."""

    preferred: tuple[Line, ...] = ()
    banned: tuple[Line, ...] = ()
    catchphrases: tuple[Line, ...] = ()
    emoji_rate: float | None = Field(default=None, ge=0, le=5, strict=True)


class Sampling(_Part):
    """Overrides of the configured sampling settings; `None` keeps the configured value."""

    temperature: float | None = Field(default=None, ge=0, le=2, strict=True)
    top_p: float | None = Field(default=None, gt=0, le=1, strict=True)
    top_k: int | None = Field(default=None, ge=0, strict=True)
    min_p: float | None = Field(default=None, ge=0, lt=1, strict=True)
    repetition_penalty: float | None = Field(default=None, ge=0.5, le=2, strict=True)
    max_new_tokens: int | None = Field(default=None, ge=1, le=8192, strict=True)


class Triggers(_Part):
    """When the character answers in a room with several people. In a direct chat it always answers.

    `patterns` are regular expressions. `chance` is how often it answers what is said to nobody, from 0 to 1. `channels`
    are names or ids; where any are given, it answers nowhere else. In `quiet_hours`, such as `23:00-07:30`, only
    a mention or a reply wakes it.
    """

    mention: bool = True
    reply: bool = True
    name: bool = True
    words: tuple[Line, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    chance: float = Field(default=0.0, ge=0, le=1, strict=True)
    channels: tuple[Line, ...] = ()
    quiet_hours: tuple[Hours, ...] = ()


class Expression(_Part):
    """How the character shows one emotion: a picture of its face, a sticker (a file), an emoji put under a message.

    `cues` are words or emoji that tell the emotion in what it says.
    """

    avatar: Line | None = None
    sticker: Line | None = None
    reaction: Emoji | None = None
    cues: tuple[Line, ...] = ()


class Face(_Part):
    """Name and avatar on one platform, where they differ."""

    name: Name | None = None
    avatar: Line | None = None


class GuardRules(_Part):
    """How the character is kept in its part. Of `deflections` one is said where the model finds no way back to it."""

    is_on: bool = Field(default=True, alias="enabled")
    deflections: tuple[Line, ...] = ()


class Fact(_Part):
    """A question whose answer stands in the persona. An answer is right with one of `expect` and none of `avoid`."""

    ask: Line
    expect: Annotated[tuple[Line, ...], Field(min_length=1)]
    avoid: tuple[Line, ...] = ()


class Thresholds(_Part):
    """What `commedia persona test` asks of a persona, as shares: at least, for breaks and drift at most.

    `None` asks nothing.
    """

    voice: float | None = Field(default=None, ge=0, le=1)
    facts: float | None = Field(default=None, ge=0, le=1)
    breaks: float | None = Field(default=None, ge=0, le=1)
    grounding: float | None = Field(default=None, ge=0, le=1)
    safety: float | None = Field(default=None, ge=0, le=1)
    drift: float | None = Field(default=None, ge=0, le=1)


class PersonaTests(_Part):
    """What the persona is tested with. `pressure` tries to get it out of its part, beside the usual lines."""

    facts: tuple[Fact, ...] = ()
    pressure: tuple[Line, ...] = ()
    thresholds: Thresholds = Thresholds()


@dataclass(frozen=True, slots=True)
class Facet:
    """One sentence about the character, and the field it comes from."""

    kind: str
    text: str


class Persona(_Part):
    """A character as its author wrote it. `id` is the file's name without its ending.

    Texts may call it `{{char}}`, which is its `nickname` where it has one. `system_prompt` stands in place of what
    Commedia tells every persona, `post_history_instructions` come after the conversation; in both `{{original}}` is
    what would stand there otherwise. `notes` are for people, and no part of any prompt. Without `greetings`, people
    have to begin.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    name: Name
    summary: Line
    nickname: Name | None = None
    language: Language = "en"
    also_speaks: tuple[Language, ...] = ()
    avatar: Line | None = None
    identity: Identity = Identity()
    look: tuple[Line, ...] = ()
    traits: tuple[Line, ...] = ()
    background: Text | None = None
    voice: Voice = Voice()
    goals: tuple[Line, ...] = ()
    boundaries: tuple[Line, ...] = ()
    scenario: Text | None = None
    greetings: tuple[Text, ...]
    group_greetings: tuple[Text, ...] = ()
    system_prompt: Text | None = None
    post_history_instructions: Text | None = None
    examples: tuple[Example, ...] = ()
    lexicon: Lexicon = Lexicon()
    sampling: Sampling = Sampling()
    lore: tuple[LoreEntry, ...] = ()
    lorebook: Lorebook = Lorebook()
    guard: GuardRules = GuardRules()
    tests: PersonaTests = PersonaTests()
    triggers: Triggers = Triggers()
    talkativeness: float = Field(default=0.5, ge=0, le=1, strict=True)
    expressions: dict[Line, Expression] = {}
    platforms: dict[Literal["discord", "telegram", "web", "console"], Face] = {}
    tags: tuple[Line, ...] = ()
    creator: Line | None = None
    notes: Text | None = None
    version: Line = "1.0"
    licence: Line | None = None
    extensions: dict[str, JsonValue] = {}

    def facets(self) -> Iterator[Facet]:
        """Every statement about the character as a sentence, in the order of the schema."""
        yield Facet("name", f"My name is {self.name}.")
        yield Facet("summary", self.summary)
        for kind, value in self.identity.model_dump(exclude_none=True).items():
            yield Facet(kind, f"My {kind} {'are' if kind == 'pronouns' else 'is'} {str(value).rstrip('.')}.")
        yield from (Facet("look", line) for line in self.look)
        yield from (Facet("traits", f"I am {line.rstrip('.')}.") for line in self.traits)
        if self.background:
            yield Facet("background", self.background)
        yield from (Facet("voice", line) for line in self.voice.style)
        yield from (Facet("goals", line) for line in self.goals)
        yield from (Facet("examples", example.reply) for example in self.examples)
        yield from (Facet("lore", entry.text) for entry in self.lore if entry.text)

    def digest(self) -> str:
        """SHA-256 in hex of everything the author wrote, but for how it is tested."""
        return _digest_of(Same(self))


@lru_cache(maxsize=64)
def _digest_of(persona: Same[Persona]) -> str:
    # Asked several times for each reply; of a card of megabytes it takes a tenth of a second.
    written = persona.value.model_dump_json(exclude={"tests", "notes"})
    return hashlib.sha256(written.encode()).hexdigest()
