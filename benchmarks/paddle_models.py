"""Model folders for PaddleOCR, made from the ONNX files that RapidOCR carries, so that both run offline on one model.

    python benchmarks/paddle_models.py OUT

writes `OUT/PP-OCRv6_small_det` and `OUT/PP-OCRv6_small_rec`, each with `inference.onnx` and the `inference.yml` that
PaddleOCR reads beside it: how pixels are prepared, and for the recogniser its characters, which RapidOCR's file
carries in its ONNX metadata. OUT is then a folder for `ocr.models`. Tests and benchmarks use it; models are not ours
to publish and are never committed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import rapidocr
import yaml

PACKAGE = Path(rapidocr.__file__).parent


def detector(settings: dict[str, Any]) -> dict[str, Any]:
    """How PaddleOCR prepares a page for the detector, with the normalisation that RapidOCR gives the same model."""
    return {
        "PreProcess": {
            "transform_ops": [
                {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}},
                {"DetResizeForTest": {}},
                {
                    "NormalizeImage": {
                        "mean": settings["mean"],
                        "std": settings["std"],
                        "scale": 1 / 255,
                        "order": "hwc",
                    }
                },
                {"ToCHWImage": None},
            ]
        },
        "PostProcess": {"name": "DBPostProcess"},
    }


def recogniser(settings: dict[str, Any], model: Path) -> dict[str, Any]:
    """How PaddleOCR prepares a line for the recogniser, and which characters its outputs mean."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    characters = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    return {
        "PreProcess": {
            "transform_ops": [
                {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}},
                {"RecResizeImg": {"image_shape": settings["rec_img_shape"]}},
            ]
        },
        "PostProcess": {"name": "CTCLabelDecode", "character_dict": characters},
    }


def write_models(out: Path) -> None:
    """Write both folders into `out`; what is there already is replaced."""
    settings = yaml.safe_load((PACKAGE / "config.yaml").read_text(encoding="utf-8"))
    for kind in ("det", "rec"):
        (model,) = PACKAGE.glob(f"models/PP-OCRv*_{kind}_*.onnx")
        version, _, size = model.stem.split("_")
        name = f"{version}_{size}_{kind}"
        about = detector(settings["Det"]) if kind == "det" else recogniser(settings["Rec"], model)
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model, folder / "inference.onnx")
        text = yaml.safe_dump({"Global": {"model_name": name}, **about}, allow_unicode=True, sort_keys=False)
        (folder / "inference.yml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/paddle_models.py OUT")
    write_models(Path(sys.argv[1]))
