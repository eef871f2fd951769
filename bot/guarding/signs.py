"""What shows that a reply has left its part. Pure: a reply and its request in, the first break out.

Owns when a phrase of `bot.guarding.phrases` is a break, and what prompt, language and echo have to do with it. Knows
neither engines nor what is done about a break. Everything takes time linear in the reply, and nothing is judged twice
by a `Watch`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from functools import cached_property, lru_cache

from bot.guarding import phrases, tongues
from bot.guarding.taken_names import offered_names, taken_at
from bot.languages import language_named
from bot.words import UNSPACED, fold
from engine.persona import Persona
from engine.same import Same
from engine.types import GenerationRequest, Role

# A run of the prompt that is told by chance by nobody: 8 words, or 16 signs of a script without spaces.
_RUN_WEIGHT = 16
_MIN_ECHOED_WORDS = 5
_MIN_ECHOED_SIGNS = 8
# Of what is echoed, so much has to be there in one piece.
_MIN_PART_WORDS, _MIN_PART_SIGNS = 4, 8
_ECHOED_SHARE = 0.9
_MAX_ECHO_TOKENS = 120
_MAX_ECHO_LETTERS = 4_000
_MAX_ROLE_LETTERS = 40
_MAX_DOUBT_LETTERS = 1_000
# Of a prompt, so much is looked at for what must not be told, and of each of its texts so much at both ends.
_MAX_PROMPT_LETTERS = 100_000
_MAX_END_LETTERS = 30_000
_MIN_LETTERS = 30
_MIN_FOREIGN_LETTERS = 12
_SURE = 0.9
_UNLIKELY = 0.02
# What a user's language may be, where their words leave it open.
_CONCEIVABLE = 0.05

# A run of stops is tried once, as a whole: a model may write thousands.
_BORDER = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]*_]*+(?=\s|$)|[。！？]++[」』”’）]*+|\n++")
_MACRO = re.compile(r"\{\{[^{}]*\}\}|<(?:user|char|bot)>", re.IGNORECASE)
# "[system] …" at the beginning of what somebody writes.
_STAGE_MARK = re.compile(r"^\s*[(\[【][^)\]】]{0,40}[)\]】]\s*")
_DECORATORS = re.compile(r"^(?:\s*@@[^\n]*\n)+")
_TOKEN = re.compile(r"\w+(?:['’]\w+)*")
_QUOTED = re.compile(
    r"\"[^\"\n]{0,300}\"|“[^”\n]{0,300}”|«[^»\n]{0,300}»|„[^“”\n]{0,300}[“”]|「[^」\n]{0,300}」|\*[^*\n]{0,300}\*"
)
_OPENING, _CLOSING = "“«„「『", "”»“」』"
_STRAIGHT = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "`": "'"})


class BreakKind(StrEnum):
    """How a reply leaves its part."""

    DISCLAIMER = "disclaimer"
    SPEAKS_FOR_USER = "speaks_for_user"
    LEAKS_PROMPT = "leaks_prompt"
    WRONG_LANGUAGE = "wrong_language"
    ECHO = "echo"


@dataclass(frozen=True, slots=True)
class Break:
    """Where a reply leaves its part: the sentence from `start` to `end`. `why` is for people, and quotes nobody."""

    kind: BreakKind
    start: int
    end: int
    why: str


@dataclass(frozen=True, slots=True)
class _Sentence:
    start: int
    end: int
    text: str

    @property
    def folded(self) -> str:
        return fold(self.text.translate(_STRAIGHT))


@dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    text: str
    weight: int


def find_break(reply_so_far: str, *, request: GenerationRequest) -> Break | None:
    """The first break in `reply_so_far`, which begins with `request.reply_start`: that part is not judged anew."""
    return Watch(request).find(reply_so_far, since=len(request.reply_start))


def last_border(text: str) -> int:
    """Where the last complete sentence of a text that grows ends; 0 where there is none."""
    return max(sentence_ends(text), default=0)


def sentence_ends(text: str) -> Iterator[int]:
    """Where the sentences of `text` end, but for one at its very end that may go on."""
    return (match.end() for match in _BORDER.finditer(text) if match.end() < len(text) or match[0][-1] in "\n。！？")


class Watch:
    """Looks after one reply to `request`."""

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._persona = request.persona

    def find(self, reply: str, *, since: int = 0) -> Break | None:
        """The first break that ends behind `since`. What stands before has been found good."""
        sentences = list(_sentences(reply, since))
        for sentence in sentences:
            if (found := self._broken(sentence, reply)) is not None:
                return found
        return self._leak_in(reply, since) or self._foreign_in(reply, sentences)

    def _broken(self, sentence: _Sentence, reply: str) -> Break | None:
        folded = sentence.folded
        is_first, is_code = not reply[: sentence.start].strip(), reply.count("```", 0, sentence.start) % 2 == 1
        if why := self._disclaimer(folded, is_first=is_first):
            return Break(BreakKind.DISCLAIMER, sentence.start, sentence.end, why)
        if why := self._other_speaker(folded, is_first=is_first, is_code=is_code):
            return Break(BreakKind.SPEAKS_FOR_USER, sentence.start, sentence.end, why)
        if why := self._remark_on_prompt(folded):
            return Break(BreakKind.LEAKS_PROMPT, sentence.start, sentence.end, why)
        if why := self._echo(sentence, reply):
            return Break(BreakKind.ECHO, sentence.start, sentence.end, why)
        return None

    # --- disclaimers

    def _disclaimer(self, folded: str, *, is_first: bool) -> str:
        words = set(_TOKEN.findall(folded))
        if is_first and words and words <= self._offered and not folded.rstrip(" \"'*_\n").endswith(("?", "？")):
            return "it answers to another name"
        if any(pattern.search(folded) for pattern in phrases.CURTAINS):
            return "it speaks of the role, or of whoever made the model"
        if self._is_machine:
            taken = taken_at(folded, self._not_its_names)
            return "it takes another name" if taken is not None and not _is_doubted(folded, taken) else ""
        if is_first and self._is_accused and _bare(folded) in phrases.ADMISSIONS:
            return "it admits to be a machine"
        if any(pattern.search(folded) for pattern in phrases.WORKINGS):
            return "it speaks of a model's workings"
        for pattern in (*phrases.CLAIMS, self._says_of_itself):
            for match in pattern.finditer(folded):
                if not _is_doubted(folded, match.start()) and not self._may_say(match[0]):
                    return "it says that it is a machine, or nobody"
        if (taken := taken_at(folded, self._not_its_names)) is not None and not _is_doubted(folded, taken):
            return "it takes another name"
        if (denial := self._denies_itself.search(folded)) and not _is_doubted(folded, denial.start()):
            return "it denies who it is"
        return ""

    @cached_property
    def _offered(self) -> frozenset[str]:
        """Names that the user gives the character, and that are nobody's of whom it knows."""
        names = offered_names(self._last_text(Role.USER))
        if not names:
            return names
        known = fold(" ".join((*self._own_names, *_own_lines(self._persona)))[:_MAX_PROMPT_LETTERS])
        return frozenset(name for name in names if name not in known)

    @cached_property
    def _not_its_names(self) -> frozenset[str]:
        """What it is not to call itself: those names, and those of whoever else speaks."""
        own = {fold(name) for name in self._own_names}
        return self._offered | ({fold(name) for name in self._request.speakers if len(name) > 1} - own)

    @cached_property
    def _is_accused(self) -> bool:
        """Whether the user says that it is a machine, and leaves no other choice."""
        text = fold(self._last_text(Role.USER)[:_MAX_ECHO_LETTERS].translate(_STRAIGHT))
        is_told = phrases.ADDRESSED.search(text) is not None and phrases.MACHINES.search(text) is not None
        return is_told and phrases.CHOICES.search(text) is None

    @cached_property
    def _denies_itself(self) -> re.Pattern[str]:
        names = "|".join(map(re.escape, self._roles))
        article = r"(?:actually\s|really\s)?(?:an?\s|the\s|your\s)?"
        return re.compile(rf"\b(?:i\sam|i'm)\snot\s{article}(?:{names})\b(?!\s(?:who|that)|-)")

    @cached_property
    def _roles(self) -> list[str]:
        """What the character is: its names, its species, its work, and what its summary calls it first."""
        identity = self._persona.identity
        told = [role for role in (identity.species, identity.occupation) if role and len(role) <= _MAX_ROLE_LETTERS]
        head = phrases.HEAD_OF_SUMMARY.match(fold(self._persona.summary))
        return [fold(name) for name in (*self._own_names, *told, *([head[2]] if head else []))]

    @cached_property
    def _says_of_itself(self) -> re.Pattern[str]:
        names = "|".join(map(re.escape, self._roles))
        is_one = r"(?:\sis\s(?:just\s|only\s)?(?:an?\s)?|(?:-like)?\s?[;,:]\s(?:just\s|only\s)?an?\s)"
        return re.compile(rf"(?<!\w)(?:{names}){is_one}{phrases.NOUN}")

    def _may_say(self, claim: str) -> bool:
        """Whether the character denies no more than it may."""
        if phrases.NOT_HUMAN.search(claim):
            return not self._is_human
        return "alive" in claim and self._is_creature

    @cached_property
    def _description(self) -> str:
        identity = self._persona.identity
        return fold(" | ".join(filter(None, (identity.species, identity.occupation, self._persona.summary))))

    @cached_property
    def _is_machine(self) -> bool:
        return phrases.MACHINES.search(self._description) is not None

    @cached_property
    def _is_creature(self) -> bool:
        return phrases.CREATURES.search(self._description) is not None

    @cached_property
    def _is_human(self) -> bool:
        species = self._persona.identity.species
        return species is None or phrases.PEOPLE.search(fold(species)) is not None

    # --- the user's words

    def _other_speaker(self, folded: str, *, is_first: bool, is_code: bool) -> str:
        if phrases.TEMPLATE_MARKS.search(folded):
            return "it writes marks of a chat template"
        if not is_code and self._labels.match(folded):
            return "it writes somebody else's part"
        if any(pattern.search(folded) for pattern in phrases.DEEDS_OF_THE_USER):
            return "it tells what the user does or says"
        if is_first and self._address.match(f"{folded}\n"):
            return "it addresses itself"
        return ""

    @cached_property
    def _labels(self) -> re.Pattern[str]:
        own = {fold(name) for name in self._own_names}
        spoken, anybody = (
            {fold(name) for name in names} - own - {""} for names in (self._request.speakers, phrases.EVERYBODYS_NAMES)
        )
        # "User 2" is nobody's name; "Step 2" is a list, whoever calls themselves "Step".
        names = [*map(re.escape, sorted(spoken)), *(rf"{re.escape(name)}(?:\s?\d{{1,2}})?" for name in sorted(anybody))]
        says = r"(?:\s(?:says|said|asks|replies|answers))?"
        return re.compile(rf"\s{{0,8}}[>*_\"#-]{{0,4}}\s?(?:{'|'.join(names)}){says}[*_]{{0,2}}\s?:(?!//)")

    @cached_property
    def _address(self) -> re.Pattern[str]:
        names = "|".join(re.escape(fold(name)) for name in self._own_names)
        return re.compile(phrases.ADDRESSES.replace("{name}", f"(?:{names})"))

    @property
    def _own_names(self) -> tuple[str, ...]:
        return tuple(filter(None, (self._persona.name, self._persona.nickname)))

    # --- the prompt

    def _remark_on_prompt(self, folded: str) -> str:
        for pattern in phrases.REMARKS_ON_PROMPT:
            if (match := pattern.search(folded)) and not _is_doubted(folded, match.start()):
                return "it speaks of its instructions"
        return "it tells itself who it is" if self._told_who.match(folded) else ""

    @cached_property
    def _told_who(self) -> re.Pattern[str]:
        names = "|".join(re.escape(fold(name)) for name in self._own_names)
        return re.compile(
            rf"\W{{0,4}}(?:you\sare|you're|你是|eres|du\sbist|tu\ses|vous\sêtes|você\sé|tu\ssei|ты)\s?(?:{names})(?!\w)"
        )

    def _leak_in(self, reply: str, since: int) -> Break | None:
        """A run of the instructions, which may go over several sentences."""
        if not self._secret_runs:
            return None
        # What was shown before may be a run's beginning.
        window = max(0, since - 400)
        tokens = [_Token(t.start + window, t.end + window, t.text, t.weight) for t in _tokens(reply[window:])]
        for first, last in _runs(tokens):
            if tokens[last].end > since and _joined(tokens[first : last + 1]) in self._secret_runs:
                start = max((end for end in sentence_ends(reply) if end <= tokens[first].start), default=0)
                return Break(BreakKind.LEAKS_PROMPT, start, tokens[last].end, "it says its instructions word for word")
        return None

    @cached_property
    def _secret_runs(self) -> frozenset[str]:
        insertions = (one.text for one in self._request.insertions if one.role == "system")
        shown = [_ends_of(text) for text in (self._request.system_prompt, *insertions)]
        runs: set[str] = set()
        for piece in _without("\n".join(shown)[:_MAX_PROMPT_LETTERS], _own_pieces(Same(self._persona))):
            tokens = list(_tokens(piece))
            runs.update(_joined(tokens[first : last + 1]) for first, last in _runs(tokens))
        return frozenset(runs)

    # --- echoes

    def _echo(self, sentence: _Sentence, reply: str) -> str:
        said = [token.text for token in _tokens(sentence.text)][:_MAX_ECHO_TOKENS]
        so_far = [token.text for token in _tokens(reply[: sentence.end][:_MAX_ECHO_LETTERS])][:_MAX_ECHO_TOKENS]
        if any(_is_again(words, asked) for asked in self._asked for words in (said, so_far)):
            return "it says the user's words again"
        is_asked_back = sentence.text.rstrip(" \"'*_\n").endswith(("?", "？"))
        if not reply[: sentence.start].strip() and not is_asked_back and self._is_part_of_question(said):
            return "it says a part of the user's words again"
        if self._said_last and said not in self._catchphrases and _is_again(so_far, self._said_last):
            return "it says its last reply again"
        return ""

    @cached_property
    def _asked(self) -> list[list[str]]:
        """The sentences of the user's last message, but for where they are to be said again."""
        text = self._last_text(Role.USER)
        if phrases.WANTS_WORDS_AGAIN.search(fold(text)):
            return []
        text = _STAGE_MARK.sub("", text)
        sentences = [[token.text for token in _tokens(one.text)] for one in _sentences(text[:_MAX_ECHO_LETTERS], 0)]
        whole = [token.text for token in _tokens(text[:_MAX_ECHO_LETTERS])][:_MAX_ECHO_TOKENS]
        return [words[:_MAX_ECHO_TOKENS] for words in (*sentences, whole) if _is_long_enough(words)]

    def _is_part_of_question(self, said: list[str]) -> bool:
        """Whether a whole first sentence is taken out of what was asked; answers to a choice are shorter."""
        num_signs = sum(1 for token in said if UNSPACED.match(token))
        least = _MIN_PART_SIGNS if num_signs > len(said) / 2 else _MIN_PART_WORDS
        if len(said) < least or said in self._catchphrases or not self._asked_in_full:
            return False
        return f" {' '.join(said)} " in f" {' '.join(self._asked_in_full)} "

    @cached_property
    def _asked_in_full(self) -> list[str]:
        """The words of the user's last message, but for where they are to be said again or chosen from."""
        text = self._last_text(Role.USER)
        if phrases.WANTS_WORDS_AGAIN.search(fold(text)) or phrases.CHOICES.search(fold(text)):
            return []
        return [token.text for token in _tokens(_STAGE_MARK.sub("", text)[:_MAX_ECHO_LETTERS])]

    @cached_property
    def _said_last(self) -> list[str]:
        if phrases.WANTS_WORDS_AGAIN.search(fold(self._last_text(Role.USER))):
            return []
        words = [token.text for token in _tokens(self._last_text(Role.ASSISTANT)[:_MAX_ECHO_LETTERS])][
            :_MAX_ECHO_TOKENS
        ]
        return words if _is_long_enough(words) else []

    @cached_property
    def _catchphrases(self) -> list[list[str]]:
        return [[token.text for token in _tokens(line)] for line in self._persona.lexicon.catchphrases]

    def _last_text(self, role: Role) -> str:
        return next((turn.text for turn in reversed(self._request.turns) if turn.role is role), "")

    # --- languages

    def _foreign_in(self, reply: str, sentences: Sequence[_Sentence]) -> Break | None:
        if not sentences or not self._languages <= set(tongues.SCRIPTS_OF):
            return None
        start, end = sentences[0].start, sentences[-1].end
        spoken = _QUOTED.sub(" ", reply[start:end])
        if len(spoken) < _MIN_LETTERS:  # what came before helps to be sure
            spoken = _QUOTED.sub(" ", reply[len(self._request.reply_start) : end])
        if why := self._foreign(spoken):
            return Break(BreakKind.WRONG_LANGUAGE, start, end, why)
        return None

    def _foreign(self, text: str) -> str:
        weights = tongues.weights_by_script(text)
        scripts = frozenset[str]().union(*(tongues.SCRIPTS_OF[code] for code in self._languages))
        foreign = sum(weight for script, weight in weights.items() if script not in scripts)
        if foreign >= _MIN_FOREIGN_LETTERS and foreign > 0.6 * weights.total():
            return "it is written in another script"
        is_japanese = "ja" in self._languages and not self._languages & {"zh", "ko"}
        if is_japanese and weights["han"] >= 2 * _MIN_LETTERS and not weights["kana"]:
            return "it is in another language"
        if weights["latin"] < max(_MIN_LETTERS, 0.8 * weights.total()) or "latin" not in scripts:
            return ""
        shares = tongues.latin_shares(text)
        likely = max(shares, key=shares.__getitem__)
        allowed = sum(shares.get(code, 0.0) for code in tongues.with_relatives(self._languages))
        return "it is in another language" if shares[likely] >= _SURE and allowed <= _UNLIKELY else ""

    @cached_property
    def _languages(self) -> frozenset[str]:
        """What may be spoken: the persona's languages, the user's, and those that the user has named."""
        own = (self._persona.language, *self._persona.also_speaks)
        text = self._last_text(Role.USER)
        return frozenset((*map(tongues.base_of, own), *_languages_of(text), *_languages_named_in(text)))


# --- words


def _sentences(text: str, since: int) -> Iterator[_Sentence]:
    """The sentences of `text` that end behind `since`."""
    start = 0
    for end in (*(match.end() for match in _BORDER.finditer(text)), len(text)):
        if end > max(start, since) and text[start:end].strip():
            yield _Sentence(start, end, text[start:end])
        start = max(start, end)


def _tokens(text: str) -> Iterator[_Token]:
    """Words, and single signs of scripts without spaces."""
    for match in _TOKEN.finditer(text):
        if not UNSPACED.search(match[0]):
            yield _Token(match.start(), match.end(), fold(match[0].translate(_STRAIGHT)), 2)
            continue
        for place, sign in enumerate(match[0], match.start()):
            yield _Token(place, place + 1, fold(sign), 1)


def _runs(tokens: Sequence[_Token]) -> Iterator[tuple[int, int]]:
    """The first and last token of every shortest run that is long enough."""
    last, weight = -1, 0
    for first, token in enumerate(tokens):
        while weight < _RUN_WEIGHT and last + 1 < len(tokens):
            last += 1
            weight += tokens[last].weight
        if weight < _RUN_WEIGHT:
            return
        yield first, last
        weight -= token.weight


def _joined(tokens: Iterable[_Token]) -> str:
    return " ".join(token.text for token in tokens)


def _bare(folded: str) -> str:
    """The words of a folded sentence alone."""
    return " ".join(_TOKEN.findall(folded))


def _is_long_enough(tokens: Sequence[str]) -> bool:
    num_signs = sum(1 for token in tokens if UNSPACED.match(token))
    return len(tokens) >= (_MIN_ECHOED_SIGNS if num_signs > len(tokens) / 2 else _MIN_ECHOED_WORDS)


def _is_again(said: Sequence[str], before: Sequence[str]) -> bool:
    """Whether one is in the other, in one piece and nearly all of both."""
    longest = max(len(said), len(before))
    if min(len(said), len(before)) < _ECHOED_SHARE * longest:
        return False
    matcher = SequenceMatcher(None, said, before, autojunk=False)
    return matcher.find_longest_match().size >= _ECHOED_SHARE * longest


def _is_doubted(folded: str, start: int) -> bool:
    """Whether what stands at `start` is asked, quoted, or said to be somebody's opinion."""
    before = folded[max(0, start - _MAX_DOUBT_LETTERS) : start]
    is_quoted = before.count('"') % 2 == 1 or any(
        before.count(opening) > before.count(closing) for opening, closing in zip(_OPENING, _CLOSING, strict=True)
    )
    is_asked = folded[-_MAX_DOUBT_LETTERS:].rstrip(" \"')*_\n").endswith(("?", "？"))
    return is_quoted or is_asked or phrases.DOUBTS.search(before[-60:]) is not None


# --- what may be said


def _own_lines(persona: Persona) -> Iterator[str]:
    """What the author gave the character to say, or to know."""
    yield from persona.greetings
    yield from persona.group_greetings
    yield from (example.reply for example in persona.examples)
    yield from (_DECORATORS.sub("", entry.content) for entry in persona.lore)
    yield from persona.lexicon.catchphrases
    yield from persona.goals
    yield from persona.look
    yield from persona.traits
    yield from filter(None, (persona.summary, persona.background, persona.scenario))
    yield from (str(value) for value in persona.identity.model_dump(exclude_none=True).values())


@lru_cache(maxsize=64)
def _own_pieces(persona: Same[Persona]) -> tuple[str, ...]:
    """The lines of its author between their macros: for the prompt has names there. It has them on one line, mostly
    without their stop. A lorebook may be megabytes, so this is done once."""
    lines = (" ".join(line.split()).rstrip(".。") for line in _own_lines(persona.value) if len(line) > 3)
    return tuple(dict.fromkeys(piece for line in lines for piece in _MACRO.split(line) if len(piece) > 3))


def _without(text: str, own: Iterable[str]) -> list[str]:
    """The pieces of the prompt `text` that remain without what is the character's `own`; a run over a piece's border is
    none."""
    flat = "\n".join(" ".join(line.split()) for line in text.splitlines())
    for piece in own:
        if piece in flat:
            flat = flat.replace(piece, "\n")
    return flat.split("\n")


def _ends_of(text: str) -> str:
    """`text`, of a very long one its beginning and its end: instructions stand there, and lore between."""
    if len(text) <= 2 * _MAX_END_LETTERS:
        return text
    return f"{text[:_MAX_END_LETTERS]}\n{text[-_MAX_END_LETTERS:]}"


def _languages_of(text: str) -> frozenset[str]:
    """Which languages `text` may be in."""
    weights = tongues.weights_by_script(text)
    found = {code for code, scripts in tongues.SCRIPTS_OF.items() for script in scripts - {"latin"} if weights[script]}
    if weights["latin"] >= 3:
        found.update(code for code, share in tongues.latin_shares(text[:2_000]).items() if share >= _CONCEIVABLE)
    return frozenset(found)


def _languages_named_in(text: str) -> Iterator[str]:
    """The languages that `text` speaks of: whoever asks for one gets it."""
    for word in _TOKEN.findall(text[:2_000]):
        if len(word) > 3 and (name := language_named(word)) is not None:
            yield from (code for code in tongues.SCRIPTS_OF if language_named(code) == name)
    for name, code in phrases.LANGUAGES_IN_CHINESE_AND_JAPANESE.items():
        if name in text:
            yield code
