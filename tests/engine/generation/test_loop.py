"""The loop against a plain, slow generation written here, on a tiny random backbone with a fake fuser."""

import time
from dataclasses import replace

import pytest
import torch

from engine.decoder.language_model import DecoderState, EncodedPrompt, LanguageModel
from engine.errors import DeviceError, EngineError, PromptTooLong, RequestError
from engine.fusion.types import AttentionMaps, FusedContext
from engine.generation.loop import GenerationLoop
from engine.generation.sequence import Sequence
from engine.persona import Persona
from engine.types import FinishReason, GenerationRequest, Image, ReplyChunk, Role, Turn
from tests.engine.generation.requests import ADA, request
from tests.engine.tiny import tiny_language_model

MODEL = tiny_language_model()
RED, BLUE = Image("red", b""), Image("blue", b"")


NO_ATTENTION = AttentionMaps(torch.zeros(3, 0), torch.zeros(3, 0), torch.zeros(3, 0))


def a_prefix(seed: int) -> torch.Tensor:
    return torch.randn(3, MODEL.hidden_size, generator=torch.Generator().manual_seed(seed))


class SteeringFuser:
    """No picture needed: every turn leans on some words, and on other ones with other words."""

    num_prefix_tokens = 3

    def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
        return FusedContext((a_prefix(1),), NO_ATTENTION, steering=(steering_for(text),))


def steering_for(text: str) -> torch.Tensor:
    return torch.randn(MODEL.hidden_size, generator=torch.Generator().manual_seed(len(text)))


class FakeFuser:
    """A prefix for each turn with a picture, drawn from what it is made of."""

    num_prefix_tokens = 3

    def __init__(self) -> None:
        self.fused: list[str] = []

    def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
        self.fused.append(text)
        if not images:
            return None
        seed = sum(map(ord, persona.id + text + "".join(image.digest for image in images)))
        return FusedContext((a_prefix(seed),), NO_ATTENTION)


class MixingFuser(FakeFuser):
    """Two prefixes for each turn with a picture."""

    def __init__(self, shares: tuple[float, float]) -> None:
        super().__init__()
        self.shares = shares

    def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
        return FusedContext((a_prefix(1), a_prefix(2)), NO_ATTENTION, self.shares) if images else None


class Caller:
    """Collects what one sequence hands out."""

    def __init__(self, asked: GenerationRequest) -> None:
        self.answers: list[ReplyChunk | EngineError] = []
        self.sequence = Sequence(asked, self.answers.append, time.monotonic())

    @property
    def text(self) -> str:
        return "".join(answer.text for answer in self.answers if isinstance(answer, ReplyChunk))

    @property
    def last(self) -> ReplyChunk:
        last = self.answers[-1]
        assert isinstance(last, ReplyChunk)
        return last


def serve(loop: GenerationLoop, *asked: GenerationRequest) -> list[Caller]:
    callers = [Caller(one) for one in asked]
    for caller in callers:
        loop.add(caller.sequence)
    for _ in range(2000):
        if not loop.has_work:
            return callers
        loop.step()
    raise AssertionError("the loop does not end")


@torch.inference_mode()
def plain_greedy(asked: GenerationRequest) -> str:
    """No cache, no batch, no tricks: read everything again for each token."""
    ids = list(MODEL.prompts.write(asked.system_prompt, asked.turns).pieces[0])
    new: list[int] = []
    while len(new) < asked.sampling.max_new_tokens:
        token = int(MODEL.model(torch.tensor([ids + new])).logits[0, -1].argmax())
        if token in MODEL.end_token_ids:
            break
        new.append(token)
    return str(MODEL.tokenizer.decode(new, skip_special_tokens=True))


def visible(text: str) -> str:
    """Without a trailing half character, which the stream rightly never shows."""
    return text.rstrip("\ufffd")


@pytest.mark.parametrize("texts", [("Hi!",), ("Hi!", "Ahoy.", "Where are we going today?")])
def test_greedy_replies_equal_the_plain_backbones(texts: tuple[str, ...]) -> None:
    asked = request(*texts, temperature=0.0, max_new_tokens=30)
    (caller,) = serve(GenerationLoop(MODEL, FakeFuser()), asked)
    assert caller.text == visible(plain_greedy(asked))
    assert len(caller.text) > 10


@torch.inference_mode()
def plain_mixed(asked: GenerationRequest, prefixes: list[torch.Tensor], shares: tuple[float, ...]) -> str:
    """As `plain_greedy`, reading everything once for each prefix."""
    head, tail = MODEL.prompts.write(asked.system_prompt, asked.turns, places={len(asked.turns) - 1}).pieces
    new: list[int] = []
    while len(new) < asked.sampling.max_new_tokens:
        parts = [MODEL.embed(head), MODEL.embed([*tail, *new])]
        mixed = sum(
            share * MODEL.model(inputs_embeds=torch.cat([parts[0], prefix, parts[1]])[None]).logits[0, -1]
            for share, prefix in zip(shares, prefixes, strict=True)
        )
        token = int(mixed.argmax())
        if token in MODEL.end_token_ids:
            break
        new.append(token)
    return str(MODEL.tokenizer.decode(new, skip_special_tokens=True))


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.3, 0.7), (0.0, 1.0)])
def test_several_prefixes_answer_with_mixed_logits(shares: tuple[float, float]) -> None:
    """Late fusion, also for a prompt that was read before."""
    asked = request("Look!", temperature=0.0, max_new_tokens=20)
    asked = replace(asked, turns=(Turn(Role.USER, "Look!", (RED,)),))
    loop = GenerationLoop(MODEL, MixingFuser(shares))
    expected = visible(plain_mixed(asked, [a_prefix(1), a_prefix(2)], shares))
    for _ in range(2):
        (caller,) = serve(loop, asked)
        assert caller.text == expected


@torch.inference_mode()
def plain_steered(asked: GenerationRequest, steering: torch.Tensor) -> str:
    """The last states moved, token by token, everything read anew."""
    places = [index for index, turn in enumerate(asked.turns) if turn.role is Role.USER]
    pieces = MODEL.prompts.write(asked.system_prompt, asked.turns, places=places).pieces
    parts = [MODEL.embed(pieces[0])]
    for piece in pieces[1:]:
        parts += [a_prefix(1), MODEL.embed(piece)]
    new: list[int] = []
    while len(new) < asked.sampling.max_new_tokens:
        read = torch.cat([*parts, MODEL.embed(new)])[None]
        states = MODEL.model.base_model(inputs_embeds=read).last_hidden_state[0, -1]
        token = int(MODEL.model.get_output_embeddings()(states + steering).argmax())
        if token in MODEL.end_token_ids:
            break
        new.append(token)
    return str(MODEL.tokenizer.decode(new, skip_special_tokens=True))


def test_the_answered_turn_steers_and_earlier_ones_do_not() -> None:
    asked = request("Hi!", "Ahoy.", "Where are we going?", temperature=0.0, max_new_tokens=20)
    loop = GenerationLoop(MODEL, SteeringFuser())
    for _ in range(2):
        (caller,) = serve(loop, asked)
        assert caller.text == visible(plain_steered(asked, steering_for("Where are we going?")))
    assert caller.text != visible(plain_steered(asked, steering_for("Hi!")))


def test_the_same_seed_gives_the_same_reply_alone_and_in_company() -> None:
    asked = request("Hi!", max_new_tokens=25, seed=5)
    (alone,) = serve(GenerationLoop(MODEL), asked)
    company = [request(f"Other {n}", max_new_tokens=25, seed=n) for n in range(3)]
    among = serve(GenerationLoop(MODEL), *company[:2], asked, company[2])[2]
    (other,) = serve(GenerationLoop(MODEL), request("Hi!", max_new_tokens=25, seed=6))
    assert alone.text == among.text != other.text


def test_the_last_chunk_says_why_and_what_it_cost() -> None:
    (caller,) = serve(GenerationLoop(MODEL), request("Hi!", max_new_tokens=5, temperature=0.0))
    assert caller.last.finish_reason is FinishReason.LENGTH
    assert caller.last.stats is not None
    assert caller.last.stats.num_new_tokens == 5
    assert (
        caller.last.stats.num_prompt_tokens
        == MODEL.prompts.write(caller.sequence.request.system_prompt, caller.sequence.request.turns).num_tokens
    )
    assert not caller.last.stats.has_fused_prefix
    assert all(chunk.finish_reason is None for chunk in caller.answers[:-1])


def test_an_end_token_ends_the_reply_unseen() -> None:
    # With a hot sampler the tiny model sooner or later draws an end.
    replies = [serve(GenerationLoop(MODEL), request(max_new_tokens=60, temperature=2.0, seed=s))[0] for s in range(12)]
    stopped = [caller for caller in replies if caller.last.finish_reason is FinishReason.STOP]
    assert stopped
    assert all("<|" not in caller.text for caller in stopped)


def test_a_stop_string_ends_the_reply() -> None:
    whole = plain_greedy(request("Hi!", max_new_tokens=30))
    stop = whole[4:6]
    (caller,) = serve(GenerationLoop(MODEL), request("Hi!", temperature=0.0, max_new_tokens=30, stop=(stop,)))
    assert caller.text == whole[: whole.find(stop)]
    assert caller.last.finish_reason is FinishReason.STOP


def test_a_long_reply_lets_a_short_one_pass() -> None:
    loop = GenerationLoop(MODEL)
    long, short = Caller(request(max_new_tokens=200, temperature=0.0)), Caller(request("Yo", max_new_tokens=3))
    loop.add(long.sequence)
    for _ in range(5):
        loop.step()
    loop.add(short.sequence)
    for _ in range(4):
        loop.step()
    assert short.last.finish_reason is not None
    assert all(chunk.finish_reason is None for chunk in long.answers)


def test_no_more_run_than_may() -> None:
    loop = GenerationLoop(MODEL, max_running=2)
    callers = [Caller(request(max_new_tokens=50)) for _ in range(3)]
    for caller in callers:
        loop.add(caller.sequence)
    for _ in range(10):
        loop.step()
    assert [caller.sequence.first_token_at is not None for caller in callers] == [True, True, False]


def test_a_cancelled_reply_ends_within_a_step_and_the_others_go_on() -> None:
    loop = GenerationLoop(MODEL)
    unwanted, wanted = Caller(request(max_new_tokens=100)), Caller(request(max_new_tokens=10))
    for caller in (unwanted, wanted):
        loop.add(caller.sequence)
    for _ in range(3):
        loop.step()
    unwanted.sequence.is_cancelled = True
    loop.step()
    assert unwanted.last.finish_reason is FinishReason.CANCELLED
    for _ in range(12):
        loop.step()
    assert wanted.last.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert not loop.has_work


def test_the_oldest_turns_are_dropped_where_the_context_is_short() -> None:
    asked = request(*["word " * 10] * 20, "the last", max_new_tokens=8)
    (caller,) = serve(GenerationLoop(MODEL), asked)
    assert caller.last.stats is not None
    assert caller.last.stats.num_dropped_turns > 5
    assert caller.last.stats.num_prompt_tokens <= MODEL.max_context_tokens - 8
    kept = asked.turns[caller.last.stats.num_dropped_turns :]
    assert kept[0].role is Role.USER


def test_a_message_that_cannot_fit_is_refused_and_others_are_served() -> None:
    refused, served = serve(GenerationLoop(MODEL), request("x" * 600), request("Hi!"))
    assert isinstance(refused.answers[-1], PromptTooLong)
    assert served.last.finish_reason is not None


def test_nothing_to_answer_is_refused() -> None:
    (refused,) = serve(GenerationLoop(MODEL), replace(request(), turns=()))
    assert isinstance(refused.answers[-1], RequestError)


def test_a_reply_never_outgrows_the_context() -> None:
    (caller,) = serve(GenerationLoop(MODEL), request("x" * 150, max_new_tokens=8192, temperature=0.0))
    assert caller.last.stats is not None
    assert caller.last.stats.num_prompt_tokens + caller.last.stats.num_new_tokens <= MODEL.max_context_tokens


def picture_talk(*images: tuple[Image, ...], persona: Persona | None = None, words: str = "look") -> GenerationRequest:
    """User turns with these pictures, and short answers between them."""
    asked = request(temperature=0.0, max_new_tokens=20, seed=None)
    turns: list[Turn] = []
    for index, pictures in enumerate(images):
        turns += [Turn(Role.USER, f"{words} {index}", pictures), Turn(Role.ASSISTANT, "nice")]
    return replace(asked, turns=tuple(turns[:-1]), persona=persona or asked.persona)


def test_pictures_change_the_reply_through_the_prefix() -> None:
    red, blue, none = serve(
        GenerationLoop(MODEL, FakeFuser()), picture_talk((RED,)), picture_talk((BLUE,)), picture_talk(())
    )
    assert len({red.text, blue.text, none.text}) == 3
    assert red.last.stats is not None
    assert none.last.stats is not None
    assert red.last.stats.has_fused_prefix
    assert not none.last.stats.has_fused_prefix
    assert red.last.stats.num_prompt_tokens == none.last.stats.num_prompt_tokens + 3


def test_a_fuser_that_gives_nothing_leaves_the_backbone_as_it_is() -> None:
    with_fuser, without = (
        serve(GenerationLoop(MODEL, fuser), picture_talk((), ()))[0] for fuser in (FakeFuser(), None)
    )
    assert with_fuser.text == without.text


def test_earlier_turns_keep_their_prefix() -> None:
    same_last = [picture_talk((RED,), ()), picture_talk((BLUE,), ())]
    red, blue = serve(GenerationLoop(MODEL, FakeFuser()), *same_last)
    assert red.text != blue.text


def test_only_turns_that_are_kept_are_fused() -> None:
    fuser = FakeFuser()
    serve(GenerationLoop(MODEL, fuser), request(*["word " * 10] * 20, "the last"))
    assert fuser.fused[-1] == "the last"
    assert len(fuser.fused) < 8


REUSE_CASES = {
    "the same prompt": (picture_talk((RED,)), picture_talk((RED,))),
    "the next turn": (picture_talk((RED,)), picture_talk((RED,), ())),
    "another picture": (picture_talk((RED,)), picture_talk((BLUE,))),
    "another earlier picture": (picture_talk((RED,), ()), picture_talk((BLUE,), ())),
    "two pictures for one": (picture_talk((RED,)), picture_talk((RED, RED))),
    "no picture": (picture_talk((RED,)), picture_talk(())),
    "other words": (picture_talk((RED,)), picture_talk((RED,), words="loot")),
    "another persona": (picture_talk((RED,)), picture_talk((RED,), persona=ADA)),
}


@pytest.mark.parametrize("case", REUSE_CASES)
def test_reused_prefixes_change_no_reply(case: str) -> None:
    earlier, asked = REUSE_CASES[case]
    (cold,) = serve(GenerationLoop(MODEL, FakeFuser(), prefix_cache_bytes=0), asked)
    warm_loop = GenerationLoop(MODEL, FakeFuser())
    serve(warm_loop, earlier)
    (warm,) = serve(warm_loop, asked)
    assert warm.text == cold.text


def prefill_lengths(*asked: GenerationRequest) -> list[int]:
    """How many tokens each prompt had to read, on one loop."""
    lengths: list[int] = []

    def count(_module: object, _args: object, inputs: dict[str, torch.Tensor]) -> None:
        lengths.append(inputs["input_ids"].shape[1])

    hook = MODEL.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        serve(GenerationLoop(MODEL), *asked)
    finally:
        hook.remove()
    return [length for length in lengths if length > 1]


def test_a_prefix_is_really_reused_even_before_the_first_reply_has_ended() -> None:
    first, second = prefill_lengths(request("Hi!", seed=None), request("Who are you?", seed=None))
    assert second < first / 2


def test_what_a_seed_repeats_is_read_whole() -> None:
    # In bfloat16 a prompt that is read in parts gives other logits, and soon another reply.
    first, second = prefill_lengths(request("Hi!", seed=None), request("Hi!", seed=4))
    assert first == second


def test_a_prompt_that_gives_no_numbers_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_numbers(self: LanguageModel, prompt: EncodedPrompt, state: DecoderState) -> torch.Tensor:
        logits = prefill(self, prompt, state)
        for layer in state.cache.layers:
            layer.keys.fill_(torch.nan)
        return logits * torch.nan

    prefill = LanguageModel.prefill
    (expected,) = serve(GenerationLoop(MODEL), request(seed=None, temperature=0.0))
    loop = GenerationLoop(MODEL)
    with monkeypatch.context() as patched:
        patched.setattr(LanguageModel, "prefill", no_numbers)
        (refused,) = serve(loop, request(seed=None, temperature=0.0))
    (served,) = serve(loop, request(seed=None, temperature=0.0))
    assert isinstance(refused.answers[-1], DeviceError)
    assert served.text == expected.text


def test_a_failure_of_one_is_told_to_one(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FakeFuser):
        def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
            if text == "bad":
                raise ValueError("secret detail")
            return None

    bad, good = serve(GenerationLoop(MODEL, Failing()), request("bad"), request("good"))
    (error,) = bad.answers
    assert isinstance(error, EngineError)
    assert isinstance(error.__cause__, ValueError)
    assert "secret" not in str(error)
    assert "ValueError" in str(error)
    assert good.last.finish_reason is not None
    assert "a reply failed" in caplog.text


def test_running_out_of_memory_names_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        torch.empty(1 << 50)

    monkeypatch.setattr(MODEL, "prefill", exhausted)
    (caller,) = serve(GenerationLoop(MODEL), request())
    (error,) = caller.answers
    assert isinstance(error, DeviceError)
    assert "smaller model" in str(error)


def test_everybody_can_be_told_at_once() -> None:
    for end, kind in (
        (GenerationLoop.cancel_all, ReplyChunk),
        (lambda loop: loop.fail_all(EngineError("x")), EngineError),
    ):
        loop = GenerationLoop(MODEL, max_running=1)
        callers = [Caller(request(max_new_tokens=50)) for _ in range(2)]
        for caller in callers:
            loop.add(caller.sequence)
        loop.step()
        end(loop)
        assert all(isinstance(caller.answers[-1], kind) for caller in callers)
        assert not loop.has_work
