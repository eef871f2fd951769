"""Asks shipped personas questions that nothing was tuned on, as the bot does and with one plain system prompt.

`python -m benchmarks.held_out_facts [--repeats 3] [options of commedia persona test]`. The questions stand in
`held_out_facts.yaml`; all else is `commedia persona test --only facts --against-plain` on copies of the personas.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

PERSONAS = Path(__file__).parent.parent / "personas"
QUESTIONS = Path(__file__).with_suffix(".yaml")


def write_personas(folder: Path) -> list[str]:
    """Copy the personas that are asked anything into `folder`, with these questions as their tests. Their ids."""
    questions = yaml.safe_load(QUESTIONS.read_text(encoding="utf-8"))
    shutil.copytree(PERSONAS / "avatars", folder / "avatars")
    for persona_id, facts in questions.items():
        text = (PERSONAS / f"{persona_id}.yaml").read_text(encoding="utf-8")
        values = yaml.safe_load(text) | {"tests": {"facts": facts}}
        (folder / f"{persona_id}.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return list(questions)


def main() -> int:
    """Run the command; its exit status."""
    with tempfile.TemporaryDirectory() as name:
        ids = write_personas(Path(name))
        command = [sys.executable, "-m", "bot.cli", "persona", "test", *ids, "--only", "facts", "--against-plain"]
        return subprocess.run([*command, *sys.argv[1:]], env={**os.environ, "COMMEDIA_PERSONAS": name}).returncode


if __name__ == "__main__":
    sys.exit(main())
