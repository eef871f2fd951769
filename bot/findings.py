"""What a check of `commedia doctor` gives: the words that all checks share."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    HINT = "hint"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw. `remedy` says what to do; it is empty where all is well."""

    level: Level
    subject: str
    text: str
    remedy: str = ""
