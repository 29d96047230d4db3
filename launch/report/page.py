"""The page of a report: HTML that needs nothing but itself, and may load nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources

from plotly.offline import get_plotlyjs

from launch.report.chart import Chart, Key
from launch.report.curves import COLOURS, DASHES
from launch.report.smoothing import Smoothing

_STROKES = dict(zip(DASHES, ("solid", "dashed", "dotted", "double"), strict=True))
_MANY = 3


def page(title: str, subtitle: str, parts: Sequence[str], data: str) -> str:
    """The whole document; `parts` are HTML and `data` is JSON already, everything else is escaped here.

    The browser is told to load nothing, and to run no script but plotly's and the page's own.
    """
    scripts = (get_plotlyjs(), _file("page.js"))
    allowed = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {allowed}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{_file('page.css')}</style></head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n"
        + (f'<p class="sub">{escape(subtitle)}</p>\n' if subtitle else "")
        + '<p id="trouble" hidden></p>\n'
        + "\n".join(parts)
        + "\n<footer>Written by <code>yfps report</code>, YellowFin PS.</footer>\n"
        + f'<script type="application/json" id="data">{data}</script>\n'
        + "".join(f"<script>{script}</script>\n" for script in scripts)
        + "</body></html>\n"
    )


def _file(name: str) -> str:
    return resources.files("launch.report").joinpath(name).read_text(encoding="utf-8")


def heading(text: str) -> str:
    """A section's title."""
    return f"<h2>{escape(text)}</h2>"


def note(text: str) -> str:
    """A remark."""
    return f'<p class="note">{escape(text)}</p>'


def numbers(values: Mapping[str, str]) -> str:
    """Named numbers as tiles."""
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
    return f'<dl class="numbers">{tiles}</dl>'


def pictures(stills: Mapping[str, str]) -> str:
    """SVG pictures by what they show, each isolated in an image of its own, for a browser that runs no scripts."""
    blocks = []
    for words, svg in stills.items():
        data = base64.b64encode(svg.encode()).decode()
        image = f'<img alt="{escape(words, quote=True)}" src="data:image/svg+xml;base64,{data}">'
        blocks.append(f'<figure class="still">{image}</figure>')
    return f'<noscript><div class="stills">{"".join(blocks)}</div></noscript>'


def controls(smoothing: Smoothing, names: Sequence[str]) -> str:
    """What holds for all charts: x axis, smoothing and, of several runs, which are shown."""
    labels = {window: f"{window:,} updates" if window > 1 else "none" for window in smoothing.choices}
    windows = "".join(
        f'<option value="{window}"{" selected" if window == smoothing.usual else ""}>{label}</option>'
        for window, label in labels.items()
    )
    over = '<option value="updates">updates</option><option value="seconds">seconds</option>'
    chips = "".join(
        f'<button type="button" aria-pressed="true" data-tag="run:{index}">{stroke(index)}{escape(name)}</button>'
        for index, name in enumerate(names)
    )
    if len(names) > _MANY:
        chips += '<button type="button" data-every="show">all</button><button type="button" data-every="">none</button>'
    return (
        f'<div class="controls interactive"><label>x axis <select data-choose="over">{over}</select></label>'
        f'<label>smoothing <select data-choose="window">{windows}</select></label>'
        + (f'<div class="chips">{chips}</div>' if chips else "")
        + "</div>"
    )


def charts(drawn: Iterable[Chart]) -> str:
    """Places for charts, each with its switches; the page's script draws them."""
    return f'<div class="charts interactive">{"".join(_chart(chart) for chart in drawn)}</div>'


def _chart(chart: Chart) -> str:
    across = " across" if chart.wide else ""
    title = f"<h3>{escape(chart.title)}</h3>"
    if chart.empty:
        body = '<p class="nothing">nothing measured</p>'
        return f'<figure class="chart{across}"><figcaption>{title}</figcaption>{body}</figure>'
    checked = " checked" if chart.log else ""
    log = f'<label><input type="checkbox" data-log="{chart.key}"{checked}>logarithmic</label>'
    tools = "" if chart.log is None else log
    tools += f'<button type="button" data-csv="{chart.key}">CSV</button>'
    tools += f'<button type="button" data-png="{chart.key}">PNG</button>'
    keys = f'<div class="chips">{"".join(_key(key) for key in chart.keys)}</div>' if chart.keys else ""
    plot = f'<div class="plot" data-chart="{chart.key}" role="img" aria-label="{escape(chart.title)}"></div>'
    head = f'<figcaption>{title}<span class="tools">{tools}</span></figcaption>'
    return f'<figure class="chart{across}">{head}{keys}{plot}</figure>'


def _key(key: Key) -> str:
    colour = "var(--faint)" if key.colour is None else f"var(--run-{key.colour})"
    line = f'<span class="stroke" style="border-color:{colour};border-top-style:{_STROKES[key.dash]}"></span>'
    return f'<button type="button" aria-pressed="true" data-tag="{key.tag}">{line}{escape(key.label)}</button>'


def stroke(index: int) -> str:
    """A piece of the line that run number `index` is drawn with."""
    colour, style = f"var(--run-{index % COLOURS})", _STROKES[DASHES[index // COLOURS % len(DASHES)]]
    return f'<span class="stroke" style="border-color:{colour};border-top-style:{style}"></span>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, runs: str = "", words: bool = False) -> str:
    """A table whose first column names the row.

    runs: where the runs stand, whose lines go before their names: "rows", or "columns" after the first.
    words: the cells are words rather than numbers.
    """
    cells = [
        f"<th>{stroke(index - 1) if runs == 'columns' and index else ''}{escape(name)}</th>"
        for index, name in enumerate(head)
    ]
    lines = [f"<tr>{''.join(cells)}</tr>"]
    for number, row in enumerate(rows):
        before = stroke(number) if runs == "rows" else ""
        cells = [f"<td>{'' if index else before}{escape(cell)}</td>" for index, cell in enumerate(row)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table{" class=words" if words else ""}>{"".join(lines)}</table></div>'


def folded(title: str, body: str) -> str:
    """Something that opens on a click; `body` is HTML."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def preformatted(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"
