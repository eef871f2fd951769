"""Which device, number format and number of threads the engine computes with, and how much memory is free.

Owns the choice. Knows no model. Imports torch, so that only the engine's thread (and `commedia doctor`) may import it.
"""

import os
import time
from pathlib import Path
from typing import Literal

import torch

from engine.errors import DeviceError

MAX_DEFAULT_THREADS = 8
# Below this gain in a plain product, bfloat16 only costs accuracy: without AMX or AVX512-BF16 it is many times slower.
MIN_BFLOAT16_GAIN = 1.5
CPU_TOPOLOGY = Path("/sys/devices/system/cpu")
CGROUP = Path("/sys/fs/cgroup")
OUT_OF_MEMORY_SIGNS = ("DefaultCPUAllocator: ", "MPS backend out of memory")

DTypeName = Literal["auto", "float32", "bfloat16", "float16"]


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes CUDA, then MPS, then the CPU. Raises `DeviceError` if it is not here."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f'there is no device {name!r}: use "auto", "cpu", "cuda", "cuda:1" or "mps"') from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{name} is not available: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices. "
            'Install a torch built for CUDA and a current driver, or set engine.device = "auto"'
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError('mps is not available on this machine: set engine.device = "auto"')
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f'{name} is not supported: use "auto", "cpu", "cuda" or "mps"')
    return device


def choose_dtype(name: DTypeName, device: torch.device) -> torch.dtype:
    """The number format called `name`; `auto` takes the fastest one that keeps replies sound on `device`."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if bfloat16_gain() >= MIN_BFLOAT16_GAIN else torch.float32


def bfloat16_gain(size: int = 256) -> float:
    """How many times faster this CPU multiplies square matrices in bfloat16 than in float32."""
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(size, size).to(dtype)
        b = torch.randn(size, size).to(dtype)
        a @ b
        times[dtype] = min(_seconds(a, b) for _ in range(5))
    return times[torch.float32] / times[torch.bfloat16]


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.perf_counter()
    a @ b
    return time.perf_counter() - start


def bound_threads(num_threads: int | None) -> int:
    """Let torch use `num_threads`; `None` takes the environment's number, or the physical cores up to eight."""
    if num_threads is None and "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    chosen = num_threads or min(num_physical_cores(), MAX_DEFAULT_THREADS)
    torch.set_num_threads(chosen)
    return chosen


def num_physical_cores() -> int:
    """Cores that this process may use; two hardware threads of one core count once where that can be seen."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in usable:
        siblings = CPU_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        cores.add(siblings.read_text() if siblings.exists() else str(cpu))
    return max(1, len(cores))


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free for weights on `device`, or `None` where that cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    limits = [limit for limit in (_available_memory(), _cgroup_headroom()) if limit is not None]
    return min(limits) if limits else None


def _available_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None


def _cgroup_headroom() -> int | None:
    """What a container's memory limit leaves. Files in the system's cache count as used there, and give way."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return limit - max(0, used - _cgroup_file_cache())


def _cgroup_file_cache() -> int:
    try:
        entries = [line.split() for line in (CGROUP / "memory.stat").read_text().splitlines()]
        return sum(int(entry[1]) for entry in entries if entry[0] in ("active_file", "inactive_file"))
    except (OSError, ValueError, LookupError):
        return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out. Only CUDA has a class for it; CPU and MPS raise a plain error."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS)


def describe_device(device: str, dtype: DTypeName) -> str:
    """The choice in words, for people. Raises `DeviceError` like `choose_device`."""
    chosen = choose_device(device)
    free = free_bytes(chosen)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type
    memory = f", {free / 1e9:.1f} GB free" if free is not None else ""
    return f"{name}, {str(choose_dtype(dtype, chosen)).removeprefix('torch.')}{memory}"
