"""The loop on each runtime against a plain, slow generation written here, on a tiny backbone with fake fusers."""

from dataclasses import replace

import pytest
import torch

from engine.errors import EngineError, PromptTooLong, RequestError
from engine.fusion.types import FusedContext
from engine.generation.loop import GenerationLoop
from engine.generation.scheduler import StepBudget
from engine.persona import Persona
from engine.runtime.types import Runtime
from engine.types import FinishReason, GenerationRequest, Image, Insertion, ReplyChunk, Role, Turn
from tests.engine.generation.loops import (
    BLUE,
    MODEL,
    NO_ATTENTION,
    RED,
    Caller,
    FakeFuser,
    OneRuntime,
    a_loop,
    a_prefix,
    run,
    serve,
)
from tests.engine.generation.requests import ADA, request


class SteeringFuser:
    """No picture needed: every turn leans on some words, and on other ones with other words."""

    num_prefix_tokens = 3

    def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
        return FusedContext((a_prefix(1),), NO_ATTENTION, steering=(steering_for(text),))


def steering_for(text: str) -> torch.Tensor:
    return torch.randn(MODEL.hidden_size, generator=torch.Generator().manual_seed(len(text)))


class MixingFuser(FakeFuser):
    """Two prefixes for each turn with a picture."""

    def __init__(self, shares: tuple[float, float]) -> None:
        super().__init__()
        self.shares = shares

    def fuse(self, persona: Persona, text: str, images: tuple[Image, ...]) -> FusedContext | None:
        return FusedContext((a_prefix(1), a_prefix(2)), NO_ATTENTION, self.shares) if images else None


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


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("texts", [("Hi!",), ("Hi!", "Ahoy.", "Where are we going today?" * 10)])
def test_greedy_replies_equal_the_plain_backbones(runtime: Runtime, texts: tuple[str, ...], seed: int | None) -> None:
    asked = request(*texts, temperature=0.0, max_new_tokens=30, seed=seed)
    (caller,) = serve(a_loop(runtime, FakeFuser()), asked)
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
def test_several_prefixes_answer_with_mixed_logits(runtime: Runtime, shares: tuple[float, float]) -> None:
    """Late fusion, also for a prompt that was read before."""
    asked = request("Look!", temperature=0.0, max_new_tokens=20)
    asked = replace(asked, turns=(Turn(Role.USER, "Look!", (RED,)),))
    loop = a_loop(runtime, MixingFuser(shares))
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


def test_the_answered_turn_steers_and_earlier_ones_do_not(runtime: Runtime) -> None:
    asked = request("Hi!", "Ahoy.", "Where are we going?", temperature=0.0, max_new_tokens=20)
    loop = a_loop(runtime, SteeringFuser())
    for _ in range(2):
        (caller,) = serve(loop, asked)
        assert caller.text == visible(plain_steered(asked, steering_for("Where are we going?")))
    assert caller.text != visible(plain_steered(asked, steering_for("Hi!")))


def test_the_same_seed_gives_the_same_reply_alone_and_in_company(runtime: Runtime) -> None:
    asked = request("Hi!", max_new_tokens=25, seed=5)
    (alone,) = serve(a_loop(runtime), asked)
    company = [request(f"Other {n}", max_new_tokens=25, seed=n) for n in range(3)]
    among = serve(a_loop(runtime), *company[:2], asked, company[2])[2]
    (other,) = serve(a_loop(runtime), request("Hi!", max_new_tokens=25, seed=6))
    assert alone.text == among.text != other.text


def test_the_last_chunk_says_why_and_what_it_cost(runtime: Runtime) -> None:
    (caller,) = serve(a_loop(runtime), request("Hi!", max_new_tokens=5, temperature=0.0))
    assert caller.last.finish_reason is FinishReason.LENGTH
    assert caller.last.stats is not None
    assert caller.last.stats.num_new_tokens == 5
    assert (
        caller.last.stats.num_prompt_tokens
        == MODEL.prompts.write(caller.sequence.request.system_prompt, caller.sequence.request.turns).num_tokens
    )
    assert not caller.last.stats.has_fused_prefix
    assert all(chunk.finish_reason is None for chunk in caller.answers[:-1])


def test_an_end_token_ends_the_reply_unseen(runtime: Runtime) -> None:
    # With a hot sampler the tiny model sooner or later draws an end.
    replies = [serve(a_loop(runtime), request(max_new_tokens=60, temperature=2.0, seed=s))[0] for s in range(12)]
    stopped = [caller for caller in replies if caller.last.finish_reason is FinishReason.STOP]
    assert stopped
    assert all("<|" not in caller.text for caller in stopped)


def test_a_stop_string_ends_the_reply(runtime: Runtime) -> None:
    whole = plain_greedy(request("Hi!", max_new_tokens=30))
    stop = whole[4:6]
    (caller,) = serve(a_loop(runtime), request("Hi!", temperature=0.0, max_new_tokens=30, stop=(stop,)))
    assert caller.text == whole[: whole.find(stop)]
    assert caller.last.finish_reason is FinishReason.STOP


def test_a_long_reply_lets_a_short_one_pass(runtime: Runtime) -> None:
    loop = a_loop(runtime)
    long, short = Caller(request(max_new_tokens=200, temperature=0.0)), Caller(request("Yo", max_new_tokens=3))
    loop.add(long.sequence)
    for _ in range(5):
        loop.step()
    loop.add(short.sequence)
    for _ in range(4):
        loop.step()
    assert short.last.finish_reason is not None
    assert all(chunk.finish_reason is None for chunk in long.answers)


def test_no_more_run_than_may(runtime: Runtime) -> None:
    loop = a_loop(runtime, max_running=2)
    callers = [Caller(request(max_new_tokens=50)) for _ in range(3)]
    for caller in callers:
        loop.add(caller.sequence)
    for _ in range(10):
        loop.step()
    assert [caller.sequence.first_token_at is not None for caller in callers] == [True, True, False]


def test_a_cancelled_reply_ends_within_a_step_and_the_others_go_on(runtime: Runtime) -> None:
    loop = a_loop(runtime)
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


def test_the_oldest_turns_are_dropped_where_the_context_is_short(runtime: Runtime) -> None:
    asked = request(*["word " * 10] * 20, "the last", max_new_tokens=8)
    (caller,) = serve(a_loop(runtime), asked)
    assert caller.last.stats is not None
    assert caller.last.stats.num_dropped_turns > 5
    assert caller.last.stats.num_prompt_tokens <= MODEL.max_context_tokens - 8
    kept = asked.turns[caller.last.stats.num_dropped_turns :]
    assert kept[0].role is Role.USER


def test_a_message_that_cannot_fit_is_refused_and_others_are_served(runtime: Runtime) -> None:
    refused, served = serve(a_loop(runtime), request("x" * 600), request("Hi!"))
    assert isinstance(refused.answers[-1], PromptTooLong)
    assert served.last.finish_reason is not None


def test_nothing_to_answer_is_refused(runtime: Runtime) -> None:
    (refused,) = serve(a_loop(runtime), replace(request(), turns=()))
    assert isinstance(refused.answers[-1], RequestError)


def test_a_reply_never_outgrows_the_context(runtime: Runtime) -> None:
    (caller,) = serve(a_loop(runtime), request("x" * 150, max_new_tokens=8192, temperature=0.0))
    assert caller.last.stats is not None
    assert caller.last.stats.num_prompt_tokens + caller.last.stats.num_new_tokens <= MODEL.max_context_tokens


def picture_talk(*images: tuple[Image, ...], persona: Persona | None = None, words: str = "look") -> GenerationRequest:
    """User turns with these pictures, and short answers between them."""
    asked = request(temperature=0.0, max_new_tokens=20, seed=None)
    turns: list[Turn] = []
    for index, pictures in enumerate(images):
        turns += [Turn(Role.USER, f"{words} {index}", pictures), Turn(Role.ASSISTANT, "nice")]
    return replace(asked, turns=tuple(turns[:-1]), persona=persona or asked.persona)


def test_pictures_change_the_reply_through_the_prefix(runtime: Runtime) -> None:
    red, blue, none = serve(a_loop(runtime, FakeFuser()), picture_talk((RED,)), picture_talk((BLUE,)), picture_talk(()))
    assert len({red.text, blue.text, none.text}) == 3
    assert red.last.stats is not None
    assert none.last.stats is not None
    assert red.last.stats.has_fused_prefix
    assert not none.last.stats.has_fused_prefix
    assert red.last.stats.num_prompt_tokens == none.last.stats.num_prompt_tokens + 3


def test_a_fuser_that_gives_nothing_leaves_the_backbone_as_it_is(runtime: Runtime) -> None:
    with_fuser, without = (serve(a_loop(runtime, fuser), picture_talk((), ()))[0] for fuser in (FakeFuser(), None))
    assert with_fuser.text == without.text


def test_earlier_turns_keep_their_prefix(runtime: Runtime) -> None:
    same_last = [picture_talk((RED,), ()), picture_talk((BLUE,), ())]
    red, blue = serve(a_loop(runtime, FakeFuser()), *same_last)
    assert red.text != blue.text


def test_only_turns_that_are_kept_are_fused(runtime: Runtime) -> None:
    fuser = FakeFuser()
    serve(a_loop(runtime, fuser), request(*["word " * 10] * 20, "the last"))
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
def test_reused_prefixes_change_no_reply(runtime: Runtime, case: str) -> None:
    earlier, asked = REUSE_CASES[case]
    (cold,) = serve(a_loop(runtime, FakeFuser()), asked)
    warm_loop = a_loop(runtime, FakeFuser())
    serve(warm_loop, earlier)
    (warm,) = serve(warm_loop, asked)
    assert warm.text == cold.text
    assert cold.num_cached_tokens == 0


def num_read(runtime: OneRuntime) -> int:
    """How many positions were computed, all calls together."""
    return sum(span.num_tokens for call in runtime.calls for span in call)


def test_what_is_known_of_a_prompt_is_not_computed_again(paged: Runtime) -> None:
    watched = OneRuntime(paged)
    loop = a_loop(watched)
    asked = request("Hi!", seed=None, temperature=0.0)
    (first,) = serve(loop, asked)
    num_first = num_read(watched)
    watched.calls.clear()
    (again,) = serve(loop, asked)
    assert first.last.stats is not None
    # All but the last position, whose logits are needed.
    assert again.num_cached_tokens == first.last.stats.num_prompt_tokens - 1
    assert num_read(watched) == num_first - again.num_cached_tokens
    assert again.text == first.text


def test_a_conversation_goes_on_from_its_last_reply(paged: Runtime) -> None:
    loop = a_loop(paged)
    (first,) = serve(loop, request("Hi!", seed=None, temperature=0.0))
    (second,) = serve(loop, request("Hi!", first.text, "And now?", seed=None, temperature=0.0))
    assert first.last.stats is not None
    assert second.num_cached_tokens >= first.last.stats.num_prompt_tokens


def num_prompt_tokens(asked: GenerationRequest) -> int:
    return MODEL.prompts.write(asked.system_prompt, asked.turns).num_tokens


def test_a_persona_is_read_once_for_those_who_come_together(paged: Runtime) -> None:
    """The second is let in in the same step as the first, before anything is known."""
    asked = [request(text, seed=None, temperature=0.0, system_prompt="You are. " * 40) for text in ("Hi!", "Who?")]
    budget = StepBudget(mixed=64, reading=num_prompt_tokens(asked[0]))
    first, second = serve(a_loop(paged, budget=budget), *asked)
    assert first.num_cached_tokens == 0
    assert second.num_cached_tokens > 360
    alone = [serve(a_loop(paged), one)[0] for one in asked]
    assert [first.text, second.text] == [one.text for one in alone]


def test_looking_again_takes_no_room_that_others_have(paged: Runtime) -> None:
    """Three share a persona, and there is just enough room for the rest of each: looking again for what is known, while
    others hold a part of it, must not take anybody's place."""
    watched = OneRuntime(paged, num_blocks=40)
    loop = a_loop(watched, budget=StepBudget(mixed=16, reading=32, alone=256))
    system_prompts = ["You are. " * 30, "You are. " * 30 + "And kind. ", "You are. " * 20 + "And mean. "]
    asked = [
        request(f"{number}" * 20, system_prompt=system_prompts[number % 3], seed=None, temperature=0.0)
        for number in range(9)
    ]
    callers = serve(loop, *asked)
    assert [caller.text for caller in callers] == [serve(a_loop(paged), one)[0].text for one in asked]
    assert loop.load().kv_used == 0


def test_what_a_seed_repeats_is_read_whole(paged: Runtime) -> None:
    """In bfloat16 a prompt that is read in parts gives other logits, and soon another reply."""
    loop = a_loop(paged)
    serve(loop, request("Hi!", seed=None))
    (seeded,) = serve(loop, request("Hi!", seed=4))
    assert seeded.num_cached_tokens == 0


def test_what_is_inserted_is_read_behind_the_turns_and_their_prefixes(paged: Runtime) -> None:
    """A prefix cache that took it for something else would answer as if it were not there."""
    turns = (Turn(Role.USER, "What?", (RED,)), Turn(Role.ASSISTANT, "A cat."), Turn(Role.USER, "Sure?", (BLUE,)))
    asked = replace(request(seed=None, temperature=0.0), turns=turns)
    others = [replace(asked, insertions=(Insertion("Psst. " * 8, depth),)) for depth in (0, 1, 2, 3)]
    loop, plain = a_loop(paged, FakeFuser()), [serve(a_loop(paged, FakeFuser()), one)[0].text for one in others]
    serve(loop, asked)
    assert [serve(loop, one)[0].text for one in others] == plain
    assert len(set(plain)) > 1


def test_turns_are_dropped_for_what_is_inserted(runtime: Runtime) -> None:
    texts = [letter * 60 for letter in "abcdefg"]
    asked = request(*texts, max_new_tokens=4)
    (alone,) = serve(a_loop(runtime), asked)
    (beside,) = serve(a_loop(runtime), replace(asked, insertions=(Insertion("Psst. " * 25, 99),)))
    assert alone.last.stats is not None
    assert beside.last.stats is not None
    assert alone.last.stats.num_dropped_turns < beside.last.stats.num_dropped_turns


def test_a_fuser_is_asked_once_a_turn(runtime: Runtime) -> None:
    """Also where there is no place to begin at once."""
    fuser = FakeFuser()
    serve(a_loop(runtime, fuser, max_running=1), request("one"), request("two"))
    assert fuser.fused == ["one", "two"]


def test_the_load_counts_what_was_done(paged: Runtime) -> None:
    loop = a_loop(paged)
    callers = [Caller(request("Hi!", seed=None, temperature=0.0)) for _ in range(2)]
    loop.add(callers[0].sequence)
    assert (loop.load().num_waiting, loop.load().num_running) == (1, 0)
    loop.step()
    during = loop.load()
    assert (during.num_waiting, during.num_running) == (0, 1)
    assert 0 < during.kv_used < 0.1
    run(loop)
    loop.add(callers[1].sequence)
    run(loop)
    load = loop.load()
    assert load.num_replies == 2
    assert load.num_failures == 0
    assert load.num_prompt_tokens == sum(caller.last.stats.num_prompt_tokens for caller in callers if caller.last.stats)
    assert load.num_cached_tokens == callers[1].num_cached_tokens
    assert load.num_new_tokens == 16
    assert load.num_steps == 16
    assert load.kv_used == 0
    assert load.device == f"cpu ({paged.name}, float32)"


def test_everybody_can_be_told_at_once(runtime: Runtime) -> None:
    for end, kind in (
        (GenerationLoop.cancel_all, ReplyChunk),
        (lambda loop: loop.fail_all(EngineError("x")), EngineError),
    ):
        loop = a_loop(runtime, max_running=1)
        callers = [Caller(request(max_new_tokens=50)) for _ in range(2)]
        for caller in callers:
            loop.add(caller.sequence)
        loop.step()
        end(loop)
        assert all(isinstance(caller.answers[-1], kind) for caller in callers)
        assert not loop.has_work
