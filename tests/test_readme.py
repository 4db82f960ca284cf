"""README's tables are made from the recorded results, never typed."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import readme  # noqa: E402 - benchmarks/ is no package


def test_tables_are_up_to_date():
    text = readme.README.read_text()
    assert readme.fill(text) == text, "run: python benchmarks/readme.py"


def test_every_recorded_table_stands_in_readme():
    marks = {match[2] for match in readme.MARK.finditer(readme.README.read_text())}
    recorded = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert {name for name in readme.TABLES if name in recorded} <= marks <= set(readme.TABLES)
    assert len(marks) >= 3


def test_pictures_exist():
    import re

    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme.README.read_text()):
        assert (ROOT / path).exists(), path
