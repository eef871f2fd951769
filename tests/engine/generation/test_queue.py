"""Whose turn it is, and what people hear of it while they wait."""

import itertools
import random
from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineError
from engine.generation.queue import FairQueue, cost_of
from engine.generation.sequence import Sequence
from engine.types import Asker, QueuePlace, ReplyChunk
from tests.engine.generation.requests import request


def asked(
    user: str | None = "ana", *, tokens: int = 100, room: str | None = None, at: float = 0.0, told: list | None = None
) -> Sequence:
    """A request that costs `tokens`; everybody sits in a room of their own where none is named."""
    asker = Asker(user, room or f"at {user}") if user is not None else None
    wanted = replace(request("", system_prompt="", max_new_tokens=tokens), asker=asker)

    def emit(answer: ReplyChunk | EngineError) -> None:
        assert isinstance(answer, ReplyChunk)
        assert not answer.text
        assert answer.finish_reason is None
        if told is not None:
            told.append(answer.queue)

    return Sequence(wanted, emit, at)


def queue_of(*waiting: Sequence, max_running: int = 1) -> FairQueue:
    queue = FairQueue(max_running=max_running)
    for sequence in waiting:
        queue.add(sequence)
    return queue


def served(queue: FairQueue) -> list[Sequence]:
    """One after another, each ended before the next begins."""
    order = []
    while (sequence := queue.next((), 0.0)) is not None:
        queue.pop(sequence, 0.0)
        queue.note_finished(sequence, 1.0)
        order.append(sequence)
    return order


def test_people_take_turns_however_much_one_of_them_asks() -> None:
    flood = [asked("flooder") for _ in range(5)]
    one, other = asked("ana"), asked("ben")
    assert served(queue_of(*flood, one, other)) == [flood[0], one, other, *flood[1:]]


def test_of_what_has_no_cost_nothing_stays_behind() -> None:
    queue, other = queue_of(), asked("ben")
    with pytest.raises(OverflowError):
        queue.add(asked("ana", tokens=10**400))
    assert len(queue) == 0
    queue.add(other)
    assert served(queue) == [other]


def test_of_those_who_came_together_the_shorter_goes_first() -> None:
    long, short, middle = asked("ana", tokens=300), asked("ben", tokens=10), asked("cleo", tokens=100)
    assert served(queue_of(long, short, middle)) == [short, middle, long]


def test_a_long_prompt_costs_too() -> None:
    short = asked("ana", tokens=100)
    assert cost_of(short) == 100
    assert cost_of(replace(short, request=replace(short.request, system_prompt="x" * 400))) == 200


def test_one_persons_requests_keep_their_order() -> None:
    requests = [asked("ana", tokens=tokens) for tokens in (300, 10, 100)]
    assert served(queue_of(*requests)) == requests


def test_requests_of_nobody_in_particular_share_one_place() -> None:
    nobodys = [asked(None) for _ in range(3)]
    ana = asked("ana")
    assert served(queue_of(*nobodys, ana)) == [nobodys[0], ana, *nobodys[1:]]


def test_looking_changes_nothing() -> None:
    waiting = [asked(user) for user in ("ana", "ana", "ben")]
    queue = queue_of(*waiting)
    assert list(queue) == list(queue) == [waiting[0], waiting[2], waiting[1]]
    assert queue.next((), 0.0) is queue.next((), 0.0) is waiting[0]
    assert len(queue) == 3


def test_no_more_begin_than_may_run() -> None:
    waiting = [asked(user) for user in ("ana", "ben", "cleo")]
    queue = queue_of(*waiting, max_running=2)
    for sequence in waiting[:2]:
        assert queue.next(waiting[: waiting.index(sequence)], 0.0) is sequence
        queue.pop(sequence, 0.0)
    assert queue.next(waiting[:2], 0.0) is None


def test_between_equals_the_one_with_less_running_goes_first() -> None:
    first, second, other = asked("ana"), asked("ana"), asked("ben", tokens=100)
    queue = queue_of(first, second, max_running=3)
    queue.pop(first, 0.0)
    queue.add(other)
    assert queue.next([first], 0.0) is other


def test_a_full_room_lets_another_go_first_and_is_not_held_up_without_one() -> None:
    club = [asked(f"member {number}", room="club", tokens=10) for number in range(6)]
    guest = asked("guest", room="parlour", tokens=1000)
    queue = queue_of(*club, max_running=5)
    running: list[Sequence] = []
    for _ in range(4):
        sequence = queue.next(running, 0.0)
        assert sequence is not None, "nobody else waits, so the room may have more than half"
        queue.pop(sequence, 0.0)
        running.append(sequence)
    queue.add(guest)
    assert queue.next(running, 0.0) is guest


def test_leaving_lets_those_behind_move_up() -> None:
    first, second, other = asked("ana"), asked("ana"), asked("ben", tokens=150)
    queue = queue_of(first, second, other)
    assert list(queue) == [first, other, second]
    queue.remove(first)
    assert list(queue) == [second, other]
    queue.remove(second)
    queue.remove(other)
    assert not len(queue)
    assert queue.next((), 0.0) is None


def test_a_stranger_cannot_be_taken_out_nor_one_come_twice() -> None:
    sequence = asked()
    queue = queue_of(sequence)
    with pytest.raises(KeyError):
        queue.remove(asked())
    with pytest.raises(ValueError, match="waits already"):
        queue.add(sequence)


# --- what people hear


def test_without_experience_there_is_a_place_and_no_estimate() -> None:
    told: list[QueuePlace] = []
    running = asked("zoe")
    queue = queue_of(running)
    queue.pop(running, 0.0)
    queue.add(asked("ana", told=told))
    queue.tell(0.0)
    assert told == [QueuePlace(1, None)]


def test_estimates_come_from_how_long_replies_took() -> None:
    queue = FairQueue(max_running=2)
    runners = [asked("x"), asked("y")]
    for sequence in runners:
        queue.add(sequence)
        queue.pop(sequence, 0.0)
        queue.note_finished(sequence, 10.0)
    for sequence, at in zip(runners, (10.0, 14.0), strict=True):
        queue.add(sequence)
        queue.pop(sequence, at)
    for user in ("a", "b", "c"):
        queue.add(asked(user))
    # Both take 10 s: one ends in 6 s, the other in 10, and what begins then ends 10 s later.
    places = [place for _, place in queue.places(14.0)]
    assert places == [QueuePlace(1, 6.0), QueuePlace(2, 10.0), QueuePlace(3, 16.0)]


def test_a_reply_that_takes_long_is_not_said_to_end_at_once() -> None:
    queue = FairQueue(max_running=1)
    for began_at, ended_at in ((0.0, 10.0), (10.0, None)):
        sequence = asked("x")
        queue.add(sequence)
        queue.pop(sequence, began_at)
        if ended_at is not None:
            queue.note_finished(sequence, ended_at)
    queue.add(asked("ana"))
    ((_, place),) = queue.places(100.0)
    assert place == QueuePlace(1, 2.5)


def test_places_are_told_when_they_change_and_at_most_once_a_second() -> None:
    told: list[QueuePlace] = []
    queue = FairQueue(max_running=1)
    running, ahead = asked("x"), asked("y")
    for sequence in (running, ahead):
        queue.add(sequence)
    queue.pop(running, 0.0)
    queue.add(asked("ana", told=told))
    queue.tell(0.0)
    queue.tell(5.0)
    assert [place.position for place in told] == [2], "nothing has changed"
    queue.note_finished(running, 10.0)
    queue.pop(ahead, 10.0)
    queue.tell(10.0)
    assert told[1:] == [QueuePlace(1, 10.0)]
    queue.tell(10.5)
    queue.tell(11.5)
    assert told[2:] == [], "less than two seconds less is no news"
    queue.tell(13.0)
    assert told[2:] == [QueuePlace(1, 7.0)]
    queue.note_finished(ahead, 13.1)
    queue.tell(13.5)
    assert len(told) == 3, "a second has not gone by"


def test_who_begins_at_once_is_told_nothing() -> None:
    told: list[QueuePlace] = []
    waiting = [asked(user, told=told) for user in ("ana", "ben", "cleo")]
    queue = queue_of(*waiting, max_running=2)
    queue.tell(0.0)
    assert told == [QueuePlace(3, None)]
    queue.tell(1.0)
    assert [place.position for place in told] == [3, 1, 2], "something holds them up after all"


def test_whoever_has_waited_too_long_is_named() -> None:
    early, late = asked("ana", at=0.0), asked("ben", at=50.0)
    queue = FairQueue(max_running=1, max_wait_s=60.0)
    for sequence in (early, late):
        queue.add(sequence)
    assert queue.expired(60.0) == []
    assert queue.expired(61.0) == [early]
    assert len(queue) == 2, "whoever asked takes them out"


def test_an_end_that_nobody_noted_is_seen() -> None:
    gone, next_one = asked("ana"), asked("ben")
    queue = queue_of(gone, next_one, max_running=1)
    queue.pop(gone, 0.0)
    assert queue.next((), 4.0) is next_one
    assert not queue._began
    assert [place.wait_s for _, place in queue.places(4.0)] == [0.0]


# --- what holds however people come and go

COSTS = st.integers(20, 400)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 5), COSTS, st.integers(0, 2)),
        st.tuples(st.just("end"), st.integers(0, 7)),
        st.tuples(st.just("leave"), st.integers(0, 30)),
    ),
    max_size=120,
)


class Simulation:
    """A device with places, and everything that is said to its queue. Looks after each change whether all is well."""

    def __init__(self, *, max_running: int) -> None:
        self.max_running = max_running
        self.queue = FairQueue(max_running=max_running)
        self.running: list[Sequence] = []
        self.begun: list[Sequence] = []
        self.now = 0.0

    def ask(self, user: int, cost: int, room: int) -> Sequence:
        sequence = asked(f"user {user}", tokens=cost, room=f"room {room}", at=self.now)
        before = list(self.queue)
        self.queue.add(sequence)
        assert [one for one in self.queue if one is not sequence] == before, "whoever comes changes no one's order"
        self.admit()
        return sequence

    def end(self, number: int) -> None:
        if self.running:
            sequence = self.running.pop(number % len(self.running))
            self.now += 1.0
            self.queue.note_finished(sequence, self.now)
        self.admit()

    def leave(self, number: int) -> None:
        waiting = list(self.queue)
        if waiting:
            self.queue.remove(waiting[number % len(waiting)])
        self.admit()

    def admit(self) -> None:
        virtual_time = self.queue._virtual_time
        while (sequence := self.queue.next(tuple(self.running), self.now)) is not None:
            self.check_rooms(sequence)
            self.queue.pop(sequence, self.now)
            self.running.append(sequence)
            self.begun.append(sequence)
        assert self.queue._virtual_time >= virtual_time
        assert not len(self.queue) or len(self.running) == self.max_running, "no place stays empty while somebody waits"
        self.check_memory()

    def check_rooms(self, sequence: Sequence) -> None:
        rooms = [room_of(one) for one in self.running]
        others_wait = any(room_of(one) != room_of(sequence) for one in self.queue)
        assert not others_wait or rooms.count(room_of(sequence)) < ceil(self.max_running / 2)

    def check_memory(self) -> None:
        waiting = set(self.queue)
        queue = self.queue
        assert len(waiting) == len(queue) == len(queue._numbers)
        assert set(queue._lines) == {user_of(sequence) for sequence in waiting}
        assert set(queue._told) <= waiting
        assert set(queue._began) == set(self.running)


def user_of(sequence: Sequence) -> str:
    assert sequence.request.asker is not None
    return sequence.request.asker.user


def room_of(sequence: Sequence) -> str:
    assert sequence.request.asker is not None
    return sequence.request.asker.room


@settings(max_examples=50, deadline=None)
@given(events=EVENTS, max_running=st.integers(1, 8))
def test_places_are_used_rooms_are_kept_and_nothing_is_left_behind(events: list, max_running: int) -> None:
    simulation = Simulation(max_running=max_running)
    for name, *arguments in events:
        getattr(simulation, name)(*arguments)
        simulation.queue.tell(simulation.now)
    while simulation.running:
        simulation.end(0)
    assert not simulation.queue._lines
    assert not simulation.queue._told
    assert not simulation.queue._began


@settings(max_examples=50, deadline=None)
@given(
    flood=st.lists(COSTS, min_size=20, max_size=60),
    num_earlier=st.integers(0, 10),
    costs=st.lists(COSTS, min_size=1, max_size=6),
    max_running=st.integers(1, 8),
)
def test_a_flooder_delays_others_by_one_request_and_ones_own_worth(
    flood: list[int], num_earlier: int, costs: list[int], max_running: int
) -> None:
    simulation = Simulation(max_running=max_running)
    for number, cost in enumerate(flood):
        simulation.ask(99, cost, number % 3)
    for _ in range(num_earlier):
        simulation.end(0)
    num_begun = len(simulation.begun)
    others = [simulation.ask(user, cost, user % 3) for user, cost in enumerate(costs)]
    while simulation.running:
        simulation.end(0)
    begun = simulation.begun[num_begun:]
    for sequence, cost in zip(others, costs, strict=True):
        overtaken_by = begun[: begun.index(sequence)]
        num_of_flooder = sum(user_of(one) == "user 99" for one in overtaken_by)
        assert num_of_flooder <= 1 + cost // min(flood)


@settings(max_examples=50, deadline=None)
@given(
    patient=st.integers(300, 400),
    chance=st.randoms(use_true_random=False),
    max_running=st.integers(1, 4),
)
def test_a_long_request_is_served_though_short_ones_never_cease(
    patient: int, chance: random.Random, max_running: int
) -> None:
    simulation = Simulation(max_running=max_running)
    users = itertools.count()
    for _ in range(max_running + 4):
        simulation.ask(next(users), 20, 0)
    waiting = simulation.ask(next(users), patient, 1)
    num_begun = len(simulation.begun)
    while waiting not in simulation.begun and len(simulation.begun) < 1000:
        # Somebody new is always there.
        for _ in range(min(chance.randint(1, 4), 8 - len(simulation.queue))):
            simulation.ask(next(users), chance.choice((20, 20, 100, 400)), 0)
        simulation.end(0)
    assert waiting in simulation.begun
    # Virtual time goes on by the least cost at least with every round of those who wait at once.
    assert simulation.begun.index(waiting) - num_begun <= 9 * (patient // 20 + 1)
