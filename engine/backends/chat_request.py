"""What is asked of a chat API, and how a request that was refused is changed so that it may be taken.

Owns the wording of messages and the names of fields, and what a server was found not to take. Pure: no network, no
clock. Knows only OpenAI's form and what servers add to it.
"""

import base64
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.backends.chat_server import Refused
from engine.errors import PromptTooLong, RequestError
from engine.insertions import by_place
from engine.types import GenerationRequest, Image, Insertion, Role, SamplingSettings, Turn

logger = logging.getLogger(__name__)

OPENING = "Hello."
# OpenAI's own limit; the others are cut on this side.
MAX_STOP_STRINGS = 4
MAX_MENDINGS = 24
MAX_BANNED_FORMS = 200
# Of the oldest turns that may go, this share goes at each refusal, and one at least.
DROPPED_SHARE = 4
BYTES_PER_TOKEN = 4
# What was too long once is believed a little less with every request, lest one odd refusal count for ever.
FORGETTING = 1.02

_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|exceed_context|maximum (?:model|prompt|input|sequence) length"
    r"|(?:prompt|input|request|messages)\b.{0,40}\btoo (?:long|large|many tokens)|too many (?:input |prompt )?tokens",
    re.IGNORECASE | re.DOTALL,
)
_UNKNOWN_FIELD = re.compile(
    r"unknown|unrecogni[sz]ed|unsupported|not (?:\w+ )?(?:supported|permitted|allowed)|unexpected|extra (?:field|input)"
    r"|not support|deprecated",
    re.IGNORECASE,
)
_STRICT_ROLES = re.compile(
    r"alternat|system (?:role|message|prompt)s?\b.{0,40}(?:not supported|unsupported|not allowed)|roles? must",
    re.IGNORECASE,
)
_SYSTEM_FIRST = re.compile(
    r"system (?:role|message|prompt)s?\b.{0,40}\b(?:begin|start|first)"
    r"|\b(?:begin|start|first|initial)\b.{0,40}system (?:role|message|prompt)",
    re.IGNORECASE,
)
_MAX_PICTURES = re.compile(r"at most (\d+) images?", re.IGNORECASE)
_NO_PICTURES = re.compile(
    r"not a multimodal|(?:image|vision|multi-?modal).{0,60}(?:not supported|unsupported|not allowed|not available)"
    r"|(?:not support|no support|cannot|does not accept).{0,60}(?:image|vision|multi-?modal)"
    r"|content.{0,40}(?:must|should) be a(?: valid)? string",
    re.IGNORECASE,
)
_NO_START = re.compile(r"prefix true|prefill|(?:last|final) (?:message|role|turn)\b|end with a user", re.IGNORECASE)


@dataclass(slots=True)
class Dialect:
    """What one server takes, as far as its refusals have shown.

    `max_pictures` of one request, `None` where no bound is known. `repetition_names` are what this kind of server may
    call a repetition penalty; `extra` goes along with every request, `going_on` with those for the rest of a reply,
    whose beginning some want to be marked (`marks_start`). `banned_name` is what a list of words is called that are not
    to be said.
    """

    repetition_names: tuple[str, ...] = ("repetition_penalty", "repeat_penalty")
    max_pictures: int | None = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    going_on: Mapping[str, Any] = field(default_factory=dict)
    marks_start: bool = False
    banned_name: str | None = None
    refused_fields: set[str] = field(default_factory=set)
    is_strict: bool = False
    has_system_anywhere: bool = True
    has_completion_tokens: bool = False
    too_long_bytes: float = float("inf")

    def refuse(self, name: str) -> None:
        """Remember that the server does not know the field `name`."""
        if name not in self.refused_fields:
            logger.warning("the server does not take %s: replies are made without it", name)
            self.refused_fields.add(name)


@dataclass(slots=True)
class Draft:
    """One request on its way to being taken. `model` is what the server calls the model, or the adapter, to use;
    `logit_bias` goes by token id."""

    request: GenerationRequest
    model: str
    dialect: Dialect
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    num_dropped_turns: int = 0
    left_out: set[str] = field(default_factory=set)
    num_mendings: int = 0

    def __post_init__(self) -> None:
        for start in (0, *self._starts()):
            self.num_dropped_turns = start
            if self._num_bytes() < self.dialect.too_long_bytes:
                break
        self.dialect.too_long_bytes *= FORGETTING

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns that are sent."""
        return self.request.turns[self.num_dropped_turns :]

    def messages(self) -> list[dict[str, Any]]:
        """What the model reads, but for the beginning of its reply."""
        return write_messages(
            self.request.system_prompt,
            self.turns,
            max_pictures=self.dialect.max_pictures,
            is_strict=self.dialect.is_strict,
            insertions=self.request.insertions,
            has_system_anywhere=self.dialect.has_system_anywhere,
        )

    def body(self) -> dict[str, Any]:
        """What goes to the chat API."""
        messages = self.messages()
        if start := self._start():
            messages.append({"role": Role.ASSISTANT.value, "content": start})
            if self.dialect.marks_start:
                messages[-1]["prefix"] = True
        return {"model": self.model, "messages": messages, "stream": True, **self.fields()}

    def fields(self) -> dict[str, Any]:
        """Everything beside the words: how to choose tokens, and what to tell of the cost."""
        limit = "max_completion_tokens" if self.dialect.has_completion_tokens else "max_tokens"
        wanted: dict[str, Any] = {limit: self.request.sampling.max_new_tokens}
        wanted |= dict(_sampling_fields(self.request.sampling, self.dialect.repetition_names))
        if self.logit_bias:
            wanted["logit_bias"] = {str(token): bias for token, bias in self.logit_bias.items()}
        if self.dialect.banned_name is not None and (banned := _forms(self.request.persona.lexicon.banned)):
            wanted[self.dialect.banned_name] = banned
        wanted |= {"stream_options": {"include_usage": True}, **self.dialect.extra}
        if self._start():
            wanted |= self.dialect.going_on
        unwanted = self.left_out | self.dialect.refused_fields
        return {name: value for name, value in wanted.items() if name not in unwanted}

    def mend(self, refusal: Refused) -> None:
        """Change the request so that the server may take it. Raises what to say where nothing can be changed."""
        self.num_mendings += 1
        if self.num_mendings > MAX_MENDINGS:
            raise refusal
        if refusal.status == 413 or _TOO_LONG.search(refusal.reason):
            self._drop_turns()
        elif not any(
            change(refusal) for change in (self._limit_pictures, self._mark_start, self._obey_roles, self._leave_out)
        ):
            raise refusal

    def _drop_turns(self) -> None:
        self.dialect.too_long_bytes = min(self.dialect.too_long_bytes, self._num_bytes())
        starts = [start for start in self._starts() if start > self.num_dropped_turns]
        if not starts:
            raise PromptTooLong(
                "the persona's prompt and this message are too long for the model on the server: shorten the message "
                "or the persona, or start the server with a longer context"
            )
        self.num_dropped_turns = starts[(len(starts) - 1) // DROPPED_SHARE]

    def _limit_pictures(self, refusal: Refused) -> bool:
        num_sent = sum(len(turn.images) for turn in self.turns)
        known = num_sent if self.dialect.max_pictures is None else self.dialect.max_pictures
        if not min(num_sent, known):
            return False
        if told := _MAX_PICTURES.search(refusal.reason):
            self.dialect.max_pictures = min(int(told[1]), known - 1)
        elif _NO_PICTURES.search(refusal.reason):
            self.dialect.max_pictures = 0
        else:
            return False
        logger.warning("the model on the server takes %d pictures at once", self.dialect.max_pictures)
        return True

    def _start(self) -> str:
        """What the reply begins with. White space at its end would be no part of the next word, and some refuse it."""
        return self.request.reply_start.rstrip()

    def _mark_start(self, refusal: Refused) -> bool:
        """For servers that take a reply's beginning only where it is called one."""
        if not self._start() or not _NO_START.search(refusal.reason):
            return False
        if self.dialect.marks_start:
            raise RequestError(
                "the model on the server cannot go on with a reply that has begun: ask for a new one, or choose "
                "another model"
            )
        self.dialect.marks_start = True
        return True

    def _obey_roles(self, refusal: Refused) -> bool:
        """For models that know no system message, or want question and answer in turns."""
        has_system_within = any(insertion.role == "system" for insertion in self.request.insertions)
        if has_system_within and self.dialect.has_system_anywhere and _SYSTEM_FIRST.search(refusal.reason):
            self.dialect.has_system_anywhere = False
            return True
        if self.dialect.is_strict or not _STRICT_ROLES.search(refusal.reason):
            return False
        self.dialect.is_strict = True
        return True

    def _leave_out(self, refusal: Refused) -> bool:
        """Do without the fields that the refusal names; for good where the server does not know them at all."""
        fields = self.fields()
        if "max_tokens" in fields and "max_completion_tokens" in refusal.reason:
            self.dialect.has_completion_tokens = True
            return True
        named = [name for name in fields if name == refusal.field or re.search(rf"\b{name}\b", refusal.reason)]
        for name in named:
            self.left_out.add(name)
            if _UNKNOWN_FIELD.search(refusal.reason):
                self.dialect.refuse(name)
        return bool(named)

    def _starts(self) -> list[int]:
        """Where the conversation may begin without its oldest turns: at something that a user said."""
        return [index for index, turn in enumerate(self.request.turns) if index and turn.role is Role.USER]

    def _num_bytes(self) -> float:
        """How long it is, in a measure that is about the same for every script; what is to come counts too."""
        num_read = len(self.request.system_prompt.encode()) + sum(len(turn.text.encode()) for turn in self.turns)
        num_read += sum(len(insertion.text.encode()) for insertion in self.request.insertions)
        num_read += len(self.request.reply_start.encode())
        return num_read + BYTES_PER_TOKEN * self.request.sampling.max_new_tokens


def choose_adapter(request: GenerationRequest, known: Sequence[str], *, model: str) -> str:
    """What the server calls the model with the request's adapter. Raises `RequestError` for one that it has not."""
    if request.adapter is None or request.adapter in known:
        return request.adapter or model
    there = f"it has {', '.join(known)}" if known else "it has none"
    raise RequestError(
        f'the server has no adapter "{request.adapter}": {there}. Name it in engine.adapters, and start the server '
        "with it"
    )


def write_messages(
    system_prompt: str,
    turns: Sequence[Turn],
    *,
    max_pictures: int | None = 0,
    is_strict: bool = False,
    insertions: Sequence[Insertion] = (),
    has_system_anywhere: bool = True,
) -> list[dict[str, Any]]:
    """The conversation in the API's form. Pictures beyond `max_pictures`, the oldest first, become notes.

    What stands among the turns joins the users' messages where system messages may only come first.
    """
    shown = _newest_pictures(turns, max_pictures)
    said = [_message(turn, num_shown) for turn, num_shown in zip(turns, shown, strict=True)]
    woven = list(_with_insertions(said, insertions))
    if not has_system_anywhere:
        woven = _without_system(woven)
    first = [{"role": "system", "content": system_prompt}] if system_prompt.strip() else []
    return _alternating([*first, *woven]) if is_strict else [*first, *woven]


def _forms(words: Sequence[str]) -> list[str]:
    """Words in the forms in which they are written, for servers that compare them sign by sign."""
    forms = [form for word in words for form in (word, word.lower(), word[:1].upper() + word[1:], word.upper())]
    return list(dict.fromkeys(forms))[:MAX_BANNED_FORMS]


def picture_note(number: int) -> str:
    """What stands for pictures that the model does not get, lest it make up what they show."""
    if number == 1:
        return "[A picture came with this message. You cannot see it.]"
    return f"[{number} pictures came with this message. You cannot see them.]"


def _with_insertions(messages: Sequence[dict[str, Any]], insertions: Sequence[Insertion]) -> Iterator[dict[str, Any]]:
    at = by_place([one for one in insertions if one.text.strip()], len(messages))
    for place in range(len(messages) + 1):
        for insertion in at.get(place, ()):
            # Servers take an assistant's message at the end for the beginning of the reply.
            is_begun = insertion.role == "assistant" and place == len(messages)
            yield {"role": "system" if is_begun else insertion.role, "content": insertion.text.strip()}
        yield from messages[place : place + 1]


def _newest_pictures(turns: Sequence[Turn], max_pictures: int | None) -> list[int]:
    """How many pictures of each turn are sent."""
    left = sum(len(turn.images) for turn in turns) if max_pictures is None else max_pictures
    shown: list[int] = []
    for turn in reversed(turns):
        shown.append(min(len(turn.images), left))
        left -= shown[-1]
    return shown[::-1]


def _message(turn: Turn, num_shown: int) -> dict[str, Any]:
    num_hidden = len(turn.images) - num_shown
    text = "\n".join(filter(None, (picture_note(num_hidden) if num_hidden else "", turn.text)))
    if not num_shown:
        return {"role": turn.role.value, "content": text}
    pictures = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in turn.images[num_hidden:]]
    return {"role": turn.role.value, "content": [*pictures, {"type": "text", "text": text}]}


def _data_url(image: Image) -> str:
    kind = "jpeg" if image.data.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(image.data).decode('ascii')}"


def _alternating(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same without a system message, beginning with the user, and neighbours of one role joined."""
    joined: list[dict[str, Any]] = []
    for message in messages:
        role = Role.USER.value if message["role"] == "system" else message["role"]
        if not joined and role == Role.ASSISTANT:
            joined.append({"role": Role.USER.value, "content": OPENING})
        if joined and joined[-1]["role"] == role:
            joined[-1] = {"role": role, "content": _joined(joined[-1]["content"], message["content"])}
        else:
            joined.append({"role": role, "content": message["content"]})
    return joined


def _without_system(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with system messages within a neighbouring message of the user, or else as one."""
    joined: list[dict[str, Any]] = []
    is_open = False
    for message in messages:
        is_loose = message["role"] == "system"
        message = {"role": Role.USER.value, "content": message["content"]} if is_loose else message
        is_joining = bool(joined) and joined[-1]["role"] == message["role"] == Role.USER and (is_loose or is_open)
        if is_joining:
            message = {"role": message["role"], "content": _joined(joined.pop()["content"], message["content"])}
        joined.append(message)
        is_open = is_loose and (not is_joining or is_open)
    return joined


def _joined(first: str | list[Any], second: str | list[Any]) -> str | list[Any]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: str | list[Any]) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _sampling_fields(sampling: SamplingSettings, repetition_names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Settings in the API's words; what changes nothing is left out, since not every server knows it."""
    yield "temperature", sampling.temperature
    yield "top_p", sampling.top_p
    if sampling.top_k:
        yield "top_k", sampling.top_k
    if sampling.min_p:
        yield "min_p", sampling.min_p
    if sampling.repetition_penalty != 1:
        yield from ((name, sampling.repetition_penalty) for name in repetition_names)
    if stop := [text for text in sampling.stop if text][:MAX_STOP_STRINGS]:
        yield "stop", stop
    if sampling.seed is not None:
        yield "seed", sampling.seed
