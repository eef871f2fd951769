"""The request router that Ray Serve loads by its name. The one module that cannot be imported without Ray, and nothing
of ours imports it. The choice itself is `engine.backends.ray_serve.routing`'s."""

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from engine.backends.ray_serve.routing import ranked


class ConversationRouter(RequestRouter):  # type: ignore[misc] # Ray need not be installed where types are checked
    """Sends a conversation to the replica that remembers it."""

    def initialize_state(self, *, max_running: int) -> None:
        """`max_running` is how many replies a replica makes at once."""
        self._max_running = max_running

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of replicas; of each rank Serve takes the least loaded that has room."""
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        if pending_request is None:
            return [list(replicas.values())]
        # Without it, Serve would ask again and again without a pause while all of them are full.
        pending_request.routing_context.should_backoff = True
        num_ongoing = {
            name: self.replica_queue_len_cache.get(replica.replica_id) or 0 for name, replica in replicas.items()
        }
        ranks = ranked(pending_request.metadata.session_id, num_ongoing, max_running=self._max_running)
        return [[replicas[name] for name in rank] for rank in ranks]
