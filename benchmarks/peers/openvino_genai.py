"""OpenVINO GenAI's continuous batching, from a GGUF file.

python -m benchmarks.peers.openvino_genai --gguf FILE [--threads 2] [--precision f32]
"""

import argparse
import time
from functools import partial
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


def load(arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": arguments.threads}
    if arguments.precision:
        properties["INFERENCE_PRECISION_HINT"] = arguments.precision
    pipelines = Pipelines(arguments.gguf, properties)
    pipelines.get(remembers=True)
    pipelines.get(remembers=False)
    return pipelines.run, {"openvino_genai": openvino_genai.__version__, **properties}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", help="of the computation; what OpenVINO finds best if left out")
    serve(partial(load, parser.parse_args()))


if __name__ == "__main__":
    main()
