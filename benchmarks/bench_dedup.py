"""What does the choice among near-duplicates cost a document? Seconds and memory of the deciding process.

    python benchmarks/bench_dedup.py [--documents 200000]

Signatures are random; every twentieth document is a copy of another, and every fifth has eight image hashes. The pages
of candidates come from memory: reading them from a run adds about 10 ms for each copy that is found.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import random
import resource
import time

from corpus.config import CleanSettings
from corpus.dedup import find_duplicates
from corpus.rundir import available_cores
from corpus.sketches import PERMUTATIONS, SIGNATURE_IMAGES, PageSketch, Signature


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=200_000)
    args = parser.parse_args()
    draw = random.Random(0)
    ranked: list[Signature] = []
    content: dict[str, str] = {}  # document -> the words of its only page
    before = peak_mb()
    for i in range(args.documents):
        copied = ranked[draw.randrange(i)] if i % 20 == 19 else None
        signature = Signature(
            doc_id=f"{i:016x}",
            num_layer_pages=1,
            minhash=copied.minhash if copied else f"{draw.getrandbits(32 * PERMUTATIONS):0{8 * PERMUTATIONS}x}",
            images=copied.images
            if copied
            else "".join(f"{draw.getrandbits(256):064x}" for _ in range(SIGNATURE_IMAGES * (i % 5 == 0))),
            language="",
        )
        content[signature.doc_id] = content[copied.doc_id] if copied else f"{draw.getrandbits(640):0160x}"
        ranked.append(signature)
    held = peak_mb()
    started = time.perf_counter()
    found = find_duplicates(
        ranked,
        lambda doc_id: [PageSketch(doc_id=doc_id, page=0, image="", words=content[doc_id], text=content[doc_id])],
        CleanSettings(),
    )
    result = {
        "documents": args.documents,
        "duplicates": len(found),
        "seconds": round(time.perf_counter() - started, 1),
        "signatures_mb": held - before,
        "peak_mb": peak_mb(),
        "numpy": importlib.metadata.version("numpy"),
        "machine": f"{platform.machine()}, {available_cores()} cores",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
