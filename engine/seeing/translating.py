"""A text in another language, by the language model that is loaded.

Owns the prompt and whether that model is up to it. Knows neither conversations nor how languages are named by people.
"""

from engine.decoder.language_model import EncodedPrompt, LanguageModel
from engine.errors import PromptTooLong
from engine.fusion.types import TurnFuser
from engine.models.catalogue import find, is_catalogued
from engine.persona import Persona
from engine.seeing.decoding import DecodingOptions, continue_prompt
from engine.seeing.work import Pieces
from engine.types import Image, Role, Translation, Turn

SYSTEM_PROMPT = (
    "You are a translator. Translate the user's message into {language}. Keep its meaning, tone and names. "
    "Answer with the translation alone."
)
WITH_PICTURE = " The picture shows what the message is about."
# Of models that are in no catalogue only the size is known; smaller ones translate badly whatever they were made for.
MIN_PARAMETERS_TO_TRANSLATE = 1_000_000_000
# A translation is about as long as its text, and some languages take three times the tokens.
TOKENS_PER_TOKEN = 3
MIN_TOKENS = 48
TRANSLATOR = Persona(id="translator", name="Translator", summary="A translator.", greetings=("Hello.",))


def translate(
    language_model: LanguageModel, fuser: TurnFuser | None, text: str, *, language: str, images: tuple[Image, ...]
) -> Pieces[Translation]:
    """`text` in `language`, with `images` as its context where the model can see them."""
    system_prompt = SYSTEM_PROMPT.format(language=language) + (WITH_PICTURE if images else "")
    prompt = _prompt(language_model, fuser, system_prompt, Turn(Role.USER, text, images))
    num_tokens = max(MIN_TOKENS, TOKENS_PER_TOKEN * len(language_model.prompts.tokenise(text)))
    if prompt.num_tokens + num_tokens // TOKENS_PER_TOKEN > language_model.max_context_tokens:
        raise PromptTooLong("this text is too long to be translated in one go: give a part of it")
    options = DecodingOptions(max_new_tokens=num_tokens, is_sentence=False)
    (continuation,) = yield from continue_prompt(language_model, prompt, options)
    return Translation(continuation.text, is_unsure=not is_made_for(language_model, language))


def is_made_for(language_model: LanguageModel, language: str) -> bool:
    """Whether `language` may be expected of the model, as far as that can be known."""
    if is_catalogued(language_model.name):
        return language in find(language_model.name).languages
    num_parameters: int = sum(parameter.numel() for parameter in language_model.model.parameters())
    return num_parameters >= MIN_PARAMETERS_TO_TRANSLATE


def _prompt(language_model: LanguageModel, fuser: TurnFuser | None, system_prompt: str, turn: Turn) -> EncodedPrompt:
    if language_model.takes_pictures:
        return language_model.encode_with_pictures(system_prompt, [turn])
    context = fuser.fuse(TRANSLATOR, turn.text, turn.images) if fuser is not None and turn.images else None
    if context is None:
        return language_model.encode(language_model.prompts.write(system_prompt, [turn]))
    return language_model.encode(language_model.prompts.write(system_prompt, [turn], places=[0]), [context.prefix])
