"""What a persona's lexicon and length do to replies of the default model, when they act on decoding and when not.

    python -m benchmarks.lexicon_effect --json OUT

Every persona answers the same questions, `--repeats` times, with and without; all else is alike. In both ways the
prompt names catchphrases and length, so that the difference is decoding's alone. Counts banned words, preferred words,
catchphrases, emoji and sentences in the text itself, by regular expressions of its own. `--tuning` asks the questions
with which the strengths were chosen, so that they are not measured with what they were chosen by.
"""

import argparse
import json
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import regex

from bot.personas.library import PersonaLibrary
from bot.personas.prompt import build_request
from engine.backends.local import build
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.generation.loop import GenerationLoop
from engine.generation.processors import no_processors
from engine.generation.sequence import Sequence as Running
from engine.persona import Persona
from engine.types import GenerationRequest, ReplyChunk, Role, SamplingSettings, Turn

ROOT = Path(__file__).parent.parent
SIDE_BY_SIDE = 8
QUESTIONS = (
    "Good morning! How did you sleep?",
    "What is your favourite thing in the world?",
    "I had a terrible day at work.",
    "Can you tell me a short story?",
    "What should I eat tonight?",
    "Do you have any brothers or sisters?",
    "I want to give something back that I bought from you.",
    "What do you think of the rain?",
    "Give me three pieces of advice.",
    "Why are you like this?",
    "I won a prize today!!",
    "What is the difference between a lake and a pond?",
    "Who is your best friend?",
    "I cannot find my keys. Help me look for them.",
    "What were you doing before I came?",
    "Are you a computer program?",
    "How much does it cost?",
    "Tell me about the place where you live.",
    "What scares you?",
    "Goodbye, see you tomorrow!",
)
TUNING_QUESTIONS = (
    "Hello, who are you?",
    "What can you do for me?",
    "I am bored.",
    "Explain how bread is made.",
    "What do you want most?",
    "My dog ran away.",
    "Say something nice!",
    "What happened yesterday?",
)
_EMOJI = regex.compile(
    r"(?:\p{Emoji_Presentation}|(?![\u0000-\u25ff])\p{Extended_Pictographic})"
    r"(?:\p{Emoji_Modifier}|\ufe0f|\u200d\p{Extended_Pictographic})*"
)
_SENTENCE = regex.compile(r"[^.!?…。！？\n]*\p{L}[^.!?…。！？\n]*[.!?…。！？\n]*")


def replies_of(loop: GenerationLoop, requests: Sequence[GenerationRequest]) -> list[str]:
    """What is answered to each, `SIDE_BY_SIDE` at a time."""
    answers: list[list[ReplyChunk | EngineError]] = [[] for _ in requests]
    for start in range(0, len(requests), SIDE_BY_SIDE):
        for number in range(start, min(start + SIDE_BY_SIDE, len(requests))):
            loop.add(Running(requests[number], answers[number].append, time.monotonic()))
        while loop.has_work:
            loop.step()
    if errors := [answer for one in answers for answer in one if isinstance(answer, EngineError)]:
        raise errors[0]
    return ["".join(chunk.text for chunk in one if isinstance(chunk, ReplyChunk)) for one in answers]


def num_words(words: Sequence[str], text: str) -> int:
    """How often any of `words` stands in `text` as a word."""
    return sum(len(re.findall(_as_word(word), text, re.IGNORECASE)) for word in words)


def _as_word(word: str) -> str:
    edges = [r"\b" if sign.isascii() and sign.isalnum() else "" for sign in (word[0], word[-1])]
    return f"{edges[0]}{re.escape(word)}{edges[1]}"


def figures_of(persona: Persona, texts: Sequence[str]) -> dict[str, float]:
    """Of all replies of one persona."""
    lexicon = persona.lexicon
    sentences = [len(_SENTENCE.findall(text)) for text in texts]
    words = [re.findall(r"\w+", text.casefold()) for text in texts]
    pairs = [list(pairwise(one)) for one in words]
    distinct = [len(set(one)) / len(one) for one in pairs if one]

    def share(is_so: Callable[[str], bool]) -> float:
        return 100 * sum(map(is_so, texts)) / len(texts)

    return {
        "banned words per 100 replies": 100 * sum(num_words(lexicon.banned, text) for text in texts) / len(texts),
        "replies with a preferred word, %": share(lambda text: num_words(lexicon.preferred, text) > 0),
        "preferred words per reply": sum(num_words(lexicon.preferred, text) for text in texts) / len(texts),
        "replies with a preferred word thrice, %": share(
            lambda text: any(num_words([word], text) > 2 for word in lexicon.preferred)
        ),
        "replies with a catchphrase, %": share(lambda text: num_words(lexicon.catchphrases, text) > 0),
        "emoji per sentence": sum(len(_EMOJI.findall(text)) for text in texts) / max(1, sum(sentences)),
        "sentences, median": statistics.median(sentences),
        "sentences, mean": statistics.mean(sentences),
        "letters per reply": statistics.mean(map(len, texts)),
        "distinct-2": statistics.mean(distinct) if distinct else 1.0,
        "replies that loop, %": 100 * sum(map(_loops, pairs)) / len(texts),
        "broken signs per 100 replies": 100 * sum(text.count("\ufffd") for text in texts) / len(texts),
        "empty replies, %": share(lambda text: not text.strip()),
    }


def _loops(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether some pair of words comes four times or more."""
    return bool(pairs) and Counter(pairs).most_common(1)[0][1] > 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write figures and replies here, too")
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--personas", nargs="*", default=["grub", "june", "maren", "okoro", "tomas"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tuning", action="store_true")
    arguments = parser.parse_args()
    library = PersonaLibrary([ROOT / "personas"])
    library.load()
    questions = TUNING_QUESTIONS if arguments.tuning else QUESTIONS
    found: dict[str, dict[str, dict[str, object]]] = {}
    loop = build(EngineConfig(cache_dir=arguments.cache))
    makers = {"without": no_processors, "with": loop._make_processors}
    for name in arguments.personas:
        persona = library.get(name)
        requests = [
            build_request(persona, [Turn(Role.USER, question)], sampling=SamplingSettings()) for question in questions
        ] * arguments.repeats
        for way, make in makers.items():
            loop._make_processors = make
            texts = replies_of(loop, requests)
            found.setdefault(name, {})[way] = {"figures": figures_of(persona, texts), "replies": texts}
            print(f"{name} {way}: {len(texts)} replies", file=sys.stderr, flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, ways in found.items():
        asked = library.get(name)
        print(f"\n{name} (length {asked.voice.length}, emoji rate {asked.lexicon.emoji_rate})")
        for figure, before in ways["without"]["figures"].items():  # type: ignore[attr-defined]
            print(f"  {figure:42} {before:8.2f} {ways['with']['figures'][figure]:8.2f}")  # type: ignore[index]


if __name__ == "__main__":
    main()
