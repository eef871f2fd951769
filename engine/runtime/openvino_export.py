"""Writes a transformers decoder as an OpenVINO model that attends over a KV cache in blocks.

Owns the conversion: what is traced, which operations stand for attention and for rotary positions, and the proof that
the result computes what the model computes. Does not know how it is run. Shapes: `t` packed positions, `s` sequences
that want logits, `d_lm` width, `v` vocabulary.

OpenVINO's own route to paged attention begins at an exported model and looks for patterns in it. Here attention is cut
out from the start, by the same attention function that `engine.runtime.paged` uses, so that any architecture goes whose
layers call it: what is traced takes each layer's attended states as inputs, and gives its queries, keys and values as
outputs. That is also what is written to disk, for files cannot hold paged attention; loading puts it in between.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as operations
import torch
from openvino.op import _PagedAttentionExtension
from torch import Tensor, nn
from transformers import PreTrainedModel

from engine.runtime.paged import KVShape
from engine.runtime.paging import paged_attention
from engine.runtime.types import Unsupported

# What the caller gives, in this order; the caches follow, keys and values of each layer in turns.
INPUTS = (
    "embeddings",
    "positions",
    "rows",
    "steering",
    "past_lens",
    "subsequence_begins",
    "block_indices",
    "block_indices_begins",
    "max_context_len",
)
NUM_TRACED_INPUTS = 4
# Kinds of rotary positions whose angles depend on nothing but the position.
FIXED_ROTARY = frozenset({"default", "linear", "llama3", "yarn", "proportional"})
INT8_LEVELS = 127


@dataclass(frozen=True, slots=True)
class Attention:
    """What one layer's attention needs beside its tensors: how much its products are scaled, and how far back it looks,
    0 for everywhere."""

    scaling: float
    window: int


@dataclass(frozen=True, slots=True)
class Export:
    """A decoder with its attention cut out, and what is to be put there."""

    model: ov.Model
    shape: KVShape
    layers: tuple[Attention, ...]

    def paged(self) -> ov.Model:
        """The whole decoder. Call it once: it builds on `model` itself."""
        model = self.model
        counts = {name: operations.parameter([-1], np.int32, name=name) for name in INPUTS[NUM_TRACED_INPUTS:-1]}
        counts[INPUTS[-1]] = operations.parameter([], np.int32, name=INPUTS[-1])
        parameters, results = model.get_parameters()[NUM_TRACED_INPUTS:], model.get_results()[1:]
        caches = []
        for number, layer in enumerate(self.layers):
            pair = [
                operations.parameter([-1] * 4, ov.Type.dynamic, name=f"{kind}.{number}")
                for kind in ("key_cache", "value_cache")
            ]
            states = [result.input_value(0) for result in results[3 * number : 3 * number + 3]]
            attention = _paged_attention(layer, states, pair, list(counts.values()))
            _tell_heads(attention, self.shape)
            replaced = parameters[number].output(0)
            for reader in replaced.get_target_inputs():
                reader.replace_source_output(attention.output(0))
            caches += pair
        for result in results:
            model.remove_result(result)
        for parameter in parameters:
            model.remove_parameter(parameter)
        model.add_parameters([*counts.values(), *caches])
        for parameter in model.get_parameters():
            parameter.output(0).get_tensor().set_names({parameter.get_friendly_name()})
        model.validate_nodes_and_infer_types()
        return model

    def quantise(self) -> int:
        """Keep the weights of all products as 8-bit numbers, a scale for each output, and give the number of products.

        Symmetric, rounded to nearest, a scale a row: the "int8, per channel" of other tools.
        """
        done: dict[str, ov.Output] = {}
        num_quantised = 0
        for operation in self.model.get_ops():
            if operation.get_type_name() != "MatMul" or not operation.get_attributes()["transpose_b"]:
                continue
            constant = operation.input_value(1).get_node()
            while constant.get_type_name() == "Convert":
                constant = constant.input_value(0).get_node()
            if constant.get_type_name() != "Constant":
                continue
            name = constant.get_friendly_name()
            if name not in done:
                done[name] = _quantised(constant.get_data().astype(np.float32))
            operation.input(1).replace_source_output(done[name])
            num_quantised += 1
        self.model.validate_nodes_and_infer_types()
        return num_quantised

    def save(self, path: Path) -> None:
        """Write it to `path`, an `.xml` file with a `.bin` beside it; weights in 16 bits where they are floats."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.model.set_rt_info(
            json.dumps({"shape": asdict(self.shape), "layers": [asdict(one) for one in self.layers]}), ["commedia"]
        )
        ov.save_model(self.model, str(path), compress_to_fp16=True)

    @classmethod
    def load(cls, path: Path) -> "Export":
        """What `save` has written."""
        model = ov.Core().read_model(str(path))
        kept = json.loads(model.get_rt_info(["commedia"]).astype(str))
        return cls(model, KVShape(**kept["shape"]), tuple(Attention(**one) for one in kept["layers"]))


def export(model: PreTrainedModel, *, max_positions: int) -> Export:
    """`model`, in float32, for up to `max_positions`. Raises `Unsupported` where it cannot be done.

    `model` is taken apart for that: use it for nothing else afterwards.
    """
    shape = KVShape.of(model)
    body = _Body(model)
    example = _example(model, shape)
    _replace_rotary(model, max_positions)
    with paged_attention(model, body), torch.no_grad(), warnings.catch_warnings():
        # Tracing warns of every comparison on the way, and of attributes that it looks at.
        warnings.simplefilter("ignore")
        body(*example)  # once without tracing: tables are computed, and what cannot be done says so
        try:
            converted = ov.convert_model(body, example_input=example)
        except RuntimeError as error:
            raise Unsupported(f"OpenVINO cannot convert it: {str(error).strip().splitlines()[-1][:200]}") from error
    parameters, results = converted.get_parameters(), converted.get_results()
    if len(parameters) != len(example) or len(results) != 1 + 3 * shape.num_layers:
        raise Unsupported(f"its conversion has {len(parameters)} inputs and {len(results)} outputs")
    for parameter, name in zip(parameters, INPUTS[:NUM_TRACED_INPUTS], strict=False):
        parameter.set_friendly_name(name)
    return Export(converted, shape, body.layers())


class _Body(nn.Module):
    """What is traced, and the `Pager` meanwhile."""

    is_batch = True

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: Any = model
        self._attended: tuple[Tensor, ...] = ()
        self._states: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._layers: dict[int, Attention] = {}

    def forward(
        self, embeddings: Tensor, positions: Tensor, rows: Tensor, steering: Tensor, *attended: Tensor
    ) -> tuple[Tensor, ...]:
        """`embeddings: (t, d_lm)`, `positions: (t,)`, `rows: (s,)`, `steering: (s, d_lm)`, and of each layer `attended:
        (t, h * d)` → logits `(s, v)`, and of each layer queries, keys and values."""
        self._attended = attended
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].squeeze(1)[rows] + steering,))
        try:
            output = self.model(inputs_embeds=embeddings[:, None], position_ids=positions[:, None], use_cache=False)
        finally:
            hook.remove()
        return (output.logits, *(tensor for layer in sorted(self._states) for tensor in self._states[layer]))

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scaling: float, window: int | None
    ) -> Tensor:
        """See `Pager`."""
        self._layers[layer] = Attention(scaling, window or 0)
        flat = (tensor.reshape(-1, tensor.shape[1] * tensor.shape[2]) for tensor in (query, key, value))
        query_states, key_states, value_states = flat
        self._states[layer] = query_states, key_states, value_states
        return self._attended[layer].view(-1, query.shape[1], query.shape[2])

    def layers(self) -> tuple[Attention, ...]:
        """What the layers asked for."""
        return tuple(self._layers[layer] for layer in sorted(self._layers))


class _RotaryTable(nn.Module):
    """Cosines and sines of all positions. Computed in bfloat16, as a whole graph may be, the angle of a position beyond
    256 would be that of another."""

    def __init__(self, rotary: Any, num_positions: int) -> None:  # noqa: ANN401 - whatever the architecture has
        super().__init__()
        self._rotary = rotary
        self._num_positions = num_positions
        self._tables: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    def forward(
        self, states: Tensor, position_ids: Tensor, *kind: object, **named_kind: object
    ) -> tuple[Tensor, Tensor]:
        """`(t, 1)` positions → `(t, 1, d)` cosines and sines."""
        key = (*kind, *named_kind.values())
        if key not in self._tables:
            cosines, sines = self._rotary(states, torch.arange(self._num_positions)[None], *kind, **named_kind)
            self._tables[key] = cosines[0].clone(), sines[0].clone()
        cosines, sines = self._tables[key]
        return cosines[position_ids], sines[position_ids]


def _replace_rotary(model: PreTrainedModel, num_positions: int) -> None:
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if "RotaryEmbedding" in type(child).__name__
    ]
    for parent, name, child in found:
        kinds = getattr(child, "rope_type", "default")
        if unknown := set(kinds.values() if isinstance(kinds, dict) else [kinds]) - FIXED_ROTARY:
            raise Unsupported(f"its rotary positions are of the kind {unknown.pop()}")
        setattr(parent, name, _RotaryTable(child, num_positions))


def _example(model: Any, shape: KVShape) -> tuple[Tensor, ...]:  # noqa: ANN401
    """A call of three positions, two of which want logits."""
    num_positions, width = 3, model.get_input_embeddings().embedding_dim
    num_heads = model.config.get_text_config(decoder=True).num_attention_heads
    attended = torch.zeros(num_positions, num_heads * shape.head_dim)
    rows = torch.arange(2)
    return (
        torch.zeros(num_positions, width),
        torch.arange(num_positions),
        rows,
        torch.zeros(len(rows), width),
        *([attended] * shape.num_layers),
    )


def _paged_attention(
    layer: Attention, states: Sequence[ov.Output], caches: Sequence[ov.Node], counts: Sequence[ov.Node]
) -> ov.Node:
    """OpenVINO's operation. Its inputs beyond ours switch off what is not used: ALiBi, scores, rotation and eviction of
    the cache, sparse attention, sinks."""
    *lengths, longest = counts
    inputs = [*states, *(node.output(0) for node in (*caches, *lengths))]
    inputs += [_number(layer.scaling, np.float32), _number(layer.window, np.int32), _nothing(np.float32)]
    inputs += [longest.output(0), *(_nothing(np.int32) for _ in range(3)), *(_nothing(np.float32) for _ in range(2))]
    inputs += [_number(0, np.int32), _number(0, np.int32), _nothing(np.float32, rank=4), _number(0, np.int32)]
    inputs += [*(_nothing(np.int32) for _ in range(4)), _nothing(np.uint8), _nothing(np.int32)]
    attention: ov.Node = _PagedAttentionExtension(inputs)
    return attention


def _number(value: float, dtype: Any) -> ov.Output:  # noqa: ANN401 - numpy's own
    return operations.constant(np.array(value, dtype=dtype)).output(0)


def _nothing(dtype: Any, *, rank: int = 1) -> ov.Output:  # noqa: ANN401
    return operations.constant(np.zeros([0] * rank, dtype=dtype)).output(0)


def _tell_heads(attention: ov.Node, shape: KVShape) -> None:
    """What the device needs to know to choose the layout of the caches."""
    information = attention.get_rt_info()
    for kind in "kv":
        information[f"num_{kind}_heads"] = shape.num_heads
        information[f"{kind}_head_size"] = shape.head_dim


def _quantised(weights: Any) -> ov.Output:  # noqa: ANN401 - numpy's arrays
    """`(d_out, d_in)` as a constant of int8 times a scale a row, in a form that devices compute without unpacking."""
    scales = np.abs(weights).max(axis=1, keepdims=True) / INT8_LEVELS
    scales[scales == 0] = 1.0
    rounded = np.clip(np.round(weights / scales), -INT8_LEVELS, INT8_LEVELS).astype(np.int8)
    unpacked = operations.convert(operations.constant(rounded), np.float32)
    return operations.multiply(unpacked, operations.constant(scales.astype(np.float32))).output(0)
