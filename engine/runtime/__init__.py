"""What computes the decoder's steps: one interface, several ways behind it.

`plain` runs any model as transformers does, one sequence at a time; `paged` packs everybody into one call of the same
model; `openvino` runs such a call with the kernels that are fastest on a CPU. Scheduling, sampling and prefixes are
elsewhere.
"""
