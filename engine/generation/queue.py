"""Who waits for a reply, and whose turn it is: a fair share per person and per room, an estimate for each.

Owns order, places and estimates. Knows neither what a reply is made of nor threads, and touches no tensor.

The order is self-clocked fair queueing (S. J. Golestani, "A self-clocked fair queueing scheme for broadband
applications", INFOCOM 1994), a form of weighted fair queueing (Demers, Keshav, Shenker, SIGCOMM 1989) that needs no
model of the server. Every person has a queue of their own. The first request of each carries a *finish tag*: the
virtual time at which it came to the front, and its cost on top. The smallest tag goes first, and virtual time moves to
that tag. So short requests go before long ones that came in the same moment; before a request of cost c, nobody else
gets more than one request of any cost and another c's worth, however many they asked for; and virtual time overtakes
every tag, so that nobody waits for ever. People without a waiting request leave no trace.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from math import ceil

from engine.generation.sequence import Sequence
from engine.types import QueuePlace, ReplyChunk

CHARACTERS_PER_TOKEN = 4
TELL_INTERVAL_S = 1.0
# An estimate is told anew where it has changed by this share, and by so much at least.
NOTICEABLE_SHARE = 0.25
NOTICEABLE_S = 2.0
# How much the newest duration counts among the earlier ones.
NEWEST_WEIGHT = 0.2
# Whatever has run longer than most will go on for a while; this share of a usual duration, for all that is known.
OVERDUE_SHARE = 0.25


def cost_of(sequence: Sequence) -> float:
    """About how many tokens `sequence` makes the model handle."""
    request = sequence.request
    num_characters = len(request.system_prompt) + sum(len(turn.text) for turn in request.turns)
    return max(1.0, num_characters / CHARACTERS_PER_TOKEN + request.sampling.max_new_tokens)


@dataclass(slots=True)
class _Line:
    """One person's waiting requests with their costs; the first came to the front at the virtual time `start`."""

    start: float
    costs: dict[Sequence, float] = field(default_factory=dict)

    def finish_tags(self) -> Iterator[tuple[float, Sequence]]:
        tag = self.start
        for sequence, cost in self.costs.items():
            tag += cost
            yield tag, sequence


@dataclass(frozen=True, slots=True)
class _Told:
    place: QueuePlace
    at: float


class FairQueue:
    """Sequences that wait to begin.

    No room holds more than half of the places, rounded up, while somebody from another room waits. Requests that say
    nothing of who asks share one queue and one room. `max_running`, the number of places, may be changed at any time.
    """

    def __init__(self, *, max_running: int, max_wait_s: float = 300.0) -> None:
        self.max_running = max_running
        self._max_wait_s = max_wait_s
        self._virtual_time = 0.0
        self._lines: dict[str | None, _Line] = {}
        # Waiting sequences in the order of their coming, each with its number.
        self._numbers: dict[Sequence, int] = {}
        self._num_come = 0
        self._began: dict[Sequence, float] = {}
        self._told: dict[Sequence, _Told] = {}
        self._usual_duration_s: float | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Sequence]:
        """Those that wait, in the order in which they would be served."""
        num_running = Counter(_user(sequence) for sequence in self._began)
        tagged = [tagged for line in self._lines.values() for tagged in line.finish_tags()]
        # Of equal tags the one goes first whose person has less running already.
        tagged.sort(key=lambda one: (one[0], num_running[_user(one[1])], self._numbers[one[1]]))
        return iter([sequence for _, sequence in tagged])

    def add(self, sequence: Sequence) -> None:
        """Let `sequence` wait."""
        if sequence in self._numbers:
            raise ValueError("this sequence waits already")
        cost = cost_of(sequence)  # first, for of what has no cost nothing is to stay behind
        self._numbers[sequence] = self._num_come
        self._num_come += 1
        line = self._lines.setdefault(_user(sequence), _Line(self._virtual_time))
        line.costs[sequence] = cost

    def remove(self, sequence: Sequence) -> None:
        """Take a waiting `sequence` out; whoever stands behind it in its person's line moves up."""
        del self._numbers[sequence]
        self._told.pop(sequence, None)
        line = self._lines[_user(sequence)]
        del line.costs[sequence]
        if not line.costs:
            del self._lines[_user(sequence)]

    def next(self, running: Collection[Sequence], now: float) -> Sequence | None:
        """Whose turn it is beside those that run; `None` where nobody waits or nobody may begin. Changes no place."""
        self._see_ended(running, now)
        if not self._numbers or len(running) >= self.max_running:
            return None
        max_in_a_room = ceil(self.max_running / 2)
        num_in_room = Counter(_room(sequence) for sequence in running)
        waiting_rooms = {_room(sequence) for sequence in self._numbers}
        for sequence in self:
            room = _room(sequence)
            is_alone = waiting_rooms == {room}
            if is_alone or num_in_room[room] < max_in_a_room:
                return sequence
        return None

    def pop(self, sequence: Sequence, now: float) -> None:
        """`sequence` begins."""
        line = self._lines[_user(sequence)]
        tag = next(tag for tag, waiting in line.finish_tags() if waiting is sequence)
        self.remove(sequence)
        self._virtual_time = max(self._virtual_time, tag)
        line.start = self._virtual_time
        self._began[sequence] = now

    def note_finished(self, sequence: Sequence, now: float) -> None:
        """A running `sequence` has ended, however it did: the estimates learn from that."""
        began_at = self._began.pop(sequence, None)
        if began_at is None:
            return
        duration_s, usual_s = now - began_at, self._usual_duration_s
        if usual_s is None:
            self._usual_duration_s = duration_s
        else:
            self._usual_duration_s = usual_s + NEWEST_WEIGHT * (duration_s - usual_s)

    def places(self, now: float) -> list[tuple[Sequence, QueuePlace]]:
        """Everybody who waits and where, first the one who is next."""
        in_order = list(self)
        waits = self._waits(len(in_order), now)
        return [
            (sequence, QueuePlace(position, wait_s))
            for position, (sequence, wait_s) in enumerate(zip(in_order, waits, strict=True), start=1)
        ]

    def tell(self, now: float) -> None:
        """Tell those who wait where they stand, where that is news. Call it after letting in whoever may begin."""
        num_free = self.max_running - len(self._began)
        for sequence, place in self.places(now):
            is_about_to_begin = place.position <= num_free and now - sequence.accepted_at < TELL_INTERVAL_S
            if not is_about_to_begin and _is_news(self._told.get(sequence), place, now):
                self._told[sequence] = _Told(place, now)
                sequence.emit(ReplyChunk("", queue=place))

    def expired(self, now: float) -> list[Sequence]:
        """Those that have waited longer than anybody should. They stay until they are removed."""
        return [sequence for sequence in self._numbers if now - sequence.accepted_at > self._max_wait_s]

    def _see_ended(self, running: Collection[Sequence], now: float) -> None:
        """Whoever has begun and runs no more has ended, though nobody noted it."""
        for sequence in [sequence for sequence in self._began if sequence not in running]:
            self.note_finished(sequence, now)

    def _waits(self, num_waiting: int, now: float) -> list[float | None]:
        """In how many seconds each of the waiting begins, if replies take as long as they did lately."""
        usual_s = self._usual_duration_s
        if usual_s is None:
            return [None] * num_waiting
        least_s = usual_s * OVERDUE_SHARE
        free_in = [max(usual_s - (now - began_at), least_s) for began_at in self._began.values()]
        free_in += [0.0] * (self.max_running - len(free_in))
        heapify(free_in)
        waits: list[float | None] = []
        for _ in range(num_waiting):
            waits.append(free_in[0])
            heapreplace(free_in, free_in[0] + usual_s)
        return waits


def _user(sequence: Sequence) -> str | None:
    asker = sequence.request.asker
    return asker.user if asker is not None else None


def _room(sequence: Sequence) -> str | None:
    asker = sequence.request.asker
    return asker.room if asker is not None else None


def _is_news(told: _Told | None, place: QueuePlace, now: float) -> bool:
    if told is None:
        return True
    if now - told.at < TELL_INTERVAL_S:
        return False
    before, after = told.place.wait_s, place.wait_s
    if told.place.position != place.position or before is None or after is None:
        return told.place.position != place.position or before is not after
    return abs(after - before) >= max(NOTICEABLE_S, before * NOTICEABLE_SHARE)
