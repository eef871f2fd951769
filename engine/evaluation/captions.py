"""Generated captions against human ones: BLEU-4 and CIDEr of the system and of what it has to beat.

The system is what `/describe` says: the candidate that fits the picture best. Beside it stand its greedy candidate, the
caption of the most alike training picture, and the same prompt with another picture and with none. Texts are compared
in lower case without punctuation, as the usual tokeniser leaves them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from engine.decoder.language_model import LanguageModel
from engine.evaluation.extras import needing_extras
from engine.evaluation.figures import Bootstrap, Estimate, Figure, Measured, Rows, Values
from engine.evaluation.pictures import SeenPicture, neighbours
from engine.evaluation.subject import Subject
from engine.fusion.kinds import LATE
from engine.seeing.captioning import caption
from engine.seeing.eye import Eye
from engine.training.samples import caption_sample

GROUP = "captions"
MAX_NEW_TOKENS = 24
MAX_EXAMPLES = 20
SYSTEM, GREEDY = "the system", "greedy"
_NOT_A_WORD = re.compile(r"[^\w\s']|_")
_CLITIC = re.compile(r"(?<=\w)(n't|'\w+)\b")


def tokenise(text: str) -> str:
    """Words in lower case between blanks, no punctuation; "isn't" is two words, as in the Penn treebank."""
    return " ".join(_CLITIC.sub(r" \1", _NOT_A_WORD.sub(" ", text.casefold())).split())


def measure_captions(
    subject: Subject,
    pictures: list[SeenPicture],
    *,
    training_pictures: Sequence[SeenPicture],
    set_name: str,
    bootstrap: Bootstrap,
) -> Measured:
    """All ways of captioning, and by how much the system is ahead of each."""
    greedy = _generate(subject, pictures, pictures)
    captions = {SYSTEM: describe(subject, pictures) or greedy, GREEDY: greedy}
    captions["image-blind, no prefix"] = _generate(subject, pictures, None)
    captions["image-blind, another picture"] = _generate(subject, pictures, neighbours(pictures))
    measured = Measured()
    if training_pictures:
        captions["nearest neighbour"] = nearest_captions(pictures, training_pictures)
    else:
        measured.notes.append(f"{set_name}: no training pictures, so no nearest-neighbour captions (see --train)")
    measured.figures = _figures(captions, pictures, set_name=set_name, bootstrap=bootstrap)
    measured.examples = [
        {"set": set_name, "image": picture.name, "human": picture.captions[0]}
        | {way: texts[row] for way, texts in captions.items()}
        for row, picture in enumerate(pictures[:MAX_EXAMPLES])
    ]
    return measured


def describe(subject: Subject, pictures: Sequence[SeenPicture]) -> list[str]:
    """Captions as people get them from `/describe`; none where the weights give other than one prefix."""
    if subject.model is None or subject.model.config.kind == LATE:
        return []
    decoder = subject.workshop.decoder
    language_model = LanguageModel(decoder.model, decoder.tokenizer, name=subject.workshop.decoder_name)
    eye = Eye(subject.model, subject.workshop.text)
    return [caption(language_model, eye, subject.on_device(picture.features)).text for picture in pictures]


def _generate(subject: Subject, pictures: Sequence[SeenPicture], shown: Sequence[SeenPicture] | None) -> list[str]:
    samples = [caption_sample("", picture.features) for picture in pictures]
    if shown is not None:
        samples = [replace(sample, images=(one.features,)) for sample, one in zip(samples, shown, strict=True)]
    return subject.replies(samples, has_prefix=shown is not None, max_new_tokens=MAX_NEW_TOKENS, is_one_sentence=True)


def nearest_captions(pictures: Sequence[SeenPicture], known: Sequence[SeenPicture]) -> list[str]:
    """The first caption of the known picture whose mean patch is most alike."""
    alike = _mean_patches(pictures) @ _mean_patches(known).T
    return [known[row].captions[0] for row in alike.argmax(dim=-1).tolist()]


def _mean_patches(pictures: Sequence[SeenPicture]) -> Tensor:
    return functional.normalize(torch.stack([one.features.patches.mean(dim=0) for one in pictures]), dim=-1)


def _figures(
    captions: Mapping[str, list[str]], pictures: list[SeenPicture], *, set_name: str, bootstrap: Bootstrap
) -> list[Figure]:
    references = [picture.captions for picture in pictures]
    ciders = {way: cider_scores(texts, references) for way, texts in captions.items()}
    figures = []
    for way, texts in captions.items():
        figures.append(Figure(GROUP, set_name, f"BLEU-4, {way}", bleu(texts, references, bootstrap=bootstrap)))
        figures.append(Figure(GROUP, set_name, f"CIDEr, {way}", bootstrap.mean(ciders[way])))
    for way, scores in ciders.items():
        if way != SYSTEM:
            ahead = bootstrap.mean(ciders[SYSTEM] - scores)
            figures.append(Figure(GROUP, set_name, f"CIDEr gain over {way}", ahead))
    return figures


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]], *, bootstrap: Bootstrap) -> Estimate:
    """BLEU-4 of the whole set, 0 to 1, against all references of each text."""
    import numpy as np

    with needing_extras():
        from sacrebleu.metrics.bleu import BLEU
    # The effective order only changes the score of a sentence, which is not used: its counts are.
    metric = BLEU(tokenize="none", effective_order=True)
    counts = []
    for text, known in zip(texts, references, strict=True):
        score = metric.sentence_score(tokenise(text), [tokenise(one) for one in known])
        counts.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    table = np.array(counts, dtype=np.int64)
    order = metric.max_ngram_order

    def corpus_bleu(rows: Rows) -> float:
        sums = table[rows].sum(axis=0).tolist()
        return float(
            BLEU.compute_bleu(
                sums[:order], sums[order : 2 * order], sys_len=sums[-2], ref_len=sums[-1], smooth_method="exp"
            ).score
            / 100
        )

    return bootstrap.of(corpus_bleu, num_items=len(texts))


def cider_scores(texts: Sequence[str], references: Sequence[Sequence[str]]) -> Values:
    """CIDEr of each text; how rare words are is told by the references of the whole set."""
    import numpy as np

    with needing_extras():
        from pycocoevalcap.cider.cider import Cider
    known = {row: [tokenise(one) for one in captions] for row, captions in enumerate(references)}
    said = {row: [tokenise(text)] for row, text in enumerate(texts)}
    _, scores = Cider().compute_score(known, said)
    return np.asarray(scores, dtype=np.float64)
