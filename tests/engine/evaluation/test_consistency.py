from pathlib import Path

import pytest
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from engine.errors import ConfigurationError
from engine.evaluation.consistency import load_judge, measure_consistency
from engine.evaluation.figures import Bootstrap
from engine.training.datasets import PersonaDialogue
from tests.engine.encoders.tiny import WORDS, tiny_tokenizer
from tests.engine.evaluation.tiny import tiny_subject

TALKS = [PersonaDialogue((("i am kind",), ("my dog",)), ((0, "Hi!"), (1, "my dog"))) for _ in range(3)]
LABELS = ("entailment", "neutral", "CONTRADICTION")


def save_classifier(folder: Path, labels: tuple[str, ...], *, says: int | None = None) -> str:
    """A tiny classifier with random weights, or one that always says the same."""
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    model = BertForSequenceClassification(config)
    if says is not None:
        model.classifier.weight.data.zero_()
        model.classifier.bias.data.zero_()
        model.classifier.bias.data[says] = 5
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    tokenizer.save_pretrained(folder)
    return str(folder)


def figures(**changes: object) -> dict[str, float]:
    measured = measure_consistency(
        tiny_subject(), TALKS, set_name="talks", limit=None, bootstrap=Bootstrap(), **changes
    )
    return {figure.name: figure.estimate.value for figure in measured.figures}


@pytest.mark.parametrize(("says", "rate"), [(2, 1.0), (0, 0.0)])
def test_replies_are_judged_by_a_classifier(tmp_path: Path, says: int, rate: float) -> None:
    judge = load_judge(save_classifier(tmp_path, LABELS, says=says))
    found = figures(judge=judge)
    assert [found[f"contradicts a persona sentence, {who}"] for who in ("the system", "no prefix", "human")] == [
        rate
    ] * 3


def test_the_judge_reads_sentence_and_reply(tmp_path: Path) -> None:
    judge = load_judge(save_classifier(tmp_path, LABELS))
    assert judge(["i am kind", "my dog"], "a cat") in (True, False)


def test_a_classifier_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no label of contradiction, only good, bad"):
        load_judge(save_classifier(tmp_path, ("good", "bad")))


def test_a_missing_classifier_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--nli .*nowhere cannot be loaded"):
        load_judge(str(tmp_path / "nowhere"))


def test_nearness_is_not_called_contradiction() -> None:
    found = figures()
    assert found["nearer to its persona than to the other's, no measure of contradiction, human"] == 1
    assert not any(name.startswith("contradicts") for name in found)
