"""The wording of questions built from structure, as data: at least three phrasings a pattern, chosen by seed.

`{table}`, `{row}` and the like are filled by the patterns; a phrasing never adds a fact of its own. The
hash of a pattern's phrasings is the `prompt_version` of its questions, so a changed word changes their ids.
"""

from __future__ import annotations

from corpus.records import content_id

FIRST_IS_1 = "counting the first page of the document as page 1"

PHRASINGS: dict[str, tuple[str, ...]] = {
    "table-lookup": (
        "What value is printed in the row {row} and the column {column} of {table}?{unit} {digits}",
        "Look at {table}. Which number is given in the row {row} under the column heading {column}?{unit} {digits}",
        "According to {table}, what is the figure in the row {row} for the column {column}?{unit} {digits}",
    ),
    "table-lookup-two": (
        "Two numbers are wanted. First: the value in the row {row} and the column {column} of "
        "{table}{unit}. Second: the value in the row {row2} and the column {column2} of "
        "{table2}{unit2}. Answer with a list of the two numbers in this order. {digits}",
        "Find two values: (1) in {table}{unit}, the row {row}, column {column}; (2) in {table2}{unit2},"
        " the row {row2}, column {column2}. List both numbers in this order. {digits}",
        "List the two numbers that are printed (1) in the row {row} and the column {column} of "
        "{table}{unit}, and (2) in the row {row2} and the column {column2} of {table2}{unit2}. {digits}",
    ),
    "heading-page": (
        'On which page of the document does the heading or title "{title}" stand, {first_is_1}?',
        'Give the number of the page that carries the heading or title "{title}", {first_is_1}.',
        'Where in the document is the heading or title "{title}"? Answer with the page number, {first_is_1}.',
    ),
    "heading-pages": (
        "On which pages of the document do the following headings or titles stand: {titles}? Answer with a list "
        "of page numbers in this order, {first_is_1}.",
        "Give, in this order, the numbers of the pages that carry the headings or titles {titles}, {first_is_1}. "
        "Answer with a list.",
        "Find the headings or titles {titles}. List the page number of each in this order, {first_is_1}.",
    ),
    "caption-text": (
        'What is the caption of {label}? Give its full text without the words "{label}".',
        'How does the document caption {label}? Quote the caption in full, leaving out "{label}" itself.',
        'Find {label} and copy its caption, without "{label}".',
    ),
    "caption-pages": (
        "On which pages of the document do the captions of {labels} stand? Answer with a list of page numbers in this "
        "order, {first_is_1}.",
        "Give, in this order, the numbers of the pages that carry the captions of {labels}, {first_is_1}. "
        "Answer with a list.",
        "Find the captions of {labels}. List the page number of each in this order, {first_is_1}.",
    ),
    "list-item": (
        "What does item {number} of the numbered list under the heading {heading} say? Quote it in "
        "full, without its number.",
        "Quote item {number} of the numbered list that stands under the heading {heading}, without its number.",
        "Under the heading {heading} there is a numbered list. Copy its item {number}, without the number.",
    ),
    "subsections": (
        'Which subsections does the section "{title}" have? List the titles of those directly below it,'
        " in the order of the document.",
        'List the titles of the subsections one level below the section "{title}", in the order of the document.',
        'The section "{title}" is divided into subsections. What are the titles of those directly below'
        " it? Answer with a list.",
    ),
    "subsection-count": (
        'How many subsections does the section "{title}" have directly below it?',
        'Into how many subsections, one level below it, is the section "{title}" divided?',
        'Count the subsections directly below the section "{title}". How many are there?',
    ),
    "heading-distance": (
        'How many pages after the page with the heading or title "{title}" does the heading or title "{later}" stand? '
        "(Two headings on consecutive pages are 1 page apart.)",
        'The heading or title "{title}" comes before the heading or title "{later}". How many pages lie from the page '
        "of the first to the page of the second? (A heading on the very next page is 1 page away.)",
        'By how many pages do the headings or titles "{title}" and "{later}" lie apart? (Subtract the page number'
        " of the first from that of the second.)",
    ),
    "list-count": (
        "How many items does the numbered list under the heading {heading} have?",
        "Count the items of the numbered list that stands under the heading {heading}. How many are there?",
        "Under the heading {heading} there is a numbered list. How many items does it have?",
    ),
    "difference-columns": (
        "In {table}, what is the value in the row {row} and the column {column} minus the value in the "
        "same row and the column {column2}?{unit} {digits}",
        "Look at the row {row} of {table}. Subtract the value in the column {column2} from the value in"
        " the column {column}. What is the result?{unit} {digits}",
        "Take the row {row} of {table} and compute the number in the column {column} minus the number "
        "in the column {column2}.{unit} {digits}",
    ),
    "difference-rows": (
        "In the column {column} of {table}, what is the value in the row {row} minus the value in the "
        "row {row2}?{unit} {digits}",
        "Look at the column {column} of {table}. Subtract the value in the row {row2} from the value in"
        " the row {row}. What is the result?{unit} {digits}",
        "Take the column {column} of {table} and compute the number in the row {row} minus the number "
        "in the row {row2}.{unit} {digits}",
    ),
    "sum-rows": (
        "In the column {column} of {table}, what is the sum of the values in the rows {row} and {row2}?{unit} {digits}",
        "Add the values in the rows {row} and {row2} of {table}, both from the column {column}. What is"
        " the result?{unit} {digits}",
        "Look at the column {column} of {table}. How much are the rows {row} and {row2} together?{unit} {digits}",
    ),
    "percent-change": (
        "In {table}, by what percentage does the value in the row {row} change from the column "
        "{column2} to the column {column}, relative to the column {column2}? {rounding}",
        "Look at the row {row} of {table}. Compute the percentage change from the value in the column "
        "{column2} to the value in the column {column}, with the former as the base. {rounding}",
        "From the column {column2} to the column {column} of {table}, what is the percentage change of "
        "the value in the row {row} (base: the column {column2})? {rounding}",
    ),
    "rows-above": (
        "In {table}, how many rows show a value greater than {threshold} in the column {column}? Count "
        "every row with a number in that column, totals included; a number in parentheses is "
        "negative.{unit}",
        "Look at the column {column} of {table}. How many of its rows, totals included, hold a number "
        "greater than {threshold}? A number in parentheses is negative.{unit}",
        "Count the rows of {table}, totals included, whose value in the column {column} is greater than"
        " {threshold} (a number in parentheses is negative). How many are there?{unit}",
    ),
    "rows-increased": (
        "In {table}, in how many rows, totals included, is the value in the column {column} greater "
        "than the value in the column {column2}? A number in parentheses is negative.",
        "Compare the columns {column} and {column2} of {table} row by row, totals included. In how many"
        " rows is the number in the column {column} the greater one? A number in parentheses is "
        "negative.",
        "Count the rows of {table}, totals included, in which the column {column} shows a greater "
        "number than the column {column2} (a number in parentheses is negative). How many are there?",
    ),
    "range-column": (
        "In {table}, what is the largest value in the column {column} minus the smallest value in that "
        "column, totals included? A number in parentheses is negative.{unit} {digits}",
        "Look at the column {column} of {table}, totals included. By how much does its largest number "
        "exceed its smallest? A number in parentheses is negative.{unit} {digits}",
        "Find the largest and the smallest number in the column {column} of {table}, totals included, "
        "and subtract the second from the first. A number in parentheses is negative.{unit} {digits}",
    ),
    "ocr-full": (
        "Transcribe the full text of {pages} in reading order, {first_is_1}. {layout}",
        "Write out all the text on {pages}, {first_is_1}, in reading order. {layout}",
        "What is the complete text of {pages}, {first_is_1}? Transcribe it in reading order. {layout}",
    ),
    "ocr-needle": (
        "Transcribe the text of {pages} in reading order, {first_is_1}. {layout}",
        "Write out all the text on {pages} and on no other page, {first_is_1}, in reading order. {layout}",
        "Find {pages}, {first_is_1}, and transcribe the text in reading order. {layout}",
    ),
}

VERSIONS = {pattern: content_id(phrasings) for pattern, phrasings in PHRASINGS.items()}
