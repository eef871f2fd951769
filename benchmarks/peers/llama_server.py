"""llama.cpp's server, continuous batching with a slot for each chat.

python -m benchmarks.peers.llama_server --binary llama-server --gguf FILE [--threads 2]
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.peers.http_stream import MAX_CHATS, Event, Server, free_port
from benchmarks.peers.protocol import Job, Run, Timing, serve

TOKENS_PER_SLOT = 1024


def counter() -> Callable[[Event], int]:
    """Each event brings the ids of its new tokens."""
    num_tokens = 0

    def count(event: Event) -> int:
        nonlocal num_tokens
        num_tokens += len(event.get("tokens", ()))
        # The last event brings none, but the number of all.
        num_tokens = max(num_tokens, event.get("tokens_predicted", 0))
        return num_tokens

    return count


def run(server: Server, job: Job) -> list[Timing]:
    bodies = [
        {
            "prompt": ids,
            "n_predict": job.num_new,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "return_tokens": True,
            "cache_prompt": job.remembers,
        }
        for ids in job.ids
    ]
    return server.ask("/completion", bodies, counter)


def load(arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    port = free_port()
    command = [arguments.binary, "--model", arguments.gguf, "--host", "127.0.0.1", "--port", str(port), "--offline"]
    command += ["--threads", str(arguments.threads), "--threads-batch", str(arguments.threads)]
    command += ["--parallel", str(MAX_CHATS), "--ctx-size", str(MAX_CHATS * TOKENS_PER_SLOT), "--no-ui", "-lv", "1"]
    command += arguments.option
    server = Server(command, port=port, environment=os.environ)
    return partial(run, server), {"options": command[7:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--option", action="append", default=[], help="one more for the server; may be repeated")
    serve(partial(load, parser.parse_args()))


if __name__ == "__main__":
    main()
