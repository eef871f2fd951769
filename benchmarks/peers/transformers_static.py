"""`transformers.generate` on one static batch: everybody begins and ends together, prompts padded on the left.

python -m benchmarks.peers.transformers_static --model FOLDER [--threads 2] [--dtype float32]
"""

import argparse
import time
from functools import partial
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, StoppingCriteria

from benchmarks.peers.protocol import Job, Run, Timing, serve


class Clock(StoppingCriteria):
    """Stops nothing: `generate` asks it after each token, and it looks at the clock."""

    def __init__(self, timings: list[Timing]) -> None:
        self._timings = timings
        self._since = time.perf_counter()

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:  # noqa: ARG002
        for timing in self._timings:
            timing.count(self._since)
        return torch.zeros(len(input_ids), dtype=torch.bool)


def run(model: PreTrainedModel, job: Job) -> list[Timing]:
    longest = max(map(len, job.ids))
    timings = [Timing() for _ in job.prompts]
    clock = Clock(timings)
    ids = torch.tensor([[0] * (longest - len(one)) + one for one in job.ids])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in job.ids])
    config = GenerationConfig(max_new_tokens=job.num_new, do_sample=False, eos_token_id=None, pad_token_id=0)
    with torch.inference_mode():
        model.generate(input_ids=ids, attention_mask=mask, generation_config=config, stopping_criteria=[clock])
    return timings


def load(arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=arguments.dtype).eval()
    # What it says of itself would end replies early.
    model.generation_config = GenerationConfig()
    about = {"transformers": transformers.__version__, "torch": torch.__version__, "dtype": arguments.dtype}
    return partial(run, model), about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    serve(partial(load, parser.parse_args()))


if __name__ == "__main__":
    main()
