"""Choices of device, format and threads."""

from pathlib import Path

import pytest
import torch

from engine import device as module
from engine.device import (
    bound_threads,
    choose_device,
    choose_dtype,
    describe_device,
    free_bytes,
    is_out_of_memory,
    num_physical_cores,
)
from engine.errors import DeviceError

CPU = torch.device("cpu")


def test_auto_takes_the_best_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_cuda, has_mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_cuda=has_cuda: has_cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda has_mps=has_mps: has_mps)
        assert choose_device("auto").type == expected


@pytest.mark.parametrize("name", ["cuda:77", "nonsense", "meta", "xpu"])
def test_a_device_that_is_not_here_is_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(DeviceError, match='"auto"'):
        choose_device(name)


@pytest.mark.parametrize(("gain", "expected"), [(0.1, torch.float32), (1.4, torch.float32), (3.0, torch.bfloat16)])
def test_the_cpu_uses_bfloat16_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, gain: float, expected: torch.dtype
) -> None:
    monkeypatch.setattr(module, "bfloat16_gain", lambda: gain)
    assert choose_dtype("auto", CPU) is expected
    assert choose_dtype("float16", CPU) is torch.float16


def test_gpus_get_the_widest_range_they_compute_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_bfloat16, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has_bfloat16, **_: has)
        assert choose_dtype("auto", torch.device("cuda")) is expected
    assert choose_dtype("auto", torch.device("mps")) is torch.float16


def test_the_gain_is_a_measured_ratio() -> None:
    assert 0 < module.bfloat16_gain(64) < 1000


def test_threads_are_bounded_and_the_environment_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert bound_threads(None) == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setattr(module, "num_physical_cores", lambda: 64)
        assert bound_threads(None) == torch.get_num_threads() == module.MAX_DEFAULT_THREADS
        assert bound_threads(1) == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_two_threads_of_one_core_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(module, "CPU_TOPOLOGY", tmp_path)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert num_physical_cores() == 2


def test_a_containers_limit_bounds_free_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    unlimited = free_bytes(CPU)
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_bytes(CPU) == 4000
    assert unlimited is None or unlimited > 4000
    (tmp_path / "memory.stat").write_text("anon 100\nfile 700\ninactive_file 500\nactive_file 200\nshmem 100\n")
    assert free_bytes(CPU) == 4700


def test_running_out_of_memory_is_known_on_every_device() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)
    for error in (torch.OutOfMemoryError("x"), MemoryError(), RuntimeError("MPS backend out of memory (MPS …)")):
        assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_the_choice_is_told_in_words() -> None:
    assert describe_device("cpu", "float32").startswith("cpu, float32")
