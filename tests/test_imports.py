"""The borders between the packages: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "earlier": set(),
    "errors": set(),
    "memory": {"errors"},
    "envs": {"errors"},
    "neuromorphic": {"errors"},
    "agents": {"errors", "memory", "neuromorphic"},
    "training": {"earlier", "errors", "agents", "memory", "neuromorphic", "envs"},
    "evaluation": {"earlier", "errors", "agents", "memory", "neuromorphic", "envs"},
}
# Command lines, as train.py is: `python -m neuromorphic` must load runs, its package must not.
COMMANDS = {"neuromorphic/__main__.py": {"training"}}
PARTS = {*ALLOWED, "train", "evaluate", "benchmarks", "tests"}


def imported_parts(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names & PARTS


def files(part: str) -> list[Path]:
    single = ROOT / f"{part}.py"
    return [single] if single.exists() else sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", ALLOWED)
def test_part_imports_only_what_it_may(part):
    assert files(part), f"{part} has no files"
    for path in files(part):
        own = {part, *COMMANDS.get(path.relative_to(ROOT).as_posix(), ())}
        forbidden = imported_parts(path) - ALLOWED[part] - own
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_nothing_imports_a_command_line():
    for path in ROOT.rglob("*.py"):
        if path.is_relative_to(ROOT / "tests") or ".venv" in path.parts:
            continue
        assert "neuromorphic.__main__" not in path.read_text(), path


def test_no_file_is_longer_than_seven_hundred_lines():
    for part in ALLOWED:
        for path in files(part):
            assert len(path.read_text().splitlines()) < 700, path
