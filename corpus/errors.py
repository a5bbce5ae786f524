"""The three ways in which work can fail, by who can mend it.

A command turns a `ConfigError` into one line and exit code 2, and an `EngineError` into one line and exit
code 1. A `DocumentError` never ends a run: it becomes a row of the ledger.
"""


class LongdocError(Exception):
    """Base of every error that this project raises on purpose."""


class ConfigError(LongdocError):
    """The user's to mend: an option, a config key, a path. The message names the value and the way out."""


class DocumentError(LongdocError):
    """A fault of one document. `reason` is a short fixed slug to count by, `detail` says what was seen."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["DocumentError"], tuple[str, str]]:
        return DocumentError, (self.reason, self.detail)


class EngineError(LongdocError):
    """The outside failed: a disk, an OCR engine, a worker that cannot start. Running again may help."""
