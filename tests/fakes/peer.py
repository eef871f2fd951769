"""An engine for `benchmarks.many_chats` that computes nothing: eight tokens become seven, and 99 are too many."""

from benchmarks.peers.protocol import Job, Timing, serve


def run(job: Job) -> list[Timing]:
    if job.num_new == 99:
        raise ValueError("99 is too many")
    print("a library's noise")  # noqa: T201
    return [Timing(0.1, 0.2, 7 if job.num_new == 8 else job.num_new) for _ in job.prompts]


if __name__ == "__main__":
    serve(lambda: (run, {"version": 1}))
