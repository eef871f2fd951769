"""What a prompt was made of, in words for people: which lore was told, why, at what cost, what had no room. Pure."""

from collections.abc import Iterator, Sequence

from bot.personas.context import ContextReport
from bot.personas.lorebook import ToldLore

MAX_NAMED = 12
MAX_NAME_CHARACTERS = 60


def describe_context(report: ContextReport) -> str:
    """A few lines; names of lore entries are told, not what they say."""
    return "\n".join(_lines(report))


def _lines(report: ContextReport) -> Iterator[str]:
    if report.lore.told:
        yield f"Lore told: {_listed(report.lore.told)}."
    if report.lore.dropped:
        yield f"Lore left out: {_listed(report.lore.dropped)}."
    told = {entry.text for entry in report.lore.told}
    if recalled := [one for one in report.recalled if one.text not in told]:
        names = ", ".join(dict.fromkeys(_short(one.name) for one in recalled))
        yield f"Recalled because you asked about it: {names}."
    if left_out := ", ".join(_left_out(report)):
        yield f"No room for {left_out}."
    room = "" if report.max_tokens is None else f" of {report.max_tokens:,}"
    yield f"The prompt took about {report.num_tokens:,}{room} tokens."


def _left_out(report: ContextReport) -> Iterator[str]:
    if report.num_turns_left_out:
        yield _counted(report.num_turns_left_out, "older message")
    if report.num_pictures_left_out:
        yield _counted(report.num_pictures_left_out, "earlier picture")


def _listed(entries: Sequence[ToldLore]) -> str:
    named = [f"{_short(one.name)} ({', '.join(filter(None, (one.reason, _cost(one))))})" for one in entries[:MAX_NAMED]]
    more = len(entries) - len(named)
    return "; ".join([*named, *([f"and {more} more"] if more else [])])


def _cost(entry: ToldLore) -> str:
    return _counted(entry.num_tokens, "token")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= MAX_NAME_CHARACTERS else f"{line[:MAX_NAME_CHARACTERS].rstrip()}…"
