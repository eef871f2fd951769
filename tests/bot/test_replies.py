"""Replies on their way: paced, retried, whole."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from types import SimpleNamespace

import pytest

from bot.adapters.base import PlatformLimits
from bot.errors import ChannelClosed, DeliveryError, MessageGone, RateLimited, StoreError
from bot.replies import CUT_SHORT, EMPTY_REPLY, STOPPED, Pacing, ReplyStream, _Patience, describe_place, send_text
from bot.types import Control
from engine.errors import EngineError
from engine.types import FinishReason, QueuePlace, ReplyChunk
from tests.fakes.adapter import FakeChannel

FAST = Pacing(first_wait_s=0.02, max_attempts=4, backoff_s=0.005, max_backoff_s=0.02, grace_s=1.0)
LONG = "One. Two and three, four.\n\n" * 40


class Step(Enum):
    """What a speech waits for between its words."""

    SHOWN = "the channel shows all that was said"
    FOREVER = "nothing"


@dataclass(frozen=True)
class Until:
    """Waits until the channel's last message shows `text`."""

    text: str


class Speech:
    """What an engine says: texts, places in its queue, seconds of silence, errors to raise, and steps."""

    def __init__(
        self, *steps: str | float | Exception | Step | Until | QueuePlace, reason: FinishReason = FinishReason.STOP
    ) -> None:
        self._steps = steps
        self._reason = reason
        self.is_closed = False

    async def chunks(self, channel: FakeChannel) -> AsyncIterator[ReplyChunk]:
        said = ""
        try:
            for step in self._steps:
                if isinstance(step, Exception):
                    raise step
                elif isinstance(step, str):
                    said += step
                    yield ReplyChunk(step)
                elif isinstance(step, QueuePlace):
                    yield ReplyChunk("", queue=step)
                elif isinstance(step, Until):
                    await channel.wait_until(partial(shows, channel, step.text))
                elif step is Step.SHOWN:
                    await channel.wait_until(partial(shows, channel, said.strip()))
                else:
                    await (asyncio.Event().wait() if step is Step.FOREVER else asyncio.sleep(step))
            yield ReplyChunk("", self._reason)
        finally:
            self.is_closed = True


def shows(channel: FakeChannel, text: str) -> bool:
    return channel.texts[-1:] == [text]


async def deliver(channel: FakeChannel, speech: Speech, *, reply_to: str | None = None) -> ReplyStream:
    stream = ReplyStream(channel, reply_to=reply_to, pacing=FAST)
    async with asyncio.timeout(10):
        await stream.deliver(speech.chunks(channel))
    return stream


def limited(
    *, max_text_length: int = 2000, edit_interval_s: float = 0.01, typing_interval_s: float = 0.05
) -> FakeChannel:
    return FakeChannel(PlatformLimits(max_text_length, edit_interval_s, typing_interval_s, 10**7))


async def test_a_reply_grows_by_edits_and_ends_exact() -> None:
    channel = limited()
    words = [f"word{number} " for number in range(12)]
    stream = await deliver(channel, Speech(*(step for word in words for step in (word, 0.006))), reply_to="m1")
    (message,) = channel.sent
    assert message.reply_to == "m1"
    assert message.text == stream.text_to_remember == "".join(words).strip()
    assert len(message.texts) > 2
    assert all(message.text.startswith(text) for text in message.texts)
    assert stream.message_ids == (message.id,)


async def test_edits_keep_their_distance_and_show_only_the_newest() -> None:
    channel = limited(edit_interval_s=0.05)
    await deliver(channel, Speech("These are the first words. ", *(step for _ in range(60) for step in ("on ", 0.002))))
    (message,) = channel.sent
    gaps = [late - early for early, late in zip(message.times[:-1], message.times[1:], strict=True)]
    assert gaps
    assert min(gaps) >= 0.049
    assert len(message.texts) < 12


async def test_a_slow_channel_makes_no_backlog() -> None:
    channel = limited()
    channel.delay_s = 0.08
    await deliver(channel, Speech("These are the first words. ", *(step for _ in range(60) for step in ("on ", 0.002))))
    assert len(channel.sent[0].texts) <= 5
    assert channel.texts[0].endswith("on on")


async def test_the_first_words_come_soon_but_not_letter_by_letter() -> None:
    channel = limited()
    await deliver(channel, Speech("A", "b", "c", Step.SHOWN, "d"))
    assert channel.sent[0].texts == ["Abc", "Abcd"]


async def test_a_finished_reply_is_sent_once() -> None:
    channel = limited()
    await deliver(channel, Speech("Yes."))
    assert channel.sent[0].texts == ["Yes."]


async def test_typing_is_shown_until_the_first_words() -> None:
    channel = limited(typing_interval_s=0.02)
    task = asyncio.create_task(deliver(channel, Speech(0.2, "Here I am, and I stay.", Step.SHOWN, 0.1, " Bye.")))
    await channel.wait_until(lambda: bool(channel.sent))
    num_typing = channel.num_typing
    assert num_typing >= 3
    await task
    assert channel.num_typing == num_typing


async def test_a_channel_that_cannot_show_typing_still_gets_the_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_channel: FakeChannel) -> None:
        raise DeliveryError("no typing here")

    monkeypatch.setattr(FakeChannel, "show_typing", fail)
    channel = limited()
    await deliver(channel, Speech("Yes."))
    assert channel.texts == ["Yes."]


async def test_a_long_reply_goes_on_in_new_messages() -> None:
    channel = limited(max_text_length=200)
    steps = [step for part in LONG.split(" ") for step in (part + " ", 0.0005)]
    stream = await deliver(channel, Speech(*steps), reply_to="m1")
    assert len(channel.sent) > 4
    assert "".join("".join(channel.texts).split()) == "".join(LONG.split())
    assert [message.reply_to for message in channel.sent] == ["m1"] + [None] * (len(channel.sent) - 1)
    assert stream.message_ids == tuple(message.id for message in channel.sent)
    assert stream.text_to_remember == " ".join(LONG.split(" ")).strip()


async def test_full_messages_are_left_alone() -> None:
    channel = limited(max_text_length=200)
    task = asyncio.create_task(deliver(channel, Speech(LONG[:300], 0.05, LONG[300:900], 0.1, LONG[900:])))
    await channel.wait_until(lambda: len(channel.sent) > 2)
    first, num_texts = channel.texts[0], len(channel.sent[0].texts)
    await task
    assert channel.texts[0] == first
    assert len(channel.sent[0].texts) == num_texts


@pytest.mark.parametrize("empty", ["", "  \n"])
async def test_an_empty_reply_says_so_and_is_not_remembered(empty: str) -> None:
    channel = limited()
    stream = await deliver(channel, Speech(empty))
    assert channel.texts == [EMPTY_REPLY]
    assert stream.text_to_remember == ""


@pytest.mark.parametrize("error", [DeliveryError("a hiccup"), RateLimited(0.02)])
@pytest.mark.parametrize("position", [0, 1, 2])
async def test_a_failed_call_is_made_again(error: DeliveryError, position: int) -> None:
    channel = limited()
    channel.failures = [*[None] * position, error]
    await deliver(channel, Speech("These are the first words.", Step.SHOWN, " And more,", Step.SHOWN, " and the end."))
    assert channel.texts == ["These are the first words. And more, and the end."]
    assert not channel.failures


async def test_a_rate_limit_is_honoured() -> None:
    channel = limited()
    channel.failures = [None, RateLimited(0.15)]
    await deliver(channel, Speech("These are the first words.", Step.SHOWN, " The end."))
    first, second = channel.sent[0].times
    assert second - first >= 0.15


async def test_a_dead_channel_is_given_up_and_the_reply_kept(caplog: pytest.LogCaptureFixture) -> None:
    channel = limited()
    channel.failures = [DeliveryError("gone")] * 100
    stream = await deliver(channel, Speech("These are the first words.", 0.03, " The end."))
    assert channel.sent == []
    assert stream.text_to_remember == "These are the first words. The end."
    assert stream.message_ids == ()
    assert len(channel.failures) > 80, "the attempts are bounded"
    assert "could not be shown in full: gone" in caplog.text


async def test_patience_is_bounded() -> None:
    channel = limited()
    channel.failures = [RateLimited(3600)] * 10
    stream = await deliver(channel, Speech("Yes."))
    assert stream.text_to_remember == "Yes."


async def test_a_channel_that_recovers_at_the_end_shows_everything() -> None:
    channel = limited()
    channel.failures = [None, *[DeliveryError("down")] * 3]
    await deliver(channel, Speech("These are the first words.", *(step for _ in range(20) for step in (" on", 0.003))))
    assert channel.texts == ["These are the first words." + " on" * 20]


async def test_a_message_that_cannot_be_edited_any_more_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(_channel: FakeChannel, message_id: str, text: str, **_: object) -> None:
        raise DeliveryError("the message was deleted")

    monkeypatch.setattr(FakeChannel, "edit", gone)
    channel = limited()
    stream = await deliver(channel, Speech("These are the first words.", Step.SHOWN, " The end."))
    assert channel.texts == ["These are the first words.", "These are the first words. The end."]
    assert stream.message_ids == ("sent-1", "sent-2")


async def test_cancelling_closes_the_generator_and_keeps_what_was_shown() -> None:
    channel, speech = limited(), Speech("These are the first words.", Step.FOREVER)
    stream = ReplyStream(channel, pacing=FAST)
    task = asyncio.create_task(stream.deliver(speech.chunks(channel)))
    await channel.wait_until(lambda: bool(channel.sent))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert speech.is_closed
    assert stream.text_to_remember == "These are the first words."
    assert stream.message_ids == ("sent-1",)


async def test_cancelling_closes_an_iterator_that_is_no_generator() -> None:
    class Stuck:
        is_closed = False

        def __aiter__(self) -> "Stuck":
            return self

        async def __anext__(self) -> ReplyChunk:
            await asyncio.Event().wait()
            raise StopAsyncIteration

        async def aclose(self) -> None:
            self.is_closed = True

    chunks = Stuck()
    task = asyncio.create_task(ReplyStream(limited(), pacing=FAST).deliver(chunks))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert chunks.is_closed


async def test_cancelling_before_anything_is_shown_leaves_nothing() -> None:
    channel, speech = limited(), Speech(Step.FOREVER)
    stream = ReplyStream(channel, pacing=FAST)
    task = asyncio.create_task(stream.deliver(speech.chunks(channel)))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert speech.is_closed
    assert stream.text_to_remember == ""
    assert channel.sent == []


@pytest.mark.parametrize("num_shown", [0, 1, 2])
async def test_of_a_whole_reply_that_is_broken_off_what_was_shown_counts(num_shown: int) -> None:
    channel = limited(max_text_length=200)
    channel.delay_s = 0.02
    stream = ReplyStream(channel, pacing=FAST)
    task = asyncio.create_task(stream.deliver(Speech(LONG[:900]).chunks(channel)))
    await channel.wait_until(lambda: len(channel.sent) >= num_shown)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 0 < len(channel.sent) < 4
    assert stream.text_to_remember.split() == " ".join(channel.texts).split()


async def test_cancelling_during_a_send_knows_that_it_was_sent() -> None:
    channel = limited()
    channel.delay_s = 0.1
    stream = ReplyStream(channel, pacing=FAST)
    task = asyncio.create_task(stream.deliver(Speech("These are the first words.", Step.FOREVER).chunks(channel)))
    await asyncio.sleep(0.05)
    assert not channel.sent
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.message_ids == ("sent-1",)
    assert stream.text_to_remember == channel.texts[0]


async def test_a_send_that_fails_after_two_cancellations_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    channel = limited()
    channel.delay_s = 0.1
    channel.failures = [DeliveryError("gone")]
    stream = ReplyStream(channel, pacing=FAST)
    task = asyncio.create_task(stream.deliver(Speech("These are the first words.", Step.FOREVER).chunks(channel)))
    await asyncio.sleep(0.05)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.1)
    gc.collect()
    assert not caplog.text


async def test_an_engine_that_fails_is_reported_after_what_it_said() -> None:
    channel = limited()
    stream = ReplyStream(channel, pacing=FAST)
    with pytest.raises(EngineError, match="out of memory"):
        await stream.deliver(Speech("Half a", EngineError("out of memory")).chunks(channel))
    assert channel.texts == ["Half a"]
    assert stream.text_to_remember == "Half a"


async def test_an_engine_that_fails_at_once_shows_nothing() -> None:
    channel = limited()
    with pytest.raises(EngineError):
        await deliver(channel, Speech(EngineError("no")))
    assert channel.sent == []


@pytest.mark.parametrize(
    ("said", "shown"), [("and then I", "and then I…"), ("and then I  ", "and then I…"), ("The end.", "The end.")]
)
async def test_a_reply_that_ran_into_its_limit_in_mid_sentence_shows_it(said: str, shown: str) -> None:
    channel = limited()
    stream = await deliver(channel, Speech(said, reason=FinishReason.LENGTH))
    assert channel.texts == [shown]
    assert stream.text_to_remember == shown


async def test_a_reply_that_the_engine_cancelled_counts_as_far_as_it_was_shown() -> None:
    channel = limited()
    stream = await deliver(channel, Speech("Half a", reason=FinishReason.CANCELLED))
    assert channel.texts == ["Half a"]
    assert stream.text_to_remember == "Half a"


async def test_a_complete_text_is_sent_with_the_same_care() -> None:
    channel = limited(max_text_length=200)
    channel.failures = [DeliveryError("a hiccup")]
    message_ids = await send_text(channel, LONG, reply_to="m1", pacing=FAST)
    assert len(message_ids) == len(channel.sent) > 4
    assert channel.sent[0].reply_to == "m1"


async def test_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    await deliver(limited(), Speech("Yes."))
    assert asyncio.all_tasks() == before


# --- waiting in the engine's queue

HASTY = replace(FAST, place_from_s=0.05, place_interval_s=0.01)
PLACE = QueuePlace(3, 20.0)
IN_LINE = "You are 3rd in line, about 20 s."


async def wait_in_line(channel: FakeChannel, speech: Speech, pacing: Pacing = HASTY) -> ReplyStream:
    stream = ReplyStream(channel, reply_to="m1", pacing=pacing)
    async with asyncio.timeout(10):
        await stream.deliver(speech.chunks(channel))
    return stream


async def test_a_place_in_line_becomes_the_reply() -> None:
    channel = limited()
    stream = await wait_in_line(
        channel,
        Speech(
            PLACE,
            Until(IN_LINE),
            QueuePlace(1, 4.0),
            Until("You are next in line, about 5 s."),
            "Here I am, and I talk.",
            Step.SHOWN,
            " Bye.",
        ),
    )
    (shown,) = channel.sent
    assert shown.texts == [
        IN_LINE,
        "You are next in line, about 5 s.",
        "Here I am, and I talk.",
        "Here I am, and I talk. Bye.",
    ]
    assert shown.reply_to == "m1"
    assert stream.message_ids == (shown.id,)
    assert stream.text_to_remember == "Here I am, and I talk. Bye."
    assert stream.notice_id is None


async def test_a_short_wait_is_not_mentioned() -> None:
    channel = limited()
    pacing = replace(HASTY, place_from_s=5.0)
    await wait_in_line(channel, Speech(QueuePlace(1, 4.0), 0.02, QueuePlace(1, None), 0.02, "Yes."), pacing)
    assert channel.sent[0].texts == ["Yes."]


async def test_no_place_is_mentioned_once_words_have_come() -> None:
    channel = limited()
    pacing = replace(HASTY, first_wait_s=0.5)
    await wait_in_line(channel, Speech(QueuePlace(1, 0.0), "Ye", 0.1, "s."), pacing)
    assert channel.sent[0].texts == ["Yes."]


async def test_a_wait_of_unknown_length_is_mentioned_once_it_is_long() -> None:
    channel = limited()
    await wait_in_line(channel, Speech(QueuePlace(2, None), Until("You are 2nd in line."), "Yes."))
    assert channel.sent[0].texts == ["You are 2nd in line.", "Yes."]


async def test_places_are_told_calmly() -> None:
    channel = limited()
    steps = [step for position in range(30, 0, -1) for step in (QueuePlace(position, 50.0), 0.008)]
    await wait_in_line(channel, Speech(*steps, "Yes."), replace(HASTY, place_interval_s=0.08))
    times = channel.sent[0].times[:-1]
    assert min(late - early for early, late in itertools.pairwise(times)) >= 0.079


async def test_a_long_reply_begins_where_the_place_was() -> None:
    channel = limited(max_text_length=200)
    stream = await wait_in_line(channel, Speech(PLACE, Until(IN_LINE), LONG))
    assert "".join("".join(channel.texts).split()) == "".join(LONG.split())
    assert len(stream.message_ids) == len(channel.sent)


async def test_a_place_on_its_way_arrives_before_the_words_take_it() -> None:
    channel = limited()
    channel.delay_s = 0.05
    await wait_in_line(channel, Speech(PLACE, 0.01, "Yes."))
    assert [message.texts for message in channel.sent] == [[IN_LINE, "Yes."]]


async def test_a_place_that_cannot_be_shown_costs_nothing() -> None:
    channel = limited()
    channel.failures = [DeliveryError("not now"), RateLimited(0.01)]
    await wait_in_line(channel, Speech(PLACE, 0.02, QueuePlace(2, 20.0), 0.02, "Yes."))
    assert [message.texts for message in channel.sent] == [["Yes."]]


async def test_a_failure_leaves_the_notice_to_be_replaced() -> None:
    channel = limited()
    stream = ReplyStream(channel, pacing=HASTY)
    with pytest.raises(EngineError):
        await stream.deliver(Speech(PLACE, Until(IN_LINE), EngineError("no")).chunks(channel))
    assert stream.notice_id == channel.sent[0].id
    assert stream.text_to_remember == ""
    assert await send_text(channel, "It did not work.", pacing=FAST, instead_of=stream.notice_id) == (stream.notice_id,)
    assert [message.texts for message in channel.sent] == [[IN_LINE, "It did not work."]]


async def test_a_notice_that_is_gone_is_replaced_by_a_message_of_its_own() -> None:
    channel = limited()
    await send_text(channel, "It did not work.", pacing=FAST, instead_of="deleted")
    assert channel.texts == ["It did not work."]


async def test_whoever_stops_waiting_leaves_no_place_behind() -> None:
    channel = limited()
    stream = ReplyStream(channel, pacing=HASTY)
    task = asyncio.create_task(stream.deliver(Speech(PLACE, Step.FOREVER).chunks(channel)))
    await channel.wait_until(lambda: channel.texts == [IN_LINE])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert channel.texts == [STOPPED]
    assert stream.text_to_remember == ""


async def test_stopping_while_the_place_is_on_its_way_leaves_none_behind() -> None:
    channel = limited()
    channel.delay_s = 0.05
    stream = ReplyStream(channel, pacing=HASTY)
    task = asyncio.create_task(stream.deliver(Speech(PLACE, Step.FOREVER).chunks(channel)))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert channel.texts == [STOPPED]


async def test_a_reply_that_was_cancelled_in_the_queue_says_so() -> None:
    channel = limited()
    stream = await wait_in_line(channel, Speech(PLACE, Until(IN_LINE), reason=FinishReason.CANCELLED))
    assert channel.texts == [STOPPED]
    assert stream.text_to_remember == ""


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.TIME])
async def test_what_was_cut_short_shows_it(reason: FinishReason) -> None:
    channel = limited()
    await deliver(channel, Speech("And then the", reason=reason))
    assert channel.texts == [f"And then the{CUT_SHORT}"]


# --- in the place of messages that are there already

AGAIN = Control("🔄", ("again",))


async def told(channel: FakeChannel, *texts: str) -> tuple[str, ...]:
    """Messages that the bot sent before."""
    return tuple([await channel.send(text, controls=(AGAIN,)) for text in texts])


@pytest.mark.parametrize("num_before", [1, 2, 8])
async def test_a_reply_takes_the_place_of_another(num_before: int) -> None:
    channel = limited(max_text_length=200)
    before = await told(channel, *(f"old {number}" for number in range(num_before)))
    message_ids = await send_text(channel, LONG[:500], pacing=FAST, instead_of=before, controls=(AGAIN,))
    assert "".join("".join(channel.texts).split()) == "".join(LONG[:500].split())
    assert message_ids == tuple(message.id for message in channel.sent)
    assert message_ids[:num_before] == before[: len(message_ids)]
    assert [message.controls for message in channel.sent] == [()] * (len(message_ids) - 1) + [(AGAIN,)]


async def test_until_the_first_words_the_old_reply_stays() -> None:
    channel = limited()
    before = await told(channel, "old 1", "old 2")
    stream = ReplyStream(channel, pacing=HASTY, instead_of=before)
    with pytest.raises(EngineError):
        await stream.deliver(Speech(PLACE, 0.1, EngineError("no")).chunks(channel))
    assert channel.texts == ["old 1", "old 2"]
    assert stream.message_ids == before
    assert stream.notice_id is None


async def test_a_reply_that_was_stopped_before_it_began_leaves_the_old_one() -> None:
    channel = limited()
    before = await told(channel, "old")
    stream = ReplyStream(channel, pacing=FAST, instead_of=before)
    await stream.deliver(Speech("", reason=FinishReason.CANCELLED).chunks(channel))
    assert channel.texts == ["old"]


async def test_a_new_reply_that_is_broken_off_leaves_nothing_of_the_old_one() -> None:
    channel = limited()
    before = await told(channel, "old 1", "old 2")
    stream = ReplyStream(channel, pacing=FAST, instead_of=before)
    task = asyncio.create_task(stream.deliver(Speech("These are the first words.", Step.FOREVER).chunks(channel)))
    await channel.wait_until(lambda: channel.texts[0] == "These are the first words.")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert channel.texts == ["These are the first words."]
    assert stream.text_to_remember == "These are the first words."
    assert stream.message_ids == before[:1]


async def test_where_nothing_can_be_deleted_old_words_go_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_channel: FakeChannel, message_id: str) -> None:
        raise DeliveryError("messages cannot be deleted here")

    monkeypatch.setattr(FakeChannel, "delete", refuse)
    channel = limited()
    before = await told(channel, "old 1", "old 2")
    assert await send_text(channel, "New.", pacing=FAST, instead_of=before) == before[:1]
    assert channel.texts == ["New.", CUT_SHORT]


async def test_a_message_that_is_gone_is_replaced_at_once() -> None:
    channel = limited()
    channel.failures = [MessageGone("deleted by a moderator")]
    started = asyncio.get_running_loop().time()
    slow = replace(FAST, backoff_s=60.0, max_backoff_s=60.0)
    assert await send_text(channel, "New.", pacing=slow, instead_of=("gone",)) == ("sent-1",)
    assert asyncio.get_running_loop().time() - started < 5


# --- buttons, and who hears of messages


async def test_buttons_come_with_the_last_message_of_the_whole_text() -> None:
    channel = limited(max_text_length=200)
    stream = ReplyStream(channel, pacing=FAST, controls=(AGAIN,))
    task = asyncio.create_task(stream.deliver(Speech(LONG[:300], Until("x"), LONG[300:500]).chunks(channel)))
    await channel.wait_until(lambda: len(channel.sent) == 2)
    assert [message.controls for message in channel.sent] == [(), ()]
    channel.sent[-1].texts.append("x")
    channel.changed.set()
    await task
    assert [bool(message.controls) for message in channel.sent] == [False] * (len(channel.sent) - 1) + [True]


async def test_buttons_come_also_where_the_text_was_shown_already() -> None:
    channel = limited()
    stream = ReplyStream(channel, pacing=FAST, controls=(AGAIN,))
    await stream.deliver(Speech("These are the first words.", Step.SHOWN).chunks(channel))
    assert channel.sent[0].texts == ["These are the first words."]
    assert channel.sent[0].controls == (AGAIN,)


async def test_what_is_no_reply_has_no_buttons() -> None:
    channel = limited()
    stream = ReplyStream(channel, pacing=FAST, controls=(AGAIN,))
    await stream.deliver(Speech("").chunks(channel))
    assert channel.texts == [EMPTY_REPLY]
    assert channel.sent[0].controls == ()


async def test_every_new_message_is_told_of_with_those_before_it() -> None:
    channel = limited(max_text_length=200)
    heard: list[tuple[str, ...]] = []

    async def hear(message_ids: tuple[str, ...]) -> None:
        heard.append(message_ids)

    before = await told(channel, "old")
    stream = ReplyStream(channel, pacing=FAST, instead_of=before, on_shown=hear)
    await stream.deliver(Speech(LONG[:300], 0.03, LONG[300:900]).chunks(channel))
    assert len(heard) > 3
    assert heard == [stream.message_ids[:number] for number in range(2, len(stream.message_ids) + 1)]


async def test_a_place_in_line_is_told_of_too() -> None:
    channel, heard = limited(), []

    async def hear(message_ids: tuple[str, ...]) -> None:
        heard.append(message_ids)

    stream = ReplyStream(channel, pacing=HASTY, on_shown=hear)
    await stream.deliver(Speech(PLACE, Until(IN_LINE), "Yes.").chunks(channel))
    assert heard == [("sent-1",)]


async def test_a_store_that_fails_stops_no_reply(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(message_ids: tuple[str, ...]) -> None:
        raise StoreError("the disk is full")

    channel = limited()
    await ReplyStream(channel, pacing=FAST, on_shown=fail).deliver(Speech("Yes.").chunks(channel))
    assert channel.texts == ["Yes."]
    assert "the disk is full" in caplog.text


# --- in its turn


@dataclass
class PacedChannel(FakeChannel):
    """A channel that lets calls through one by one, when the test says so."""

    asked: list[bool] = field(default_factory=list)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def ready(self, *, is_urgent: bool = False) -> None:
        self.asked.append(is_urgent)
        self.changed.set()
        await self.turns.acquire()


def paced() -> PacedChannel:
    return PacedChannel(PlatformLimits(2000, 0.0, 5.0, 10**7))


async def test_the_newest_words_are_shown_when_the_turn_comes() -> None:
    channel = paced()
    go_on = asyncio.Event()

    async def chunks() -> AsyncIterator[ReplyChunk]:
        yield ReplyChunk("These are the first words.")
        await channel.wait_until(lambda: bool(channel.asked))
        for _ in range(20):
            yield ReplyChunk(" on")
        channel.turns.release()
        await channel.wait_until(lambda: len(channel.asked) == 1 and bool(channel.sent))
        await go_on.wait()

    task = asyncio.create_task(ReplyStream(channel, pacing=FAST).deliver(chunks()))
    await channel.wait_until(lambda: bool(channel.sent))
    assert channel.texts == ["These are the first words." + " on" * 20]
    go_on.set()
    await task
    assert channel.asked == [False]


async def test_a_text_that_is_complete_waits_among_the_urgent_ones() -> None:
    channel = paced()
    task = asyncio.create_task(deliver(channel, Speech("These are the first words.", 0.03, " The end.")))
    await channel.wait_until(lambda: channel.asked == [False, True])
    channel.turns.release()
    await task
    assert channel.sent[0].texts == ["These are the first words. The end."]
    assert channel.turns.locked(), "the turn that was given up is nobody's"


async def test_a_patient_platform_costs_no_attempt() -> None:
    channel = limited()
    channel.failures = [RateLimited(0.01)] * 30
    stream = await deliver(channel, Speech("Yes."))
    assert channel.texts == ["Yes."]
    assert stream.is_delivered


async def test_what_was_not_shown_counts_as_undelivered() -> None:
    channel = limited()
    channel.failures = [RateLimited(0.05)] * 10
    stream = ReplyStream(channel, pacing=replace(FAST, max_patience_s=0.12))
    await stream.deliver(Speech("Yes.").chunks(channel))
    assert not channel.sent
    assert not stream.is_delivered


def test_patience_begins_anew_when_the_text_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace()
    monkeypatch.setattr("bot.replies.time", clock)
    patience, error = _Patience(replace(FAST, max_patience_s=10.0)), RateLimited(1.0)
    for now_s, is_text_complete, pause_s in (
        (100.0, False, 1.0),
        (108.0, False, 1.0),
        (109.5, True, 1.0),
        (118.0, True, 1.0),
        (119.0, True, None),
    ):
        clock.monotonic = partial(float, now_s)
        assert patience.pause_s(error, is_text_complete=is_text_complete) == pause_s


async def test_a_closed_channel_is_tried_once() -> None:
    channel = limited()
    channel.failures = [ChannelClosed("Ann takes no direct messages")] * 5
    stream = await deliver(channel, Speech("Yes."))
    assert len(channel.failures) == 4
    assert not stream.is_delivered
    assert stream.text_to_remember == "Yes."


async def test_buttons_that_cannot_be_shown_leave_the_text_delivered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(_channel: FakeChannel, message_id: str, controls: tuple[Control, ...]) -> None:
        raise DeliveryError("no buttons here")

    monkeypatch.setattr(FakeChannel, "show_controls", refuse)
    channel = limited()
    stream = ReplyStream(channel, pacing=FAST, controls=(AGAIN,))
    await stream.deliver(Speech("These are the first words.", Step.SHOWN).chunks(channel))
    assert stream.is_delivered
    assert "no buttons here" in caplog.text


# --- drafts


@dataclass
class DraftingChannel(FakeChannel):
    """A channel that shows a growing text as a draft, until a message comes."""

    drafts: list[str] = field(default_factory=list)
    is_refusing: bool = False

    async def show_draft(self, text: str) -> None:
        if self.is_refusing:
            raise DeliveryError("this chat knows no drafts")
        self.drafts.append(text)
        self.changed.set()


def drafting(*, max_text_length: int = 2000, edit_interval_s: float = 0.01) -> DraftingChannel:
    return DraftingChannel(PlatformLimits(max_text_length, edit_interval_s, 5.0, 10**7, draft_interval_s=0.005))


def drafted(channel: DraftingChannel, text: str) -> bool:
    return channel.drafts[-1:] == [text]


async def test_a_growing_text_is_a_draft_and_a_complete_one_a_message() -> None:
    channel = drafting(edit_interval_s=60.0)
    go_on = asyncio.Event()

    async def chunks() -> AsyncIterator[ReplyChunk]:
        yield ReplyChunk("These are the first words.")
        await channel.wait_until(partial(drafted, channel, "These are the first words."))
        yield ReplyChunk(" And more.")
        await channel.wait_until(partial(drafted, channel, "These are the first words. And more."))
        assert not channel.sent
        yield ReplyChunk(" The end.")
        go_on.set()

    stream = ReplyStream(channel, reply_to="m1", pacing=FAST, controls=(AGAIN,))
    async with asyncio.timeout(5):
        await stream.deliver(chunks())
    assert [message.texts for message in channel.sent] == [["These are the first words. And more. The end."]]
    assert channel.sent[0].reply_to == "m1"
    assert channel.sent[0].controls == (AGAIN,)
    assert stream.message_ids == ("sent-1",)


async def test_of_a_long_text_only_the_growing_piece_is_a_draft() -> None:
    channel = drafting(max_text_length=200)
    stream = ReplyStream(channel, pacing=FAST)
    async with asyncio.timeout(5):
        await stream.deliver(Speech(LONG[:500], 0.06, LONG[500:520]).chunks(channel))
    assert all(len(message.texts) == 1 for message in channel.sent)
    assert len(channel.sent) == 3
    assert channel.texts[0] not in channel.drafts
    assert channel.texts[-1].startswith(channel.drafts[-1].rstrip("."))
    assert "".join("".join(channel.texts).split()) == "".join(LONG[:520].split())


async def test_where_drafts_are_refused_the_message_grows() -> None:
    channel = drafting()
    channel.is_refusing = True
    stream = await deliver(channel, Speech("These are the first words.", Step.SHOWN, " The end."))
    assert channel.sent[0].texts == ["These are the first words.", "These are the first words. The end."]
    assert stream.is_delivered


async def test_what_people_saw_of_a_draft_stays() -> None:
    channel = drafting()
    stream = ReplyStream(channel, pacing=FAST)
    task = asyncio.create_task(stream.deliver(Speech("These are the first words.", Step.FOREVER).chunks(channel)))
    await channel.wait_until(lambda: bool(channel.drafts))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert channel.texts == ["These are the first words."]
    assert stream.text_to_remember == "These are the first words."
    assert stream.message_ids == ("sent-1",)


async def test_what_replaces_a_message_is_no_draft() -> None:
    channel = drafting(max_text_length=200)
    before = await told(channel, "old")
    stream = ReplyStream(channel, pacing=FAST, instead_of=before)
    await stream.deliver(Speech(LONG[:500], 0.05, LONG[500:520]).chunks(channel))
    assert channel.drafts == []
    assert len(channel.sent) == 3


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (QueuePlace(1, None), "You are next in line."),
        (QueuePlace(1, 0.0), "You are next in line, about 5 s."),
        (QueuePlace(2, 12.0), "You are 2nd in line, about 10 s."),
        (QueuePlace(3, 83.0), "You are 3rd in line, about 85 s."),
        (QueuePlace(4, 170.0), "You are 4th in line, about 3 min."),
        (QueuePlace(11, None), "You are 11th in line."),
        (QueuePlace(13, None), "You are 13th in line."),
        (QueuePlace(21, None), "You are 21st in line."),
        (QueuePlace(112, None), "You are 112th in line."),
    ],
)
def test_a_place_in_words(place: QueuePlace, text: str) -> None:
    assert describe_place(place) == text
