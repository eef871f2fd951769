import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.errors import ConfigurationError
from engine.fusion.weights import read_fusion
from engine.training.run import Progress, TrainingFailed, TrainingRun, _by_length
from tests.engine.training.tiny import OPTIONS, a_run


class Killed(BaseException):
    """As if the process had been killed."""


def killed_after(step: int):
    def advance(progress: Progress) -> None:
        if progress.step == step:
            raise Killed

    return advance


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights" / "model.safetensors")


def losses_of(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def test_a_run_leaves_weights_that_the_engine_can_read(tmp_path: Path) -> None:
    steps: list[Progress] = []
    folder = a_run(tmp_path / "run").run(steps.append)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    saved = read_fusion(folder)
    assert saved.config.decoder == "tiny"
    assert saved.tensors["readout.gate"].any()
    assert json.loads((tmp_path / "run" / "options.json").read_text())["num_steps"] == 6


def test_only_the_fusion_learns(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in run._decoder.model.state_dict().items()}
    run.run(lambda _: None)
    assert all(torch.equal(before[name], tensor) for name, tensor in run._decoder.model.state_dict().items())


def test_the_loss_falls(tmp_path: Path) -> None:
    """On the same samples, before and after: a random decoder can be steered only a little."""
    options = replace(OPTIONS, num_steps=20, learning_rate=1e-2, gate_learning_rate=0.1, batch_size=8)
    run = a_run(tmp_path / "run", options, embedding_scale=2.0)
    samples = [run._mix.draw(j) for j in range(16)]
    with torch.no_grad():
        before, _ = run._loss(samples)
    run.run(lambda _: None)
    with torch.no_grad():
        after, _ = run._loss(samples)
    assert after < before - 0.02


@pytest.mark.parametrize("killed_at", [1, 3, 4])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, killed_at: int) -> None:
    a_run(tmp_path / "whole").run(lambda _: None)
    with pytest.raises(Killed):
        a_run(tmp_path / "cut").run(killed_after(killed_at))
    a_run(tmp_path / "cut").run(lambda _: None)
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    # Sentences are encoded in other batches the second time, which moves the last digits.
    assert all(torch.allclose(whole[name], cut[name], atol=1e-3, rtol=1e-2) for name in whole)
    assert losses_of(tmp_path / "whole")[6] == pytest.approx(losses_of(tmp_path / "cut")[6])


def test_a_kill_while_a_checkpoint_is_written_loses_at_most_that_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        a_run(folder).run(killed_after(4))
    (folder / "checkpoint").rename(folder / "checkpoint.new")  # the old one is gone, the new one not renamed yet
    steps: list[Progress] = []
    a_run(folder).run(steps.append)
    assert steps[0].step == 5


def test_other_options_need_another_folder(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        a_run(tmp_path / "run").run(killed_after(3))
    with pytest.raises(ConfigurationError, match="batch_size"):
        a_run(tmp_path / "run", replace(OPTIONS, batch_size=8)).run(lambda _: None)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        a_run(tmp_path / "run").run(killed_after(3))
    with pytest.raises(ConfigurationError, match="another shape"):
        a_run(tmp_path / "run", width=48).run(lambda _: None)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")

    def spoil(progress: Progress) -> None:
        if progress.step == 3:
            with torch.no_grad():
                run._model.readout.queries.fill_(float("nan"))

    with pytest.raises(TrainingFailed, match=r"nan at step 3.*--learning-rate"):
        run.run(spoil)
    assert json.loads((tmp_path / "run" / "checkpoint" / "step.json").read_text()) == {"step": 2}
    a_run(tmp_path / "run", replace(OPTIONS, learning_rate=1e-4)).run(lambda _: None)


def test_the_learning_rate_warms_up_and_fades(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", replace(OPTIONS, num_steps=100, num_warmup_steps=10))
    rates = {}
    for run._step in (0, 9, 10, 55, 99):
        rates[run._step] = run._schedule()
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.01


def test_halves_hold_every_row_once(tmp_path: Path) -> None:
    run: TrainingRun = a_run(tmp_path / "run")
    examples = [run._encoder.example(run._mix.draw(j)) for j in range(5)]
    short, long = _by_length(examples)
    assert sorted(short + long) == [0, 1, 2, 3, 4]
    assert max(len(examples[j].tail_ids + examples[j].reply_ids) for j in short) <= min(
        len(examples[j].tail_ids + examples[j].reply_ids) for j in long
    )
