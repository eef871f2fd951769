"""The bot runs without the libraries of the extra `train`: they are imported inside functions only."""

import ast
from pathlib import Path

import pytest

import engine.evaluation

FOLDER = Path(engine.evaluation.__file__).parent
EXTRAS = {"scipy", "sklearn", "sacrebleu", "pycocoevalcap", "matplotlib"}


def roots_of(tree: ast.Module) -> set[str]:
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_no_extra_is_imported_with_the_module(path: Path) -> None:
    assert not roots_of(ast.parse(path.read_text(encoding="utf-8"))) & EXTRAS
