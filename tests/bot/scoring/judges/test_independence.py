"""The judges judge the guard: neither may know the other, or the guard would seem to work perfectly."""

import ast
from collections.abc import Iterator
from pathlib import Path

import bot.guarding
import bot.scoring.judges

JUDGES = Path(bot.scoring.judges.__file__).parent
GUARD = Path(bot.guarding.__file__).parent
# Shorter ones are words that everybody has.
MIN_SHARED_LETTERS = 25


def imported(folder: Path) -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return modules | {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}


def literals(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) >= MIN_SHARED_LETTERS:
                yield node.value


def test_neither_knows_the_other() -> None:
    assert not [name for name in imported(JUDGES) if name.startswith("bot.guarding")]
    assert not [name for name in imported(GUARD) if name.startswith("bot.scoring")]
    assert any(name.startswith("bot.") for name in imported(JUDGES) & imported(GUARD)), "nothing was read"


def test_no_pattern_is_shared() -> None:
    guard = set(literals(GUARD))
    assert len(guard) > 50
    assert not guard & set(literals(JUDGES))
