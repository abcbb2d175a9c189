"""The export step: rewrites a vision model in ONNX so that it explains itself.

>>> from fastcam_export import export_model
>>> export_model("resnet50.onnx", "resnet50.cam.onnx", preprocess="imagenet")  # doctest: +SKIP
"""

from fastcam_export.artifacts.slim import write_slim
from fastcam_export.artifacts.triton.repository import folders as triton_folders
from fastcam_export.artifacts.triton.repository import write_repository as write_triton_repository
from fastcam_export.autodiff.core.errors import UnsupportedOperator
from fastcam_export.captioner import export_captioner
from fastcam_export.exporter import export_model, inspect_model
from fastcam_export.from_torch import from_torch
from fastcam_export.result import Export, InspectedLayer, InspectedValue, Inspection
from fastcam_export.summary import exported
from fastcam_export.vjp import vjp

__all__ = [
    "Export",
    "InspectedLayer",
    "InspectedValue",
    "Inspection",
    "UnsupportedOperator",
    "export_captioner",
    "export_model",
    "exported",
    "from_torch",
    "inspect_model",
    "triton_folders",
    "vjp",
    "write_slim",
    "write_triton_repository",
]
