"""Row labels of a table: wrapped ones are left out, children carry their group's name.

What a label means depends on the lines around it, and geometry decides little: a text line above a number
may be the group, or the first half of the label. So a label is kept only where one reading is left.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Sequence

from corpus.layout import Region
from corpus.table_words import FOOTNOTE, PARENT, YEAR, TextRow

GLUED_FOOTNOTE = re.compile(r"[a-z)][0-9]$")
# Names that say nothing without the group above them.
CHILD = re.compile(
    r"(?:basic|diluted|other|others|total|subtotal|net|amount|low|high|percent(?:age)? (?:change|of .*)|% .*|"
    r"as a (?:%|percent(?:age)?) of .*|(?:percent(?:age)?|increase|decrease|change|growth)\b.{0,20})",
    re.IGNORECASE,
)
TOTAL = re.compile(r"(?:sub)?total\b", re.IGNORECASE)


def row_labels(body: Sequence[TextRow], region: Region, em: float) -> list[str]:
    """The full label of each line; '' for a line without numbers or with a label in doubt."""
    reach = max((line.label_box[2] for line in body if line.label_box and line.numeric), default=0.0)
    wrapped = {bisect(region.row_lines, line.y) for line in body if not line.numeric}
    labels = []
    for i, line in enumerate(body):
        before = body[i - 1] if i else None
        after = body[i + 1] if i + 1 < len(body) else None
        usable = (
            line.numeric
            and line.label_box is not None
            and bisect(region.row_lines, line.y) not in wrapped
            and not (after and not after.numeric and _continues(line, after, reach, em))
            and not (before and not before.numeric and _continues(before, line, reach, em))
        )
        labels.append(_full_label(body, i, em) if usable else "")
    return labels


def _continues(upper: TextRow, lower: TextRow, reach: float, em: float) -> bool:
    """Whether the lower label may be the rest of the upper one: its first word had no room left above."""
    if upper.label_box is None or lower.label_box is None or upper.label.endswith(":"):
        return False
    if lower.label[:1].islower() or upper.label.endswith(
        (",", "-", "\u2013", " and", " of", " the", " to", " for", " in")
    ):
        return True
    first_word = next(t for t in lower.tokens if not t.value).words[0].box
    return upper.label_box[2] + 0.25 * em + (first_word[2] - first_word[0]) > reach - 0.25 * em


def _full_label(body: Sequence[TextRow], at: int, em: float) -> str:
    """The label with its group's, '' where the group is in doubt."""
    line = body[at]
    label = FOOTNOTE.sub("", line.label).rstrip(" :")
    if len(re.sub(r"[^A-Za-z]", "", label)) < 3 and not YEAR.fullmatch(label):
        return ""
    if (
        label[:1].islower()
        or re.match(r"\(?[0-9a-z*]\)", label)
        or GLUED_FOOTNOTE.search(label)
        or len(label) > 140
        or PARENT.strip() in label
    ):
        return ""
    parent = _parent(body, at, em)
    if parent is None:
        return "" if CHILD.fullmatch(label) and not _is_last_total(body, at, label) else label
    name = FOOTNOTE.sub("", parent.label).rstrip(" :")
    if not parent.numeric:
        if TOTAL.match(label) and len(label.split()) > 1:
            return label
        return f"{name}{PARENT}{label}" if 3 <= len(name) <= 140 and not name[0].islower() else ""
    if TOTAL.match(label):
        return label if len(label.split()) > 1 or _is_last_total(body, at, label) else ""
    child = CHILD.fullmatch(label) and _only_children(body, parent, at)
    return f"{name}{PARENT}{label}" if child and len(name) <= 140 else ""


def _parent(body: Sequence[TextRow], at: int, em: float) -> TextRow | None:
    """The nearest line above with a smaller indent; or, for "Basic" and its like, the group named just above."""
    line = body[at]
    if line.label_box is None:
        return None
    indent = line.label_box[0]
    for above in reversed(body[:at]):
        if above.label_box is None:
            continue
        if above.label_box[0] < indent - 0.3 * em:
            return above
        if not above.numeric and abs(above.label_box[0] - indent) <= 0.3 * em:
            return above if CHILD.fullmatch(line.label) and _only_children(body, above, at) else None
    return None


def _only_children(body: Sequence[TextRow], group: TextRow, at: int) -> bool:
    start = next(i for i, line in enumerate(body) if line is group)
    return all(CHILD.fullmatch(line.label) for line in body[start + 1 : at])


def _is_last_total(body: Sequence[TextRow], at: int, label: str) -> bool:
    """A bare "Total" is the table's own where it closes the table and no other stands above it."""
    return (
        label.casefold() == "total"
        and not any(line.numeric for line in body[at + 1 :])
        and not any(TOTAL.match(line.label) or not line.numeric for line in body[:at])
    )
