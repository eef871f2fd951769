"""The chaos run, tiny: what it does to a bot, and that it sees what is lost and what comes twice."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("benchmarks", reason="benchmarks come with a checkout only")

from benchmarks.chaos import Chaos, Options, Verdict, describe, run_chaos
from benchmarks.platforms.bots import Plan
from benchmarks.platforms.crowds import Address, Ledger
from tests.bot.adapters.discord.harness import library_put_back

# Those that are over soon.
QUICK = (
    "5xx",
    "abort",
    "no JSON",
    "op 7",
    "gateway drop",
    "malformed message",
    "unknown event",
    "poison",
    "polling cut",
)
TINY = Options(
    minutes=0.015,
    seed=3,
    chats=4,
    fault_every_s=0.1,
    cut_every_s=0.5,
    kill_every_s=0.7,
    settle_s=60,
    word_s=0.01,
    is_apart=False,
    faults=QUICK,
    pauses=0.05,
)


@pytest.mark.parametrize("platform", ["discord", "telegram"])
async def test_everything_goes_wrong_and_every_message_is_answered(platform: str, tmp_path: Path) -> None:
    with library_put_back():
        verdict = await run_chaos(platform, TINY, tmp_path)
    assert not verdict.lost
    assert not verdict.doubled
    assert verdict.num_written == verdict.num_answered + verdict.num_told + verdict.num_excused
    assert verdict.num_answered >= 4
    assert verdict.faults["start"] >= 1
    assert len(verdict.faults) > 3


class PaperCrowd:
    """A crowd of which only the ledger is there."""

    is_served = True
    address = Address("paper", "token", "url")

    def __init__(self) -> None:
        self.ledger = Ledger()

    def write(self, chat: int) -> object:
        return self.ledger.write(chat)

    def place(self, chat: int) -> str:
        return f"place{chat}"

    def forget(self) -> None:
        self.ledger.forget()


class NoMischief:
    def __init__(self) -> None:
        self.faults: dict[str, Callable[..., None]] = {}
        self.cuts: dict[str, Callable[..., None]] = {}

    def close(self, chat: int) -> None:
        raise AssertionError

    def end(self) -> None:
        raise AssertionError


@pytest.fixture
def chaos() -> Chaos:
    return Chaos(
        PaperCrowd(), NoMischief(), Plan("commedia", PaperCrowd.address, "home"), dataclasses.replace(TINY, chats=4)
    )


def written(chaos: Chaos, chat: int = 1) -> str:
    message = chaos._crowd.write(chat)
    chaos._written.append(message)
    return message.mark


def test_one_answer_is_well_whatever_it_read_before(chaos: Chaos) -> None:
    mark = written(chaos)
    chaos._crowd.ledger.shown("place1/1", "Lia heard")
    chaos._crowd.ledger.shown("place1/1", f"Lia heard: {mark}")
    verdict = chaos._judge()
    assert (verdict.num_answered, verdict.num_strays) == (1, 0)
    assert verdict.is_well


def test_no_answer_is_a_loss_with_what_happened_around_it(chaos: Chaos) -> None:
    mark = written(chaos)
    chaos._note("gateway drop")
    verdict = chaos._judge()
    assert [(case.mark, case.chat, [event.what for event in case.around]) for case in verdict.lost] == [
        (mark, 1, ["gateway drop"])
    ]
    assert not verdict.is_well
    assert "lost in chat 1" in describe(verdict)
    assert "gateway drop at 0.0" in describe(verdict)


def test_two_messages_with_one_answer_are_one_too_many(chaos: Chaos) -> None:
    mark = written(chaos)
    for message_id in ("place1/1", "place1/2"):
        chaos._crowd.ledger.shown(message_id, f"Lia heard: {mark}")
    verdict = chaos._judge()
    assert verdict.doubled[0].answers == (f"place1/1: Lia heard: {mark}", f"place1/2: Lia heard: {mark}")
    assert not verdict.is_well
    assert json.dumps(dataclasses.asdict(verdict))


@pytest.mark.parametrize(("after_kill_s", "is_excused"), [(0.1, True), (-0.1, True), (-1.0, False), (4.0, False)])
def test_what_was_on_its_way_when_the_bot_was_killed_may_come_again(
    chaos: Chaos, after_kill_s: float, is_excused: bool
) -> None:
    mark = written(chaos)
    ledger = chaos._crowd.ledger
    for message_id in ("place1/1", "place1/2"):
        ledger.shown(message_id, f"Lia heard: {mark}")
    chaos._killed_at.append(ledger.shown_at["place1/1"] - after_kill_s)
    ledger.shown_at["place1/2"] += 60
    verdict = chaos._judge()
    assert verdict.is_well is is_excused
    assert verdict.num_in_flight == is_excused


def test_a_refusal_tells_one_message_of_its_chat(chaos: Chaos) -> None:
    for chat in (1, 1, 2):
        written(chaos, chat)
    chaos._crowd.ledger.shown("place1/1", "I am being restarted. Please send this again in a minute.")
    verdict = chaos._judge()
    assert verdict.num_told == 1
    assert [case.chat for case in verdict.lost] == [1, 2]


def test_words_without_an_end_are_no_answer(chaos: Chaos) -> None:
    written(chaos)
    chaos._crowd.ledger.shown("place1/1", "Lia heard (2 earlier")
    verdict = chaos._judge()
    assert (len(verdict.lost), verdict.num_strays) == (1, 1)


def test_a_chat_that_was_closed_excuses(chaos: Chaos) -> None:
    written(chaos)
    chaos._closed[1] = 0.0
    assert chaos._judge().num_excused == 1


def test_a_bot_that_died_is_not_well() -> None:
    assert Verdict("discord", 1).is_well
    assert not Verdict("discord", 1, num_deaths=1).is_well
