"""Documents to pages to shards, and the `corpus` command line.

ONNX Runtime reports to its makers what it runs, from its import on, unless this variable is set before. What somebody
does with their documents is nobody's business; `ORT_DISABLE_TELEMETRY=0` in the environment allows it.
"""

import os

__version__ = "0.1.0"

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
