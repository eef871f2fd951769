"""What Prometheus reads, and when all is well."""

from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bot.adapters.base import AdapterState, AdapterStatus
from bot.metrics import Metrics
from engine.types import EngineLoad


@dataclass
class Platform:
    name: str
    status: AdapterStatus


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """By name and labels' values."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_messages_are_counted_by_platform() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.accepted("discord")
    metrics.accepted("telegram")
    metrics.refused("discord", "busy")
    metrics.answered("discord", 0.3)
    metrics.answered("discord", 400.0)
    found = samples(metrics)
    assert found["commedia_messages_accepted_total", "discord"] == 3
    assert found["commedia_messages_accepted_total", "telegram"] == 1
    assert found["commedia_messages_refused_total", "discord", "busy"] == 1
    assert found["commedia_reply_duration_seconds_count", "discord"] == 2
    assert found["commedia_reply_duration_seconds_sum", "discord"] == pytest.approx(400.3)
    assert found["commedia_reply_duration_seconds_bucket", "0.25", "discord"] == 0
    assert found["commedia_reply_duration_seconds_bucket", "0.5", "discord"] == 1


def test_what_the_guard_did_is_counted_by_kind_and_outcome() -> None:
    metrics = Metrics()
    metrics.guarded("echo", "resampled")
    metrics.guarded("echo", "resampled")
    metrics.guarded("echo", "deflected")
    found = samples(metrics)
    assert found["commedia_guard_total", "echo", "resampled"] == 2
    assert found["commedia_guard_total", "echo", "deflected"] == 1


def test_states_incidents_and_the_engine_are_looked_at_when_asked() -> None:
    counts = {("discord", "forbidden"): 2}
    load = EngineLoad(num_running=3, num_waiting=4, num_replies=5, kv_used=0.25)
    metrics = Metrics(load=lambda: load, incidents=lambda: counts)
    discord = Platform("discord", AdapterStatus(AdapterState.STARTING))
    metrics.watch([discord])
    discord.status = AdapterStatus(AdapterState.RUNNING)
    counts["discord", "forbidden"] = 7
    found = samples(metrics)
    assert found["commedia_adapter_state", "discord", "running"] == 1
    assert found["commedia_adapter_state", "discord", "starting"] == 0
    assert found["commedia_incidents_total", "forbidden", "discord"] == 7
    assert found["commedia_engine_running",] == 3
    assert found["commedia_engine_waiting",] == 4
    assert found["commedia_engine_replies_total",] == 5
    assert found["commedia_engine_kv_used_ratio",] == 0.25


def test_one_platform_that_is_not_served_is_no_good_health() -> None:
    metrics = Metrics(load=lambda: EngineLoad(num_running=1, num_waiting=2))
    web = Platform("web", AdapterStatus(AdapterState.RUNNING))
    discord = Platform("discord", AdapterStatus(AdapterState.RECONNECTING, "somebody's secret"))
    metrics.watch([web, discord])
    assert metrics.health() == {
        "status": "degraded",
        "platforms": {"web": "running", "discord": "reconnecting"},
        "engine": {"running": 1, "waiting": 2},
    }
    discord.status = AdapterStatus(AdapterState.RUNNING)
    assert metrics.health()["status"] == "ok"
    assert "secret" not in metrics.exposition().decode()


def test_two_of_them_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.accepted("web")
    assert ("commedia_messages_accepted_total", "web") not in samples(second)
