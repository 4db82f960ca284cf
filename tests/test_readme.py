"""The tables of README and docs are made from the recorded results, never typed."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import readme  # noqa: E402 - benchmarks/ is no package


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_tables_are_up_to_date(page):
    text = page.read_text()
    assert readme.fill(text, page) == text, "run: python benchmarks/readme.py"


def test_every_recorded_table_stands_on_a_page():
    texts = [page.read_text() for page in readme.PAGES]
    marks = {match[2] for text in texts for match in readme.MARK.finditer(text)}
    recorded = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert {name for name in readme.TABLES if name in recorded} <= marks <= set(readme.TABLES)
    assert len(marks) >= 3


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_pictures_and_pages_exist(page):
    for path in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not path.startswith("http"):
            assert (page.parent / path).exists(), path
