"""A comparison as files: report.html (one self-contained page), PNGs, comparison.json, table.md."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from evaluation.compare import FIGURES, LOWER_IS_BETTER, Comparison, Figure, Method
from evaluation.compare_figures import SCORES, all_figures
from evaluation.methods import PARTS, differences
from evaluation.page import markdown as markdown_table
from evaluation.page import page, picture, png, table, write_whole
from evaluation.style import short, two_digits

CAPTIONS = {
    "curves": "All games are evaluated all the time. Line: mean over seeds; band: 95 % bootstrap "
    "interval of that mean, where there are two seeds or more. Shaded: the game is being trained. "
    "Dashed: the game trained alone, at its end, by the agent that the first method is judged by.",
    "figures": "Diamond: IQM over games and seeds; bar: 95 % stratified bootstrap over seeds, "
    "where there are two or more; stroke: mean of all. P(improvement): how often a run beats one "
    "of the first method on a game; 0.5 is chance.",
    "matrices": "Read along a row: how a game rises when it is trained (outlined) and what remains "
    "of it. Numbers: scores; colour: share of the best that any method reached on that game.",
    "profiles": "The higher the better: the share of all games and seeds that end above a score. "
    "Where curves cross, neither method is better everywhere.",
    "costs": "Minutes of the whole run, evaluations included but for the last one; median speed "
    "of training alone. Runs that shared a machine have slowed each other: their times compare "
    "only where the load was the same. Bytes: what an agent remembers with beside network and "
    "optimiser.",
}
MEANINGS = {
    "average": "score over all games at the end",
    "forgetting": "lost of a game since its latest visit; negative: gained",
    "forward_transfer": "area under a game's first visit beyond that of training alone",
    "intransigence": "what training alone reaches beyond a game's first visit; negative: less",
}


def write(result: Comparison, out: Path, command: str) -> Path:
    """Write all files to the folder `out`; returns the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "table.md", markdown(result))
    data = {"command": command, **as_data(result)}
    write_whole(out / "comparison.json", json.dumps(data, indent=1) + "\n")
    images = {name: png(figure) for name, figure in all_figures(result).items()}
    for name in CAPTIONS:
        (out / f"{name}.png").unlink(missing_ok=True)
    for name, image in images.items():
        (out / f"{name}.png").write_bytes(image)
    path = out / "report.html"
    write_whole(path, _page(result, images, command))
    return path


def publish(result: Comparison, out: Path, command: str) -> None:
    """Write all files and print the table, what has to be known with it, and the page's path."""
    page = write(result, out, command)
    print(markdown(result), end="")
    print("".join(f"note: {note}\n" for note in result.notes), end="")
    print(f"report: {page}")


# -- tables ---------------------------------------------------------------------------------------
def rows(result: Comparison) -> list[tuple[str, ...]]:
    """The table of methods as text, its heading first."""
    shown = [f for f in FIGURES if any(m.figures[f] for m in result.methods)]
    share = result.scale == "human" and any(_share(m, result) is not None for m in result.methods)
    head = ["method", "seeds", *(f.replace("_", " ") for f in shown)]
    head[3:3] = ["average / alone"] if share else []
    more = len(result.methods) > 1
    head += [f"P(better than {result.methods[0].name})"] * more
    timed, sized = (
        any(m.costs[key] is not None for m in result.methods)
        for key in ("agent_steps_per_s", "bytes")
    )
    head += ["steps/s"] * timed + ["MB"] * sized
    out = [tuple(head)]
    for m in result.methods:
        cells = [m.name, str(len(m.runs)), *(_figure(f, m.figures[f]) for f in shown)]
        cells[3:3] = [two_digits(_share(m, result))] if share else []
        cells += [_improvement(m)] * more
        cells += [_number(m.costs["agent_steps_per_s"], 0)] * timed
        cells += [_number(m.costs["bytes"], 1, 1e6)] * sized
        out.append(tuple(cells))
    return out


def _figure(name: str, found: Figure | None) -> str:
    if found is None:
        return "-"
    signed = name != "average"
    text = two_digits(found.iqm, signed)
    if found.interval:
        text += " [{}, {}]".format(*(two_digits(x, signed) for x in found.interval))
    if two_digits(found.iqm, signed) != two_digits(found.mean, signed):
        text += f"; mean {two_digits(found.mean, signed)}"
    return text


def _number(value: float | None, digits: int, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:,.{digits}f}"


def _share(method: Method, result: Comparison) -> float | None:
    """Mean score at the end over that of the games trained alone; None without all of these."""
    alone = sum(method.alone.values())
    found = method.figures["average"]
    known = found and alone > 0 and set(method.alone) == set(result.games)
    return sum(found.by_game.values()) / alone if known else None


def _improvement(method: Method) -> str:
    p = method.improvement
    if p is None:
        return "-"
    return f"{p.point:.2f}" + (f" [{p.low:.2f}, {p.high:.2f}]" if method.improvement_known else "")


def markdown(result: Comparison) -> str:
    """The table of methods for README."""
    return f"{markdown_table(rows(result))}\n{_legend(result)}\n"


def _legend(result: Comparison) -> str:
    unit = {
        "human": "Human-normalised scores (0 = random, 1 = human)",
        "single": "Scores as a share of the game trained alone (0 = random, 1 = alone)",
    }[result.scale]
    several = any(len(m.runs) > 1 for m in result.methods)
    how = "IQM over games and seeds [95 % stratified bootstrap over seeds]" if several else (
        "IQM over games, one seed: no intervals"
    )  # fmt: skip
    middle = "" if len(result.games) == 1 else (
        " The IQM leaves out the lowest and the highest quarter of them, and so may not show a "
        "single game that is lost; where the mean of all differs, it stands beside it."
    )  # fmt: skip
    return f"{unit}; {how}.{middle} {', '.join(result.games)}."


def games_table(result: Comparison) -> list[tuple[str, ...]]:
    """Per game: score at the end and, in brackets, what was forgotten; means over seeds."""
    out = [("at the end (forgotten)", *result.games)]
    of_several = any(m.alone != result.alone for m in result.methods if m.alone)
    for m in result.methods if of_several else result.methods[:1]:
        if m.alone:
            name = f"{m.name} alone" if of_several else "alone"
            out.append((name, *(two_digits(m.alone.get(g)) for g in result.games)))
    for m in result.methods:
        end, lost = m.figures["average"].by_game, m.figures["forgetting"]
        cells = []
        for g in result.games:
            gone = two_digits(lost.by_game.get(g), signed=True) if lost else "-"
            cells.append(f"{two_digits(end[g])} ({gone})")
        out.append((m.name, *cells))
    return out


def cost_table(result: Comparison) -> list[tuple[str, ...]]:
    """Time and bytes; times beside the first method's in brackets."""
    parts = [p for p in PARTS if any(m.costs[f"bytes/{p}"] for m in result.methods)]
    head = ("", "minutes", "agent steps/s", "peak MB", *(f"{p} MB" for p in parts), "sum MB")
    base = result.methods[0].costs["agent_steps_per_s"]
    out = [head]
    for m in result.methods:
        c = m.costs
        rate = _number(c["agent_steps_per_s"], 0)
        if base and c["agent_steps_per_s"] and m is not result.methods[0]:
            rate += f" ({base / c['agent_steps_per_s']:.2f}x the time)"
        sizes = [c[f"bytes/{p}"] for p in parts] + [c["bytes"]]
        cells = [_number(s, 1, 1e6) for s in sizes]
        minutes, peak = _number(c["seconds"], 1, 60), _number(c["peak_memory_mb"], 0)
        out.append((m.name, minutes, rate, peak, *cells))
    return out


# -- the page -------------------------------------------------------------------------------------
def _page(result: Comparison, images: dict[str, bytes], command: str) -> str:
    shown = [f for f in FIGURES if any(m.figures[f] for m in result.methods)]
    budget = short(max(r.log.last_step for m in result.methods for r in m.runs))
    said = (
        f"{', '.join(result.games)}; {len(result.methods[0].metrics[0].visits)} visits, "
        f"{budget} agent steps; {sum(len(m.runs) for m in result.methods)} runs"
    )
    title = f"Comparison of {len(result.methods)} method{'s' * (len(result.methods) > 1)}"
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="faint">{escape(said)}</p>',
        *(f'<p class="note">{escape(note)}</p>' for note in result.notes),
        table(rows(result), "small", strong=_best(result)),
        f'<p class="faint">{escape(_legend(result))} Bold: the best of a column; '
        "P(better) whose interval leaves out 0.5.</p>",
        table(
            [("figure", "meaning"), *((f.replace("_", " "), MEANINGS[f]) for f in shown)], "words"
        ),
        "<h2>Forgetting curves</h2>",
        _shown(images, "curves"),
        "<h2>Figures with intervals</h2>",
        _shown(images, "figures"),
        table(games_table(result), "small"),
        "<h2>Task by time</h2>",
        _shown(images, "matrices"),
        "<h2>Score profiles</h2>",
        _shown(images, "profiles"),
        "<h2>Cost</h2>",
        _shown(images, "costs"),
        table(cost_table(result), "small"),
        "<h2>Runs</h2>",
        *_runs(result),
        f'<p class="faint"><code>{escape(command)}</code></p>',
    ]
    return page(title, [part for part in parts if part])


def _shown(images: dict[str, bytes], name: str) -> str:
    return picture(name, images[name], CAPTIONS[name]) if name in images else ""


def _best(result: Comparison) -> set[tuple[int, int]]:
    """(row, column) in `rows` of the best figure in each column, and of every probability of
    improvement whose interval leaves out chance."""
    head = rows(result)[0]
    better = next((c for c, title in enumerate(head) if title.startswith("P(better")), None)
    out = {
        (r, better)
        for r, m in enumerate(result.methods, 1)
        if m.improvement_known and not m.improvement.low <= 0.5 <= m.improvement.high
    }
    for name in FIGURES:
        found = [
            (m.figures[name].iqm, r) for r, m in enumerate(result.methods, 1) if m.figures[name]
        ]
        if len(found) > 1:
            sign = -1 if name in LOWER_IS_BETTER else 1
            out.add((max(found, key=lambda x: sign * x[0])[1], head.index(name.replace("_", " "))))
    return out


def _runs(result: Comparison) -> list[str]:
    """Where the numbers come from: configurations that differ, and folders."""
    apart = differences([m.runs[0].config for m in result.methods])
    head = ("key", *(m.name for m in result.methods))
    body = [(key, *(str(v) for v in values)) for key, values in apart.items()]
    listed = [("run", "method", "seed", "minutes", "commit")]
    for m in result.methods:
        for run in m.runs:
            minutes = _number(run.costs()["seconds"], 1, 60)
            commit = str(run.manifest.get("commit") or "-")[:12]
            listed.append((run.path, m.name, str(run.seed), minutes, commit))
    listed += [(path, "alone", "", "", "") for path in result.references]
    settings = table([head, *body], "small") if body else "<p>Nothing.</p>"
    return [
        f"<details><summary>What differs in the configurations</summary>{settings}</details>",
        f"<details><summary>Folders</summary>{table(listed, 'numbers small')}</details>",
    ]


# -- data -----------------------------------------------------------------------------------------
def as_data(result: Comparison) -> dict:
    """Everything that tables and figures show, as plain data."""
    return {
        "what": f"{SCORES[result.scale]}; iqm with 95 % stratified bootstrap over seeds, null for "
        "a single seed; improvement: P(a run beats one of the first method on a game)",
        "scale": result.scale,
        "games": list(result.games),
        "alone": result.alone,
        "references": [Path(path).name for path in result.references],
        "notes": result.notes,
        "methods": [_method_data(m, result) for m in result.methods],
    }


def _method_data(m: Method, result: Comparison) -> dict:
    p = m.improvement
    return {
        "method": m.name,
        "runs": [run.folder for run in m.runs],
        "seeds": [run.seed for run in m.runs],
        "commits": sorted({str(run.manifest.get("commit")) for run in m.runs}),
        **{name: found._asdict() if found else None for name, found in m.figures.items()},
        "alone": m.alone,
        "share_of_alone": _share(m, result),
        "improvement": None if p is None else {
            "point": p.point, "interval": [p.low, p.high] if m.improvement_known else None},
        "costs": m.costs,
        "visits": [list(v) for v in m.metrics[0].visits],
        "matrices": {str(r.seed): x.level.tolist() for r, x in zip(m.runs, m.metrics)},
        "curves": {
            str(r.seed): {g: [c.steps.tolist(), c.scores.tolist()] for g, c in own.items()}
            for r, own in zip(m.runs, m.curves)
        },
    }  # fmt: skip
