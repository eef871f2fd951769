"""The lore schema: pieces of a character's world, and when each is told.

Owns what an author may say about them, which is what lorebooks of character cards can say. What is told at a moment is
found by `bot.personas.lorebook`. Depends on nothing of Commedia.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Position = Literal[
    "before_char",
    "after_char",
    "before_desc",
    "after_desc",
    "personality",
    "scenario",
    "before_examples",
    "after_examples",
    "at_depth",
    "beside_question",
]
"""Where an entry stands: around the whole character, in or around a part of it, among the turns, or, introduced as what
the character knows, right before the turn that is answered."""
EntryRole = Literal["system", "user", "assistant"]
Logic = Literal["and_any", "and_all", "not_any", "not_all"]
Key = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
Content = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


def split_content(content: str) -> tuple[list[str], str]:
    """The lines of decorators that `content` begins with, and the text after them."""
    lines = content.split("\n")
    decorators = []
    for number, line in enumerate(lines):
        if line.strip().startswith("@@"):
            decorators.append(line.strip())
        elif line.strip():
            return decorators, "\n".join(lines[number:]).strip()
    return decorators, ""


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class LoreEntry(_Part):
    """A piece of the character's world, told when one of `keys` occurs in the recent turns, or always.

    `order`: lower stands earlier. `priority`: lower is dropped first where there is no room. `secondary_keys` count
    where there are any: `logic` says how. `probability` is in percent. Of a `group`, one entry is told: by chance, each
    with its `group_weight`, or the one with `group_override` and the highest order. Counted in messages: told entries
    stay for `sticky`, then rest for `cooldown`; before `delay` messages none is told. `scan_depth=None` is the book's.
    Lines `@@name value` at the beginning of `content` are decorators of character cards, and go over these fields.
    """

    keys: tuple[Key, ...] = ()
    content: Content
    is_constant: bool = Field(default=False, alias="constant")
    is_enabled: bool = Field(default=True, alias="enabled")
    name: str = ""
    order: int = 100
    priority: int = 100
    position: Position = "beside_question"
    depth: Count = 4
    role: EntryRole = "system"
    secondary_keys: tuple[Key, ...] = ()
    logic: Logic = "and_any"
    is_case_sensitive: bool = Field(default=False, alias="case_sensitive")
    is_regex: bool = Field(default=False, alias="regex")
    has_whole_words: bool = Field(default=True, alias="whole_words")
    scan_depth: Count | None = None
    probability: float = Field(default=100, ge=0, le=100)
    groups: tuple[str, ...] = ()
    group_weight: float = Field(default=100, ge=0)
    group_override: bool = False
    sticky: Count = 0
    cooldown: Count = 0
    delay: Count = 0
    is_not_found_by_lore: bool = Field(default=False, alias="exclude_recursion")
    finds_no_lore: bool = Field(default=False, alias="prevent_recursion")
    recursion_level: Count = Field(default=0, alias="delay_until_recursion")
    ignores_budget: bool = Field(default=False, alias="ignore_budget")

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        if not self.keys and not self.is_constant and not self.content.startswith("@@"):
            raise ValueError("would never be told: give it `keys`, or `constant: true`")
        return self

    @property
    def text(self) -> str:
        """What is told: `content` without decorators."""
        return split_content(self.content)[1]


class Lorebook(_Part):
    """How entries are looked for. `token_budget=None` leaves room as the context has it; `recursive`: what is told may
    bring up more, `max_recursion` times at most (0: as often as something new comes up). `recall`: entries that only
    have keys may also be told because the question is about what they say."""

    scan_depth: Count = 4
    token_budget: Count | None = None
    is_recursive: bool = Field(default=False, alias="recursive")
    max_recursion: Count = 0
    has_recall: bool = Field(default=True, alias="recall")
