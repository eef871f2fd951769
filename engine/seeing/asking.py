"""A vision-language model asked about a picture: in words, or whether a description fits.

Owns the prompts. Knows neither fusion nor conversations.
"""

import math

import torch

from engine.decoder.language_model import LanguageModel
from engine.seeing.decoding import DecodingOptions, continue_prompt
from engine.seeing.work import Pieces
from engine.types import Image, Role, Sight, Turn

SYSTEM_PROMPT = "You tell people about pictures, in one or two short sentences. Say so where you are not sure."
IN_LANGUAGE = " Answer in {language}."
REQUEST = "Describe this picture."
YES_OR_NO_SYSTEM_PROMPT = "You answer questions about pictures with yes or no."
DOES_IT_FIT = "Does this describe the picture: “{text}”? Answer yes or no."
YES, NO = ("Yes", "yes", "YES", " Yes", " yes"), ("No", "no", "NO", " No", " no")
DECODING = DecodingOptions(max_new_tokens=96, is_sentence=False)
# A word that the model itself gives less than this, on average, is rather guessed than seen.
UNSURE_BELOW = 0.35


def ask(language_model: LanguageModel, image: Image, *, question: str | None, language: str | None) -> Pieces[Sight]:
    """The model's own answer; how likely it found its words is how sure it is."""
    system_prompt = SYSTEM_PROMPT + (IN_LANGUAGE.format(language=language) if language else "")
    prompt = language_model.encode_with_pictures(system_prompt, [Turn(Role.USER, question or REQUEST, (image,))])
    yield
    (answer,) = yield from continue_prompt(language_model, prompt, DECODING)
    confidence = math.exp(answer.mean_log_probability)
    return Sight(answer.text, confidence, is_unsure=confidence < UNSURE_BELOW)


@torch.inference_mode()
def fits(language_model: LanguageModel, image: Image, text: str) -> float:
    """How likely the model is to say yes rather than no, when asked whether `text` describes `image`."""
    turn = Turn(Role.USER, DOES_IT_FIT.format(text=text), (image,))
    prompt = language_model.encode_with_pictures(YES_OR_NO_SYSTEM_PROMPT, [turn])
    probabilities = language_model.prefill(prompt, language_model.new_state()).softmax(dim=-1)
    yes, no = (
        sum(float(probabilities[token]) for token in _first_tokens(language_model, words)) for words in (YES, NO)
    )
    return yes / (yes + no) if yes + no > 0 else 0.0


def _first_tokens(language_model: LanguageModel, words: tuple[str, ...]) -> set[int]:
    return {tokens[0] for word in words if (tokens := language_model.prompts.tokenise(word))}
