"""Who speaks in a room with several personas: who answers a person, and who answers another persona. Pure.

Owns the choice and its bounds. What wakes a single persona is in `bot.access`. Knows neither the
store nor the engine: the caller says which persona a message replies to, and draws the numbers for chance.

A persona is known by what is in the text, and by the message that is replied to; never by a display name, which can be
anyone's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from bot.access import (
    effective_triggers,
    is_called,
    is_listening_in,
    is_quiet,
    is_said_to_nobody,
    joins_in,
    names_on,
)
from bot.rooms import RoomSettings
from bot.types import ChatKind, IncomingMessage
from bot.words import UNSPACED, find_word, fold, has_any, spaced_words
from engine.persona import Persona, Triggers

MAX_ANSWERS = 3

# How much of its talkativeness is left to a persona for words that mean nothing to it, for one that does, for several.
RELEVANCE = (0.1, 0.5, 1.0)
# Whoever has had its say leaves the word to others.
SHARE_PER_TURN_SPOKEN = 0.5

# Words that say nothing about what a text is about, in the languages that personas ship in and those around them.
_STOP_WORDS = """
about after again all also always and any are because been before but can could did does doing every everything for
from get had has have her here him his how into its just know let like make many more most much must never not now
off one only our out over own say she should some such than that the their them then there these they thing things
this those through too under until very was way well were what when where which while who whoever whom why will with
without would you your
aber als auch auf aus bei bin bis das dass dem den der des die dir doch ein eine einem einen einer eines er es für
hat ich ihr immer ist kein man mehr mein mich mir mit nach nicht noch nur oder sein sich sie sind über und uns vom
von vor war was weil wenn wer wie wir zum zur
aos até com como dos ela ele eles essa esse está isso mais mas mesmo meu muito não nas nos num numa para pela pelo
por quando que quem sem seu sua também tem uma você
avec ces cette dans des elle est ils les leur lui mais nous par pas plus pour que qui sans ses son sont sur une vous
como con cual cuando del desde donde ella ellos era esta este esto fue hasta las los más muy para pero porque qué
quien sin sobre son todo una uno unos
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


def who_answers(
    message: IncomingMessage,
    cast: Sequence[Persona],
    *,
    main: Persona | None,
    replied_to: Persona | None,
    settings: RoomSettings,
    now: datetime | None = None,
    roll: Callable[[], float] | None = None,
    last: Persona | None = None,
    max_answers: int = MAX_ANSWERS,
) -> tuple[Persona, ...]:
    """The personas that answer `message`, in the order in which they do; none where it is not meant for any.

    `main` is the persona that was chosen for the room; it need not be in `cast`. `replied_to` is the persona whose
    message this one replies to, and `last` the one that spoke last. `now` is the time on the bot's clock, with its
    zone; without it there are no quiet hours. `roll` draws a number from 0 up to 1; without it nothing is left to
    chance. Bots are never answered, so that two of them cannot talk for ever.
    """
    present = _distinct((*([main] if main else []), *cast))
    if message.author.is_bot or max_answers < 1:
        return ()
    named = _named_in(_without_people(message), present, message.room.platform)
    if message.is_summons:  # what it replies to is the question, whoever wrote that
        return (named or _those((main,)))[:max_answers]
    if message.kind is ChatKind.DIRECT:
        spoke_last = next((persona for persona in present if last is not None and persona.id == last.id), None)
        return (_distinct(_those((replied_to, *named))) or _those((spoke_last or main,)))[:max_answers]
    answering = _in_group(message, present, named, main, replied_to, settings=settings, now=now, roll=roll)
    return _distinct(answering)[:max_answers]


def _in_group(
    message: IncomingMessage,
    present: Sequence[Persona],
    named: Sequence[Persona],
    main: Persona | None,
    replied_to: Persona | None,
    *,
    settings: RoomSettings,
    now: datetime | None,
    roll: Callable[[], float] | None,
) -> Iterator[Persona]:
    """Those who are addressed, then those whom words or patterns call; chance is for what is said to nobody."""
    triggers = {persona.id: effective_triggers(persona, settings) for persona in _those((replied_to, *present))}
    triggers = {found: of for found, of in triggers.items() if is_listening_in(message, of)}
    awake = {found: of for found, of in triggers.items() if not is_quiet(of, now)}
    addressed = _addressed(message, named, main, replied_to, triggers=triggers, awake=awake)
    called = (persona for persona in present if persona.id in awake and is_called(message.text, awake[persona.id]))
    answering = (*addressed, *called)
    yield from answering
    if not answering and not named and is_said_to_nobody(message):
        yield from (persona for persona in present if persona.id in awake and joins_in(awake[persona.id], roll))


def _addressed(
    message: IncomingMessage,
    named: Sequence[Persona],
    main: Persona | None,
    replied_to: Persona | None,
    *,
    triggers: dict[str, Triggers],
    awake: dict[str, Triggers],
) -> Iterator[Persona]:
    """The persona that is replied to, and those that are named; where there are none, a mention is for `main`."""
    mentioned = {found for found, of in triggers.items() if of.mention and message.mentions_bot}
    replied = {
        found for found, of in triggers.items() if of.reply and message.reply_to and message.reply_to.is_from_bot
    }
    called = {found for found, of in awake.items() if of.name}
    if replied_to is not None and replied_to.id in replied | mentioned:
        yield replied_to
    # Who mentions the bot together with a name means that persona: a mention wakes it.
    yield from (persona for persona in named if persona.id in called | mentioned)
    if replied_to is None and not named and main is not None and main.id in replied | mentioned:
        yield main


def who_speaks_next(
    text: str,
    speaker: Persona,
    cast: Sequence[Persona],
    *,
    depth: int,
    max_depth: int,
    already: Sequence[str],
    settings: RoomSettings,
    roll: Callable[[], float],
    message: IncomingMessage | None = None,
    now: datetime | None = None,
) -> Persona | None:
    """The persona of `cast` that answers what `speaker`, another one, said; `None` where the word goes back to people.

    `depth` counts the replies that personas have given to each other since a person wrote, and `max_depth` bounds it.
    `already` has the id of everyone who spoke since then, once for each time. `message` is what that person wrote.
    """
    if depth >= max_depth or not any(sign.isalnum() for sign in text):
        return None
    others = [
        persona
        for persona in _distinct(cast)
        if persona.id != speaker.id and _hears(persona, settings, message=message, now=now)
    ]
    platform = message.room.platform if message is not None else ""
    for persona in _named_in(text, (speaker, *others), platform):
        if persona.id != speaker.id and effective_triggers(persona, settings).name:
            return persona
    wishes = {persona.id: _wish_to_speak(text, persona, already.count(persona.id)) for persona in others}
    for persona in sorted(others, key=lambda other: -wishes[other.id]):
        if roll() < wishes[persona.id]:
            return persona
    return None


def _hears(persona: Persona, settings: RoomSettings, *, message: IncomingMessage | None, now: datetime | None) -> bool:
    """Whether `persona` takes part in talk where `message` was written; in a direct chat everybody there does."""
    if message is not None and message.kind is ChatKind.DIRECT:
        return True
    triggers = effective_triggers(persona, settings)
    return not is_quiet(triggers, now) and (message is None or is_listening_in(message, triggers))


def _wish_to_speak(text: str, persona: Persona, num_turns_spoken: int) -> float:
    """How probably `persona` answers what was not said to it, from 0 to 1."""
    relevance = RELEVANCE[min(num_shared_words(text, persona), len(RELEVANCE) - 1)]
    return float(persona.talkativeness * relevance * SHARE_PER_TURN_SPOKEN**num_turns_spoken)


def num_shared_words(text: str, persona: Persona) -> int:
    """How many of the words that `persona` is about occur in `text`: of its summary, traits, lore keys and triggers."""
    folded = fold(text)
    said = set(_telling_words(folded))
    about = {word for line in (persona.summary, *persona.traits) for word in _telling_words(fold(line))}
    # What an author chose as a key may be several words, or of a script without spaces.
    keys = {fold(key) for entry in persona.lore for key in entry.keys} | set(map(fold, persona.triggers.words))
    phrases = {key for key in keys if not key.isalnum() or UNSPACED.search(key)}
    return len(said & (about | keys - phrases)) + sum(has_any(folded, (phrase,)) for phrase in phrases - about)


def _telling_words(folded: str) -> list[str]:
    return [word for word in spaced_words(folded) if len(word) > 2 and word not in STOP_WORDS]


def _named_in(text: str, personas: Sequence[Persona], platform: str) -> tuple[Persona, ...]:
    """Those of `personas` that are named in `text`, in that order.

    Where a longer name holds a shorter one, as “Anna Lee” holds “Anna”, only the longer was said; of namesakes it is
    the first.
    """
    folded = fold(text)
    found = [
        (start, end, persona)
        for persona in personas
        for name in names_on(persona, platform)
        for start, end in find_word(folded, name)
    ]
    found.sort(key=lambda place: place[0] - place[1])  # the longest first; otherwise as they came
    kept: list[tuple[int, int, Persona]] = []
    for start, end, persona in found:
        if not any(start < taken_end and taken_start < end for taken_start, taken_end, _ in kept):
            kept.append((start, end, persona))
    return _distinct(persona for _, _, persona in sorted(kept, key=lambda place: place[0]))


def _without_people(message: IncomingMessage) -> str:
    """What was said, without the mentions of people, who may be called like a persona."""
    text = message.text
    for name in sorted(message.mentioned_names, key=len, reverse=True):
        text = text.replace(f"@{name}", " ")
    return text


def _those(personas: Iterable[Persona | None]) -> tuple[Persona, ...]:
    return tuple(persona for persona in personas if persona is not None)


def _distinct(personas: Iterable[Persona]) -> tuple[Persona, ...]:
    found: dict[str, Persona] = {}
    for persona in personas:
        found.setdefault(persona.id, persona)
    return tuple(found.values())
