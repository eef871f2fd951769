"""Everything that can go wrong with a platform, by chance, for minutes: is every message answered, and once?

    python -m benchmarks.chaos --json OUT [--minutes 5] [--seed 1] [--platforms discord,telegram] [--chats 12]

People write to the whole bot, in a process of its own, on the fakes of the tests, while requests are refused, slowed
and cut, connections drop and sessions are lost, events come broken, channels are deleted, people block the bot, groups
move, and the bot itself is stopped and killed and starts again on the same database. Then there is calm, for what is
owed. A message is lost that was answered nowhere, doubled if it was answered in two messages. One that was answered
with a plain refusal ("I am being restarted …") is told, one in a chat that was closed to the bot is excused, and one
whose answer was on its way when the bot was killed may come again: who sent it cannot know that it arrived. Exit
status 1 where something was lost or doubled, or where the bot died by itself; the report has the faults around each.
"""

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.platforms.bots import Bot, Plan, start_bot, until
from benchmarks.platforms.crowds import PLATFORMS, Crowd, DiscordCrowd, TelegramCrowd, Written, open_crowd

SECONDS_AROUND = 6.0
# More would wait than a conversation takes, and be refused.
MAX_UNANSWERED = 3
MAX_SHARE_CLOSED = 0.25
# What was sent so long before a kill may not have been noted; what is slowed arrives so long after it.
NOTED_WITHIN_S = 0.25
MAX_SLOW_S = 3.0
PATIENCE_S = (4.0, 20.0)
PAUSE_S = (0.3, 2.0)
# A group of Telegram takes twenty messages a minute.
ROOM_PAUSE_S = (4.0, 8.0)


Faults = dict[str, Callable[[random.Random], None]]


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how hard: the mean times between faults of requests and events, of connections, and ends of the bot.

    `settle_s` is the calm at the end, at most. Connections are given time between their faults: a bot that is never
    connected is never wrong.
    """

    minutes: float = 5.0
    seed: int = 1
    chats: int = 12
    fault_every_s: float = 0.8
    cut_every_s: float = 10.0
    kill_every_s: float = 30.0
    settle_s: float = 150.0
    word_s: float = 0.12
    is_apart: bool = True
    faults: tuple[str, ...] = ()
    """Only these; none is all."""
    pauses: float = 1.0
    """Scales how long people pause."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done to the bot, in seconds from the beginning."""

    at: float
    what: str


@dataclass(frozen=True, slots=True)
class Case:
    """A message that was not answered once: how often, in which texts, and what happened around it."""

    mark: str
    chat: int
    written_at: float
    answers: tuple[str, ...]
    answered_at: tuple[float, ...]
    around: tuple[Event, ...]


@dataclass(slots=True)
class Verdict:
    """What came of it on one platform."""

    platform: str
    seed: int
    num_written: int = 0
    num_answered: int = 0
    num_told: int = 0
    num_excused: int = 0
    num_strays: int = 0
    """Messages of the bot that were begun and left: words without an end, in chats that are open."""
    num_in_flight: int = 0
    """Messages that were answered twice, the first time while the bot was killed."""
    num_deaths: int = 0
    longest_s: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    lost: list[Case] = field(default_factory=list)
    doubled: list[Case] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        return not (self.lost or self.doubled or self.num_deaths)


class Mischief(Protocol):
    """What can be done to a bot on one platform: `faults` of requests and events, and `cuts` of its connection."""

    faults: Faults
    cuts: Faults

    def close(self, chat: int) -> None:
        """The bot may write there no more."""

    def end(self) -> None:
        """From now on nothing goes wrong any more."""


class DiscordMischief:
    """The faults of `FakeDiscord`."""

    def __init__(self, crowd: DiscordCrowd) -> None:
        self._crowd = crowd
        self._fake = crowd.fake
        self._closed: list[Any] = []
        gateway = crowd.fake.gateway
        self.faults: Faults = {
            "429": lambda chance: self._fail(
                chance, status=429, headers={"Via": "1.1 proxy", "Retry-After": "1"}, body={"retry_after": 0.6}
            ),
            "429 without Via": lambda chance: self._fail(chance, status=429, headers={"Retry-After": "1"}),
            "5xx": lambda chance: self._fail(chance, status=chance.choice((500, 502, 503))),
            "abort": lambda chance: self._fail(chance, is_abort=True),
            "no JSON": lambda chance: self._fail(chance, status=200, body="<html>"),
            "slow": lambda chance: self._fail(chance, delay_s=chance.uniform(0.5, MAX_SLOW_S)),
            "malformed message": lambda _: gateway.dispatch("MESSAGE_CREATE", {"id": "1", "content": None}),
            "malformed channel": lambda _: gateway.dispatch("CHANNEL_UPDATE", {"id": "x"}),
            "unknown event": lambda _: gateway.dispatch("NO_SUCH_EVENT", {"id": "1"}),
        }
        self.cuts: Faults = {
            "gateway drop": lambda _: gateway.drop(),
            "op 7": lambda _: gateway.ask_to_reconnect(),
            "op 9": lambda _: gateway.invalidate_session(),
            "op 9, resumable": lambda _: gateway.invalidate_session(can_resume=True),
            "sessions forgotten": lambda _: gateway.forget_sessions(),
            "close 4000": lambda _: gateway.close(4000),
            "broken frame": lambda _: gateway.send_text("{this is no json"),
            "broken stream": lambda _: gateway.send_bytes(b"\x00 no zlib"),
            "gateway refused": lambda chance: (gateway.refuse_next(chance.randint(1, 3)), gateway.drop())[0],
        }

    def _fail(self, chance: random.Random, **fault: Any) -> None:  # noqa: ANN401 - whatever the fake takes
        method, path = chance.choice(
            (("POST", "/channels/*/messages"), ("PATCH", "/channels/*/messages/*"), ("POST", "/channels/*/typing"))
        )
        self._fake.fail_next(method, path, times=chance.randint(1, 3), **fault)

    def close(self, chat: int) -> None:
        channel, _ = self._crowd.chat(chat)
        if channel.guild is not None:
            self._fake.remove_channel(channel)
            return
        body = {"code": 50007, "message": "Cannot send messages to this user"}
        path = f"/channels/{channel.id}/*"
        self._closed += [
            self._fake.fail_next(method, path, status=403, body=body, times=1 << 30) for method in ("POST", "PATCH")
        ]

    def end(self) -> None:
        self._fake.faults[:] = self._closed
        self._fake.gateway.num_refusals = 0


class TelegramMischief:
    """The faults of `FakeTelegram`."""

    def __init__(self, crowd: TelegramCrowd) -> None:
        self._crowd = crowd
        self._fake = fake = crowd.fake
        self._movable = [-1, -2]
        self.faults: Faults = {
            "429": lambda chance: fake.flood(self._method(chance), retry_after=chance.randint(1, 2), times=2),
            "5xx": lambda chance: self._fail(chance, status=chance.choice((500, 502, 504)), body="<html>"),
            "abort": lambda chance: self._fail(chance, is_dropped=True),
            "no JSON": lambda chance: self._fail(chance, status=200, body="<html>"),
            "slow": lambda chance: self._fail(chance, delay_s=chance.uniform(0.5, MAX_SLOW_S)),
            "poison": lambda _: (fake.poison(), None)[1],
            "malformed message": lambda _: (fake.inject({"message": {"message_id": "x"}}), None)[1],
            "unknown update": lambda _: (fake.inject({"no_such_kind": {"id": 1}}), None)[1],
        }
        self.cuts: Faults = {
            "polling 502": lambda _: fake.fail("getUpdates", status=502, body="<html>"),
            "polling 409": lambda _: fake.fail("getUpdates", status=409, body={"ok": False, "error_code": 409}),
            "polling cut": lambda _: fake.fail("getUpdates", is_dropped=True),
            "polling no JSON": lambda _: fake.fail("getUpdates", status=200, body="no json"),
            "group moved": lambda _: self._move(),
        }

    def _method(self, chance: random.Random) -> str:
        return chance.choice(("sendMessage", "sendMessage", "editMessageText", "sendChatAction", "sendMessageDraft"))

    def _fail(self, chance: random.Random, **fault: Any) -> None:  # noqa: ANN401 - whatever the fake takes
        self._fake.fail(self._method(chance), times=chance.randint(1, 3), **fault)

    def _move(self) -> None:
        if self._movable:
            self._crowd.move(self._movable.pop())

    def close(self, chat: int) -> None:
        place, user = self._crowd.chat(chat)
        place.is_blocked = True
        if chat < 0:
            self._fake.set_membership(place, user, "kicked")

    def end(self) -> None:
        self._fake._faults.clear()


class Chaos:
    """One run on one platform."""

    def __init__(self, crowd: Crowd, mischief: Mischief, plan: Plan, options: Options) -> None:
        self._crowd = crowd
        self._mischief = mischief
        self._plan = plan
        self._options = options
        self._began = time.perf_counter()
        self._events: list[Event] = []
        self._closed: dict[int, float] = {}
        self._killed_at: list[float] = []
        self._written: list[Written] = []
        self._bot: Bot | None = None
        self._num_deaths = 0
        # Two chats of three are direct; the rest are rooms.
        self._chats = [number if number % 3 else -1 - number // 3 for number in range(options.chats)]

    async def run(self) -> Verdict:
        """Calm, chaos, calm."""
        try:
            bot = await self._start()
            await until(lambda: self._crowd.is_served, bot, timeout_s=60.0)
            await asyncio.gather(*(self._ask(chat, patience_s=30.0) for chat in self._chats))
            ends_at = time.perf_counter() + 60 * self._options.minutes
            async with asyncio.TaskGroup() as tasks:
                for chat in self._chats:
                    tasks.create_task(self._talk(chat, until=ends_at))
                for faults, every_s in (
                    (self._mischief.faults, self._options.fault_every_s),
                    (self._mischief.cuts, self._options.cut_every_s),
                ):
                    tasks.create_task(self._make_mischief(self._wanted(faults), every_s, until=ends_at))
                tasks.create_task(self._close_chats(until=ends_at))
                tasks.create_task(self._end_again_and_again(until=ends_at))
            self._mischief.end()
            self._note("calm")
            await self._settle()
        finally:
            if self._bot is not None:
                await self._bot.stop()
        return self._judge()

    async def _start(self) -> Bot:
        bot = self._bot = await start_bot(self._plan, is_apart=self._options.is_apart)
        self._note("start")
        return bot

    # --- people

    async def _talk(self, chat: int, *, until: float) -> None:
        chance = random.Random(f"{self._options.seed}/{chat}")
        while time.perf_counter() < until and chat not in self._closed:
            if self._num_unanswered(chat) < MAX_UNANSWERED:
                await self._ask(chat, patience_s=chance.uniform(*PATIENCE_S) * self._options.pauses)
            await asyncio.sleep(chance.uniform(*(ROOM_PAUSE_S if chat < 0 else PAUSE_S)) * self._options.pauses)

    async def _ask(self, chat: int, *, patience_s: float) -> None:
        message = self._crowd.write(chat)
        self._written.append(message)
        await self._crowd.ledger.answer_to(message, timeout_s=patience_s)

    def _num_unanswered(self, chat: int) -> int:
        recent = [message for message in self._written[-40 * len(self._chats) :] if message.chat == chat]
        return sum(not self._crowd.ledger.answers.get(message.mark) for message in recent)

    # --- what goes wrong

    def _wanted(self, faults: Faults) -> Faults:
        wanted = self._options.faults
        return {name: fault for name, fault in sorted(faults.items()) if not wanted or name in wanted}

    async def _make_mischief(self, faults: Faults, every_s: float, *, until: float) -> None:
        chance = random.Random(f"{self._options.seed}/{sorted(faults)}")
        while faults:
            await asyncio.sleep(chance.uniform(0.5, 1.5) * every_s)
            if time.perf_counter() >= until:
                return
            name = chance.choice(list(faults))
            faults[name](chance)
            self._note(name)

    async def _close_chats(self, *, until: float) -> None:
        """One after the other, evenly over the time."""
        chance = random.Random(f"{self._options.seed}/closed")
        chats = chance.sample(self._chats, int(MAX_SHARE_CLOSED * len(self._chats)))
        pause_s = max(0.0, until - time.perf_counter()) / (len(chats) + 1)
        for chat in chats:
            await asyncio.sleep(pause_s)
            self._closed[chat] = time.perf_counter()
            self._mischief.close(chat)
            self._note(f"chat {chat} closed")

    async def _end_again_and_again(self, *, until: float) -> None:
        chance = random.Random(f"{self._options.seed}/ends")
        while True:
            bot = self._bot
            assert bot is not None
            ends_at = time.perf_counter() + chance.expovariate(1 / self._options.kill_every_s)
            while time.perf_counter() < min(ends_at, until) and not bot.has_ended:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if bot.has_ended:
                self._num_deaths += 1
                self._note("the bot died")
            elif time.perf_counter() >= until:
                return
            elif chance.random() < 0.6:
                self._note("kill")
                self._killed_at.append(time.perf_counter())
                await bot.kill()
            else:
                self._note("stop")
                await bot.stop()
            await asyncio.sleep(chance.uniform(0, 1.5))
            await self._start()

    def _note(self, what: str) -> None:
        self._events.append(Event(time.perf_counter() - self._began, what))

    # --- what came of it

    async def _settle(self) -> None:
        """Until everything owed has come, and then long enough to see what comes twice."""
        ledger = self._crowd.ledger
        assert self._bot is not None
        if self._bot.has_ended:
            self._num_deaths += 1
            await self._start()
        await until(lambda: self._crowd.is_served, self._bot, timeout_s=60.0)
        deadline = time.perf_counter() + self._options.settle_s
        for message in self._written:
            if not self._is_excused(message):
                await ledger.answer_to(message, timeout_s=max(0.0, min(20.0, deadline - time.perf_counter())))
        await asyncio.sleep(3.0 * self._options.pauses)

    def _is_excused(self, message: Written) -> bool:
        """Its chat was closed to the bot, and it was not answered before."""
        return message.chat in self._closed and not self._crowd.ledger.answers.get(message.mark)

    def _judge(self) -> Verdict:
        ledger = self._crowd.ledger
        verdict = Verdict(self._plan.address.platform, self._options.seed, num_written=len(self._written))
        verdict.num_deaths = self._num_deaths
        verdict.faults = dict(Counter(event.what for event in self._events))
        verdict.longest_s = max(ledger.latencies.values(), default=0.0)
        plain = self._plain_words()
        for message in self._written:
            answers = ledger.answers.get(message.mark, set())
            if len(answers) == 1:
                verdict.num_answered += 1
            elif self._was_in_flight(answers):
                verdict.num_answered += 1
                verdict.num_in_flight += 1
            elif len(answers) > 1:
                verdict.doubled.append(self._case(message, answers))
            elif self._is_excused(message):
                verdict.num_excused += 1
            elif plain[message.chat]:
                plain[message.chat] -= 1
                verdict.num_told += 1
            else:
                verdict.lost.append(self._case(message, answers))
        verdict.num_strays = self._num_strays()
        return verdict

    def _was_in_flight(self, answers: set[str]) -> bool:
        """Whether all of `answers` but one arrived around a kill."""
        times = [self._crowd.ledger.shown_at[message_id] for message_id in answers]
        num_around = sum(any(-NOTED_WITHIN_S < at - kill < MAX_SLOW_S for kill in self._killed_at) for at in times)
        return len(answers) > 1 and num_around >= len(answers) - 1

    def _plain_words(self) -> Counter[int]:
        """How many refusals stand in each chat: sentences of the bot's own that answer no message by its mark."""
        refusals: Counter[int] = Counter()
        for chat in self._chats:
            texts = self._unmarked(chat)
            refusals[chat] = sum(" heard" not in text for text in texts)
        return refusals

    def _num_strays(self) -> int:
        return sum(
            " heard" in text for chat in self._chats if chat not in self._closed for text in self._unmarked(chat)
        )

    def _unmarked(self, chat: int) -> list[str]:
        ledger, place = self._crowd.ledger, self._crowd.place(chat)
        answering = {message_id for answers in ledger.answers.values() for message_id in answers}
        return [
            text
            for message_id, text in ledger.texts.items()
            if message_id.startswith(f"{place}/") and message_id not in answering
        ]

    def _case(self, message: Written, answers: set[str]) -> Case:
        at = message.at - self._began
        answered = at + self._crowd.ledger.latencies.get(message.mark, 0.0)
        around = [event for event in self._events if at - SECONDS_AROUND < event.at < answered + SECONDS_AROUND]
        ledger = self._crowd.ledger
        ordered = sorted(answers, key=ledger.shown_at.__getitem__)
        texts = tuple(f"{message_id}: {ledger.texts[message_id]}" for message_id in ordered)
        times = tuple(ledger.shown_at[message_id] - self._began for message_id in ordered)
        return Case(message.mark, message.chat, at, texts, times, tuple(around))


async def run_chaos(platform: str, options: Options, home: Path) -> Verdict:
    """Chaos on one platform, with the bot's folder and log in `home`."""
    async with open_crowd(platform) as crowd:
        mischief = DiscordMischief(crowd) if isinstance(crowd, DiscordCrowd) else TelegramMischief(crowd)
        plan = Plan("commedia", crowd.address, str(home), word_s=options.word_s)
        return await Chaos(crowd, mischief, plan, options).run()


def describe(verdict: Verdict) -> str:
    """The verdict in lines."""
    counts = (
        f"{verdict.platform}: {verdict.num_written} written, {verdict.num_answered} answered once, "
        f"{len(verdict.lost)} lost, {len(verdict.doubled)} doubled, {verdict.num_told} told to try again, "
        f"{verdict.num_excused} in closed chats, {verdict.num_strays} begun and left, "
        f"{verdict.num_in_flight} sent again after a kill, "
        f"{verdict.num_deaths} deaths; the longest answer took {verdict.longest_s:.1f} s"
    )
    cases = [("lost", case) for case in verdict.lost] + [("doubled", case) for case in verdict.doubled]
    return "\n".join(
        [counts, *(f"  {what} in chat {case.chat} at {case.written_at:.1f} s: {_around(case)}" for what, case in cases)]
    )


def _around(case: Case) -> str:
    answered = "".join(f"answered at {at:.1f}, " for at in case.answered_at)
    return f"{answered}around it {', '.join(f'{event.what} at {event.at:.1f}' for event in case.around) or 'nothing'}"


def main() -> int:
    """Chaos, as the options say."""
    usual = Options()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the verdicts, with all cases, to this file")
    parser.add_argument("--platforms", default=",".join(PLATFORMS))
    parser.add_argument("--minutes", type=float, default=usual.minutes)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--chats", type=int, default=usual.chats)
    parser.add_argument("--fault-every-s", type=float, default=usual.fault_every_s)
    parser.add_argument("--cut-every-s", type=float, default=usual.cut_every_s)
    parser.add_argument("--kill-every-s", type=float, default=usual.kill_every_s)
    parser.add_argument("--settle-s", type=float, default=usual.settle_s)
    parser.add_argument("--faults", default="", help="only these, separated by commas, such as op 9,abort")
    parser.add_argument("--home", type=Path, help="keep the bot's database and log in this folder")
    given = vars(parser.parse_args())
    given["faults"] = tuple(filter(None, given["faults"].split(",")))
    out, home, platforms = given.pop("json"), given.pop("home"), given.pop("platforms").split(",")
    # A bot that is killed leaves requests unfinished, and the fakes' server would tell of each.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="commedia-chaos-") as folder:
        for platform in platforms:
            verdict = asyncio.run(run_chaos(platform, Options(**given), (home or Path(folder)) / platform))
            print(describe(verdict), flush=True)
            verdicts.append(verdict)
    if out is not None:
        out.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=2), encoding="utf-8")
    return int(not all(verdict.is_well for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
