"""What a monitoring system is told: counts for Prometheus, and whether all is well.

Owns the names and the text format. Looks at adapters, incidents and the engine only when asked; of messages it is told
by whoever answers them. Knows no person and no room: labels are platforms, reasons and kinds, never what anybody wrote.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bot.adapters.base import AdapterState, AdapterStatus
from engine.types import EngineLoad

DURATIONS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)


class ObservedAdapter(Protocol):
    """An adapter, as far as it is looked at."""

    name: str

    @property
    def status(self) -> AdapterStatus:
        """How it is doing right now."""


class Metrics:
    """What the bot has done since it started, and how it is doing. One a process; none of its methods raises."""

    def __init__(
        self,
        *,
        load: Callable[[], EngineLoad] = EngineLoad,
        incidents: Callable[[], Mapping[tuple[str, str], int]] = dict,
    ) -> None:
        """`load` is the engine's, `incidents` counts them by platform and kind."""
        self._load = load
        self._incidents = incidents
        self._adapters: tuple[ObservedAdapter, ...] = ()
        self._accepted: Counter[str] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._guarded: Counter[tuple[str, str]] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(self._collect))
        self._durations = Histogram(
            "commedia_reply_duration_seconds",
            "From a message's arrival to the end of its reply.",
            ["platform"],
            registry=self._registry,
            buckets=DURATIONS_S,
        )

    def watch(self, adapters: Sequence[ObservedAdapter]) -> None:
        """Tell of these adapters from now on."""
        self._adapters = tuple(adapters)

    def accepted(self, platform: str) -> None:
        """A message is going to be answered."""
        self._accepted[platform] += 1

    def answered(self, platform: str, duration_s: float) -> None:
        """A reply is complete, so long after its message."""
        self._durations.labels(platform).observe(duration_s)

    def refused(self, platform: str, reason: str) -> None:
        """A message was meant for the bot, but is not answered. `reason` is one of a few words of the code."""
        self._refused[platform, reason] += 1

    def guarded(self, kind: str, outcome: str) -> None:
        """A reply left its part in this way, and this was done: words of `bot.guarding`."""
        self._guarded[kind, outcome] += 1

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def health(self) -> dict[str, object]:
        """How platforms and engine are doing: `status` is `ok` where every platform is served, else `degraded`."""
        states = {adapter.name: adapter.status.state for adapter in self._adapters}
        load = self._load()
        is_well = all(state is AdapterState.RUNNING for state in states.values())
        return {
            "status": "ok" if is_well else "degraded",
            "platforms": {name: state.value for name, state in states.items()},
            "engine": {"running": load.num_running, "waiting": load.num_waiting},
        }

    def _collect(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("commedia_adapter_state", "1 for the state it is in.", labels=["platform", "state"])
        for adapter in self._adapters:
            for state in AdapterState:
                states.add_metric([adapter.name, state.value], float(adapter.status.state is state))
        yield states
        accepted = CounterMetricFamily("commedia_messages_accepted", "Messages to be answered.", labels=["platform"])
        for platform, count in self._accepted.items():
            accepted.add_metric([platform], count)
        yield accepted
        refused = CounterMetricFamily(
            "commedia_messages_refused", "Messages that are not answered.", labels=["platform", "reason"]
        )
        for labels, count in self._refused.items():
            refused.add_metric(labels, count)
        yield refused
        guarded = CounterMetricFamily(
            "commedia_guard", "Replies that left their part, and what was done.", labels=["kind", "outcome"]
        )
        for labels, count in self._guarded.items():
            guarded.add_metric(labels, count)
        yield guarded
        incidents = CounterMetricFamily(
            "commedia_incidents", "What went wrong beside single replies.", labels=["platform", "kind"]
        )
        for labels, count in self._incidents().items():
            incidents.add_metric(labels, count)
        yield incidents
        yield from _of_engine(self._load())


class _Collector(Collector):
    """Gives what a function finds at the moment of asking."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        return self._collect()


def _of_engine(load: EngineLoad) -> Iterator[Metric]:
    yield GaugeMetricFamily("commedia_engine_running", "Replies that are being written.", load.num_running)
    yield GaugeMetricFamily("commedia_engine_waiting", "Replies that wait for the model.", load.num_waiting)
    yield GaugeMetricFamily("commedia_engine_kv_used_ratio", "Share of the cache that is in use.", load.kv_used)
    yield CounterMetricFamily("commedia_engine_replies", "Replies that were completed.", load.num_replies)
    yield CounterMetricFamily("commedia_engine_failures", "Replies that failed.", load.num_failures)
    yield CounterMetricFamily("commedia_engine_prompt_tokens", "Tokens of prompts.", load.num_prompt_tokens)
    yield CounterMetricFamily("commedia_engine_cached_tokens", "Tokens found in the cache.", load.num_cached_tokens)
    yield CounterMetricFamily("commedia_engine_new_tokens", "Tokens of replies.", load.num_new_tokens)
    yield CounterMetricFamily("commedia_engine_steps", "Steps of the model.", load.num_steps)
