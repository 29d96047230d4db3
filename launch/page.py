"""The page of a report: HTML that needs nothing but itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

_CSS = """
:root { color-scheme: light; --ink: #1d2129; --faint: #667085; --line: #e4e6ea; --blue: #0072B2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 1.2rem; background: #f6f7f9; color: var(--ink);
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: .2rem 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p.sub { color: var(--faint); margin: .2rem 0 1rem; overflow-wrap: anywhere; }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.2rem, 1fr)); gap: .6rem; }
.numbers div, figure, details, .wide { background: #fff; border: 1px solid var(--line); border-radius: 8px; }
.numbers div { padding: .5rem .8rem; } .numbers dt { color: var(--faint); font-size: .82rem; }
.numbers dd { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: .8rem; }
figure { margin: 0; padding: .5rem; } figure img { width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: left; border-top: 1px solid var(--line); white-space: nowrap; }
tr:first-child th { border-top: 0; } th { color: var(--faint); font-weight: 600; font-size: .88rem; }
td.number { text-align: right; } th.number { text-align: right; }
details { margin: .6rem 0; padding: .5rem .9rem; } summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .84rem; } a { color: var(--blue); }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .45em; }
footer { color: var(--faint); font-size: .85rem; margin: 2rem 0 1rem; }
"""


def page(title: str, subtitle: str, parts: Sequence[str]) -> str:
    """The whole document; `parts` are HTML already, everything else is escaped here."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="sub">{escape(subtitle)}</p>\n'
        + "\n".join(parts)
        + "\n<footer>Written by <code>yfps report</code>, YellowFin PS.</footer>\n</body></html>\n"
    )


def heading(text: str) -> str:
    """A section's title."""
    return f"<h2>{escape(text)}</h2>"


def numbers(values: Mapping[str, str]) -> str:
    """Named numbers as tiles."""
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
    return f'<dl class="numbers">{tiles}</dl>'


def figures(pictures: Mapping[str, str]) -> str:
    """SVG pictures by what they show, each isolated in an image of its own."""
    blocks = []
    for words, svg in pictures.items():
        data = base64.b64encode(svg.encode()).decode()
        image = f'<img alt="{escape(words, quote=True)}" src="data:image/svg+xml;base64,{data}">'
        blocks.append(f"<figure>{image}</figure>")
    return f'<div class="figures">{"".join(blocks)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[str] = ()) -> str:
    """A table whose first column names the row, with a colour before the name where there is one."""
    columns = "".join(f"<th{_align(index)}>{escape(name)}</th>" for index, name in enumerate(head))
    lines = []
    for number, row in enumerate(rows):
        swatch = f'<span class="swatch" style="background:{colours[number]}"></span>' if number < len(colours) else ""
        cells = "".join(
            f"<td{_align(index)}>{swatch if index == 0 else ''}{escape(cell)}</td>" for index, cell in enumerate(row)
        )
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="wide"><table><tr>{columns}</tr>{"".join(lines)}</table></div>'


def folded(title: str, body: str) -> str:
    """Something that opens on a click; `body` is HTML."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def preformatted(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"


def _align(index: int) -> str:
    return ' class="number"' if index else ""
