"""What is deployed: how many replicas, how much of a machine each gets, and what each is told.

Owns the arithmetic. Knows no Ray: the result is plain values that `engine.backends.ray_serve.application` hands over.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from engine.config import EngineConfig
from engine.errors import ConfigurationError

# How many replies a replica is taken to make at once where `max_running` does not say.
DEFAULT_MAX_RUNNING = 8
NAME = "engine"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What Ray has: logical CPUs and GPUs in all, and the CPUs of its largest machine. `can_grow` where other machines
    may still join."""

    num_cpus: float
    num_gpus: float
    largest_num_cpus: float
    can_grow: bool


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica gets."""

    num_cpus: int
    num_gpus: int


def share_of(config: EngineConfig, cluster: Cluster) -> Share:
    """How much of `cluster` each replica gets. Raises `ConfigurationError` where the fewest do not fit."""
    fewest, most = _bounds(config)
    kind = config.device.partition(":")[0]
    has_gpu = kind == "cuda" or (kind == "auto" and cluster.num_gpus >= 1)
    if has_gpu:
        share = Share(num_cpus=config.num_threads or 1, num_gpus=1)
    else:
        room = min(cluster.num_cpus // most, cluster.largest_num_cpus)
        share = Share(num_cpus=config.num_threads or max(1, int(room)), num_gpus=0)
    if not cluster.can_grow:
        _require_room(share, fewest, cluster)
    return share


def config_of_replica(config: EngineConfig, share: Share) -> EngineConfig:
    """What a replica is told: a local engine within its share. Addresses and keys of other services stay behind."""
    return replace(
        config,
        backend="local",
        # Ray shows a replica only the GPU that it gets, and there it is the first.
        device="cuda" if config.device.startswith("cuda") else config.device,
        num_threads=config.num_threads or (None if share.num_gpus else share.num_cpus),
        url=None,
        api_key=None,
        model=None,
        adapters=(),
    )


def options_of(config: EngineConfig, share: Share) -> dict[str, Any]:
    """The options of the Serve deployment."""
    fewest, most = _bounds(config)
    max_running = config.max_running or DEFAULT_MAX_RUNNING
    if fewest == most:
        scale: dict[str, Any] = {"num_replicas": fewest}
    else:
        scale = {
            "autoscaling_config": {
                "min_replicas": fewest,
                "max_replicas": most,
                # Replies slow one another down long before a replica is full: another comes when they are half full.
                "target_ongoing_requests": max(1, max_running // 2),
                # Who waits for a reply has less patience than Ray expects, and a model takes a while to load as well.
                "look_back_period_s": 15.0,
                "upscale_delay_s": 10.0,
            }
        }
    return scale | {
        "name": NAME,
        "ray_actor_options": {"num_cpus": share.num_cpus, "num_gpus": share.num_gpus},
        # Who has to wait does so in a replica's queue, which is fair and tells them their place.
        "max_ongoing_requests": max_running + config.max_waiting,
        "max_queued_requests": config.max_waiting,
        "max_constructor_retry_count": 1,
        "health_check_period_s": 5.0,
        # A replica that is not needed any more may end what it has begun.
        "graceful_shutdown_timeout_s": config.max_reply_s,
        "graceful_shutdown_wait_loop_s": 0.2,
        "logging_config": {"enable_access_log": False},
        "request_router_config": {
            "request_router_class": "engine.backends.ray_serve.router.ConversationRouter",
            "request_router_kwargs": {"max_running": max_running},
        },
    }


def name_of(config: EngineConfig) -> str:
    """The application's name. Where it runs already, with the same settings, it is used as it is."""
    return f"commedia-{hashlib.sha256(repr(config).encode()).hexdigest()[:8]}"


def _bounds(config: EngineConfig) -> tuple[int, int]:
    fewest, most = config.num_replicas
    if not 1 <= fewest <= most:
        raise ConfigurationError(
            f"engine.num_replicas is [{fewest}, {most}]: give the fewest and the most replicas, such as [1, 4]"
        )
    return fewest, most


def _require_room(share: Share, fewest: int, cluster: Cluster) -> None:
    for what, needed, there in (
        ("GPU", share.num_gpus, cluster.num_gpus),
        ("CPU core", share.num_cpus, cluster.num_cpus),
    ):
        if needed * fewest > there:
            raise ConfigurationError(
                f"{fewest} replicas with {needed} {what}s each do not fit: Ray has {there:g} here. Lower "
                "engine.num_replicas or engine.num_threads, or set RAY_ADDRESS to a larger Ray cluster"
            )
