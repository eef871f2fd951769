"""What goes wrong for one reply ends that one, with a clear error; the others go on as if nothing had been."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.errors import DeviceError, EngineBusy, EngineError, PromptTooLong, RequestError
from engine.fusion.types import FusedContext
from engine.generation.loop import GenerationLoop
from engine.generation.processors import LogitsProcessor
from engine.generation.sampler import Sampler
from engine.generation.scheduler import StepBudget
from engine.persona import Persona
from engine.runtime.types import Runtime, Span
from engine.types import FinishReason, GenerationRequest, Image, ReplyChunk, Role, Turn
from tests.engine.generation.loops import (
    MODEL,
    NO_ATTENTION,
    RED,
    Caller,
    FakeFuser,
    OneRuntime,
    a_loop,
    a_prefix,
    a_runtime,
    run,
    serve,
)
from tests.engine.generation.requests import request

OTHERS = ("one", "two", "three")
BAD = "bad"


def asked(text: str, **sampling: object) -> GenerationRequest:
    return request(text, **{"seed": None, "temperature": 0.0, **sampling})


def texts_alone(runtime: Runtime, *texts: str) -> list[str]:
    """What each is answered on a loop of its own."""
    return [serve(a_loop(runtime), asked(text))[0].text for text in texts]


class Fault:
    """Strikes calls that compute something for `caller`, from its `at`th token on."""

    def __init__(self, error: Callable[[], BaseException], *, at: int = 0) -> None:
        self.caller: Caller | None = None
        self._error = error
        self._at = at

    def is_in(self, spans: Sequence[Span]) -> bool:
        if self.caller is None or self.caller.sequence.num_new_tokens < self._at:
            return False
        return any(span.lane in self.caller.sequence.lanes for span in spans)

    def __call__(self, spans: Sequence[Span]) -> None:
        if self.is_in(spans):
            raise self._error()


def serve_with(loop: GenerationLoop, bad: Caller, *texts: str) -> list[Caller]:
    """`bad` between others."""
    others = [Caller(asked(text)) for text in texts]
    for caller in (others[0], bad, *others[1:]):
        loop.add(caller.sequence)
    run(loop)
    return others


@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_call_that_fails_with_one_fails_that_one(runtime: Runtime, caplog: pytest.LogCaptureFixture, at: int) -> None:
    fault, bad = Fault(lambda: RuntimeError("kernel"), at=at), Caller(asked(BAD))
    fault.caller = bad
    loop = a_loop(OneRuntime(runtime, before=fault))
    others = serve_with(loop, bad, *OTHERS)
    assert "RuntimeError" in str(bad.error)
    assert isinstance(bad.error.__cause__, RuntimeError)
    assert [caller.text for caller in others] == texts_alone(runtime, *OTHERS)
    assert "a reply failed" in caplog.text
    assert (loop.load().num_replies, loop.load().num_failures) == (3, 1)
    assert loop.load().kv_used == 0


def test_a_call_that_fails_after_it_has_written_is_repeated_in_parts(runtime: Runtime) -> None:
    """As where memory runs out at the head of the model: keys and values of everybody stand there by then."""
    fault, bad = Fault(lambda: RuntimeError("kernel"), at=3), Caller(asked(BAD))
    fault.caller = bad

    def after(spans: Sequence[Span], logits: Tensor) -> Tensor:
        fault(spans)
        return logits

    others = serve_with(a_loop(OneRuntime(runtime, after=after)), bad, *OTHERS)
    assert isinstance(bad.answers[-1], EngineError)
    assert [caller.text for caller in others] == texts_alone(runtime, *OTHERS)


def test_a_call_that_fails_while_others_only_read_is_repeated_in_parts(paged: Runtime) -> None:
    """Those have no logits yet."""
    fault, bad = Fault(lambda: RuntimeError("kernel"), at=1), Caller(asked(BAD))
    fault.caller = bad
    loop = a_loop(OneRuntime(paged, before=fault), budget=StepBudget(mixed=16, reading=90))
    texts = ("one", "two " * 40, "three " * 40)
    others = serve_with(loop, bad, *texts)
    assert isinstance(bad.answers[-1], EngineError)
    assert [caller.text for caller in others] == texts_alone(paged, *texts)


def out_of_memory() -> BaseException:
    try:
        torch.empty(1 << 50)
    except RuntimeError as error:
        return error
    raise AssertionError("so much memory should not be there")


def test_short_memory_halves_the_batch_and_everybody_is_served(paged: Runtime) -> None:
    """Calls of more than two fail at first; then memory is there again."""
    is_short = True

    def before(spans: Sequence[Span]) -> None:
        if is_short and len(spans) > 2:
            raise out_of_memory()

    watched = OneRuntime(paged, before=before)
    loop = a_loop(watched, budget=StepBudget(mixed=512, reading=512))
    texts = [f"number {number}" for number in range(8)]
    expected = texts_alone(paged, *texts)
    assert [caller.text for caller in serve(loop, *map(asked, texts))] == expected
    assert loop.load().num_failures == 0
    num_too_large = sum(len(call) > 2 for call in watched.calls)
    assert num_too_large < 10  # what was learnt is kept, and tried again only now and then
    is_short = False
    for _ in range(2):
        assert [caller.text for caller in serve(loop, *map(asked, texts))] == expected
    assert max(len(call) for call in watched.calls[-8:]) == 8


def test_short_memory_gives_up_what_is_only_remembered(paged: Runtime) -> None:
    is_short = False

    def before(spans: Sequence[Span]) -> None:
        if is_short:
            raise out_of_memory()

    loop = a_loop(OneRuntime(paged, before=before))
    serve(loop, asked("one"))
    is_short = True
    (refused,) = serve(loop, request("two", system_prompt="Another.", seed=None))
    is_short = False
    (again,) = serve(loop, asked("one"))
    assert isinstance(refused.error, DeviceError)
    assert "smaller model" in str(refused.error)
    assert again.num_cached_tokens == 0
    assert again.text == texts_alone(paged, "one")[0]


def test_larger_batches_than_usual_stay_large(paged: Runtime) -> None:
    watched = OneRuntime(paged)
    loop = a_loop(watched, max_running=20, budget=StepBudget(mixed=4096, reading=4096))
    serve(loop, asked("first"))
    serve(loop, *(asked(f"{number}") for number in range(20)))
    assert max(len(call) for call in watched.calls) == 20


@pytest.mark.parametrize("at", [0, 4])
def test_logits_that_are_no_numbers_end_one_reply(runtime: Runtime, at: int) -> None:
    bad = Caller(asked(BAD))
    fault = Fault(RuntimeError, at=at)
    fault.caller = bad

    def after(spans: Sequence[Span], logits: Tensor) -> Tensor:
        wanted = [span for span in spans if span.has_logits]
        rows = [row for row, span in enumerate(wanted) if fault.is_in([span])]
        return logits.index_fill(0, torch.tensor(rows, dtype=torch.long), torch.nan)

    loop = a_loop(OneRuntime(runtime, after=after))
    others = serve_with(loop, bad, *OTHERS)
    assert isinstance(bad.error, DeviceError)
    assert "engine.dtype" in str(bad.error)
    assert [caller.text for caller in others] == texts_alone(runtime, *OTHERS)
    fault.caller = None
    (again,) = serve(loop, asked(BAD))
    assert again.text == texts_alone(runtime, BAD)[0]


def test_a_prompt_whose_states_are_no_numbers_spoils_no_other(runtime: Runtime) -> None:
    """Neither through what is remembered, nor through blocks that somebody else gets next."""

    class Broken(FakeFuser):
        def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
            fills = torch.full((3, MODEL.hidden_size), torch.nan) if text == BAD else a_prefix(3)
            return FusedContext((fills,), NO_ATTENTION)

    few_blocks = OneRuntime(runtime, num_blocks=16)
    loop = GenerationLoop(MODEL, few_blocks, Broken())
    expected = serve(GenerationLoop(MODEL, runtime, Broken()), asked("one"), asked("two"))
    bad = Caller(asked(BAD))
    others = serve_with(loop, bad, "one", "two")
    assert isinstance(bad.error, DeviceError)
    assert [caller.text for caller in others] == [caller.text for caller in expected]
    for _ in range(4):  # until every block has been somebody's
        assert serve(loop, asked("one"))[0].text == expected[0].text
        serve(loop, asked(BAD))


def test_a_processor_that_crashes_ends_its_own_reply(runtime: Runtime) -> None:
    def crash(logits: Tensor, new_tokens: Sequence[int]) -> Tensor:
        if len(new_tokens) == 2:
            raise ZeroDivisionError("secret detail")
        return logits

    def make_processors(asked: GenerationRequest) -> list[LogitsProcessor]:
        return [crash] if asked.turns[-1].text == BAD else []

    loop, bad = a_loop(runtime, make_processors=make_processors), Caller(asked(BAD))
    others = serve_with(loop, bad, *OTHERS)
    assert "ZeroDivisionError" in str(bad.error)
    assert "secret" not in str(bad.error)
    assert [caller.text for caller in others] == texts_alone(runtime, *OTHERS)


def test_a_processor_changes_its_own_reply_only(runtime: Runtime) -> None:
    def only_x(logits: Tensor, new_tokens: Sequence[int]) -> Tensor:
        (token_id,) = MODEL.prompts.tokenise("x")
        return torch.full_like(logits, -torch.inf).index_fill(0, torch.tensor([token_id]), 0.0)

    def make_processors(asked: GenerationRequest) -> list[LogitsProcessor]:
        return [only_x] if asked.turns[-1].text == BAD else []

    bent, other = serve(a_loop(runtime, make_processors=make_processors), asked(BAD), asked("one"))
    assert bent.text == "x" * 8
    assert other.text == texts_alone(runtime, "one")[0]


def test_a_choice_that_fails_ends_no_more_than_its_call(
    paged: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where memory runs out while a vocabulary is sorted."""
    loop = a_loop(paged)
    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "penalise", lambda self, logits: logits[self._no_such_thing])
        failed = serve(loop, *map(asked, OTHERS))
    assert all("AttributeError" in str(caller.error) for caller in failed)
    assert [caller.text for caller in serve(loop, *map(asked, OTHERS))] == texts_alone(paged, *OTHERS)
    assert loop.load().kv_used == 0


def test_looking_again_that_fails_ends_one_reply(paged: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    first, later, other = (Caller(asked(text)) for text in ("one " * 30, "one " * 30 + "more", "three"))
    loop = a_loop(paged, budget=StepBudget(mixed=64, reading=256))
    for caller in (first, later, other):
        loop.add(caller.sequence)
    loop.step()
    assert later.sequence.lanes[0].num_computed < first.sequence.lanes[0].num_computed
    opened = GenerationLoop._open

    def fail(self: GenerationLoop, sequence: object, running: object) -> bool:
        if sequence is later.sequence:
            raise RuntimeError("a block could not be copied")
        return opened(self, sequence, running)

    monkeypatch.setattr(GenerationLoop, "_open", fail)
    run(loop)
    assert "RuntimeError" in str(later.error)
    assert first.last.finish_reason is not None
    assert other.last.finish_reason is not None
    assert loop.load().kv_used == 0


def test_a_fuser_that_fails_ends_one_reply(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FakeFuser):
        def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
            if text == BAD:
                raise ValueError("secret detail")
            return None

    bad = Caller(asked(BAD))
    others = serve_with(a_loop(runtime, Failing()), bad, "good")
    (error,) = bad.answers
    assert isinstance(error, EngineError)
    assert isinstance(error.__cause__, ValueError)
    assert "secret" not in str(error)
    assert "ValueError" in str(error)
    assert others[0].last.finish_reason is not None
    assert "a reply failed" in caplog.text


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
        ("max_new_tokens", 0),
        ("max_new_tokens", -10000),
        ("max_duration_s", -1.0),
    ],
)
def test_impossible_settings_are_refused_by_name(setting: str, value: float) -> None:
    bad = Caller(asked(BAD, **{setting: value}))
    others = serve_with(a_loop(a_runtime("torch")), bad, "good")
    assert isinstance(bad.error, RequestError)
    assert setting in str(bad.error)
    assert others[0].last.finish_reason is not None


def test_an_adapter_that_is_not_here_is_refused() -> None:
    bad = Caller(replace(asked(BAD), adapter="pirate"))
    others = serve_with(a_loop(a_runtime("torch")), bad, "good")
    assert isinstance(bad.error, RequestError)
    assert "'pirate'" in str(bad.error)
    assert others[0].last.finish_reason is not None


def test_a_prompt_longer_than_the_context_is_refused(runtime: Runtime) -> None:
    bad = Caller(asked("x" * 600))
    others = serve_with(a_loop(runtime), bad, *OTHERS)
    assert isinstance(bad.error, PromptTooLong)
    assert [caller.text for caller in others] == texts_alone(runtime, *OTHERS)


def test_a_reply_that_takes_too_long_ends_where_it_is(runtime: Runtime) -> None:
    short_of_time, other = serve(a_loop(runtime), asked(BAD, max_duration_s=0.0, max_new_tokens=50), asked("one"))
    assert short_of_time.last.finish_reason is FinishReason.TIME
    assert len(short_of_time.text) <= 1
    assert other.last.finish_reason is FinishReason.LENGTH


def test_no_reply_takes_longer_than_any_may() -> None:
    (caller,) = serve(a_loop(a_runtime("torch"), max_reply_s=0.0), asked("one", max_duration_s=60.0))
    assert caller.last.finish_reason is FinishReason.TIME


def test_whoever_waits_for_too_long_is_told(runtime: Runtime) -> None:
    loop = a_loop(runtime, max_running=1, max_wait_s=5.0)
    running, late = Caller(asked("one", max_new_tokens=30)), Caller(asked("two"))
    loop.add(running.sequence)
    loop.step()
    late.sequence.accepted_at -= 6.0
    loop.add(late.sequence)
    loop.step()
    assert isinstance(late.error, EngineBusy)
    run(loop)
    assert running.last.finish_reason is FinishReason.LENGTH


# --- cancelling


def test_cancelling_ends_a_reply_while_its_prompt_is_read(paged: Runtime) -> None:
    loop = a_loop(paged, budget=StepBudget(mixed=40, reading=40))
    unwanted, wanted = Caller(asked("x" * 300)), Caller(asked("one"))
    for caller in (unwanted, wanted):
        loop.add(caller.sequence)
    loop.step()
    assert unwanted.sequence.is_prefilling
    unwanted.sequence.is_cancelled = True
    loop.step()
    assert unwanted.last.finish_reason is FinishReason.CANCELLED
    assert unwanted.text == ""
    run(loop)
    assert wanted.text == texts_alone(paged, "one")[0]
    assert loop.load().kv_used == 0
    # What was half read is known to nobody.
    (again,) = serve(loop, asked("x" * 300))
    assert again.num_cached_tokens < 60


def test_cancelling_ends_a_reply_that_waits(runtime: Runtime) -> None:
    loop = a_loop(runtime, max_running=1)
    first, second, third = callers = [Caller(asked(text)) for text in OTHERS]
    for caller in callers:
        loop.add(caller.sequence)
    loop.step()
    second.sequence.is_cancelled = True
    loop.step()
    assert second.last.finish_reason is FinishReason.CANCELLED
    run(loop)
    assert [first.text, third.text] == texts_alone(runtime, "one", "three")


# --- room


def test_who_does_not_fit_waits_and_is_served_later(runtime: Runtime) -> None:
    """Each takes six of eight blocks."""
    loop = a_loop(OneRuntime(runtime, num_blocks=8))
    callers = [Caller(asked(text, max_new_tokens=90)) for text in OTHERS]
    for caller in callers:
        loop.add(caller.sequence)
    loop.step()
    assert (loop.load().num_running, loop.load().num_waiting) == (1, 2)
    run(loop)
    assert [caller.text for caller in callers] == [
        serve(a_loop(runtime), asked(text, max_new_tokens=90))[0].text for text in OTHERS
    ]


class TwoPrefixes(FakeFuser):
    def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
        return FusedContext((a_prefix(1), a_prefix(2)), NO_ATTENTION, (0.5, 0.5))


def test_a_prompt_with_several_prefixes_is_read_in_parts(paged: Runtime) -> None:
    """Also in a step in which nobody gets a token."""
    budget = StepBudget(mixed=30, reading=50)
    turns = (Turn(Role.USER, "x" * 100, (RED,)),)
    (caller,) = serve(GenerationLoop(MODEL, paged, TwoPrefixes(), budget=budget), replace(asked("x"), turns=turns))
    (whole,) = serve(GenerationLoop(MODEL, a_runtime("plain"), TwoPrefixes()), replace(asked("x"), turns=turns))
    assert caller.text == whole.text


def test_a_reply_with_several_prefixes_fits_or_says_that_it_never_will(runtime: Runtime) -> None:
    """Eight blocks are 256 positions, and 128 for each of two lanes. Nobody waits for room that never comes."""
    loop = GenerationLoop(MODEL, OneRuntime(runtime, num_blocks=8), TwoPrefixes())
    short, long, after = serve(
        loop, asked("x", max_new_tokens=500), asked("x" * 110, max_new_tokens=20), asked("x", max_new_tokens=5)
    )
    assert short.last.finish_reason is FinishReason.LENGTH
    assert short.last.stats is not None
    assert short.last.stats.num_prompt_tokens + short.last.stats.num_new_tokens <= 128
    assert isinstance(long.error, PromptTooLong)
    assert "kv_cache_mb" in str(long.error)
    assert after.last.finish_reason is FinishReason.LENGTH


def test_looking_again_never_takes_a_place_away(paged: Runtime) -> None:
    """Three share a persona with one who is being answered; while they wait for their reading, one of them after the
    other is ready, and the rest look again. There is room for them only as long as they share."""
    persona = "You are somebody. " * 11
    everybody = [request(letter * 60, system_prompt=persona, seed=None, temperature=0.0) for letter in ("a", "b", "c")]
    alone = [serve(a_loop(paged), one)[0] for one in everybody]
    answered = Caller(request("z", system_prompt=persona, seed=None, temperature=0.0, max_new_tokens=100))
    loop = a_loop(OneRuntime(paged, num_blocks=11 + 3 * 4), budget=StepBudget(mixed=16, reading=2048))
    loop.add(answered.sequence)
    loop.step()
    callers = [Caller(one) for one in everybody]
    for caller in callers:
        loop.add(caller.sequence)
    loop.step()
    assert loop.load().num_running == 4
    assert loop.load().kv_used > 0.95
    run(loop)
    assert [caller.text for caller in callers] == [caller.text for caller in alone]


# --- the end


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (GenerationLoop.cancel_all, ReplyChunk),
        (lambda loop: loop.fail_all(DeviceError("x")), DeviceError),
    ],
)
def test_everybody_can_be_told_at_once(
    runtime: Runtime, end: Callable[[GenerationLoop], None], kind: type[object]
) -> None:
    loop = a_loop(runtime, FakeFuser(), max_running=2)
    turns = (Turn(Role.USER, "look", (RED,)),)
    callers = [Caller(replace(asked("x", max_new_tokens=50), turns=turns)) for _ in range(3)]
    for caller in callers:
        loop.add(caller.sequence)
    loop.step()
    end(loop)
    assert all(isinstance(caller.answers[-1], kind) for caller in callers)
    assert not loop.has_work
    assert loop.load().kv_used == 0
    assert serve(loop, asked("one"))[0].text == texts_alone(runtime, "one")[0]
