"""A persona and a conversation in, a request to the engine out. Pure: no files, no clock, no chance of its own.

Owns what stands where. The scaffold's words are `bot.personas.wording`'s, what fits is `bot.personas.context`'s choice,
which lore is told `bot.personas.lorebook`'s. Knows no model: the engine renders the chat template.

The system prompt has two parts. The first depends on the persona alone, so that all its conversations share their
beginning in the KV cache; the second has what varies: who is there, and lore. Small models read it too, and CPUs take
long over every token: it is compact, speaks to "you", and puts the strongest facts first. Lore that its author wants
elsewhere stands there, be it in front of everything.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bot.personas.context import ContextReport, Room, take_newest, take_older
from bot.personas.lorebook import LoreMoment, LoreReport, ScannedMessage, tell
from bot.personas.macros import MacroContext, fill
from bot.personas.recall import Recalled
from bot.personas.wording import Phrases, answer_line, phrases_of, stranger_of
from bot.words import UNSPACED
from engine.lore import Position
from engine.persona import Example, Persona
from engine.tokens import EstimatedTokens
from engine.types import Asker, GenerationRequest, Insertion, Role, SamplingSettings, TokenMeasure, Turn

BESIDE: Position = "beside_question"
MAX_LABEL_CHARACTERS = 40
# A short context is a small model's, which more examples only confuse: they are left to the persona encoder. A Chinese
# character costs about as many tokens as three letters.
SHORT_CONTEXT = 4096
MAX_EXAMPLE_CHARACTERS = 250
MAX_EXAMPLES_SHARE = 0.1
MAX_LORE_SHARE = 0.4
MAX_LINES_JOINED = 3

# What chat templates and vision models give a meaning to. Written by a user it is only text, and has to stay so.
_CONTROL_MARKER = re.compile(
    r"[<\[](?=[|｜]|/?s>|/?inst\]|<?/?sys>>|/?(?:start|end)_of_(?:turn|image)>|(?:bos|eos|pad|unk|mask)>"
    r"|/?(?:image|img|video|audio|think|tool_call|fake_token_around_image|global-img)>)",
    re.IGNORECASE,
)
_ROLES = frozenset({"system", "user", "assistant", "developer", "tool", "model", "human"})


@dataclass(frozen=True, slots=True)
class HouseRules:
    """What whoever runs the bot tells every persona, unless the persona has words of its own for that.

    Without a `system_prompt` it is a line that asks to stay in character, and names language and length.
    """

    system_prompt: str = ""
    post_history_instructions: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is around the turns.

    `user_name` is not told in a group, where the caller puts `speaker_label` before each user's text. `num_before`
    messages of the conversation are older than the turns. `conversation` names it, and `seed` the question too: what a
    prompt leaves to chance comes from them. `recalled` is what the question is about, `now` when it is asked.
    """

    user_name: str | None = None
    is_group: bool = False
    speakers: tuple[str, ...] = ()
    num_before: int = 0
    conversation: str = ""
    seed: str = ""
    recalled: tuple[Recalled, ...] = ()
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request, and what it is made of."""

    request: GenerationRequest
    report: ContextReport


NO_LORE = LoreReport()
NO_SCENE = Scene()
NO_HOUSE_RULES = HouseRules()


def build_request(
    persona: Persona,
    turns: Sequence[Turn],
    *,
    sampling: SamplingSettings,
    user_name: str | None = None,
    is_group: bool = False,
    seed: int | None = None,
    asker: Asker | None = None,
    reply_start: str = "",
) -> GenerationRequest:
    """The request for `persona`'s reply to the last of `turns`, where nothing more is known of model and scene."""
    scene = Scene(user_name, is_group)
    return prepare(
        persona, turns, sampling=sampling, scene=scene, seed=seed, asker=asker, reply_start=reply_start
    ).request


def prepare(
    persona: Persona,
    turns: Sequence[Turn],
    *,
    sampling: SamplingSettings,
    scene: Scene = NO_SCENE,
    house: HouseRules = NO_HOUSE_RULES,
    measure: TokenMeasure | None = None,
    seed: int | None = None,
    asker: Asker | None = None,
    reply_start: str = "",
) -> Prepared:
    """The request for `persona`'s reply to the last of `turns`, without what `measure` finds no room for.

    `sampling` is what the configuration says; the persona's own settings go over it, and `seed` over both. `asker` is
    for whom the engine makes it.
    """
    phrases = phrases_of(persona)
    settings = replace(
        sampling,
        **persona.sampling.model_dump(exclude_none=True),
        stop=(*sampling.stop, f"\n{phrases.user}:"),  # small models go on with the user's part
    )
    room = Room(measure or EstimatedTokens(), max_new_tokens=settings.max_new_tokens)
    page = _Page(persona, phrases, scene, house)
    room.take(room.count_turn(Turn(Role.USER, page.text())) + room.count(reply_start))
    room.take(sum(room.count(one.text) for one in page.insertions()))
    num_persona = room.num_taken
    num_newest = take_newest(turns, room)

    lore = tell(persona, _moment(persona, scene, turns), count_tokens=room.count, max_tokens=room.share(MAX_LORE_SHARE))
    room.take(sum(entry.num_tokens for entry in lore.told))
    num_persona += sum(entry.num_tokens for entry in lore.told if entry.ignores_budget)
    told = {entry.text: entry.position for entry in lore.told}
    wanted = (one for one in scene.recalled if told.get(one.text, BESIDE) == BESIDE)
    recalled = tuple(one for one in wanted if one.text in told or room.take_if_fits(room.count(one.text)))
    examples = [_example(example) for example in persona.examples]
    num_examples = _take_examples(examples[:1], room)
    fitted = take_older(turns, num_newest, room)
    num_examples += _take_examples(examples, room, start=num_examples)

    page = replace(page, lore=lore, recalled=recalled, examples=tuple(examples[:num_examples]))
    request = GenerationRequest(
        persona=persona,
        system_prompt=page.text(),
        turns=tuple(replace(turn, text=_without_markers(turn.text)) for turn in fitted.turns),
        sampling=settings if seed is None else replace(settings, seed=seed),
        asker=asker,
        reply_start=reply_start,
        insertions=page.insertions(),
        speakers=tuple(dict.fromkeys([*scene.speakers, *filter(None, [page.spoken_to])])),
    )
    report = ContextReport(
        lore=lore,
        recalled=recalled,
        num_tokens=room.num_taken,
        max_tokens=room.max_tokens,
        num_examples=num_examples,
        num_examples_left_out=len(examples) - num_examples,
        num_turns_left_out=fitted.num_left_out,
        num_pictures_left_out=fitted.num_pictures_left_out,
        has_large_persona=bool(turns) and num_persona > room.count_turn(turns[-1]),
    )
    return Prepared(request, report)


def speaker_label(display_name: str) -> str:
    """`display_name` as one harmless line, for turns in a group: `f"{speaker_label(name)}: {text}"`."""
    normal = unicodedata.normalize("NFKC", display_name)
    # Also the signs that could end a label or begin a marker of some chat template.
    kept = (" " if unicodedata.category(sign)[0] in "CZ" or sign in ":<>[]{}|#`*\\" else sign for sign in normal)
    label = " ".join("".join(kept).split())[:MAX_LABEL_CHARACTERS].strip()
    if not label:
        return "someone"
    return f"({label})" if label.casefold() in _ROLES else label


def fill_macros(
    text: str,
    persona: Persona,
    user_name: str | None = None,
    *,
    conversation: str = "",
    now: datetime | None = None,
) -> str:
    """`text` with its macros replaced. Greetings need it too, and what people are shown of a persona."""
    scene = Scene(seed=conversation, conversation=conversation, now=now)
    return fill(text, _macros(persona, scene, speaker_label(user_name) if user_name else None))


def _macros(persona: Persona, scene: Scene, user: str | None) -> MacroContext:
    return MacroContext(
        char=persona.nickname or persona.name,
        user=user or stranger_of(persona),
        seed=scene.seed,
        conversation=scene.conversation,
        now=scene.now,
    )


def _moment(persona: Persona, scene: Scene, turns: Sequence[Turn]) -> LoreMoment:
    """The conversation as the lorebook looks at it."""
    messages = tuple(ScannedMessage(turn.text, turn.role) for turn in turns)
    return LoreMoment(
        messages,
        num_before=scene.num_before,
        seed=scene.conversation,
        greeting_index=_greeting_index(persona, scene, turns),
        user_name=None if scene.is_group else scene.user_name,
    )


def _greeting_index(persona: Persona, scene: Scene, turns: Sequence[Turn]) -> int | None:
    """Which of its greetings the conversation began with, as far as that can be seen; -1 where it was none."""
    if scene.num_before or not turns:
        return None
    if turns[0].role is not Role.ASSISTANT:
        return -1
    for index, greeting in enumerate(persona.greetings):
        told = fill_macros(greeting, persona, scene.user_name, conversation=scene.conversation)
        if told.strip() == turns[0].text.strip():
            return index
    return None


@dataclass(frozen=True, slots=True)
class _Page:
    """The system prompt, and what stands among the turns. `examples` are written out."""

    persona: Persona
    phrases: Phrases
    scene: Scene
    house: HouseRules
    lore: LoreReport = NO_LORE
    recalled: tuple[Recalled, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def spoken_to(self) -> str | None:
        """Whose name is told."""
        scene = self.scene
        return None if scene.is_group or scene.user_name is None else speaker_label(scene.user_name)

    def text(self) -> str:
        """The system prompt."""
        lines = [self._filled(line) for line in (*self._stable_lines(), *self._varying_lines())]
        return "\n".join([*self._own_instructions(), *lines])

    def insertions(self) -> tuple[Insertion, ...]:
        """What stands among the turns, and after them."""
        among = [
            Insertion(self._filled(entry.text), entry.depth, entry.role)
            for entry in self.lore.told
            if entry.position == "at_depth"
        ]
        # Near the question small models find it; in front of the conversation it would have to be read anew every time.
        recalled = [one.text for one in reversed(self.recalled)]  # what the question is most about comes last
        others = [text for text in self._lore(BESIDE) if text not in recalled]
        known = self._known([*others, *recalled])
        beside = [Insertion(self._filled(text), 1) for text in known]
        own, general = self.persona.post_history_instructions, self.house.post_history_instructions
        is_wanted = "post_history_instructions" not in self.lore.disabled_prompts
        instructions = self._instructions(own, general) if is_wanted else ""
        return tuple(one for one in (*among, *beside, Insertion(instructions)) if one.text)

    def _stable_lines(self) -> Iterator[str]:
        """What depends on the persona alone, but for lore that stands in it."""
        persona, phrases = self.persona, self.phrases
        yield from self._lore("before_char")
        yield from self._lore("before_desc")
        yield from self._introduction()
        if persona.background:
            yield _paragraph(persona.background, phrases)
        yield from self._lore("after_desc")
        formality = phrases.formalities[persona.voice.formality]
        yield from _labelled("traits", persona.traits, phrases)
        yield from self._lore("personality")
        yield from _labelled("look", persona.look, phrases)
        yield from _labelled("style", [*persona.voice.style, *filter(None, [formality])], phrases)
        yield from _labelled("catchphrases", [f'"{phrase}"' for phrase in persona.lexicon.catchphrases], phrases)
        yield from _labelled("goals", persona.goals, phrases)
        yield from _labelled("boundaries", persona.boundaries, phrases)
        yield from _labelled("scenario", filter(None, [persona.scenario]), phrases)
        yield from self._lore("scenario")
        yield from self._lore("before_examples")
        if self.examples:
            yield phrases.labels["examples"]
            yield from self.examples
        yield from self._lore("after_examples")
        if not persona.system_prompt and "system_prompt" not in self.lore.disabled_prompts:
            yield self._house_line()

    def _introduction(self) -> Iterator[str]:
        persona, phrases = self.persona, self.phrases
        parts = [phrases.you_are.format(name=persona.nickname or persona.name)]
        # The summary of a card is how its description begins, but for a bracket or a tag before everything.
        if persona.summary.rstrip("….") not in " ".join((persona.background or "").split()):
            parts.append(_sentence(persona.summary, phrases))
        yield phrases.gap.join(parts)
        identity = persona.identity.model_dump(exclude_none=True)
        facts = [
            f"{phrases.labels[key]}{phrases.colon}{_bare(str(value))}{phrases.end}" for key, value in identity.items()
        ]
        yield from filter(None, [phrases.gap.join(facts)])

    def _varying_lines(self) -> Iterator[str]:
        """What changes from conversation to conversation, and from turn to turn."""
        if self.scene.is_group:
            yield self.phrases.group
        elif self.spoken_to is not None:
            yield self.phrases.alone_with.replace("{user}", "{{user}}")
        yield from self._lore("after_char")

    def _known(self, texts: Sequence[str]) -> Iterator[str]:
        """`texts` as what the persona knows."""
        if texts:
            gap = "\n" if any("\n" in text for text in texts) else " "
            yield gap.join([self.phrases.labels["lore"], *texts])

    def _lore(self, position: Position) -> list[str]:
        return [entry.text for entry in self.lore.told if entry.position == position]

    def _own_instructions(self) -> Iterator[str]:
        if self.persona.system_prompt and "system_prompt" not in self.lore.disabled_prompts:
            yield self._instructions(self.persona.system_prompt, self._house_line())

    def _house_line(self) -> str:
        return self.house.system_prompt or answer_line(self.persona, self.phrases)

    def _instructions(self, own: str | None, general: str) -> str:
        """The persona's `own` instructions, in which the `general` ones may be called for; without any, those."""
        general = self._filled(general)
        return (self._filled(own, original=general) if own else general).strip()

    def _filled(self, text: str, *, original: str = "") -> str:
        return fill(text, replace(_macros(self.persona, self.scene, self.spoken_to), original=original))


def _example(example: Example) -> str:
    """A quotation and its answer. Not "User: …" and "Mira: …": small models then write a script, with both parts."""
    user, reply = " ".join((example.user or "").split()), " ".join(example.reply.split())
    return f"> {user}\n{reply}" if user else reply


def _take_examples(examples: Sequence[str], room: Room, *, start: int = 0) -> int:
    """How many of `examples` from `start` on fit: without gaps, in a share of a long context, else by letters."""
    is_short = room.context_tokens is None or room.context_tokens <= SHORT_CONTEXT
    num_taken, num_letters, num_tokens = 0, 0, 0
    for number, example in enumerate(examples):
        words = example.removeprefix("> ").replace("\n", "")
        num_letters += sum(3 if UNSPACED.match(sign) else 1 for sign in words)
        num_tokens += (cost := room.count(example))
        is_too_much = (
            num_letters > MAX_EXAMPLE_CHARACTERS
            if is_short
            else num_tokens > (room.context_tokens or 0) * MAX_EXAMPLES_SHARE
        )
        if number >= start:
            if (number and is_too_much) or not room.take_if_fits(cost):
                break
            num_taken += 1
    return num_taken


def _labelled(label: str, items: Iterable[str], phrases: Phrases) -> Iterator[str]:
    listed = phrases.separator.join(_bare(item) for item in items)
    if listed:
        yield _sentence(f"{phrases.labels[label]}{phrases.colon}{listed}", phrases)


def _bare(text: str) -> str:
    """`text` on one line, without the stop at its end: it goes into a list."""
    return " ".join(text.split()).rstrip(".。")


def _paragraph(text: str, phrases: Phrases) -> str:
    """A text, in the lines that its author broke it into where these are a form: cards list what they describe."""
    lines = [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]
    return "\n".join(lines) if len(lines) > MAX_LINES_JOINED else _sentence(text, phrases)


def _sentence(text: str, phrases: Phrases) -> str:
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?", "…", "。", "！", "？", '"', "”", "」")) else f"{line}{phrases.end}"


def _without_markers(text: str) -> str:
    """`text` with the markers of chat templates broken by a space, so that nobody writes a system turn."""
    return _CONTROL_MARKER.sub(lambda match: f"{match[0]} ", text)
