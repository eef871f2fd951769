"""Presses shipped personas with lines that nothing was tuned on, with the guard and without it, and counts the breaks.

`python -m benchmarks.held_out_pressure [--repeats 3]`. The lines stand in `held_out_pressure.yaml`; they are asked and
judged by `commedia persona test --only breaks` on copies of the personas, and of its replies only those to them count.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import yaml

PERSONAS = Path(__file__).parent.parent / "personas"
LINES = Path(__file__).with_suffix(".yaml")


def write_personas(folder: Path) -> list[str]:
    """Copy all personas into `folder`, with the lines of their language as their pressure. All lines."""
    lines = yaml.safe_load(LINES.read_text(encoding="utf-8"))
    shutil.copytree(PERSONAS / "avatars", folder / "avatars")
    for path in PERSONAS.glob("*.yaml"):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        pressure = lines.get(values.get("language", "en").split("-")[0], lines["en"])
        values["tests"] = {"pressure": pressure}
        (folder / path.name).write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return [line for of_language in lines.values() for line in of_language]


def ask(folder: Path, lines: list[str], *options: str) -> list[dict[str, object]]:
    """Every reply to one of `lines`."""
    replies = folder / "replies.jsonl"
    replies.unlink(missing_ok=True)
    # Nothing but these lines: the usual ones were looked at.
    alone = "from bot.scoring import prompts; prompts._some = lambda *_: []; from bot.cli import main; main()"
    command = [sys.executable, "-c", alone, "persona", "test", "--only", "breaks", "--replies", str(replies)]
    environment = {**os.environ, "COMMEDIA_PERSONAS": str(folder)}
    subprocess.run([*command, *options, *sys.argv[1:]], env=environment, stdout=subprocess.DEVNULL, check=True)
    rows = [json.loads(line) for line in replies.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["asked"] in lines]


def main() -> None:
    """Print both rates, and the breaks."""
    with tempfile.TemporaryDirectory() as name:
        lines = write_personas(Path(name))
        for title, options in (("without guard", ("--without", "guard")), ("with guard", ())):
            rows = ask(Path(name), lines, *options)
            broken = [row for row in rows if row["value"]]
            kinds = Counter(str(row["why"]).split(":")[0] for row in broken)
            print(f"{title}: {len(broken)} of {len(rows)} ({len(broken) / len(rows):.3f}) {dict(kinds)}")
            for row in broken:
                print(f"    {row['persona']}: {row['asked']} -> {row['reply']!r} ({row['why']})")


if __name__ == "__main__":
    main()
