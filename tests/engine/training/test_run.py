import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.errors import ConfigurationError
from engine.training.folder import RunFolder
from engine.training.run import Progress, TrainingFailed, TrainingRun, TrainingSetup, choose_precision
from engine.training.tasks.base import TaskLoss
from tests.engine.training.regression import (
    NUM_STEPS,
    RegressionTask,
    Regressor,
    a_run,
    quiet,
    tiny_options,
    tiny_setup,
)

ROOT = Path(__file__).parents[3]


class Killed(BaseException):
    """As if the process had been killed."""


def killed_after(step: int):
    def advance(progress: Progress) -> None:
        if progress.step == step:
            raise Killed

    return advance


def log_of(path: Path) -> list[dict[str, object]]:
    """The log's lines without the time of day."""
    lines = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "weights" / "module.pt")


def test_a_run_leaves_options_log_checkpoint_and_weights(tmp_path: Path) -> None:
    steps: list[Progress] = []
    folder = a_run(tmp_path / "run").run(steps.append)
    assert [step.step for step in steps] == list(range(1, NUM_STEPS + 1))
    assert folder == tmp_path / "run" / "weights"
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "options.yaml", "log.jsonl", "checkpoint", "weights", "best",
    }  # fmt: skip
    line = log_of(tmp_path / "run")[0]
    assert line["step"] == 1
    tasks = line["tasks"]
    assert isinstance(tasks, dict)
    assert line["loss"] == pytest.approx(tasks["captioning"]["loss"] + 0.3 * tasks["masked"]["loss"])
    assert tasks["masked"]["off"] > 0
    assert line["gauges"].keys() == {"gate"}  # type: ignore[attr-defined]


def test_the_loss_falls_and_only_what_is_trained_moves(tmp_path: Path) -> None:
    setup = tiny_setup()
    frozen = setup.module.get_parameter("frozen.weight").clone()
    a_run(tmp_path / "run", tiny_options(num_steps=60), setup).run(quiet)
    losses = [line["loss"] for line in log_of(tmp_path / "run") if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]  # type: ignore[operator]
    assert torch.equal(setup.module.get_parameter("frozen.weight"), frozen)


@pytest.mark.parametrize("killed_at", [1, 3, 5, 11, 12])
def test_a_stopped_run_goes_on_to_the_same_loss_curve(tmp_path: Path, killed_at: int) -> None:
    """Also where it stops before the first checkpoint, on one, between two, and after the last step."""
    a_run(tmp_path / "whole").run(quiet)
    with pytest.raises(Killed):
        a_run(tmp_path / "cut").run(killed_after(killed_at))
    a_run(tmp_path / "cut").run(quiet)
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize("killed_at", [2, 4])
def test_what_a_step_leaves_behind_moves_no_digit_of_a_resumed_run(tmp_path: Path, killed_at: int) -> None:
    """Like an encoder that keeps sentences: what it answers depends on what it was asked before."""

    def setup() -> TrainingSetup:
        module, asked = Regressor(), [0]

        class Keeping(RegressionTask):
            def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
                asked.append(step)
                return TaskLoss(super().loss(step).total * (1 + 1e-3 * len(asked)))

        return tiny_setup(module, tasks=[Keeping("captioning", module)], forget=asked.clear)

    a_run(tmp_path / "whole", setup=setup()).run(quiet)
    with pytest.raises(Killed):
        a_run(tmp_path / "cut", setup=setup()).run(killed_after(killed_at))
    a_run(tmp_path / "cut", setup=setup()).run(quiet)
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")


@pytest.mark.timeout(300)
def test_a_process_killed_in_the_middle_goes_on_to_the_same_loss_curve(tmp_path: Path) -> None:
    a_run(tmp_path / "whole").run(quiet)
    log = tmp_path / "cut" / "log.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "tests.engine.training.regression", str(log.parent)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 240  # importing torch takes its time on a busy machine
        while not (log.is_file() and len(log.read_text().splitlines()) >= 7):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait(timeout=30)
    assert not (tmp_path / "cut" / "weights").exists()
    with log.open("a") as lines:
        lines.write('{"step": 9, "lo')  # as if it had been killed while it wrote
    run = a_run(tmp_path / "cut")
    assert run.step in (3, 6)
    run.run(quiet)
    whole, cut = log_of(tmp_path / "whole"), log_of(tmp_path / "cut")
    assert [line["step"] for line in cut] == [line["step"] for line in whole]
    for one, other in zip(whole, cut, strict=True):
        assert one.get("loss") == pytest.approx(other.get("loss"), abs=1e-6)
        assert one.get("held_out") == other.get("held_out")


def test_a_finished_run_is_done_when_it_is_started_again(tmp_path: Path) -> None:
    a_run(tmp_path / "run").run(quiet)
    before = log_of(tmp_path / "run")
    a_run(tmp_path / "run").run(lambda _: pytest.fail("trained again"))
    assert log_of(tmp_path / "run") == before


def test_slices_of_a_batch_give_the_gradient_of_the_whole(tmp_path: Path) -> None:
    def trained(num_parts: int) -> list[float]:
        module = nn.Linear(4, 1)
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
        flat = nn.Sequential(module, nn.Flatten(0))
        setup = tiny_setup(flat, tasks=[RegressionTask("captioning", flat)], held_out=[])
        a_run(tmp_path / f"{num_parts}", tiny_options(num_parts=num_parts), setup).run(quiet)
        lines = log_of(tmp_path / f"{num_parts}")
        return [line[name] for line in lines for name in ("loss", "gradient_norm")]  # type: ignore[misc]

    assert trained(4) == pytest.approx(trained(1), rel=1e-4)


def test_a_task_takes_part_in_its_steps_only(tmp_path: Path) -> None:
    module = Regressor()
    often, seldom = RegressionTask("captioning", module), RegressionTask("masked", module)
    options = tiny_options(tasks={"masked": {"every": 5}})
    a_run(tmp_path / "run", options, tiny_setup(module, tasks=[often, seldom])).run(quiet)
    assert [step for step, _, _ in seldom.steps] == [0, 5, 10]
    assert len(often.steps) == NUM_STEPS


def test_looks_at_rows_kept_back_are_logged_and_the_best_is_kept(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    run.run(quiet)
    looks = {line["step"]: line["held_out"]["loss"] for line in log_of(tmp_path / "run") if "held_out" in line}  # type: ignore[index]
    assert list(looks) == [4, 8, 12]
    best = run.summary()["best"]
    assert best["loss"] == min(looks.values()) == looks[best["step"]]
    assert (tmp_path / "run" / "best" / "module.pt").is_file()


def test_a_run_that_gets_no_better_ends_early(tmp_path: Path) -> None:
    class Worse(RegressionTask):
        num_looks = 0

        def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
            self.num_looks += 1
            return TaskLoss(torch.tensor(float(self.num_looks)))

    module = Regressor()
    options = tiny_options(num_steps=50, validate_every=2, patience=3)
    run = a_run(tmp_path / "run", options, tiny_setup(module, held_out=[Worse("captioning", module)]))
    run.run(quiet)
    assert run.step == 2 + 3 * 2
    assert run.summary()["best"]["step"] == 2
    a_run(tmp_path / "run", options, tiny_setup()).run(lambda _: pytest.fail("went on"))


def test_looks_change_nothing_of_what_is_learnt(tmp_path: Path) -> None:
    a_run(tmp_path / "often", tiny_options(validate_every=1)).run(quiet)
    a_run(tmp_path / "never", tiny_options(validate_every=0)).run(quiet)
    often, never = weights_of(tmp_path / "often"), weights_of(tmp_path / "never")
    assert all(torch.equal(often[name], never[name]) for name in often)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path, bad: float) -> None:
    class Diverging(RegressionTask):
        def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
            found = super().loss(step, part=part, num_parts=num_parts)
            return TaskLoss(found.total * bad) if step == 4 else found

    module = Regressor()
    setup = tiny_setup(module, tasks=[Diverging("captioning", module)])
    with pytest.raises(TrainingFailed, match=r"loss of captioning is (nan|inf) at step 4.*--set learning_rate=0\.017"):
        a_run(tmp_path / "run", setup=setup).run(quiet)
    again = a_run(tmp_path / "run", tiny_options(learning_rate=0.017))
    assert again.step == 3
    again.run(quiet)
    assert [line["step"] for line in log_of(tmp_path / "run") if "loss" in line] == list(range(1, 13))


def test_a_gradient_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    class Steep(RegressionTask):
        def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
            return TaskLoss((self._module.gate * 0).sqrt().sum())  # type: ignore[union-attr, operator]

    module = Regressor()
    setup = tiny_setup(module, tasks=[Steep("captioning", module)])
    with pytest.raises(TrainingFailed, match="gradient is nan at step 0"):
        a_run(tmp_path / "run", setup=setup).run(quiet)
    assert torch.equal(module.gate, torch.zeros(1))


def test_memory_that_runs_out_is_told_with_a_remedy(tmp_path: Path) -> None:
    class Huge(RegressionTask):
        def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
            raise torch.OutOfMemoryError

    module = Regressor()
    with pytest.raises(TrainingFailed, match="--set num_parts=2"):
        a_run(tmp_path / "run", setup=tiny_setup(module, tasks=[Huge("captioning", module)])).run(quiet)


def test_other_options_need_another_folder(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        a_run(tmp_path / "run").run(killed_after(3))
    before = log_of(tmp_path / "run")
    with pytest.raises(ConfigurationError, match=r"tasks\.masked\.batch_size"):
        a_run(tmp_path / "run", tiny_options(tasks={"masked": {"batch_size": 5}}))
    assert log_of(tmp_path / "run") == before


def test_a_checkpoint_of_another_shape_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        a_run(tmp_path / "run").run(killed_after(5))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    with pytest.raises(ConfigurationError, match=r"another shape \(head\.weight, norm\."):
        a_run(tmp_path / "run", setup=tiny_setup(Regressor(width=5)))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_run_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing to learn"):
        a_run(tmp_path / "run", setup=tiny_setup(tasks=[]))
    assert not (tmp_path / "run").exists()


def test_the_rate_warms_up_and_fades_and_gates_have_their_own(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", tiny_options(num_steps=40, num_warmup_steps=10, gate_learning_rate=0.5))
    run.run(quiet)
    rates = [line["learning_rate"] for line in log_of(tmp_path / "run") if "loss" in line]
    assert rates[0] == pytest.approx(0.005)
    assert rates[9] == rates[10] == pytest.approx(0.05)
    assert rates[25] == pytest.approx(0.025)
    assert rates[39] < 0.001  # type: ignore[operator]
    groups = run._optimizer.param_groups
    assert [group["peak_lr"] for group in groups] == [0.05, 0.05, 0.5]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.0]


def test_a_checkpoint_keeps_no_frozen_parameters(tmp_path: Path) -> None:
    a_run(tmp_path / "run").run(quiet)
    checkpoint = RunFolder(tmp_path / "run").load_checkpoint()
    assert checkpoint is not None
    assert "head.weight" in checkpoint.model
    assert "norm.running_mean" in checkpoint.model
    assert not [name for name in checkpoint.model if name.startswith("frozen")]


def test_products_are_shortened_on_cuda_alone() -> None:
    cpu, mps, cuda = (torch.device(name) for name in ("cpu", "mps", "cuda"))
    assert choose_precision("bfloat16", cpu) == (torch.bfloat16, None)
    assert choose_precision("auto", mps) == (torch.float32, None)
    assert choose_precision("float16", cuda) == (torch.float16, torch.float16)
    assert choose_precision("float32", cuda) == (torch.float32, None)


def test_short_products_are_scaled_and_go_on_with_the_same_scale(tmp_path: Path) -> None:
    """What a GPU does, on the CPU."""

    def run(path: Path) -> TrainingRun:
        options = tiny_options(num_steps=6)
        return TrainingRun(
            RunFolder(path), options=options, setup=tiny_setup(), device=torch.device("cpu"), autocast=torch.float16
        )

    run(tmp_path / "whole").run(quiet)
    with pytest.raises(Killed):
        run(tmp_path / "cut").run(killed_after(4))
    state = json.loads((tmp_path / "cut" / "checkpoint" / "state.json").read_text())
    assert state["scaler"]["scale"] < 2**16  # it starts there, and these gradients overflow
    run(tmp_path / "cut").run(quiet)
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    plain = [line.get("loss") for line in log_of(tmp_path / "whole")]
    a_run(tmp_path / "plain", tiny_options(num_steps=6)).run(quiet)
    exact = [line.get("loss") for line in log_of(tmp_path / "plain")]
    assert plain[0] != exact[0]
    assert plain[0] == pytest.approx(exact[0], rel=0.02)


def test_a_step_whose_scaled_gradient_overflows_is_left_out(tmp_path: Path) -> None:
    class Steep(RegressionTask):
        def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
            found = super().loss(step, part=part, num_parts=num_parts)
            return TaskLoss(found.total * 1e34) if step == 1 else found

    module = Regressor()
    run = TrainingRun(
        RunFolder(tmp_path / "run"),
        options=tiny_options(num_steps=8, validate_every=0),
        setup=tiny_setup(module, tasks=[Steep("captioning", module)]),
        autocast=torch.float16,
    )
    run.run(quiet)
    assert log_of(tmp_path / "run")[1]["gradient_norm"] is None
    assert log_of(tmp_path / "run")[-1]["gradient_norm"] is not None
    assert all(p.isfinite().all() for p in module.parameters())
