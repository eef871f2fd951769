"""OpenVINO GenAI's continuous batching, from a GGUF file.

python -m benchmarks.peers.openvino_genai --gguf FILE [--threads 2] [--precision f32]
"""

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai

from benchmarks.peers.protocol import Job, Run, Timing, serve

CACHE_GB = 1


class Pipelines:
    """One pipeline with prefix caching and one without, each loaded when it is first asked for."""

    def __init__(self, gguf: str, properties: dict[str, Any]) -> None:
        self._gguf = gguf
        self._properties = properties
        self._pipelines: dict[bool, openvino_genai.ContinuousBatchingPipeline] = {}
        self._num_requests = 0

    def run(self, job: Job) -> list[Timing]:
        pipeline = self.get(remembers=job.remembers)
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = job.num_new
        config.do_sample, config.ignore_eos = False, True
        config.apply_chat_template = False
        timings = [Timing() for _ in job.prompts]
        since = time.perf_counter()
        waiting = []
        for ids, timing in zip(job.ids, timings, strict=True):
            self._num_requests += 1
            tensor = openvino.Tensor(np.array([ids], dtype=np.int64))
            waiting.append((pipeline.add_request(self._num_requests, tensor, config), timing))
        while pipeline.has_non_finished_requests():
            pipeline.step()
            for handle, timing in waiting:
                while handle.can_read():
                    for output in handle.read().values():
                        timing.count(since, len(output.generated_ids))
        return timings

    def get(self, *, remembers: bool) -> openvino_genai.ContinuousBatchingPipeline:
        if remembers not in self._pipelines:
            scheduler = openvino_genai.SchedulerConfig()
            scheduler.cache_size = CACHE_GB
            scheduler.enable_prefix_caching = remembers
            self._pipelines[remembers] = openvino_genai.ContinuousBatchingPipeline(
                self._gguf, scheduler, "CPU", self._properties
            )
        return self._pipelines[remembers]


def perplexity(pipeline: openvino_genai.ContinuousBatchingPipeline, passages: list[list[int]]) -> float:
    """Each passage is read as a prompt whose tokens are echoed with their probabilities."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.logprobs, config.echo = 1, 1, True
    config.do_sample, config.ignore_eos, config.apply_chat_template = False, True, False
    lost: list[float] = []
    for number, ids in enumerate(passages):
        handle = pipeline.add_request(number, openvino.Tensor(np.array([ids], dtype=np.int64)), config)
        while pipeline.has_non_finished_requests():
            pipeline.step()
        (output,) = handle.read_all()
        # The first token has nothing before it, and the last one is new.
        lost += [-probability for probability in output.generated_log_probs[1 : len(ids)]]
    return math.exp(sum(lost) / len(lost))


def properties_of(arguments: argparse.Namespace) -> dict[str, Any]:
    properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": arguments.threads}
    if arguments.precision:
        properties["INFERENCE_PRECISION_HINT"] = arguments.precision
    return properties


def load(arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    properties = properties_of(arguments)
    pipelines = Pipelines(arguments.gguf, properties)
    pipelines.get(remembers=True)
    pipelines.get(remembers=False)
    return pipelines.run, {"openvino_genai": openvino_genai.__version__, **properties}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", help="of the computation; what OpenVINO finds best if left out")
    parser.add_argument("--score", type=Path)
    arguments = parser.parse_args()
    if arguments.score is None:
        serve(partial(load, arguments))
        return
    passages = json.loads(arguments.score.read_text(encoding="utf-8"))
    pipeline = Pipelines(arguments.gguf, properties_of(arguments)).get(remembers=False)
    print(json.dumps({"perplexity": perplexity(pipeline, passages)}))


if __name__ == "__main__":
    main()
