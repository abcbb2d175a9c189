"""The exporter's sessions: they say nothing, their threads sleep, and one place makes them."""

import ast
from pathlib import Path

import numpy as np
import onnx
import pytest

import fastcam_export
from fastcam_export.verify.session import quiet_options, quiet_session
from support.models.small_models import classifier

X = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_it_says_nothing_and_does_not_spin(threads):
    options = quiet_options(threads)
    assert options.log_severity_level == 4
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == (threads or 0)


def test_of_a_model_and_of_a_file(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(classifier(), path)
    each = [quiet_session(given, threads=1) for given in (classifier(), path, str(path))]
    assert [session.get_providers() for session in each] == [["CPUExecutionProvider"]] * 3
    first, *others = (session.run(None, {"image": X})[0] for session in each)
    assert all(np.array_equal(first, other) for other in others)


def test_the_exporter_makes_sessions_in_one_place():
    makers = {
        path.name
        for path in Path(fastcam_export.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("InferenceSession", "SessionOptions")
    }
    assert makers == {"session.py"}
