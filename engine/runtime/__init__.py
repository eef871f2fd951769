"""What computes the decoder's steps: one interface, several ways behind it.

`plain` runs any model as transformers does, one sequence at a time; `paged` packs everybody into one call of the same
model; `openvino` runs such a call with the kernels that are fastest on a CPU. Scheduling, sampling and prefixes are
elsewhere.
"""

import sys

# OpenVINO's converter tells its makers of every conversion, without asking. Without this package it cannot, and does
# not miss it. This has to be said before anybody imports `openvino`.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
