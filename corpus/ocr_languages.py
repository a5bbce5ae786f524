"""Languages that the OCR engines read: one vocabulary (BCP 47) for the names that each engine has of its own.

RapidOCR carries one recogniser, PP-OCRv6 small, whose 18,708 characters serve Latin script, Chinese and Japanese: the
language does not change what it reads, it only says whether it can. PaddleOCR fetches another recogniser for any
other script. The names are those of rapidocr 3.10 and paddleocr 3.7; tests compare both tables with the packages.
"""

from __future__ import annotations

from collections.abc import Mapping

_LATIN = (
    "af az bs ca cs cy da de en es et eu fi fr ga gl hr hu id is it ku la lb lt lv mi ms mt nl no oc pl pt qu rm ro sk "
    "sl sq sv sw tl tr uz vi"
)
_OTHER_SCRIPTS = "ar be bg el fa hi kk ky mk mn mr ne ps ru sa sd ta te tg th tt ug uk ur"

CARRIED: Mapping[str, str] = {
    **{code: code for code in _LATIN.split()},
    "ja": "japan",
    "sr-Latn": "rs_latin",
    "zh": "ch",
    "zh-Hant": "chinese_cht",
}  # our name -> PaddleOCR's, for what the recogniser inside RapidOCR reads
FETCHED: Mapping[str, str] = {
    **{code: code for code in _OTHER_SCRIPTS.split()},
    "ko": "korean",
    "sr-Cyrl": "rs_cyrillic",
}  # and for what needs a recogniser of its own

LANGUAGES: Mapping[str, Mapping[str, str]] = {
    "rapidocr": CARRIED,
    "paddleocr": {**CARRIED, **FETCHED},
}  # by engine
