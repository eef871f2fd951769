"""Holds the rules of `docs/architecture.md`: who may import whom."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE_SEAM = {f"engine.{name}" for name in ("types", "persona", "lore", "tokens", "errors", "config", "same")}
PLATFORM_LIBRARIES = {"discord", "telegram"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for room in ("bot", "engine") for path in (ROOT / room).rglob("*.py")}


def imports_of(path: Path, *, at_import_only: bool = False) -> Iterator[str]:
    """Every module that `path` names in an import statement, also inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_import_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("engine")))
def test_engine_never_imports_bot(module: str) -> None:
    assert not [name for name in imports_of(MODULES[module]) if name.split(".")[0] == "bot"]


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("bot")))
def test_bot_imports_only_the_engines_seam(module: str) -> None:
    allowed = {"bot.app", "bot.cli", "bot.doctor"}
    used = {name for name in imports_of(MODULES[module]) if name.split(".")[0] == "engine"}
    if module not in allowed:
        assert used <= ENGINE_SEAM


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("bot.adapters.")))
def test_adapters_import_only_their_seam(module: str) -> None:
    own_room = ".".join(module.split(".")[:3])
    allowed = {"bot.adapters.base", "bot.adapters.pacing", "bot.types", "bot.commands", "bot.errors"}
    used = {name for name in imports_of(MODULES[module]) if name.split(".")[0] == "bot"}
    assert {name for name in used if not name.startswith(own_room)} <= allowed


@pytest.mark.parametrize("module", sorted(MODULES))
def test_platform_libraries_stay_in_adapters(module: str) -> None:
    if not module.startswith("bot.adapters."):
        assert not PLATFORM_LIBRARIES & {name.split(".")[0] for name in imports_of(MODULES[module])}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_the_store_imports_sqlalchemy(module: str) -> None:
    if not module.startswith("bot.store"):
        assert "sqlalchemy" not in {name.split(".")[0] for name in imports_of(MODULES[module])}


@pytest.mark.parametrize("name", ["scheduler", "sequence", "queue", "blocks"])
def test_scheduling_imports_no_torch(name: str) -> None:
    assert "torch" not in {found.split(".")[0] for found in imports_of(MODULES[f"engine.generation.{name}"])}


def test_no_import_cycles() -> None:
    graph = {
        name: {found for found in imports_of(path, at_import_only=True) if found in MODULES and found != name}
        for name, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_importing_chat_brings_no_torch() -> None:
    code = "import sys, bot.chat; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
