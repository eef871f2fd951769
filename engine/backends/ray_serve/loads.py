"""How busy all replicas are together. Owns sums; replicas that are gone keep what they have done."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from engine.types import EngineLoad


class LoadBook:
    """The newest load of each replica, by its name, and what those did that are gone."""

    def __init__(self) -> None:
        self._loads: dict[str, EngineLoad] = {}
        self._gone = EngineLoad()

    def note(self, loads: Mapping[str, EngineLoad]) -> None:
        """`loads` are all replicas that there are now."""
        left = [self._loads[name] for name in self._loads.keys() - loads.keys()]
        self._gone = replace(_summed([self._gone, *left]), num_running=0, num_waiting=0, kv_used=0.0, device="")
        self._loads = dict(loads)

    def total(self) -> EngineLoad:
        """All together. `kv_used` is the mean, and `device` names each kind of device once, with its number."""
        loads = list(self._loads.values())
        return replace(
            _summed([self._gone, *loads]),
            kv_used=sum(load.kv_used for load in loads) / len(loads) if loads else 0.0,
            device=", ".join(_counted(load.device for load in loads if load.device)),
        )


def _summed(loads: Iterable[EngineLoad]) -> EngineLoad:
    total = EngineLoad()
    for load in loads:
        total = EngineLoad(
            num_running=total.num_running + load.num_running,
            num_waiting=total.num_waiting + load.num_waiting,
            num_replies=total.num_replies + load.num_replies,
            num_failures=total.num_failures + load.num_failures,
            num_prompt_tokens=total.num_prompt_tokens + load.num_prompt_tokens,
            num_cached_tokens=total.num_cached_tokens + load.num_cached_tokens,
            num_new_tokens=total.num_new_tokens + load.num_new_tokens,
            num_steps=total.num_steps + load.num_steps,
        )
    return total


def _counted(devices: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for device in devices:
        counts[device] = counts.get(device, 0) + 1
    return [device if count == 1 else f"{count} x {device}" for device, count in sorted(counts.items())]
