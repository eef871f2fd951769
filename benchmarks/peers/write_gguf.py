"""Writes a Llama decoder's safetensors folder as a GGUF file in F16, for engines that read nothing else.

    python -m benchmarks.peers.write_gguf FOLDER OUT.gguf

Needs `gguf`, `safetensors` and `numpy`. Knows Llama's layout and byte-level BPE only, which is what SmolLM2 has.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from safetensors.numpy import load_file

TOKENIZER_KIND = "smollm"  # how llama.cpp calls the way in which this tokenizer cuts text before BPE
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OTHER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    """What GGUF calls the tensor that Hugging Face calls `name`."""
    stem = name.removesuffix(".weight")
    if found := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
        return f"blk.{found[1]}.{LAYER_NAMES[found[2]]}.weight"
    return f"{OTHER_NAMES[stem]}.weight"


def interleave_halves(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Queries and keys in GGUF's order: it rotates neighbours, Hugging Face the two halves of a head."""
    rows, *rest = weight.shape
    return weight.reshape(num_heads, 2, rows // num_heads // 2, *rest).swapaxes(1, 2).reshape(weight.shape)


def add_architecture(writer: GGUFWriter, config: dict[str, Any]) -> None:
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    theta = (config.get("rope_parameters") or config)["rope_theta"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(LlamaFileType.MOSTLY_F16)


def add_tokenizer(writer: GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    texts: list[str] = [f"[PAD{number}]" for number in range(config["vocab_size"])]
    kinds = [TokenType.UNUSED] * len(texts)
    for text, number in tokenizer["model"]["vocab"].items():
        texts[number], kinds[number] = text, TokenType.NORMAL
    for token in tokenizer["added_tokens"]:
        texts[token["id"]] = token["content"]
        kinds[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    merges = [one if isinstance(one, str) else " ".join(one) for one in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(TOKENIZER_KIND)
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text(encoding="utf-8"))


def write(folder: Path, out: Path) -> None:
    """The weights in `folder` as GGUF: matrices in F16, vectors in F32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = GGUFWriter(out, "llama")
    writer.add_name(folder.name)
    add_architecture(writer, config)
    add_tokenizer(writer, folder, config)
    num_heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, tensor in load_file(folder / "model.safetensors").items():
        new_name = gguf_name(name)
        part = new_name.split(".")[-2]
        values = tensor.astype(np.float32)
        if part in num_heads:
            values = interleave_halves(values, num_heads[part])
        if values.ndim == 1:
            writer.add_tensor(new_name, values)
        else:
            writer.add_tensor(new_name, values.astype(np.float16), raw_dtype=GGMLQuantizationType.F16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    write(arguments.folder, arguments.out)


if __name__ == "__main__":
    main()
