"""Values that are compared by what they are, not by what they hold.

Comparing and hashing a persona with thousands of lore entries takes longer than most of what is made of it. Wrapped in
`Same` it can be remembered by. Owns that alone.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Same(Generic[T]):
    """A value that equals only itself."""

    value: T

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.value is self.value
