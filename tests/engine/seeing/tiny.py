"""What the backend has loaded, tiny: a random language model with fusion, or a whole LLaVA."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from engine.decoder.language_model import LanguageModel
from engine.encoders.image import ImageEncoder
from engine.fusion.pipeline import FusionPipeline
from engine.fusion.types import TurnFuser
from engine.seeing.eye import Eye
from tests.engine.encoders.tiny import tiny_text_encoder
from tests.engine.fusion.test_pipeline import CountingImageEncoder
from tests.engine.fusion.tiny import tiny_fusion
from tests.engine.tiny import tiny_language_model, tiny_llama, tiny_tokenizer

PICTURE_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass
class Loaded:
    """Like the generation loop, as jobs see it."""

    language_model: LanguageModel
    fuser: TurnFuser | None = None


def a_fuser(
    *, has_heads: bool = True, is_trained: bool = True, image_encoder: ImageEncoder | None = None
) -> FusionPipeline:
    """A pipeline of random weights. Without an image encoder, the length of a picture's file stands for its content."""
    return FusionPipeline(
        tiny_fusion(has_heads=has_heads, is_trained=is_trained),
        image=image_encoder or CountingImageEncoder(),
        text=tiny_text_encoder(),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def an_eye(*, has_heads: bool = True, is_trained: bool = True) -> Eye:
    """An eye of random weights."""
    return Eye(tiny_fusion(has_heads=has_heads, is_trained=is_trained), tiny_text_encoder())


def loaded(*, has_heads: bool = True, is_trained: bool = True) -> Loaded:
    """The default stack, tiny."""
    return Loaded(tiny_language_model(), a_fuser(has_heads=has_heads, is_trained=is_trained))


def tiny_llava(folder: Path) -> LanguageModel:
    """A vision-language model whose pictures need no torchvision."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(**tiny_llama().config.to_dict())
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=3, vision_feature_layer=-1)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tiny_tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=PICTURE_CHATML,
        image_token="<image>",
    )
    return LanguageModel(model, processor.tokenizer, name="llava", processor=processor, max_context_tokens=512)
