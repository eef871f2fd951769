"""Pictures become embeddings in place: the decoder reads the same, and no picture passes for another's."""

import hashlib
import io
from pathlib import Path

import pytest
import torch
from PIL import Image as PillowImage
from torch import nn

from engine.decoder.language_model import EncodedPrompt, LanguageModel
from engine.decoder.seen import NotSeparable, keys_of, positions_after, see
from engine.runtime.paged import PagedRuntime
from engine.types import GenerationRequest, Image, Role, SamplingSettings, Turn
from tests.engine.generation.loops import GenerationLoop, serve
from tests.engine.generation.requests import NELL
from tests.engine.seeing.tiny import tiny_llava

NUM_PICTURE_TOKENS = 4


def picture(colour: str) -> Image:
    file = io.BytesIO()
    PillowImage.new("RGB", (16, 16), colour).save(file, "PNG")
    return Image(hashlib.sha256(file.getvalue()).hexdigest(), file.getvalue())


RED, BLUE = picture("red"), picture("blue")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_llava(Path(tmp_path_factory.mktemp("llava")))


def shown(model: LanguageModel, *images: Image, text: str = "What is it?") -> EncodedPrompt:
    return model.encode_with_pictures("Be kind.", [Turn(Role.USER, text, images)])


@torch.inference_mode()
def test_the_decoder_reads_what_it_would_have_read(llava: LanguageModel) -> None:
    prompt = shown(llava, RED)
    seen = see(llava, prompt)
    assert seen.embeddings is not None
    expected = llava.prefill(prompt, llava.new_state())
    found = llava.model(inputs_embeds=seen.embeddings[None]).logits[0, -1]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_positions_differ_where_the_pictures_differ_and_nowhere_else(llava: LanguageModel) -> None:
    red, again, blue = (keys_of(llava, see(llava, shown(llava, one))) for one in (RED, RED, BLUE))
    assert red == again
    differing = [index for index, (one, other) in enumerate(zip(red, blue, strict=True)) if one != other]
    assert len(differing) == NUM_PICTURE_TOKENS
    assert differing == list(range(differing[0], differing[0] + NUM_PICTURE_TOKENS))


@torch.inference_mode()
def test_without_a_picture_positions_stand_for_their_tokens(llava: LanguageModel) -> None:
    prompt = shown(llava)
    assert [key[0] for key in keys_of(llava, see(llava, prompt))] == list(prompt.pieces[0])
    assert len({len(key) for key in keys_of(llava, see(llava, prompt))}) == 1


def test_a_reply_goes_on_counting_where_its_prompt_ends() -> None:
    told = EncodedPrompt(((1, 2, 3),), positions=torch.tensor([[0, 1, 5], [0, 2, 5], [0, 3, 5]]))
    assert positions_after(told, 3).tolist() == [[6], [6], [6]]
    assert positions_after(told, 5).tolist() == [[8], [8], [8]]
    assert positions_after(EncodedPrompt(((1, 2, 3),)), 3) is None


def test_a_decoder_that_is_told_more_cannot_be_taken_apart(
    llava: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder: nn.Module = llava.model.get_decoder()
    hook = decoder.register_forward_pre_hook(
        lambda _, arguments, inputs: (arguments, {**inputs, "visual_embeds": torch.ones(1)}), with_kwargs=True
    )
    try:
        with pytest.raises(NotSeparable, match="visual_embeds"):
            see(llava, shown(llava, RED))
    finally:
        hook.remove()
    see(llava, shown(llava, RED))  # and nothing of the attempt is left behind


def test_two_people_with_the_same_words_and_other_pictures_share_only_what_came_before(llava: LanguageModel) -> None:
    settings = SamplingSettings(temperature=0.0, max_new_tokens=8, repetition_penalty=1.0)

    def asked(image: Image) -> GenerationRequest:
        return GenerationRequest(NELL, "Be kind. " * 8, (Turn(Role.USER, "What is it? " * 8, (image,)),), settings)

    def a_loop() -> GenerationLoop:
        return GenerationLoop(llava, PagedRuntime(llava, num_blocks=64))

    first_place = llava.encode_with_pictures(asked(RED).system_prompt, asked(RED).turns).pieces[0].index(3)
    (alone,) = serve(a_loop(), asked(BLUE))
    loop = a_loop()
    (red,) = serve(loop, asked(RED))
    (blue,) = serve(loop, asked(BLUE))
    (again,) = serve(loop, asked(RED))
    assert 0 < blue.num_cached_tokens <= first_place
    assert blue.text == alone.text
    assert again.num_cached_tokens > first_place + NUM_PICTURE_TOKENS
    assert again.text == red.text
