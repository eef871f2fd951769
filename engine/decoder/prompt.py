"""Writes a conversation as the token ids that the backbone was trained to see.

Owns the chat template, the places of fused prefixes and of insertions, and what is dropped where the context is too
short. Knows neither tensors nor the model. The order is system prompt, history, this turn's prefix, this turn's words,
so that whatever came earlier stays as it was.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from engine.errors import ConfigurationError, PromptTooLong
from engine.insertions import by_place
from engine.types import ContextSize, Insertion, Role, Turn

# Private-use characters: hardly anybody types them, and they are taken out of what people send.
PLACE = "\ue0c0\ue0de\ue0c0"
PLACE_CHARACTERS = str.maketrans("", "", "\ue0c0\ue0de")
OPENING = "Hello."
# The role of what has no message of its own.
JOINS_USER = "joins user"
# What templates raise that cannot take a conversation.
_TEMPLATE_ERRORS = (TemplateError, ValueError, TypeError, LookupError)


@dataclass(frozen=True, slots=True)
class TokenPieces:
    """A prompt cut where prefixes go: that of turn `places[i]` lies between `pieces[i]` and `pieces[i + 1]`."""

    pieces: tuple[tuple[int, ...], ...]
    places: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens without the prefixes."""
        return sum(map(len, self.pieces))


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A message on its way into the template."""

    role: str
    text: str
    num_pictures: int = 0


class PromptWriter:
    """Renders conversations with one tokenizer's chat template, whatever that template can do."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, name: str, processor: ProcessorMixin | None = None
    ) -> None:
        """`processor` is a vision-language model's: its template leaves room for the pictures of each turn."""
        self._tokenizer = tokenizer
        self._template: Any = tokenizer if processor is None else processor
        self._takes_pictures = processor is not None
        if not self._template.chat_template:
            raise ConfigurationError(
                f"{name} has no chat template, so it was not trained to talk: choose its instruction-tuned version "
                '(names often end in "-Instruct", "-it" or "-chat")'
            )
        # Models that can think aloud are asked not to: the room waits for words.
        can_think = "enable_thinking" in str(self._template.chat_template)
        self._template_options = {"enable_thinking": False} if can_think else {}
        self._special_texts = _special_texts(tokenizer)
        user, assistant = _Spoken("user", "u"), _Spoken("assistant", "a")
        if self._try(user) is None:
            raise ConfigurationError(f"the chat template of {name} cannot be used: it fails on a single user message")
        self._has_system_role = "Zx7" in (self._try(_Spoken("system", "Zx7"), user) or "")
        self._is_strict = self._try(assistant, user) is None or self._try(user, user) is None
        self._has_system_anywhere = self._has_system_role and not self._is_strict and self._takes_system_anywhere()
        self._asks_after_reply = not self._is_strict and self._takes_reply_after_reply()
        self._before_reply = self._find_before_reply()

    def write(
        self,
        system_prompt: str,
        turns: Sequence[Turn],
        *,
        places: Collection[int] = (),
        reply_start: str = "",
        insertions: Sequence[Insertion] = (),
    ) -> TokenPieces:
        """The prompt that asks for the reply to the last turn, or for the rest of one that begins with `reply_start`.

        It is cut before the words of the turns in `places`."""
        text = self.render(system_prompt, turns, places=places, reply_start=reply_start, insertions=insertions)
        return TokenPieces(tuple(self.tokenise(piece) for piece in text.split(PLACE)), tuple(sorted(places)))

    def render(
        self,
        system_prompt: str,
        turns: Sequence[Turn],
        *,
        places: Collection[int] = (),
        reply_start: str = "",
        insertions: Sequence[Insertion] = (),
    ) -> str:
        """The prompt as text, up to where the reply begins, or goes on after `reply_start`.

        White space at the end of that is left out: models say it in one with the word that follows.
        """
        spoken = [self._spoken(turn, is_place=index in places) for index, turn in enumerate(turns)]
        spoken = self._with_insertions(spoken, insertions)
        if self._is_strict:
            spoken = _alternating(spoken)
        if system := self._clean(system_prompt):
            spoken = [_Spoken("system", system), *spoken] if self._has_system_role else _with_preface(spoken, system)
        begun = self._harmless(reply_start).rstrip()
        return self._render(spoken) + (self._before_reply + begun if begun else "")

    def tokenizer_json(self) -> str:
        """The tokenizer itself, as `tokenizers` reads it."""
        return str(self._tokenizer.backend_tokenizer.to_str())

    def num_tokens_per_turn(self) -> int:
        """What a turn costs beside its words, rather too much."""
        talk = [Turn(role, "a") for role in (Role.USER, Role.ASSISTANT) * 3]
        try:
            lengths = [self.write("", talk[:number]).num_tokens for number in (1, 3, 5)]
        except _TEMPLATE_ERRORS:  # whoever talks to it is told
            return ContextSize().per_turn
        two_turns = max(lengths[1] - lengths[0], lengths[2] - lengths[1])
        return max(0, -(-two_turns // 2) - len(self.tokenise("a")))

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Token ids of rendered text, in which the template has already put all special tokens."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _spoken(self, turn: Turn, *, is_place: bool) -> _Spoken:
        text = self._clean(turn.text)
        return _Spoken(turn.role.value, PLACE + text if is_place else text, len(turn.images))

    def _with_insertions(self, turns: Sequence[_Spoken], insertions: Sequence[Insertion]) -> list[_Spoken]:
        """What nobody said, among what was said: in messages of their own where the template knows such, else within
        the users'."""
        at = by_place([one for one in insertions if self._clean(one.text)], len(turns))
        woven: list[_Spoken] = []
        for place in range(len(turns) + 1):
            woven += [self._inserted(one, is_last=place == len(turns)) for one in at.get(place, ())]
            woven += turns[place : place + 1]
        return _joined_with_users(woven)

    def _inserted(self, insertion: Insertion, *, is_last: bool) -> _Spoken:
        is_own = {
            "system": self._has_system_anywhere,
            "user": True,
            "assistant": self._asks_after_reply or not is_last,
        }[insertion.role]
        return _Spoken(insertion.role if is_own else JOINS_USER, self._clean(insertion.text))

    def _clean(self, text: str) -> str:
        return self._harmless(text).strip()

    def _harmless(self, text: str) -> str:
        """What people wrote, with no mark and no special token of ours in it: nobody may write in another's name."""
        # Half a surrogate pair is no character, and no tokenizer takes it.
        text = text.encode("utf-8", "replace").decode("utf-8").translate(PLACE_CHARACTERS)
        for special in self._special_texts:
            if special in text:
                text = text.replace(special, f"{special[0]} {special[1:]}")
        return text

    def _render(self, spoken: Sequence[_Spoken], *, asks: bool = True) -> str:
        messages = [self._message(one) for one in spoken]
        rendered = self._template.apply_chat_template(
            messages, add_generation_prompt=asks, tokenize=False, **self._template_options
        )
        return str(rendered)

    def _message(self, spoken: _Spoken) -> dict[str, Any]:
        """Templates of vision-language models take a list of parts, others a plain text."""
        if not self._takes_pictures:
            return {"role": spoken.role, "content": spoken.text}
        parts: list[dict[str, str]] = [{"type": "image"}] * spoken.num_pictures
        return {"role": spoken.role, "content": [*parts, {"type": "text", "text": spoken.text}]}

    def _find_before_reply(self) -> str:
        """White space that the template has between the end of a prompt and the words of a reply, as Mistral's do."""
        asked, word = _Spoken("user", "u"), "Zx7"
        prompt, answered = self._try(asked), self._try(asked, _Spoken("assistant", word))
        if prompt is None or answered is None or not answered.startswith(prompt):
            return ""
        between = answered.removeprefix(prompt).partition(word)[0]
        return between if between.isspace() else ""

    def _takes_system_anywhere(self) -> bool:
        """Whether a system message stays where it stands, and is told from what people and the model say."""
        first, asked, last = _Spoken("system", "Jp5"), _Spoken("user", "Wb2"), _Spoken("user", "Qk4")
        forms = [
            self._try(first, asked, _Spoken("assistant", "a"), _Spoken(role, "Zx7"), last)
            for role in ("system", "user", "assistant")
        ]
        between, at_end = forms[0], self._try(first, asked, _Spoken("system", "Zx7"))
        if between is None or at_end is None or between in forms[1:]:
            return False
        return _stand_in_order(between, "Jp5", "Wb2", "Zx7", "Qk4") and _stand_in_order(at_end, "Jp5", "Wb2", "Zx7")

    def _takes_reply_after_reply(self) -> bool:
        """Whether the template asks for a reply after one, and not for its rest."""
        asked = _Spoken("user", "u")
        whole, said = self._try(asked), self._try(asked, asks=False)
        answered = self._try(asked, _Spoken("assistant", "Zx7"))
        if whole is None or said is None or answered is None or not whole.startswith(said):
            return False
        mark = whole.removeprefix(said)
        return bool(mark) and answered.partition("Zx7")[2].endswith(mark)

    def _try(self, *spoken: _Spoken, asks: bool = True) -> str | None:
        try:
            return self._render(spoken, asks=asks)
        except _TEMPLATE_ERRORS:
            return None


def num_turns_to_drop(turns: Sequence[Turn], num_tokens_without: Callable[[int], int], *, max_tokens: int) -> int:
    """The least number of oldest turns to leave out so that the rest fits; what is left begins with a user's turn.

    `num_tokens_without(n)` is the prompt's length without the first `n` turns. Raises `PromptTooLong` if even the last
    turn alone does not fit.
    """
    if num_tokens_without(0) <= max_tokens:
        return 0
    starts = [index for index, turn in enumerate(turns) if index and turn.role is Role.USER]
    low, high = 0, len(starts)
    while low < high:
        middle = (low + high) // 2
        if num_tokens_without(starts[middle]) <= max_tokens:
            high = middle
        else:
            low = middle + 1
    if low == len(starts):
        needed = num_tokens_without(starts[-1] if starts else 0)
        raise PromptTooLong(
            f"the persona's prompt and this message take {needed} tokens, and there is room for {max_tokens}: shorten "
            "the message or the persona, or raise engine.max_context_tokens"
        )
    return starts[low]


def _joined_with_users(spoken: Sequence[_Spoken]) -> list[_Spoken]:
    """What cannot stand alone becomes the beginning of the user's message that follows, or else the end of the one
    before, or else one of its own."""
    joined: list[_Spoken] = []
    loose: list[str] = []
    for one in [*spoken, None]:
        if one is not None and one.role == JOINS_USER:
            loose.append(one.text)
            continue
        if loose and one is not None and one.role == Role.USER:
            one = replace(one, text=_paragraphs(*loose, one.text))
        elif loose and joined and joined[-1].role == Role.USER:
            joined[-1] = replace(joined[-1], text=_paragraphs(joined[-1].text, *loose))
        elif loose:
            joined.append(_Spoken(Role.USER.value, _paragraphs(*loose)))
        loose = []
        joined += [] if one is None else [one]
    return joined


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))


def _stand_in_order(text: str, *words: str) -> bool:
    """Whether each of `words` stands in `text` once, in this order."""
    places = [text.find(word) for word in words]
    return all(text.count(word) == 1 for word in words) and places == sorted(places)


def _alternating(spoken: Sequence[_Spoken]) -> list[_Spoken]:
    """For strict templates: begin with the user, and join neighbours of one role."""
    joined = [_Spoken(Role.USER.value, OPENING)] if spoken and spoken[0].role == Role.ASSISTANT else []
    for one in spoken:
        if joined and joined[-1].role == one.role:
            before = joined.pop()
            one = _Spoken(one.role, f"{before.text}\n\n{one.text}", before.num_pictures + one.num_pictures)
        joined.append(one)
    return joined


def _with_preface(spoken: Sequence[_Spoken], system: str) -> list[_Spoken]:
    """For templates without a system role: the system prompt opens the first user turn."""
    first = next((index for index, one in enumerate(spoken) if one.role == Role.USER), None)
    if first is None:
        return [_Spoken(Role.USER.value, system), *spoken]
    opened = replace(spoken[first], text=f"{system}\n\n{spoken[first].text}")
    return [*spoken[:first], opened, *spoken[first + 1 :]]


def _special_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Texts that would become control tokens, the longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    texts = {text for text in {*added, *tokenizer.all_special_tokens} if len(text) > 1}
    return tuple(sorted(texts, key=lambda text: (-len(text), text)))
