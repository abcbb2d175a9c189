"""Weights in other files are read inside the model's folder only, whoever reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from fastcam import Explainer, FastcamError
from fastcam_export import export_model
from support.models import small_models

SECRET = "secret.bin"


def pointing(model: onnx.ModelProto, location: str, folder: Path) -> Path:
    """The model in ``folder``, with its largest weight in another file, which is there beside the folder."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    weight = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    data = numpy_helper.to_array(weight).tobytes()
    (folder.parent / SECRET).write_bytes(data)
    weight.ClearField("raw_data"), weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        weight.external_data.add(key=key, value=value)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


WAYS: dict[str, Callable[[Path], str]] = {
    "above": lambda folder: f"../{SECRET}",
    "through a folder": lambda folder: f"inner/../../{SECRET}",
    "absolute": lambda folder: str(folder.parent / SECRET),
    "a link": lambda folder: "link.bin",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("read", ["export", "explain"])
def test_a_path_that_leads_out_is_refused(way: str, read: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "link.bin").symlink_to(tmp_path / SECRET)
    plain: Any = small_models.classifier()
    model = plain if read == "export" else export_model(plain, check=False).model
    file = pointing(model, WAYS[way](folder), folder)
    with pytest.raises(FastcamError) as error:
        export_model(file, check=False) if read == "export" else Explainer(file)
    assert "\n" not in str(error.value)
