"""Where an experiment writes: a folder of its name."""

from __future__ import annotations

import json

import cv2
import numpy as np

from fastcam_bench.paper.results import write_results


def test_an_experiment_has_a_folder_of_its_name(tmp_path):
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    write_results({"a": 1}, tmp_path / "new", "spirals", lambda report: f"a is {report['a']}\n", {"large": red})
    folder = tmp_path / "new" / "spirals"
    assert {path.name for path in folder.iterdir()} == {"spirals.json", "spirals.md", "large.jpg"}
    assert json.loads((folder / "spirals.json").read_text()) == {"a": 1}
    assert (folder / "spirals.md").read_text() == "a is 1\n"
    blue, green, most = cv2.imread(str(folder / "large.jpg")).mean((0, 1))
    assert most > 240 and max(blue, green) < 15
