"""The names of the checks that a question has to pass, cheap ones first.

Apart from `synth.verify`, so that task files and settings can be checked without loading what the checks need.
"""

from __future__ import annotations

TEXT_CHECKS = (
    "format",  # an answer of its format, a question that stands alone
    "evidence-pages",  # inside the segment
    "anchor",  # a section, table or page that the question names, that exists once and holds the evidence
    "answer-in-question",
    "quoted",  # the quotes stand on the evidence pages
    "grounded",  # the answer does
    "arithmetic",  # recomputed from the quotes
    "verbatim",  # the answer of a calculation is not printed
    "duplicate",  # of an earlier question of the document
)
MODEL_CHECKS = ("closed-book", "leakage", "agreement", "ambiguity")  # these need answers of a model
CHECKS = TEXT_CHECKS + MODEL_CHECKS
