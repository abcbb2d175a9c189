"""An exported file on ONNX Runtime: in one file or two, with the head beside it, at one of its layers."""

from fastcam.runtime.exported_model.forward import Forward
from fastcam.runtime.exported_model.network import Network

__all__ = ["Forward", "Network"]
