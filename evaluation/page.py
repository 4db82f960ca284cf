"""How report pages look: one style sheet, tables, pictures inside the file.

A page is one HTML file that needs nothing beside it.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INTERVAL = re.compile(r" (\[[^\]]*\])$")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1010px; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.faint { color: #666; font-size: .9rem; }
table { border-collapse: collapse; margin: .8rem 0; }
th, td { padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.words th:last-child, .words td:last-child { text-align: left; }
img { max-width: 100%; } figure { margin: 1.6rem 0; } figcaption { color: #666; font-size: .9rem; }
.small td, .small th { font-size: .85rem; padding: .25rem .6rem; vertical-align: top; }
.small td { white-space: nowrap; }
.small td:first-child, .small th:first-child { padding-left: 0; }
.range { color: #777; font-size: .75rem; font-weight: normal; }
.note { background: #fff6e0; border-left: 4px solid #E69F00; padding: .35rem .8rem;
        margin: .4rem 0; }
details { margin: .6rem 0; } summary { cursor: pointer; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .8rem; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page from pieces of HTML."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: what was there before stays until all is on the disk."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_bytes(content.encode() if isinstance(content, str) else content)
    aside.replace(path)


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def picture(name: str, image: bytes, caption: str) -> str:
    data = base64.b64encode(image).decode()
    return (
        f'<figure><img alt="{name}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its heading first."""
    head, *body = rows
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *body])


def table(
    rows: Sequence[Sequence[str]],
    kind: str = "numbers",
    strong: Collection[tuple[int, int]] = (),
) -> str:
    """A table from rows of text, the first of them the heading; `strong` (row, column) in bold.
    Of kind "small", intervals ` [a, b]` stand below their number."""
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{escape(x)}</th>" for x in head) + "</tr>"]
    for r, row in enumerate(body, 1):
        cells = [escape(x) for x in row]
        if kind == "small":
            cells = [_INTERVAL.sub(r'<br><span class="range">\1</span>', x) for x in cells]
        cells = [f"<b>{x}</b>" if (r, c) in strong else x for c, x in enumerate(cells)]
        lines.append("<tr>" + "".join(f"<td>{x}</td>" for x in cells) + "</tr>")
    return f'<table class="{kind}">' + "\n".join(lines) + "</table>"


def read_json(path: Path) -> dict:
    """A JSON file, empty where there is none that can be read: it only adds to the page."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
