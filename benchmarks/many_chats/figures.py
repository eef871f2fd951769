"""What was measured: one record a job, medians of them, and the bars that issue 4 sets.

Knows neither processes nor prompts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.many_chats.engines import LLAMA_Q8, OURS, OURS_WITHOUT_CACHE, STATIC
from benchmarks.many_chats.workload import Condition

MAX_PERPLEXITY_RATIO = 1.01


@dataclass(frozen=True, slots=True)
class Record:
    """One job of one engine. `first_s` is the median over its chats of the seconds to the first token, `each_per_s` of
    the tokens a second that a chat gets after it; `total_per_s` is all new tokens over the time that all took."""

    engine: str
    condition: Condition
    num_chats: int
    first_s: float
    longest_first_s: float
    each_per_s: float
    total_per_s: float

    @classmethod
    def of(cls, engine: str, condition: Condition, answer: Mapping[str, Any]) -> "Record":
        replies = answer["replies"]
        firsts = [reply["first_s"] for reply in replies]
        rates = [(reply["num_new"] - 1) / max(reply["ended_s"] - reply["first_s"], 1e-9) for reply in replies]
        total = sum(reply["num_new"] for reply in replies) / answer["wall_s"]
        return cls(engine, condition, len(replies), median(firsts), max(firsts), median(rates), total)


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over the rounds."""

    engine: str
    condition: Condition
    num_chats: int
    num_rounds: int
    first_s: float
    longest_first_s: float
    each_per_s: float
    total_per_s: float
    slowest_total_per_s: float
    fastest_total_per_s: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing that was promised. `value` is `None` where what it compares was not measured."""

    text: str
    limit: float
    is_upper: bool
    value: float | None
    against: str

    @property
    def is_met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.limit if self.is_upper else self.value >= self.limit


def rows(records: Iterable[Record]) -> list[Row]:
    """A row for each engine, condition and number of chats, in the order in which they came."""
    groups: dict[tuple[str, Condition, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record.engine, record.condition, record.num_chats), []).append(record)
    return [_row(members) for members in groups.values()]


def _row(members: Sequence[Record]) -> Row:
    totals = [record.total_per_s for record in members]
    return Row(
        members[0].engine,
        members[0].condition,
        members[0].num_chats,
        len(members),
        median(record.first_s for record in members),
        median(record.longest_first_s for record in members),
        median(record.each_per_s for record in members),
        median(totals),
        min(totals),
        max(totals),
    )


class Table:
    """Rows by what they are about."""

    def __init__(self, all_rows: Iterable[Row]) -> None:
        self._rows = {(row.engine, row.condition, row.num_chats): row for row in all_rows}
        self._engines = list(dict.fromkeys(row.engine for row in self._rows.values()))

    def get(self, engine: str, condition: Condition, num_chats: int) -> Row | None:
        """What an engine without memory does with cold prompts, it does with all."""
        return self._rows.get((engine, condition, num_chats)) or self._rows.get((engine, Condition.COLD, num_chats))

    def peers(self, condition: Condition, num_chats: int) -> Iterator[Row]:
        for engine in self._engines:
            row = self.get(engine, condition, num_chats)
            if engine not in (OURS, OURS_WITHOUT_CACHE) and row is not None:
                yield row


def bars(table: Table, *, perplexity_ratio: float | None = None) -> list[Bar]:
    """The bars of issue 4 that a CPU can be held to; the soak has its own command."""
    seen, cold, talked = Condition.PERSONA, Condition.COLD, Condition.CONVERSATION
    ours, peers = table.get(OURS, seen, 8), list(table.peers(seen, 8))
    fastest = max(peers, key=lambda row: row.total_per_s, default=None)
    soonest = min(peers, key=lambda row: row.first_s, default=None)
    static = [row for row in table.peers(cold, 8) if row.engine.startswith(STATIC)]
    best_static = max(static, key=lambda row: row.total_per_s, default=None)
    one_cold, one_talked = table.get(OURS, cold, 1), table.get(OURS, talked, 1)
    one_llama, eight_llama = table.get(LLAMA_Q8, seen, 1), table.get(LLAMA_Q8, seen, 8)
    return [
        _faster("8 chats, persona seen: tokens/s beside the best peer", 1.0, ours, fastest),
        _faster("8 chats, persona seen: tokens/s beside llama.cpp Q8_0", 1.8, ours, eight_llama),
        _sooner("8 chats, persona seen: first token beside the soonest peer", 1.0, ours, soonest),
        _faster("8 chats, no prefix cache: tokens/s", 1.0, table.get(OURS_WITHOUT_CACHE, cold, 8), best_static),
        _faster("1 chat, persona seen: tokens/s beside llama.cpp Q8_0", 0.6, table.get(OURS, seen, 1), one_llama),
        _sooner("1 chat, conversation seen: first token beside cold", 0.15, one_talked, one_cold),
        Bar("perplexity of the default precision", MAX_PERPLEXITY_RATIO, True, perplexity_ratio, "float32"),
    ]


def _faster(text: str, limit: float, ours: Row | None, other: Row | None) -> Bar:
    value = ours.total_per_s / other.total_per_s if ours and other else None
    return Bar(text, limit, False, value, other.engine if other else "nobody")


def _sooner(text: str, limit: float, ours: Row | None, other: Row | None) -> Bar:
    value = ours.first_s / other.first_s if ours and other else None
    return Bar(text, limit, True, value, f"{other.engine}, {other.condition}" if other else "nobody")
