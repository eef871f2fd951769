"""What a server that speaks OpenAI's API answers, in any of the forms that servers use, as plain values.

Owns the shapes of answers. Pure: knows no network, and passes on whatever `json` and a wrong shape raise.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

_LENGTH_NAMES = ("max_model_len", "loaded_context_length", "context_length", "context_window", "max_context_length")


@dataclass(frozen=True, slots=True)
class Usage:
    """What the server says a reply cost, in tokens."""

    num_prompt_tokens: int = 0
    num_new_tokens: int = 0
    num_cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer: text, why it ended, or what it cost."""

    text: str = ""
    finish: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that the server has. `root` is where it comes from, `parent` the model that an adapter belongs to."""

    name: str
    root: str | None = None
    parent: str | None = None
    max_context_tokens: int | None = None


def read_error(data: bytes) -> dict[str, Any]:
    """What came in place of an answer."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        # A proxy's page, in which only the words matter.
        return {"message": re.sub(r"<[^<>]*>", " ", data.decode("utf-8", "replace"))}
    return content if isinstance(content, dict) else {"message": json.dumps(content)}


def reason_of(content: dict[str, Any]) -> tuple[str, str, str]:
    """What an error says, which field it names, and its code, in any of the forms that servers use."""
    error = content.get("error")
    if isinstance(error, str):
        return error, "", ""
    told: dict[str, Any] = error if isinstance(error, dict) else content
    message = told.get("message") or told.get("detail") or ""
    text = message if isinstance(message, str) else json.dumps(message)
    kind = told.get("type")
    if isinstance(kind, str) and "context" in kind:
        text = f"{text} ({kind})"
    code = told.get("code")
    return text, str(told.get("param") or ""), "" if code is None else str(code)


def read_piece(content: dict[str, Any]) -> Piece:
    """One event of a stream, or a whole answer."""
    usage = _usage(content.get("usage"))
    choices = content.get("choices") or ()
    if not choices:
        return Piece(usage=usage)
    choice = choices[0]
    said = choice.get("delta") or choice.get("message") or {}
    # What a model thinks aloud comes in fields of its own, and is not shown.
    text = choice.get("text") or said.get("content") or ""
    if not isinstance(text, str):
        raise TypeError("text is expected")
    finish = choice.get("finish_reason")
    # Half of a pair is no character: nobody could store or send it on.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return Piece(text, None if finish is None else str(finish), usage)


def _usage(told: dict[str, Any] | None) -> Usage | None:
    if not told:
        return None
    details = told.get("prompt_tokens_details") or {}
    return Usage(
        int(told.get("prompt_tokens") or 0),
        int(told.get("completion_tokens") or 0),
        int(details.get("cached_tokens") or 0),
    )


def read_model(entry: dict[str, Any]) -> ServedModel:
    """One entry of the list of models."""
    return ServedModel(str(entry["id"]), _name(entry.get("root")), _name(entry.get("parent")), _length(entry))


def _length(entry: dict[str, Any]) -> int | None:
    """The model's context, under any of the names that servers have for it: vLLM, llama.cpp, LM Studio, clouds."""
    meta = entry.get("meta")
    told = [entry.get(name) for name in _LENGTH_NAMES]
    told.append(meta.get("n_ctx") if isinstance(meta, dict) else None)
    lengths = [length for length in told if type(length) is int and length > 0]
    return min(lengths, default=None)


def _name(told: object) -> str | None:
    return told if isinstance(told, str) else None
