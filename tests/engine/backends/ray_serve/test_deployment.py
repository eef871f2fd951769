"""How many replicas, of what size, and what they are told."""

from pathlib import Path

import pytest

from engine.backends.ray_serve.deployment import (
    DEFAULT_MAX_RUNNING,
    Cluster,
    Share,
    config_of_replica,
    name_of,
    options_of,
    share_of,
)
from engine.config import EngineConfig
from engine.errors import ConfigurationError

TWO_CORES = Cluster(num_cpus=2, num_gpus=0, largest_num_cpus=2, can_grow=False)
GPUS = Cluster(num_cpus=32, num_gpus=2, largest_num_cpus=16, can_grow=False)
SHARE = Share(num_cpus=1, num_gpus=0)


def config(**settings: object) -> EngineConfig:
    return EngineConfig(cache_dir=Path("cache"), backend="ray", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "cluster", "share"),
    [
        ({}, TWO_CORES, Share(2, 0)),
        ({"num_replicas": (1, 2)}, TWO_CORES, Share(1, 0)),
        ({"num_replicas": (1, 9)}, TWO_CORES, Share(1, 0)),
        ({"num_replicas": (2, 2), "num_threads": 1}, TWO_CORES, Share(1, 0)),
        ({"num_replicas": (2, 2)}, GPUS, Share(1, 1)),
        ({"device": "cpu"}, GPUS, Share(16, 0)),
        ({"device": "cuda:1"}, GPUS, Share(1, 1)),
        ({"device": "cuda"}, Cluster(2, 0, 2, can_grow=True), Share(1, 1)),
    ],
)
def test_each_replica_gets_its_share(settings: dict[str, object], cluster: Cluster, share: Share) -> None:
    assert share_of(config(**settings), cluster) == share


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_replicas": (3, 3)}, "3 replicas with 1 CPU core"),
        ({"num_threads": 4}, "1 replicas with 4 CPU core"),
        ({"device": "cuda"}, "1 GPU"),
        ({"num_replicas": (0, 1)}, "fewest and the most"),
        ({"num_replicas": (3, 2)}, "fewest and the most"),
    ],
)
def test_what_cannot_fit_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        share_of(config(**settings), TWO_CORES)


def test_as_many_replicas_as_were_asked_for() -> None:
    options = options_of(config(num_replicas=(3, 3)), SHARE)
    assert options["num_replicas"] == 3
    assert "autoscaling_config" not in options


def test_between_fewest_and_most_the_load_decides() -> None:
    options = options_of(config(num_replicas=(1, 4), max_running=16), SHARE)
    scale = options["autoscaling_config"]
    assert (scale["min_replicas"], scale["max_replicas"], scale["target_ongoing_requests"]) == (1, 4, 8)
    assert "num_replicas" not in options


def test_waiting_happens_in_the_replicas() -> None:
    options = options_of(config(max_waiting=5), SHARE)
    assert options["max_ongoing_requests"] == DEFAULT_MAX_RUNNING + 5
    assert options["request_router_config"]["request_router_kwargs"] == {"max_running": DEFAULT_MAX_RUNNING}


def test_a_replica_is_a_local_engine_that_knows_no_secret() -> None:
    told = config_of_replica(config(api_key="sk-1", url="http://x", model="m", device="cuda:1"), Share(1, 1))
    assert (told.backend, told.api_key, told.url, told.model) == ("local", None, None, None)
    assert told.device == "cuda"
    assert told.num_threads is None


def test_a_replica_on_the_cpu_keeps_to_its_cores() -> None:
    assert config_of_replica(config(), Share(4, 0)).num_threads == 4
    assert config_of_replica(config(num_threads=3), Share(3, 0)).num_threads == 3


def test_other_settings_are_another_application() -> None:
    assert name_of(config()) == name_of(config())
    assert name_of(config()) != name_of(config(decoder="other"))
    assert name_of(config()) == name_of(config(api_key="sk-1"))
