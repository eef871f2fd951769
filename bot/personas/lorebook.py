"""Which lore is told at a moment of a conversation, and why. Pure: no clock, and chance comes from a seed.

Owns the rules of lorebooks: those of character cards (V2, V3, decorators) and those that SillyTavern adds. Nothing is
kept between questions: what stays or rests after it was told is found by going through the earlier questions again.
Leaves keys to `bot.personas.lore_keys`, decorators to `bot.personas.decorators`, and knows no prompt.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from bot.personas.decorators import Decorators, split_decorators
from bot.personas.lore_keys import KeyIndex, Patience, Spelling
from bot.personas.macros import MacroContext, seen_by_lore, without_asides
from engine.lore import EntryRole, Lorebook, LoreEntry, Position
from engine.persona import Persona
from engine.same import Same
from engine.types import Role

MAX_LABEL_CHARACTERS = 60
MAX_EARLIER_QUESTIONS = 100
# Where entries bring up entries, each look may take in the whole book: of a large one fewer questions are looked at.
MAX_ENTRIES_GONE_THROUGH = 10_000
# What entries bring up by what they say is looked for so many times one after the other, and in so much text.
MAX_ROUNDS = 64
MAX_LORE_CHARACTERS_SEARCHED = 200_000
# What is told where nobody knows how much room there is.
MAX_TOKENS_IF_UNKNOWN = 32_000
# So much may go over the budget, and hardly any token has more letters: whatever is beyond needs no counting.
MAX_CHARACTERS_OVER_BUDGET = 200_000
MAX_CHARACTERS_PER_TOKEN = 10
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class ScannedMessage:
    """A message as the persona heard it; in a group with its writer's name in front."""

    text: str
    role: Role


@dataclass(frozen=True, slots=True)
class LoreMoment:
    """When lore is asked for: after `messages`, of which the newest is last.

    `num_before` messages of the conversation are older than these, `num_replies_before` of them the persona's (`None`:
    half). All chance comes from `seed`, which is the same throughout a conversation, and from the place and the words
    of the question. `greeting_index` is the greeting that the conversation began with (-1: none), `user_icon` the name
    of the user's picture, each where known. `user_name` is for keys with `{{user}}`.
    """

    messages: tuple[ScannedMessage, ...]
    num_before: int = 0
    seed: str = ""
    num_replies_before: int | None = None
    greeting_index: int | None = None
    user_icon: str | None = None
    user_name: str | None = None


@dataclass(frozen=True, slots=True)
class ToldLore:
    """An entry that is told, or would be if there were room. Macros in `text` are not filled yet.

    `index` is its place in `Persona.lore`, `reason` why it is told, or why it is not.
    """

    index: int
    name: str
    text: str
    position: Position
    depth: int
    role: EntryRole
    num_tokens: int
    reason: str
    order: int
    priority: int
    ignores_budget: bool


@dataclass(frozen=True, slots=True)
class LoreReport:
    """What is `told`, in the order to stand, and what was `dropped` for want of room.

    `disabled_prompts` are those that told entries ask to leave out: `system_prompt`, `post_history_instructions`.
    """

    told: tuple[ToldLore, ...] = ()
    dropped: tuple[ToldLore, ...] = ()
    disabled_prompts: frozenset[str] = frozenset()


def tell(
    persona: Persona, moment: LoreMoment, *, count_tokens: Callable[[str], int], max_tokens: int | None
) -> LoreReport:
    """The lore of `persona` for `moment`, in `max_tokens` and the lorebook's own budget."""
    if not persona.lore:
        return LoreReport()
    book = _book_of(persona)
    matches = _matches_at(book, moment, MacroContext(persona.nickname or persona.name, moment.user_name or ""))
    matches.sort(key=lambda match: (match.page.entry.order, match.page.index))
    disabled = frozenset(prompt for match in matches if (prompt := match.page.decorators.disable_ui_prompt))
    num_messages = moment.num_before + len(moment.messages)
    matches, budget = list(_each_text_once(matches)), _budget(persona.lorebook, max_tokens)
    near, over = _that_may_fit(matches, budget), _that_go_over(matches)

    def counted(match: _Match) -> ToldLore:
        # Of a book of megabytes, counting all that has no room would keep everybody waiting.
        is_counted = match.page.index in near | over
        cost = count_tokens if is_counted else _estimate
        return _told(match, num_messages, cost, ignores_budget=match.page.index in over)

    told, dropped = _with_room([(match, counted(match)) for match in matches], budget)
    return LoreReport(told, dropped, disabled)


@dataclass(frozen=True, slots=True)
class _Page:
    """An entry made ready: its text without decorators, its keys as numbers in the book's index."""

    index: int
    entry: LoreEntry
    decorators: Decorators
    text: str
    keys: tuple[int, ...]
    secondary: tuple[int, ...]
    additional: tuple[int, ...]
    excluded: tuple[int, ...]
    scan_depth: int
    name: str

    @property
    def is_always(self) -> bool:
        return self.entry.is_constant and not self.entry.is_regex

    @property
    def is_timed(self) -> bool:
        """Whether it matters that it was told before."""
        says = self.decorators
        return bool(
            self.entry.sticky or self.entry.cooldown or says.keep_activate_after_match or says.dont_activate_after_match
        )


@dataclass(frozen=True, slots=True)
class _Book:
    """A lorebook made ready. `pages_of` are the pages that a key may call, `standing` those that need
    no key, `timed` those of which it matters when they were told."""

    pages: tuple[_Page, ...]
    spellings: tuple[Spelling, ...]
    index: KeyIndex
    pages_of: dict[int, tuple[int, ...]]
    standing: frozenset[int]
    levels: tuple[int, ...]
    max_scan_depth: int
    rules: Lorebook
    timed: frozenset[int]
    said: dict[int, tuple[str, frozenset[int]]] = field(default_factory=dict)

    def keys_said_by(self, page: _Page, names: MacroContext, patience: Patience) -> frozenset[int]:
        """The keys that occur in what `page` tells."""
        text = seen_by_lore(page.text, names)
        known = self.said.get(page.index)
        if known is not None and known[0] == text and not self.index.has_macros:
            return known[1]
        found = self.index.found_in(text, names, patience)
        if not patience.is_over:
            self.said[page.index] = text, found
        return found


@dataclass(frozen=True, slots=True)
class _Match:
    """A page that is due. `is_held`: neither chance nor groups keep it away; `is_by_lore`: other lore brought it up."""

    page: _Page
    reason: str
    is_held: bool = False
    is_by_lore: bool = False


@dataclass(slots=True)
class _Memory:
    """What earlier questions leave behind: which pages they called, and since which message their time runs."""

    called: set[int] = field(default_factory=set)
    began: dict[int, int] = field(default_factory=dict)

    def note(self, page: _Page, num_messages: int) -> None:
        self.called.add(page.index)
        if not self.num_left(page, num_messages):  # being called again does not make it stay longer
            self.began[page.index] = num_messages

    def num_left(self, page: _Page, num_messages: int) -> int:
        """For how many messages the page stays, this one included."""
        age = self._age(page, num_messages)
        return 0 if age is None else max(0, page.entry.sticky - age + 1)

    def is_resting(self, page: _Page, num_messages: int) -> bool:
        age = self._age(page, num_messages)
        return age is not None and page.entry.sticky < age <= page.entry.sticky + page.entry.cooldown

    def _age(self, page: _Page, num_messages: int) -> int | None:
        """How many messages came since it was told, if it was."""
        began = self.began.get(page.index)
        return None if began is None else num_messages - began


@dataclass(frozen=True, slots=True)
class _Question:
    """One point of the conversation at which lore is asked for. `found` has the keys of each message up to there."""

    found: Sequence[frozenset[int]]
    text: str
    num_messages: int
    num_replies: int

    def keys_in_last(self, num_messages: int) -> frozenset[int]:
        return frozenset().union(*self.found[-num_messages:]) if num_messages else frozenset()


def _book_of(persona: Persona) -> _Book:
    missing: list[Position] = []
    if not persona.traits:
        missing.append("personality")
    if not persona.scenario:
        missing.append("scenario")
    return _bound(Same(persona.lore), persona.lorebook, tuple(missing))


@lru_cache(maxsize=256)
def _bound(lore: Same[tuple[LoreEntry, ...]], rules: Lorebook, missing: tuple[Position, ...]) -> _Book:
    numbers: dict[Spelling, int] = {}
    pages = tuple(_page(index, entry, rules, missing, numbers) for index, entry in enumerate(lore.value))
    pages_of: dict[int, list[int]] = {}
    for page in pages:
        for key in set(page.keys):
            pages_of.setdefault(key, []).append(page.index)
    spellings = tuple(numbers)
    return _Book(
        pages=pages,
        spellings=spellings,
        index=KeyIndex(spellings),
        pages_of={key: tuple(indexes) for key, indexes in pages_of.items()},
        standing=frozenset(page.index for page in pages if page.is_always or page.decorators.activate),
        levels=tuple(sorted({page.entry.recursion_level for page in pages} - {0})),
        max_scan_depth=max(page.scan_depth for page in pages),
        rules=rules,
        timed=frozenset(page.index for page in pages if page.is_timed),
    )


def _page(
    index: int, entry: LoreEntry, rules: Lorebook, missing: tuple[Position, ...], numbers: dict[Spelling, int]
) -> _Page:
    decorated = split_decorators(entry.content, missing=missing)
    says = decorated.decorators
    depth = rules.scan_depth if entry.scan_depth is None else entry.scan_depth

    def numbered(words: Iterable[str]) -> tuple[int, ...]:
        spelt = (Spelling(word, entry.is_regex, entry.is_case_sensitive, entry.has_whole_words) for word in words)
        return tuple(numbers.setdefault(spelling, len(numbers)) for spelling in spelt)

    # A pattern calls the entry by itself: the specification gives patterns neither second nor excluded keys.
    return _Page(
        index=index,
        entry=entry,
        decorators=says,
        text=decorated.text,
        keys=numbered((*entry.keys, *says.additional_keys) if entry.is_regex else entry.keys),
        secondary=() if entry.is_regex else numbered(entry.secondary_keys),
        additional=() if entry.is_regex else numbered(says.additional_keys),
        excluded=() if entry.is_regex else numbered(says.exclude_keys),
        scan_depth=depth if says.scan_depth is None else says.scan_depth,
        name=_label(entry.name) or _label(entry.keys[0] if entry.keys else "") or f"#{index + 1}",
    )


def _matches_at(book: _Book, moment: LoreMoment, names: MacroContext) -> list[_Match]:
    """What is due at `moment`, after going through the questions before it where that matters."""
    patience = Patience()
    earlier = list(_answered_questions(moment.messages))[-_num_earlier(book) :] if book.timed else []
    now = len(moment.messages) - 1
    found = _keys_of_messages(book, moment, names, patience, first=min([*earlier, now]))
    memory = _Memory()
    for place in earlier:
        question = _question_at(moment, found, place)
        for match in _Scan(book, moment, question, memory, names, patience).run():
            if match.page.index in book.timed:
                memory.note(match.page, question.num_messages)
    return _Scan(book, moment, _question_at(moment, found, now), memory, names, patience).run()


def _num_earlier(book: _Book) -> int:
    """How many questions are gone through again, at most."""
    if not book.rules.is_recursive:
        return MAX_EARLIER_QUESTIONS
    return max(1, min(MAX_EARLIER_QUESTIONS, MAX_ENTRIES_GONE_THROUGH // len(book.pages)))


def _keys_of_messages(
    book: _Book, moment: LoreMoment, names: MacroContext, patience: Patience, *, first: int
) -> list[frozenset[int]]:
    """The keys in each message, as far back as the entry that looks deepest does at the `first` question."""
    num_unread = max(0, first + 1 - book.max_scan_depth)
    speakers = {Role.USER: moment.user_name, Role.ASSISTANT: names.char}
    unread: list[frozenset[int]] = [frozenset()] * num_unread
    # The newest first: patience may end before all are read.
    found = [
        book.index.found_in(without_asides(message.text), names, patience, speaker=speakers[message.role])
        for message in reversed(moment.messages[num_unread:])
    ]
    return unread + found[::-1]


def _answered_questions(messages: Sequence[ScannedMessage]) -> Iterator[int]:
    """The places of what the persona answered: then, too, it was asked what is told."""
    for place in range(len(messages) - 1):
        if messages[place].role is Role.USER and messages[place + 1].role is Role.ASSISTANT:
            yield place


def _question_at(moment: LoreMoment, found: Sequence[frozenset[int]], place: int) -> _Question:
    heard = moment.messages[: place + 1]
    num_replies = moment.num_before // 2 if moment.num_replies_before is None else moment.num_replies_before
    return _Question(
        found=found[: place + 1],
        text=heard[-1].text if heard else "",
        num_messages=moment.num_before + len(heard),
        num_replies=num_replies + sum(message.role is Role.ASSISTANT for message in heard),
    )


@dataclass(slots=True)
class _Scan:
    """One look through a book, in rounds: first what the messages call, then what the told entries bring up."""

    book: _Book
    moment: LoreMoment
    question: _Question
    memory: _Memory
    names: MacroContext
    patience: Patience
    level: int = 0
    decided: set[int] = field(default_factory=set)
    told_groups: set[str] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)  # pages that lack but a second key
    said_by: dict[int, str] = field(default_factory=dict)  # keys in told entries, and the name of the first
    scopes: dict[int, frozenset[int]] = field(default_factory=dict)
    num_characters: int = 0

    def run(self) -> list[_Match]:
        book, told, levels = self.book, list[_Match](), list(self.book.levels)
        callers = self._in_messages(book.max_scan_depth)
        pages = {*book.standing, *self.memory.called, *self._called_by(callers)}
        num_rounds, max_rounds = 0, min(MAX_ROUNDS, 1 + (book.rules.max_recursion or MAX_ROUNDS))
        while (pages or levels) and num_rounds < max_rounds:
            round_told = self._round(pages)
            told += round_told
            brought_up = self._bring_up(round_told)
            pages = {*self._called_by(brought_up), *(self.waiting if brought_up else ())}
            num_rounds += 1
            if levels and (num_rounds == 1 or not brought_up):
                self.level = levels.pop(0)
                pages |= {page.index for page in book.pages if 0 < page.entry.recursion_level <= self.level}
        return told

    def _round(self, indexes: Iterable[int]) -> list[_Match]:
        """What is due of these pages, and stays so in the face of groups and chance."""
        open_pages = [self.book.pages[index] for index in sorted(set(indexes) - self.decided)]
        matches = [match for page in open_pages if (match := self._match(page)) is not None]
        self.decided.update(match.page.index for match in matches)
        told = [match for match in self._chosen_of_groups(matches) if match.is_held or self._has_luck(match.page)]
        self.told_groups.update(group for match in told for group in match.page.entry.groups)
        return told

    def _match(self, page: _Page) -> _Match | None:
        """Why `page` is due, or `None`. What forbids comes first, what forces before it."""
        says, has_been = page.decorators, page.index in self.memory.called
        if not page.entry.is_enabled:
            return None
        if says.activate:
            return _Match(page, "forced by @@activate", is_held=True)
        if says.dont_activate:
            return None
        if says.keep_activate_after_match and has_been:
            return _Match(page, "kept since it was told before", is_held=True)
        if says.dont_activate_after_match and has_been:
            return None
        if num_left := self.memory.num_left(page, self.question.num_messages):
            return _Match(page, _staying(num_left), is_held=True)
        if page.entry.recursion_level > self.level or not self._is_time_for(page):
            return None
        return self._called(page)

    def _is_time_for(self, page: _Page) -> bool:
        says, question = page.decorators, self.question
        if self.memory.is_resting(page, question.num_messages) or question.num_messages < page.entry.delay:
            return False
        if says.activate_only_after is not None and question.num_replies < says.activate_only_after:
            return False
        if says.activate_only_every is not None and question.num_replies % says.activate_only_every:
            return False
        return _agree(says.is_greeting, self.moment.greeting_index) and _agree(says.is_user_icon, self.moment.user_icon)

    def _called(self, page: _Page) -> _Match | None:
        heard = self._in_messages(page.scan_depth)
        said = self.said_by if not page.entry.is_not_found_by_lore else {}
        match = _Match(page, "always") if page.is_always else self._found(page, heard, said)
        if match is None or any(key in heard or key in said for key in page.excluded):
            return None
        has_additional = not page.additional or any(key in heard or key in said for key in page.additional)
        if has_additional and (page.is_always or self._has_secondary(page, heard, said)):
            return match
        self.waiting.add(page.index)
        return None

    def _found(self, page: _Page, heard: frozenset[int], said: dict[int, str]) -> _Match | None:
        for key in page.keys:
            if key in heard:
                return _Match(page, self._heard_when(key, page.scan_depth))
        for key in page.keys:
            if key in said:
                return _Match(page, f'by lore "{said[key]}"', is_by_lore=True)
        return None

    def _has_secondary(self, page: _Page, heard: frozenset[int], said: dict[int, str]) -> bool:
        if not page.secondary:
            return True
        are_there = [key in heard or key in said for key in page.secondary]
        match page.entry.logic:
            case "and_any":
                return any(are_there)
            case "and_all":
                return all(are_there)
            case "not_any":
                return not any(are_there)
            case "not_all":
                return not all(are_there)

    def _heard_when(self, key: int, depth: int) -> str:
        found = self.question.found
        age = next(age for age in range(min(depth, len(found))) if key in found[-1 - age])
        when = "in the last message" if age == 0 else f"{age + 1} messages ago"
        return f'key "{_label(self.book.spellings[key].text)}" {when}'

    def _in_messages(self, depth: int) -> frozenset[int]:
        """The keys that occur in the last `depth` messages."""
        if depth not in self.scopes:
            self.scopes[depth] = self.question.keys_in_last(depth)
        return self.scopes[depth]

    def _called_by(self, keys: Iterable[int]) -> Iterator[int]:
        return (index for key in keys for index in self.book.pages_of.get(key, ()))

    def _bring_up(self, told: Sequence[_Match]) -> frozenset[int]:
        """The keys that the texts just told say, and none before them."""
        fresh: set[int] = set()
        for match in told if self.book.rules.is_recursive else ():
            self.num_characters += len(match.page.text)
            if match.page.entry.finds_no_lore or self.num_characters > MAX_LORE_CHARACTERS_SEARCHED:
                continue
            for key in self.book.keys_said_by(match.page, self.names, self.patience):
                if key not in self.said_by:
                    self.said_by[key] = match.page.name
                    fresh.add(key)
        return frozenset(fresh)

    def _chosen_of_groups(self, matches: Sequence[_Match]) -> list[_Match]:
        """`matches` without those that another one of their group keeps away."""
        groups: dict[str, list[_Match]] = {}
        for match in matches:
            for group in match.page.entry.groups:
                groups.setdefault(group, []).append(match)
        lost: set[int] = set()
        for group, members in groups.items():
            left = [member for member in members if member.page.index not in lost]
            lost |= {member.page.index for member in left} - self._winners(group, left)
        return [match for match in matches if match.page.index not in lost]

    def _winners(self, group: str, members: Sequence[_Match]) -> set[int]:
        held = {member.page.index for member in members if member.is_held}
        if held or group in self.told_groups:
            return held
        pages = [member.page for member in members]
        first = [page for page in pages if page.entry.group_override]
        if first:
            return {max(first, key=lambda page: (page.entry.order, -page.index)).index}
        return {self._drawn(group, pages).index} if pages else set()

    def _drawn(self, group: str, pages: Sequence[_Page]) -> _Page:
        """One of `pages`, by their weights."""
        left = self._chance(f"group {group}") * sum(page.entry.group_weight for page in pages)
        for page in pages:
            left -= page.entry.group_weight
            if left < 0:
                return page
        return pages[0]  # none has any weight

    def _has_luck(self, page: _Page) -> bool:
        return page.entry.probability >= 100 or self._chance(f"entry {page.index}") * 100 < page.entry.probability

    def _chance(self, purpose: str) -> float:
        """From 0 up to 1: the same for one question of one conversation."""
        question = self.question
        key = "\0".join((self.moment.seed, str(question.num_messages), question.text, purpose))
        drawn = hashlib.blake2b(key.encode(errors="replace"), digest_size=8).digest()
        return int.from_bytes(drawn, "big") / 2**64


def _agree(wanted: object | None, known: object | None) -> bool:
    """What cannot be known here counts as fulfilled."""
    return wanted is None or known is None or wanted == known


def _staying(num_left: int) -> str:
    more = num_left - 1
    return f"stays for {more} more message{'' if more == 1 else 's'}" if more else "stays for the last time"


def _each_text_once(matches: Iterable[_Match]) -> Iterator[_Match]:
    seen = {""}  # an entry of nothing but decorators says nothing
    for match in matches:
        if match.page.text not in seen:
            seen.add(match.page.text)
            yield match


def _told(match: _Match, num_messages: int, count_tokens: Callable[[str], int], *, ignores_budget: bool) -> ToldLore:
    page, says = match.page, match.page.decorators
    position, depth = page.entry.position, page.entry.depth
    if says.position is not None:
        position = says.position
    elif says.depth is not None:
        position, depth = "at_depth", says.depth
    elif says.reverse_depth is not None:
        position, depth = "at_depth", max(0, num_messages - says.reverse_depth)
    return ToldLore(
        index=page.index,
        name=page.name,
        text=page.text,
        position=position,
        depth=depth,
        role=says.role or page.entry.role,
        num_tokens=count_tokens(page.text),
        reason=match.reason,
        order=page.entry.order,
        priority=page.entry.priority,
        ignores_budget=ignores_budget,
    )


def _budget(rules: Lorebook, max_tokens: int | None) -> int:
    limit = MAX_TOKENS_IF_UNKNOWN if max_tokens is None else max(0, max_tokens)
    return limit if rules.token_budget is None else min(limit, rules.token_budget)


def _that_may_fit(matches: Sequence[_Match], budget: int) -> set[int]:
    """The pages that may have room, by their length alone: all others certainly have none."""
    fitting, left = set(), budget * MAX_CHARACTERS_PER_TOKEN
    for match in sorted(matches, key=_worth, reverse=True):
        length = len(match.page.text)
        if length <= budget * MAX_CHARACTERS_PER_TOKEN:
            fitting.add(match.page.index)
            left -= length
        if left < 0:
            break
    return fitting


def _that_go_over(matches: Sequence[_Match]) -> set[int]:
    """The pages that are told whatever the budget, as long as they are no book of their own."""
    over, left = set(), MAX_CHARACTERS_OVER_BUDGET
    for match in sorted(matches, key=_worth, reverse=True):
        left -= len(match.page.text) if match.page.entry.ignores_budget else 0
        if match.page.entry.ignores_budget and left >= 0:
            over.add(match.page.index)
    return over


def _estimate(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _with_room(
    wanted: Sequence[tuple[_Match, ToldLore]], budget: int
) -> tuple[tuple[ToldLore, ...], tuple[ToldLore, ...]]:
    """Those that fit, and those that were dropped for it: the lowest first, until the rest fits.

    What is larger than all the room goes before, or it would take everything below with it.
    """
    left = max(0, budget - sum(told.num_tokens for _, told in wanted if told.ignores_budget))
    fitting = [(match, told) for match, told in wanted if not told.ignores_budget and told.num_tokens <= left]
    total = sum(told.num_tokens for _, told in fitting)
    fitting.sort(key=lambda pair: _worth(pair[0]))
    num_dropped = 0
    while total > left:
        total -= fitting[num_dropped][1].num_tokens
        num_dropped += 1
    del fitting[:num_dropped]
    kept = {told.index for _, told in fitting} | {told.index for _, told in wanted if told.ignores_budget}
    told = tuple(told for _, told in wanted if told.index in kept)
    dropped = tuple(_without_room(told, left) for _, told in wanted if told.index not in kept)
    return told, dropped


def _worth(match: _Match) -> tuple[bool, int, bool, int, int]:
    """What goes first where room is short has the least of this."""
    page = match.page
    goes_first = page.decorators.ignore_on_max_context
    return not goes_first, page.entry.priority, not match.is_by_lore, page.entry.order, -page.index


def _without_room(told: ToldLore, budget: int) -> ToldLore:
    return replace(told, reason=f"no room: {told.reason}, {told.num_tokens} tokens, and there are {budget} for all")


@lru_cache(maxsize=32_768)
def _label(text: str) -> str:
    """`text` on one line, to be shown to people."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(shown.split())[:MAX_LABEL_CHARACTERS]
