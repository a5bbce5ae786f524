"""The figures of the example documents: bar charts, line charts and diagrams, all of them vector graphics."""

from __future__ import annotations

import math

from _markup import Block, cells
from reportlab.graphics.shapes import (
    Circle,
    Drawing,
    Line,
    Polygon,
    PolyLine,
    Rect,
    String,
)
from reportlab.lib.colors import Color, HexColor, black, white

PALETTE = [HexColor(code) for code in ("#1f4e79", "#c8792b", "#5b8c5a", "#8c6bb1")]
GRID = HexColor("#d0d4d8")
TEXT = HexColor("#303438")


def figure(block: Block, width: float) -> Drawing:
    """The drawing of a ``bar``, ``line`` or ``diagram`` block."""
    return diagram(block, width) if block.kind == "diagram" else chart(block, width)


def _axis(values: list[float], from_zero: bool) -> list[float]:
    """Round tick values that span ``values``."""
    low, high = (0.0 if from_zero else min(values)), max(values)
    raw = (high - low) / 5 or 1.0
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    start = math.floor(low / step)
    return [step * i for i in range(start, math.ceil(high / step) + 1)]


def chart(block: Block, width: float, height: float = 172) -> Drawing:
    """A bar or line chart: the header names the series, each row is a category and its values."""
    series = cells(block.lines[0])[1:]
    rows = [cells(line) for line in block.lines[1:]]
    data = [[float(cell) for cell in row[1:]] for row in rows]
    flat = [value for row in data for value in row]
    ticks = _axis(flat, block.kind == "bar" or min(flat) < 0.5 * max(flat))
    left, bottom, top = 44.0, 18.0, height - (26 if len(series) > 1 else 12)
    plot = width - left - 10
    drawing = Drawing(width, height)

    def y_of(value: float) -> float:
        return bottom + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (top - bottom)

    for tick in ticks:
        drawing.add(Line(left, y_of(tick), left + plot, y_of(tick), strokeColor=GRID, strokeWidth=0.5))
        drawing.add(_label(left - 6, y_of(tick) - 3, f"{tick:,.10g}", "end"))
    slot = plot / len(rows)
    for i, row in enumerate(rows):
        drawing.add(_label(left + slot * (i + 0.5), bottom - 13, row[0], "middle"))
    if block.kind == "bar":
        bar = min(34.0, slot * 0.72 / len(series))
        for i, values in enumerate(data):
            x = left + slot * (i + 0.5) - bar * len(series) / 2
            for j, value in enumerate(values):
                rise = y_of(value) - bottom
                fill = {"fillColor": PALETTE[j], "strokeColor": None}
                drawing.add(Rect(x + j * bar, bottom, bar - 1.5, rise, **fill))
                shown = rows[i][j + 1]
                if bar >= 22:
                    drawing.add(_label(x + (j + 0.5) * bar - 0.75, bottom + rise + 3, shown, "middle", 7.5))
    else:
        for j in range(len(series)):
            points = [(left + slot * (i + 0.5), y_of(values[j])) for i, values in enumerate(data)]
            xy = [coordinate for point in points for coordinate in point]
            drawing.add(PolyLine(xy, strokeColor=PALETTE[j], strokeWidth=1.6))
            for x, y in points:
                drawing.add(Circle(x, y, 2.4, fillColor=PALETTE[j], strokeColor=white, strokeWidth=0.5))
            if len(series) == 1:
                for (x, y), row in zip(points, rows, strict=True):
                    drawing.add(_label(x, y + 6, row[1], "middle", 7.5))
    drawing.add(Line(left, bottom, left + plot, bottom, strokeColor=TEXT, strokeWidth=0.8))
    x = left
    for j, name in enumerate(series if len(series) > 1 else ()):
        drawing.add(Rect(x, height - 13, 9, 9, fillColor=PALETTE[j], strokeColor=None))
        drawing.add(_label(x + 13, height - 12, name, "start"))
        x += 34 + 5.2 * len(name)
    return drawing


def diagram(block: Block, width: float) -> Drawing:
    """A line drawing from ``rect``, ``circle``, ``line``, ``arrow``, ``text`` and ``call`` (callout) lines.

    Coordinates are those of a field 500 wide, as high as the shapes need, which is scaled to ``width``.
    """
    scale = width / 500
    parts = [line.split(" ") for line in block.lines]
    height = (max(_reach(part) for part in parts) + 14) * scale
    drawing = Drawing(width, height)
    drawing.add(Rect(0, 0, width, height, fillColor=HexColor("#f6f7f8"), strokeColor=GRID, strokeWidth=0.6))
    for name, *args in parts:
        words = args[2:] if name == "text" else [args.pop(2)] if name == "call" else []
        values = [float(arg) * scale for arg in (args[:2] if name == "text" else args)]
        if name == "text":
            drawing.add(_label(*values, " ".join(words), "start", 9, black))
        elif name == "rect":
            drawing.add(Rect(*values, fillColor=white, strokeColor=TEXT, strokeWidth=1))
        elif name == "circle":
            drawing.add(Circle(*values, fillColor=white, strokeColor=TEXT, strokeWidth=1))
        else:
            colour = {"line": TEXT, "arrow": PALETTE[1], "call": PALETTE[0]}[name]
            drawing.add(Line(*values, strokeColor=colour, strokeWidth=0.7 if name == "call" else 1))
        if name == "arrow":
            drawing.add(_arrowhead(*values))
        if name == "call":
            x, y = values[:2]
            drawing.add(Circle(x, y, 9, fillColor=white, strokeColor=PALETTE[0], strokeWidth=1))
            drawing.add(_label(x, y - 3.2, words[0], "middle", 9, PALETTE[0]))
    return drawing


def _reach(part: list[str]) -> float:
    """How high one shape of a diagram reaches."""
    name, y = part[0], float(part[2])
    if name == "rect":
        return y + float(part[4])
    if name == "circle":
        return y + float(part[3])
    return y + 9 if name in ("text", "call") else max(y, float(part[4]))


def _arrowhead(x1: float, y1: float, x2: float, y2: float) -> Polygon:
    angle = math.atan2(y2 - y1, x2 - x1)
    points = [x2, y2]
    for side in (-0.4, 0.4):
        points += [x2 - 8 * math.cos(angle + side), y2 - 8 * math.sin(angle + side)]
    return Polygon(points, fillColor=PALETTE[1], strokeColor=None)


def _label(x: float, y: float, text: str, anchor: str, size: float = 8.5, colour: Color = TEXT) -> String:
    return String(x, y, text, textAnchor=anchor, fontName="Helvetica", fontSize=size, fillColor=colour)
