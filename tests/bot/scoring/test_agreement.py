"""The judges are measured on labelled replies, and have to agree with them."""

import pytest

from bot.scoring.agreement import HELD_OUT, TUNING, agreement_of, measure_judges, read_labelled


def test_figures_of_agreement() -> None:
    pairs = [(True, True)] * 4 + [(True, False)] * 1 + [(False, True)] * 2 + [(False, False)] * 3
    found = agreement_of("any", HELD_OUT, pairs)
    assert (found.accuracy, found.precision, found.recall) == (0.7, 0.8, pytest.approx(4 / 6))
    assert found.kappa == pytest.approx((0.7 - 0.5) / 0.5)


def test_agreeing_by_chance_is_worth_nothing() -> None:
    assert agreement_of("any", HELD_OUT, [(True, True), (True, False)] * 5).kappa == 0
    assert agreement_of("any", HELD_OUT, [(True, True)] * 5).kappa == 1


@pytest.mark.parametrize("name", ["breaks", "facts", "safety", "grounding"])
def test_there_are_labels_of_both_kinds_for_both_uses(name: str) -> None:
    rows = read_labelled(name)
    assert len(rows) >= 60
    for use in (TUNING, HELD_OUT):
        labels = [row["label"] for row in rows if row["use"] == use]
        assert min(labels.count(True), labels.count(False)) >= 14


def test_no_reply_is_both_for_tuning_and_held_out() -> None:
    for name in ("breaks", "safety"):
        rows = read_labelled(name)
        tuned = {(row["asked"], row["reply"]) for row in rows if row["use"] == TUNING}
        assert not tuned & {(row["asked"], row["reply"]) for row in rows if row["use"] == HELD_OUT}


def test_every_judge_agrees_with_the_labels() -> None:
    kappas = {found.judge: found.kappa for found in measure_judges() if found.use == HELD_OUT}
    assert set(kappas) == {"breaks", "facts", "safety", "grounding"}
    assert min(kappas.values()) > 0.6, kappas
