"""Pictures as SVG that can be read on light and on dark backgrounds."""

import math
from xml.sax.saxutils import escape

WIDTH = 760
STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #495057 }
.title { font-size: 14px; font-weight: 600 }
.grid { stroke: #868e96; stroke-opacity: .3 }
@media (prefers-color-scheme: dark) { text { fill: #ced4da } }
</style>"""


def short(value):
    """A number in as few characters as a picture has room for."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def picture(title, height, parts):
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{escape(title)}">',
        STYLE, f'<text class="title" x="10" y="20">{escape(title)}</text>', *parts, "</svg>", ""])


def lines(title, labels, series):
    """Lines over labelled places with a logarithmic height; a label may have two lines. `series` is a
    list of (name, colour, dashed, values), where a value may be None."""
    values = [value for *_, points in series for value in points if value]
    if not values:
        return None
    low = math.floor(math.log10(min(values)))
    high = max(math.ceil(math.log10(max(values))), low + 1)
    left, right, top, bottom = 60, WIDTH - 170, 40, 340

    def x_of(place):
        return left + (right - left) * (place + 0.5) / len(labels)

    def y_of(value):
        return bottom - (bottom - top) * (math.log10(value) - low) / (high - low)

    parts = []
    for power in range(low, high + 1):
        y = y_of(10 ** power)
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">'
                     f"{short(10 ** power)}</text>")
    for place, label in enumerate(labels):
        for number, line in enumerate(label.split("\n")):
            parts.append(f'<text x="{x_of(place):.1f}" y="{bottom + 18 + 15 * number}" '
                         f'text-anchor="middle">{escape(line)}</text>')
    names = []
    for name, colour, dashed, points in series:
        at = [(x_of(place), y_of(value)) for place, value in enumerate(points) if value]
        if not at:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        dashes = ' stroke-dasharray="6 4"' if dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" '
                     f'stroke-width="2.5"{dashes}/>')
        parts.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in at)
        names.append((at[-1][1], name, colour))
    # Names stand beside the ends of their lines, as near as they can without touching.
    y = top - 10
    for wanted, name, colour in sorted(names):
        y = max(wanted + 4, y + 16)
        parts.append(f'<text x="{right + 8}" y="{y:.1f}" style="fill:{colour};font-weight:600">'
                     f"{escape(name)}</text>")
    return picture(title, bottom + 40, parts)


def bars(title, rows, unit):
    """Bars from the left, each with its figure; `rows` is a list of (name, colour, value)."""
    if not rows:
        return None
    left, right, step = 150, WIDTH - 120, 24
    longest = max(value for *_, value in rows) or 1
    parts = []
    for number, (name, colour, value) in enumerate(rows):
        y = 36 + step * number
        length = (right - left) * value / longest
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{max(length, 1):.1f}" height="17" '
                     f'fill="{colour}"/>')
        parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 13}">{short(value)}'
                     f"{escape(unit)}</text>")
    return picture(title, 50 + step * len(rows), parts)
