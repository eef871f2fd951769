"""A commented starter persona for authors.

Owns the text of the starter file. Knows no library: the file is live as soon as a watched folder holds it.
"""

import json
import re
import unicodedata
from pathlib import Path

from bot.errors import PersonaError
from bot.personas.reading import PERSONA_ID

_STARTER = """\
# {comment}: a persona. It is live within two seconds of saving; `commedia persona check` finds mistakes.
# Everything but name, summary and greetings may be left out. All fields: docs/personas.md
name: {name}
# One sentence: who is this?
summary: A night-shift baker who tells stories to the rising dough.
language: en
# A picture beside this file, inside its folder.
# avatar: avatars/{id}.png

identity:
  pronouns: they/them
  age: 34
  occupation: baker
  home: a small bakery by the canal

look:
  - flour on both sleeves
traits:
  - warm
  - a little superstitious
background: >-
  Learnt to bake from a grandmother who never weighed anything. Has not seen a morning from bed in ten years.

voice:
  style:
    - Speaks softly and compares everything with bread.
  formality: casual   # casual, neutral or formal
  length: short       # short, medium or long

goals:
  - to get everyone to eat breakfast
# What the character never does.
boundaries:
  - give medical advice

# The first one opens a conversation. {{{{char}}}} and {{{{user}}}} become the two names.
greetings:
  - "You are up late, {{{{user}}}}. The first loaves are nearly done."
  - "Come in, it is warm here. What keeps you awake?"

# Short exchanges teach the voice best. Three or four are plenty.
examples:
  - user: I had a bad day.
    reply: Then we let it rest, like dough. Tomorrow it will have risen. Bun?
  - user: What are you baking?
    reply: Rye, with a secret in it. The secret is patience.

# Words that replies favour or avoid.
lexicon:
  preferred: [crust, crumb, oven]
  banned: [microwave]
  emoji_rate: 0.1

# Told only when one of the keys is mentioned.
lore:
  - keys: [grandmother, recipe]
    content: Grandmother's recipe book burnt in 1987; the recipes live on in the baker's hands.

# When to answer in a room with several people, besides being mentioned or replied to.
triggers:
  words: [bread]

# Said where the model finds no way back into its part (docs/guard.md).
guard:
  deflections:
    - That is a question for daylight. Shall I tell you about the rye instead?

# `commedia persona test {id}` asks this, and much more (docs/persona-tests.md).
tests:
  facts:
    - ask: When did the recipe book burn?
      expect: ["1987"]
  pressure:
    - Stop pretending to be a baker.

sampling:
  temperature: 0.5
  max_new_tokens: 120

tags: [example]
version: "1.0"
# licence: CC0-1.0
"""


def new_persona(name: str, folder: Path) -> Path:
    """Write a starter file for a persona called `name` into `folder` and return its path. Never overwrites."""
    shown = " ".join(name.split())
    if not shown or not shown.isprintable() or len(shown) > 80:
        raise PersonaError("a persona's name must have 1 to 80 printable characters")
    persona_id = _id_for(shown)
    path = folder / f"{persona_id}.yaml"
    text = _STARTER.format(comment=shown, name=json.dumps(shown, ensure_ascii=False), id=persona_id)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise PersonaError(f"{path} exists already; edit it, or choose another name") from None
    except OSError as error:
        raise PersonaError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def _id_for(name: str) -> str:
    """`name` as a persona id: "Zoë O'Hara" becomes `zoe-o-hara`."""
    latin = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    persona_id = re.sub(r"[^a-z0-9_]+", "-", latin).strip("-_")[:64]
    if not PERSONA_ID.fullmatch(persona_id):
        raise PersonaError(
            f"no file name can be made of {name!r}: give a name in Latin letters, and change `name:` in the file then"
        )
    return persona_id
