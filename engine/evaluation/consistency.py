"""Whether replies agree with who speaks.

With a natural language inference model (any Hugging Face text classifier that knows a label of contradiction) replies
are judged against each persona sentence. Without one, contradiction cannot be measured; what is measured instead is
nearness: whether a reply is nearer to its speaker's sentences than to the other speaker's. That is no measure of
contradiction ("I hate dogs" is near "I love dogs"), and its names say so.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.errors import ConfigurationError
from engine.evaluation.dialogues import EVERYTHING, dialogue_samples
from engine.evaluation.figures import Bootstrap, Figure, Measured, Values
from engine.evaluation.sets import draw
from engine.evaluation.subject import Subject
from engine.training.datasets import PersonaDialogue
from engine.training.samples import TrainingSample

GROUP = "consistency"
MAX_REPLIES = 200
MAX_NEW_TOKENS = 32
MAX_EXAMPLES = 10

Judge = Callable[[Sequence[str], str], bool]
"""Whether a reply contradicts one of the sentences."""


def load_judge(name: str) -> Judge:
    """The text classifier `name`, a folder or a Hugging Face repository. Raises `ConfigurationError` where it cannot
    be had or knows no contradiction."""
    from transformers import pipeline

    try:
        classify: Any = pipeline("text-classification", model=name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ConfigurationError(
            f"--nli {name} cannot be loaded ({reason}); name a folder or repository of a text classifier"
        ) from error
    labels = list(classify.model.config.id2label.values())
    contradiction = next((label for label in labels if "contradict" in label.casefold()), None)
    if contradiction is None:
        raise ConfigurationError(
            f"--nli {name} has no label of contradiction, only {', '.join(labels)}; name a model for natural "
            "language inference"
        )

    def contradicts(sentences: Sequence[str], reply: str) -> bool:
        found = classify([{"text": sentence, "text_pair": reply} for sentence in sentences])
        return any(one["label"] == contradiction for one in found)

    return contradicts


def measure_consistency(
    subject: Subject,
    dialogues: Sequence[PersonaDialogue],
    *,
    set_name: str,
    limit: int | None,
    bootstrap: Bootstrap,
    judge: Judge | None = None,
) -> Measured:
    """Replies with and without the prefix, and the human ones, each judged the same way."""
    wanted = MAX_REPLIES if limit is None else min(limit, MAX_REPLIES)
    drawn = draw(dialogues, limit=wanted, seed=bootstrap.seed)
    samples = dialogue_samples(drawn, num_told=EVERYTHING, seed=bootstrap.seed)
    strangers = [_stranger(dialogue, sample) for dialogue, sample in zip(drawn, samples, strict=True)]
    replies = {
        "the system": subject.replies(samples, max_new_tokens=MAX_NEW_TOKENS),
        "no prefix": subject.replies(samples, has_prefix=False, max_new_tokens=MAX_NEW_TOKENS),
        "human": [sample.reply for sample in samples],
    }
    measured = Measured()
    for who, texts in replies.items():
        nearness = _is_nearer(subject, texts, samples, strangers)
        figures = {f"nearer to its persona than to the other's, no measure of contradiction, {who}": nearness}
        if judge is not None:
            contradictions = [float(judge(sample.facets, text)) for sample, text in zip(samples, texts, strict=True)]
            figures[f"contradicts a persona sentence, {who}"] = np.array(contradictions)
        measured.figures += [Figure(GROUP, set_name, name, bootstrap.mean(items)) for name, items in figures.items()]
    if judge is None:
        measured.notes.append(f"{set_name}: contradiction is not measured without a judge (see --nli)")
    measured.examples = [
        {"set": set_name, "user": sample.turns[-1].text, "persona": list(sample.facets)}
        | {who: texts[row] for who, texts in replies.items()}
        for row, sample in enumerate(samples[:MAX_EXAMPLES])
    ]
    return measured


def _stranger(dialogue: PersonaDialogue, sample: TrainingSample) -> tuple[str, ...]:
    """The sentences of whoever does not speak."""
    return next((persona for persona in dialogue.personas if persona != sample.facets), dialogue.personas[1])


def _is_nearer(
    subject: Subject,
    texts: Sequence[str],
    samples: Sequence[TrainingSample],
    strangers: Sequence[tuple[str, ...]],
) -> Values:
    pool = subject.workshop.text.pool
    replies = pool(texts)
    own, other = (
        np.array([(pool(one) @ reply).max().item() if one else -1.0 for one, reply in zip(rows, replies, strict=True)])
        for rows in ([sample.facets for sample in samples], strangers)
    )
    nearer: Values = (own > other) + 0.5 * (own == other)
    return nearer
