"""What asking a model cost, by purpose: a task, or a check such as "closed-book".

Tokens are what the servers counted; a server that does not say counts as 0. Image tokens, which many servers do not
tell apart from the others, are estimated then, and how many of them are estimates is told. Answers that were found
again cost nothing: they count as hits, or as resumed where an earlier attempt of the same run paid for them, whose
requests they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from corpus.errors import DocumentError
from corpus.vision_tokens import FAMILIES, num_image_tokens, snap
from synth.chat import ChatAnswer, PromptPage

ESTIMATED_AS = FAMILIES["qwen2.5-vl"]  # 28 x 28 pixels a token, the unit of `synth.image_tokens`


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Money for a million tokens, in any currency. Image tokens are prompt tokens."""

    prompt: float
    completion: float


@dataclass(slots=True, kw_only=True)
class Spent:
    """The sums of one purpose. A request that was tried three times is one request with two retries."""

    requests: int = 0  # that went to a server, whatever became of them
    cache_hits: int = 0
    resumed: int = 0  # answers found that an earlier attempt of the run paid for; none of the hits
    retries: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # by reason
    prompt_tokens: int = 0
    image_tokens: int = 0  # of the prompt's
    estimated_image_tokens: int = 0  # of the image tokens, those that no server counted
    completion_tokens: int = 0
    seconds: float = 0.0  # from asking to the answer, summed over requests that ran side by side

    def add(self, other: Spent) -> None:
        """Take over another's sums."""
        self.requests += other.requests
        self.cache_hits += other.cache_hits
        self.resumed += other.resumed
        self.retries += other.retries
        self.failures.update(other.failures)
        self.prompt_tokens += other.prompt_tokens
        self.image_tokens += other.image_tokens
        self.estimated_image_tokens += other.estimated_image_tokens
        self.completion_tokens += other.completion_tokens
        self.seconds += other.seconds

    def money(self, prices: Prices) -> float:
        """What the tokens cost."""
        return (self.prompt_tokens * prices.prompt + self.completion_tokens * prices.completion) / 1e6

    def to_dict(self, prices: Prices | None = None) -> dict[str, Any]:
        """For run.json; `money` only with prices."""
        values: dict[str, Any] = {
            "requests": self.requests,
            "cache_hits": self.cache_hits,
            "resumed": self.resumed,
            "retries": self.retries,
            "failures": dict(sorted(self.failures.items())),
            "prompt_tokens": self.prompt_tokens,
            "image_tokens": self.image_tokens,
            "estimated_image_tokens": self.estimated_image_tokens,
            "completion_tokens": self.completion_tokens,
            "seconds": round(self.seconds, 3),
        }
        return {**values, "money": round(self.money(prices), 6)} if prices else values


@dataclass(slots=True)
class Usage:
    """Counters by purpose. Only the event loop's thread may write to one; those of other workers are merged."""

    purposes: dict[str, Spent] = field(default_factory=dict)

    def of(self, purpose: str) -> Spent:
        """The counters of a purpose, from zero where there are none yet."""
        return self.purposes.setdefault(purpose, Spent())

    def hit(self, purpose: str, resumed: bool = False) -> None:
        """An answer was found instead of paid for; `resumed`: an earlier attempt of the run had paid for it."""
        spent = self.of(purpose)
        spent.resumed += resumed
        spent.cache_hits += not resumed

    def retried(self, purpose: str) -> None:
        """A request was sent once more."""
        self.of(purpose).retries += 1

    def answered(self, purpose: str, answer: ChatAnswer, seconds: float, estimated: int = 0) -> None:
        """A server answered; `estimated`: image tokens of the prompt, where it counted none."""
        spent = self.of(purpose)
        spent.requests += 1
        spent.prompt_tokens += answer.prompt_tokens
        spent.image_tokens += answer.image_tokens + estimated
        spent.estimated_image_tokens += estimated
        spent.completion_tokens += answer.completion_tokens
        spent.seconds += seconds

    def failed(self, purpose: str, reason: str, seconds: float) -> None:
        """A request has no answer."""
        spent = self.of(purpose)
        spent.requests += 1
        spent.failures[reason] += 1
        spent.seconds += seconds

    def merge(self, other: Usage) -> None:
        """Take over another's counters."""
        for purpose, spent in other.purposes.items():
            self.of(purpose).add(spent)

    def total(self) -> Spent:
        """The sums over all purposes."""
        total = Spent()
        for spent in self.purposes.values():
            total.add(spent)
        return total

    def to_dict(self, prices: Prices | None = None) -> dict[str, Any]:
        """For run.json: the total, then each purpose by name."""
        by_purpose = {purpose: self.purposes[purpose].to_dict(prices) for purpose in sorted(self.purposes)}
        return {"total": self.total().to_dict(prices), "purposes": by_purpose}


def usage_of(values: Mapping[str, Any]) -> Usage:
    """The counters that `Usage.to_dict` wrote, so that a build that goes on adds to those of the one before."""
    usage = Usage()
    names = {f.name for f in fields(Spent)} - {"failures"}
    for purpose, sums in values.get("purposes", {}).items():
        known = {k: v for k, v in sums.items() if k in names}
        usage.purposes[purpose] = Spent(**known, failures=Counter(sums["failures"]))
    return usage


def recovered(told: Usage, paid: Usage) -> Usage:
    """What a run spent so far.

    Args:
        told: by the run itself, which an attempt that is killed no longer updates.
        paid: the answers of the same run that are kept, whichever attempt paid for them.
    """
    usage = Usage()
    usage.merge(told)
    for purpose, kept in paid.purposes.items():
        spent = usage.of(purpose)
        failed = spent.failures.total()
        if kept.requests > spent.requests - failed:  # else the run kept its answers elsewhere before
            spent.requests = kept.requests + failed
            spent.prompt_tokens, spent.completion_tokens = kept.prompt_tokens, kept.completion_tokens
            spent.image_tokens, spent.estimated_image_tokens = kept.image_tokens, kept.estimated_image_tokens
            spent.seconds = max(spent.seconds, kept.seconds)
    return usage


def estimated_image_tokens(answer: ChatAnswer, pages: Sequence[PromptPage]) -> int:
    """Image tokens of a prompt with these pages whose server told of none; 0 where it did."""
    return 0 if answer.image_tokens else sum(map(_image_tokens, pages))


def _image_tokens(page: PromptPage) -> int:
    try:
        return num_image_tokens(snap(page.height, page.width, ESTIMATED_AS), ESTIMATED_AS)
    except DocumentError:  # too long and narrow for that family
        return max(1, page.height * page.width // ESTIMATED_AS.grid**2)


def projected(spent: Spent, done: float, total: int) -> Spent:
    """What `total` inputs would come to, at the rate of those `done`; answers found again count as if paid."""
    asked = spent.requests + spent.cache_hits + spent.resumed
    paid = asked / spent.requests if spent.requests else 0.0  # tokens of answers that were found are not known
    scale = total / max(1.0, done)
    return Spent(
        requests=round(asked * scale),
        prompt_tokens=round(spent.prompt_tokens * paid * scale),
        image_tokens=round(spent.image_tokens * paid * scale),
        completion_tokens=round(spent.completion_tokens * paid * scale),
        seconds=spent.seconds * paid * scale,
    )
