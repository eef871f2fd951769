"""vLLM's OpenAI-compatible server on the CPU.

    python -m benchmarks.peers.vllm_server --model FOLDER [--threads 2] [--dtype float32]

Run by the Python of a virtual environment with vLLM.
"""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.peers.http_stream import MAX_CHATS, Event, Server, free_port
from benchmarks.peers.protocol import Job, Run, Timing, serve

CACHE_GB = 1


def counter() -> Callable[[Event], int]:
    """Each event tells the usage so far."""
    return lambda event: (event.get("usage") or {}).get("completion_tokens", 0)


def run(server: Server, job: Job) -> list[Timing]:
    bodies = [
        {
            "model": "model",
            "prompt": ids,
            "max_tokens": job.num_new,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        for ids in job.ids
    ]
    return server.ask("/v1/completions", bodies, counter)


def load(arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    port = free_port()
    environment = {
        **os.environ,
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GB),
        "OMP_NUM_THREADS": str(arguments.threads),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    # Its `vllm` command asks for a package of that name, and builds for the CPU have another.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", arguments.model, "--served-model-name", "model"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", arguments.dtype, "--max-model-len", "2048"]
    command += ["--max-num-seqs", str(MAX_CHATS), "--enable-prefix-caching", *arguments.option]
    server = Server(command, port=port, environment=environment)
    return partial(run, server), {"options": command[7:], "dtype": arguments.dtype}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--option", action="append", default=[], help="one more for the server; may be repeated")
    serve(partial(load, parser.parse_args()))


if __name__ == "__main__":
    main()
