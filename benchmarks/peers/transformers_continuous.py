"""transformers' own continuous batching.

    python -m benchmarks.peers.transformers_continuous --model FOLDER [--threads 2] [--dtype float32]

One manager that shares blocks of equal beginnings, and one that does not. Pages are small, since a persona's prompt is
shorter than a page of the default size and would never be shared.
"""

import argparse
import time
from functools import partial
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from benchmarks.peers.protocol import Job, Run, Timing, serve

NO_TOKEN = -1
TIMEOUT_S = 300


class Managers:
    """Both managers; each runs a thread of its own, and waits on it between jobs."""

    def __init__(self, model: PreTrainedModel, *, page_size: int, num_pages: int, max_batch_tokens: int) -> None:
        self._managers = {}
        for shares in (True, False):
            config = ContinuousBatchingConfig(
                page_size=page_size,
                num_blocks=num_pages,
                max_batch_tokens=max_batch_tokens,
                allow_block_sharing=shares,
            )
            greedy = GenerationConfig(do_sample=False, eos_token_id=NO_TOKEN, max_new_tokens=64)
            self._managers[shares] = model.init_continuous_batching(greedy, config)
            self._managers[shares].start()

    def run(self, job: Job) -> list[Timing]:
        manager = self._managers[job.remembers]
        timings: dict[str, Timing] = {}
        since = time.perf_counter()
        for ids in job.ids:
            name = manager.add_request(ids, max_new_tokens=job.num_new, streaming=True, eos_token_id=NO_TOKEN)
            timings[name] = Timing()
        num_open = len(timings)
        while num_open:
            output = manager.get_result(timeout=TIMEOUT_S)
            if output is None or output.error:
                raise RuntimeError(output.error if output else "the manager has died or hangs")
            timing = timings[output.request_id]
            timing.count(since, len(output.generated_tokens) - timing.num_new)
            num_open -= output.is_finished()
        return list(timings.values())


def load(arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=arguments.dtype, attn_implementation=arguments.attention
    ).eval()
    model.generation_config = GenerationConfig()
    managers = Managers(
        model, page_size=arguments.page_size, num_pages=arguments.num_pages, max_batch_tokens=arguments.batch_tokens
    )
    about = {"transformers": transformers.__version__, "torch": torch.__version__, "dtype": arguments.dtype}
    return managers.run, about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--page-size", type=int, default=32)
    parser.add_argument("--num-pages", type=int, default=600)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    serve(partial(load, parser.parse_args()))


if __name__ == "__main__":
    main()
