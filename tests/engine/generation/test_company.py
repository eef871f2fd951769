"""Whoever else is served: the same answer as alone. No request ever sees another's words, pictures or persona.

Replies are compared by the logits that their tokens were chosen from. What somebody else said or showed changes them by
far more than rounding in company does, which may, once in a great while, tip the choice between two equals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.decoder.language_model import LanguageModel
from engine.generation.loop import GenerationLoop
from engine.generation.processors import LogitsProcessor
from engine.generation.scheduler import StepBudget
from engine.runtime.types import Runtime
from engine.types import Asker, GenerationRequest, Image, Role, Turn
from tests.engine.generation.loops import (
    BFLOAT16_MODEL,
    BLUE,
    KINDS,
    MODEL,
    RED,
    Caller,
    FakeFuser,
    OneRuntime,
    a_runtime,
    run,
    serve,
)
from tests.engine.generation.requests import ADA, NELL, request

ROUNDING = 1e-3


@dataclass(frozen=True)
class Choice:
    """What a token was chosen from, and what had been chosen before."""

    before: tuple[int, ...]
    logits: Tensor


@dataclass
class Watch:
    """Notes all choices of a loop, by the request itself: equal ones may be asked several times."""

    choices: dict[int, list[Choice]] = field(default_factory=dict)

    def __call__(self, asked: GenerationRequest) -> Sequence[LogitsProcessor]:
        noted = self.choices[id(asked)] = []

        def note(logits: Tensor, new_tokens: Sequence[int]) -> Tensor:
            noted.append(Choice(tuple(new_tokens), logits.clone()))
            return logits

        return [note]


def a_watched_loop(runtime: Runtime, **changes: object) -> tuple[GenerationLoop, Watch]:
    watch = Watch()
    return GenerationLoop(MODEL, runtime, FakeFuser(), make_processors=watch, **changes), watch


def require_same(found: list[Choice], expected: list[Choice], *, is_cut: bool = False) -> None:
    """Token by token, until a choice between equals falls differently. With `is_cut`, somebody cancelled it."""
    for one, other in zip(found, expected, strict=False):
        if one.before != other.before:
            top = expected[len(other.before) - 1].logits.topk(2).values
            assert float(top[0] - top[1]) < ROUNDING
            return
        assert float((one.logits - other.logits).abs().max()) < ROUNDING
    assert is_cut or len(found) == len(expected)


WORDS = ("Hi!", "Look at this picture of mine", "Look at that picture of mine", "x" * 70)


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    """Few words, personas and pictures, so that many prompts begin alike."""
    pictures = st.sampled_from([(), (RED,), (BLUE,), (RED, BLUE)])
    turns: list[Turn] = []
    for _ in range(draw(st.integers(0, 2))):
        turns += [Turn(Role.USER, draw(st.sampled_from(WORDS)), draw(pictures)), Turn(Role.ASSISTANT, "Aye.")]
    turns.append(Turn(Role.USER, draw(st.sampled_from(WORDS)), draw(pictures)))
    persona = draw(st.sampled_from([NELL, ADA]))
    user = draw(st.sampled_from("ab"))
    # Both personas have the same prompt: what tells them apart is the fused prefix alone.
    asked = request(
        system_prompt="You are somebody.",
        temperature=draw(st.sampled_from([0.0, 1.0])),
        seed=draw(st.sampled_from([None, 3])),
        max_new_tokens=draw(st.integers(1, 6)),
    )
    if asked.sampling.seed is None:
        asked = replace(asked, sampling=replace(asked.sampling, temperature=0.0))
    return replace(asked, persona=persona, turns=tuple(turns), asker=Asker(user, draw(st.sampled_from("rs"))))


EVENTS = st.lists(
    st.one_of(requests(), st.integers(1, 4), st.tuples(st.just("cancel"), st.integers(0, 20))), min_size=2, max_size=14
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    events=EVENTS, num_blocks=st.sampled_from([16, 24, 128]), max_running=st.integers(1, 5), budget=st.integers(8, 90)
)
def test_every_reply_is_what_it_would_be_alone(
    kind: str, events: list[object], num_blocks: int, max_running: int, budget: int
) -> None:
    """Requests, steps and cancellations in any order, with little and with much room."""
    runtime = OneRuntime(a_runtime(kind), num_blocks=num_blocks)
    step_budget = StepBudget(mixed=budget, reading=2 * budget, alone=64)
    loop, watch = a_watched_loop(runtime, max_running=max_running, budget=step_budget)
    callers: list[Caller] = []
    for event in events:
        if isinstance(event, GenerationRequest):
            callers.append(Caller(replace(event)))
            loop.add(callers[-1].sequence)
        elif isinstance(event, int):
            for _ in range(event):
                loop.step()
        elif callers:
            callers[event[1] % len(callers)].sequence.is_cancelled = True
    run(loop)
    assert loop.load().kv_used == 0
    for caller in callers:
        asked = caller.sequence.request
        alone, reference = a_watched_loop(a_runtime("plain"))
        serve(alone, asked)
        found = watch.choices.get(id(asked), [])
        require_same(found, reference.choices[id(asked)], is_cut=caller.sequence.is_cancelled)


LEAKS = {
    "another picture": (Turn(Role.USER, "look", (RED,)), Turn(Role.USER, "look", (BLUE,))),
    "a picture more": (Turn(Role.USER, "look", (RED,)), Turn(Role.USER, "look", (RED, BLUE))),
    "other words": (Turn(Role.USER, "look", (RED,)), Turn(Role.USER, "loot", (RED,))),
}


@pytest.mark.parametrize("case", LEAKS)
def test_a_prefix_is_shared_only_by_those_who_said_and_showed_the_same(paged: Runtime, case: str) -> None:
    first, second = LEAKS[case]
    asked = [replace(request(seed=None, temperature=0.0), turns=(turn,)) for turn in (first, second, second)]
    loop, _ = a_watched_loop(paged)
    one, other, again = (serve(loop, each)[0] for each in asked)
    assert one.last.stats is not None
    position = MODEL.prompts.write(asked[0].system_prompt, asked[0].turns, places={0}).pieces[0]
    # What stands before the prefix is shared; the prefix and what follows it is not.
    assert other.num_cached_tokens <= len(position)
    assert again.num_cached_tokens > len(position) + 3


def test_another_persona_with_the_same_words_shares_no_prefix(paged: Runtime) -> None:
    asked = replace(request(seed=None, temperature=0.0), turns=(Turn(Role.USER, "look", (RED,)),))
    loop, _ = a_watched_loop(paged)
    nell, ada = (serve(loop, replace(asked, persona=persona))[0] for persona in (NELL, ADA))
    assert ada.num_cached_tokens <= len(MODEL.prompts.write(asked.system_prompt, asked.turns, places={0}).pieces[0])
    assert nell.text != ada.text


# --- seeds


def seeded(text: str = "Hi!", *, seed: int = 5, image: Image | None = None) -> GenerationRequest:
    asked = request(text, max_new_tokens=20, seed=seed, temperature=1.0, system_prompt="You are somebody. " * 20)
    return replace(asked, turns=(Turn(Role.USER, text, (image,) if image else ()),))


@pytest.mark.parametrize("model", [MODEL, BFLOAT16_MODEL], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_repeats_a_reply_bit_for_bit(kind: str, model: LanguageModel) -> None:
    """Alone, in company, after others have said the same, and with other sizes of step."""
    runtime = a_runtime(kind, model)

    def loop_with(budget: StepBudget) -> tuple[GenerationLoop, Watch]:
        watch = Watch()
        return GenerationLoop(model, runtime, make_processors=watch, budget=budget), watch

    usual, other = StepBudget(mixed=100, reading=300, alone=128), StepBudget(mixed=30, reading=77, alone=128)
    asked = seeded()
    alone, expected = loop_with(usual)
    (caller,) = serve(alone, asked)
    for budget in (usual, other):
        loop, watch = loop_with(budget)
        serve(loop, replace(asked, sampling=replace(asked.sampling, seed=None)))
        company = [replace(asked, sampling=replace(asked.sampling, seed=seed)) for seed in (None, 6, None)]
        again, *_ = serve(loop, replace(asked), *company)
        choices = watch.choices[id(again.sequence.request)]
        assert again.text == caller.text
        assert all(
            torch.equal(one.logits, two.logits) for one, two in zip(choices, expected.choices[id(asked)], strict=True)
        )
    (different,) = serve(loop_with(usual)[0], seeded(seed=6))
    assert different.text != caller.text
