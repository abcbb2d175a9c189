"""Bad input at the command line: exit code 2, one line on stderr (what is wrong, what to do), and nothing written."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from fastcam.cli import app
from fastcam.schema import preset
from support.models.contract_model import brightness_model, random_model

IMAGE = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 16, 16])
SCORES = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])


def network(middle=(), inputs=(), outputs=(SCORES,), opset=18, image=IMAGE, end=(), features="x"):
    """image -> conv -> "features" -> relu -> "x" -> (middle) -> mean -> linear -> scores, as a ModelProto."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(4, 3, 3, 3)), "head": rng.normal(size=(4, 5)), "head3": rng.normal(size=(4, 3))}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["features"], name="stem/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["x"], name="stem/relu"),
        *middle,
        helper.make_node("GlobalAveragePool", [features], ["mean"], name="mean_node"),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["scores"], name="linear"),
        helper.make_node("MatMul", ["flat", "head3"], ["more"], name="second"),
        *end,
    ]
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "network", [image, *inputs], list(outputs), tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("my.company", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def node(operator, *inputs, output="y", domain="", **attributes):
    return helper.make_node(operator, list(inputs), [output], name=f"{operator.lower()}_1", domain=domain, **attributes)


def models():
    """Models with one thing wrong each, by file name."""
    batch_norm = node("BatchNormalization", "x", "one", "one", "zero", "one", training_mode=1)
    batch_norm.output.extend(["m", "v"])
    made = {
        "plain.onnx": network(),
        "custom.onnx": network([node("Magic", "x", domain="my.company")], features="y"),
        # the way around the unknown operator must not be taken for the whole gradient
        "bypassed.onnx": network(
            [node("Magic", "x", domain="my.company", output="m"), node("Add", "x", "m")], features="y"
        ),
        "rounded.onnx": network(
            [node("Cast", "x", output="i", to=TensorProto.INT32), node("Cast", "i", to=TensorProto.FLOAT)], features="y"
        ),
        "named.onnx": network([node("Magic", "x", domain="my.company")], outputs=[value("y", ["N", 4])]),
        "side.onnx": network(
            [node("Sigmoid", "features", output="side")], outputs=[SCORES, value("side", ["N", 4, 16, 16])]
        ),
        "old.onnx": network(opset=6),
        "future.onnx": network(opset=onnx.defs.onnx_opset_version() + 1),
        "map_only.onnx": network(outputs=[value("x", ["N", 4, 16, 16])]),
        "two_heads.onnx": network(
            outputs=[value("p", ["N", 5]), value("other", ["N", 3])],
            end=[node("Softmax", "scores", output="p"), node("Softmax", "more", output="other")],
        ),
        "vector.onnx": network(image=value("image", ["N", 3])),
        "two_inputs.onnx": network([node("Add", "x", "bias")], inputs=[value("bias", ["N", 4, 1, 1])], features="y"),
        "contradiction.onnx": network(image=value("image", ["N", 5, 16, 16])),
        "undefined.onnx": network([node("Relu", "nowhere")], features="y"),
        "misspelt.onnx": network([node("Rellu", "x")], features="y"),
        "training.onnx": network([batch_norm], features="y"),
        "no_nodes.onnx": helper.make_model(helper.make_graph([], "g", [IMAGE], [IMAGE])),
    }
    for name in ("one", "zero"):
        made["training.onnx"].graph.initializer.append(
            numpy_helper.from_array(np.full(4, name == "one", np.float32), name)
        )
    return made


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A folder with everything that can be wrong, made once; no test writes into it."""
    folder = tmp_path_factory.mktemp("bench")
    for name, model in models().items():
        (folder / name).write_bytes(model.SerializeToString())
    plain = (folder / "plain.onnx").read_bytes()
    exported = brightness_model((64, 64), preset("unit", size=(64, 64)), labels=("bright", "dark"))
    (folder / "done.cam.onnx").write_bytes(exported.file())
    (folder / "contract.onnx").write_bytes(random_model().file(metadata=False))
    (folder / "text.onnx").write_text("this is no model\n")
    (folder / "empty.onnx").write_bytes(b"")
    for share in (10, 50, 95):
        (folder / f"short{share}.onnx").write_bytes(plain[: len(plain) * share // 100])
    for name in ("gone", "cut"):
        where = {"save_as_external_data": True, "location": f"{name}.data", "size_threshold": 100}
        onnx.save_model(onnx.load(folder / "plain.onnx"), folder / f"{name}.onnx", **where)
    (folder / "gone.data").unlink()
    (folder / "cut.data").write_bytes((folder / "cut.data").read_bytes()[:50])
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "photo.png"), photo)
    (folder / "photo.onnx").write_bytes((folder / "photo.png").read_bytes())
    (folder / "text.jpg").write_text("this is no picture\n")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "short.png").write_bytes((folder / "photo.png").read_bytes()[:500])
    (folder / "flat.bmp").write_bytes(zero_by_zero_bmp())
    (folder / "flat.pgm").write_bytes(b"P5 0 0 255\n")
    (folder / "three.txt").write_text("a\nb\nc\n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8" * 4)
    (folder / "nothing").mkdir()
    return folder


def zero_by_zero_bmp():
    header = b"BM" + (54).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    return header + (40).to_bytes(4, "little") + bytes(8) + b"\x01\x00\x18\x00" + bytes(24)


# arguments -> what the line must say: what is wrong, and what to do
BAD = {
    "export text.onnx": ("text.onnx", "not an ONNX model"),
    "export empty.onnx": ("empty.onnx", "not an ONNX model"),
    "export photo.onnx": ("photo.onnx", "not an ONNX model"),
    "export nothing": ("nothing", "directory"),
    "export absent.onnx": ("absent.onnx", "No such file"),
    "export short10.onnx": ("short10.onnx", "truncated", "copy it again"),
    "export short50.onnx": ("short50.onnx", "truncated", "copy it again"),
    "export short95.onnx": ("short95.onnx", "truncated", "copy it again"),
    "export no_nodes.onnx": ("no_nodes.onnx", "no graph", "give the .onnx file"),
    "export gone.onnx": ("gone.onnx keeps weights in another file", "gone.data", "put it beside gone.onnx"),
    "export cut.onnx": ("cut.onnx keeps weights in another file", "copy that file again"),
    "export plain.onnx --layer featurs": ("'featurs'", "nearest is 'features'", "fastcam inspect"),
    "export plain.onnx --layer stem/rellu": ("nearest is 'stem/relu'",),
    "export plain.onnx --layer flat": ("'flat'", "[N, K, h, w]", "fastcam inspect"),
    "export plain.onnx --layer image": ("image", "fastcam inspect"),
    "export side.onnx --layer side": ("'scores'", "cannot be reached from layer 'side'", "fastcam inspect"),
    "export named.onnx --layer x": ("no gradient rule", "Magic", "choose a layer"),
    "export custom.onnx --layer x": ("cannot differentiate", "Magic", "choose a layer after it"),
    "export custom.onnx": ("Magic", "fastcam inspect"),
    "export bypassed.onnx": ("cannot differentiate", "Magic"),
    "export misspelt.onnx": ("not a valid ONNX graph", "Rellu", "export it again"),
    "export undefined.onnx": ("not a valid ONNX graph", "nowhere", "export it again"),
    "export rounded.onnx": ("does not depend on the image", "Cast 'cast_1' gives INT32", "--output-name"),
    "export contradiction.onnx": ("cannot run the model itself on image [2, 5, 16, 16]", "repair the model"),
    "export training.onnx": ("BatchNormalization", "training mode", "inference mode"),
    "export old.onnx": ("old.onnx has opset 6", "oldest", "convert it first"),
    "export future.onnx": ("future.onnx has opset", "pip install -U onnx"),
    "export plain.onnx --output-name score": ("no output 'score'", "nearest is 'scores'"),
    "export plain.onnx --layout NHWD": ("--layout", "NHWC"),
    "export plain.onnx --layout tokens": ("layout tokens (N, L, C)", "'x' [N, 4, 16, 16]"),
    "export plain.onnx --grid 4x4": ("grid are for token sequences",),
    "export plain.onnx --grid 4by4": ("--grid", "14x14"),
    "export two_heads.onnx": ("several outputs may be the class scores", "p [N, 5], other [N, 3]", "--output-name"),
    "export vector.onnx": ("no image input", "four axes"),
    "export done.cam.onnx": ("done.cam.onnx was already exported", "export the original model"),
    "export plain.onnx --labels three.txt": ("3 labels", "5 classes", "one"),
    "export plain.onnx --labels absent.txt": ("absent.txt", "No such file"),
    "export plain.onnx --labels binary.txt": ("binary.txt", "UTF-8"),
    "export plain.onnx --preprocess imagnet": ("'imagnet'", "imagenet, tf"),
    "export plain.onnx --resize squash": ("--resize", "letterbox", "fastcam export --help"),
    "export plain.onnx --emit all": ("--emit", "gradients"),
    "export plain.onnx --targets never": ("--targets", "constant"),
    "export plain.onnx --score odds": ("--score", "probability"),
    "export plain.onnx -o photo.png/out.onnx": ("photo.png/out.onnx", "Not a directory"),
    "export plain.onnx -o absent/out.onnx": ("absent/out.onnx", "there is no such folder"),
    "export plain.onnx -o nothing": ("nothing", "it is a folder"),
    "export plain.onnx -o plain.onnx": ("plain.onnx", "it is read"),
    "export": ("MODEL.onnx", "fastcam export --help"),
    "inspect text.onnx": ("text.onnx", "not an ONNX model"),
    "inspect plain.onnx --output-name y": ("no output 'y'",),
    "explain plain.onnx photo.png": ("plain.onnx was not exported by FastCAM", "fastcam export plain.onnx"),
    "explain text.onnx photo.png": ("text.onnx: not an ONNX file",),
    "explain done.cam.onnx text.jpg": ("text.jpg: not a picture", "JPEG"),
    "explain done.cam.onnx empty.jpg": ("empty.jpg: not a picture",),
    "explain done.cam.onnx short.png": ("short.png: the picture is cut short", "copy it again"),
    "explain done.cam.onnx flat.bmp": ("flat.bmp: not a picture",),
    "explain done.cam.onnx flat.pgm": ("flat.pgm: not a picture",),
    "explain done.cam.onnx plain.onnx": ("plain.onnx: not a picture",),
    "explain done.cam.onnx photo.png -t 2": ("class 2 is out of range", "0 to 1"),
    "explain done.cam.onnx photo.png -t -3": ("class -3 is out of range",),
    "explain done.cam.onnx photo.png -t brigt": ("no class 'brigt'", "'bright'"),
    "explain done.cam.onnx photo.png -t 99999999999999999999": ("out of range",),
    "explain done.cam.onnx photo.png --labels three.txt": ("3 labels", "2 classes"),
    "explain done.cam.onnx photo.png -o photo.png": ("photo.png: cannot be written", "it is read"),
    "explain done.cam.onnx photo.png -o photo.png/deep/er": ("cannot be written",),
    "explain done.cam.onnx photo.png --threshold nan": ("threshold",),
    "explain done.cam.onnx nothing": ("no pictures in this folder",),
    "demo -o photo.png/deep": ("cannot be written",),
}
if os.path.isdir("/proc"):  # a folder that even root cannot write to
    BAD["export plain.onnx -o /proc/out.onnx"] = ("/proc/out.onnx: cannot be written",)
    BAD["explain done.cam.onnx photo.png -o /proc/out"] = ("/proc/out: cannot be written", "another output folder")
    BAD["demo -o /proc/out"] = ("/proc/out: cannot be written",)


def listing(folder):
    """Every file below a folder with its content, so that an overwritten one is noticed."""
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_clear_line_and_nothing_is_written(bench, monkeypatch, line):
    monkeypatch.chdir(bench)
    before = listing(bench)
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2, (result.exception, result.output)
    assert result.stdout == ""
    assert result.stderr.startswith("fastcam: ") and result.stderr.count("\n") == 1, result.stderr
    for word in BAD[line]:
        assert word in result.stderr, result.stderr
    assert len(result.stderr) < 400, result.stderr
    assert listing(bench) == before


@pytest.mark.parametrize(
    "line",
    [
        "export text.onnx",
        "export cut.onnx",
        "export plain.onnx --layer featurs",
        "export contradiction.onnx",
        "explain gone.onnx photo.png",
        "explain done.cam.onnx short.png",
    ],
)
def test_nothing_but_the_line_reaches_a_terminal(bench, line):
    """In a process of its own: libraries under us print on their own to stderr."""
    before = listing(bench)
    command = [sys.executable, "-m", "fastcam", *line.split()]
    result = subprocess.run(command, capture_output=True, text=True, cwd=bench, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("fastcam: ") and result.stderr.count("\n") == 1, result.stderr
    assert listing(bench) == before


def test_an_operator_without_a_rule_does_not_matter_before_the_layer(bench, tmp_path, monkeypatch):
    """inspect counts it, and the default layer behind it exports."""
    model = network(
        [
            node("Inverse", "x", output="d", domain="com.microsoft"),
            node("Add", "x", "d"),
            node("Relu", "y", output="z"),
        ],
        features="z",
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.value_info.append(value("d", ["N", 4, 16, 16]))
    onnx.save_model(model, tmp_path / "detour.onnx")
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["inspect", "detour.onnx"])
    assert shown.exit_code == 0 and "operators without a gradient rule: Inverse (1)" in shown.stdout, shown.output
    done = CliRunner().invoke(app, ["export", "detour.onnx"])
    assert done.exit_code == 0 and (tmp_path / "detour.cam.onnx").exists(), done.output


def test_a_second_input_exports_and_the_command_asks_for_its_value(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", str(bench / "two_inputs.onnx"), "-o", "two.onnx", "--preprocess", "unit"])
    assert done.exit_code == 0, done.output
    assert "fastcam explain two.onnx PICTURE --input-value bias=VALUE" in done.stdout
    refused = CliRunner().invoke(app, ["explain", "two.onnx", str(bench / "photo.png")])
    assert refused.exit_code == 2 and "needs a value for its input 'bias'" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["two.onnx"]


@pytest.mark.parametrize(("emit", "name"), [("gradients", "backward"), ("weights", "pooled_gradient")])
def test_a_check_that_fails_writes_nothing(bench, tmp_path, monkeypatch, emit, name):
    """A wrong gradient is caught by central differences, and no file appears."""
    from fastcam_export.outputs import cam

    right = getattr(cam, name)

    def wrong(*arguments):
        op, found = arguments[0], right(*arguments)
        scale = np.array(1.1, np.float32)
        if isinstance(found, dict):
            return {value: op.Mul(gradient, scale) for value, gradient in found.items()}
        return op.Mul(found, scale)

    monkeypatch.setattr(cam, name, wrong)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", str(bench / "plain.onnx"), "-o", "out.onnx", "--emit", emit])
    assert result.exit_code == 2 and "the check failed: the gradient" in result.stderr, result.output
    assert result.stderr.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_what_was_there_survives_a_failed_export(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.onnx").write_bytes(b"precious")
    assert CliRunner().invoke(app, ["export", str(bench / "custom.onnx"), "-o", "out.onnx"]).exit_code == 2
    assert (tmp_path / "out.onnx").read_bytes() == b"precious"


def test_only_the_check_of_an_export_needs_onnx_runtime(tmp_path):
    """With the extra ``export`` alone: everything but the check works, and the check says what it needs."""
    onnx.save_model(network(), tmp_path / "model.onnx")
    code = """
import sys
sys.modules["onnxruntime"] = None  # as where it is not installed
import fastcam_export
print(*(layer.name for layer in fastcam_export.inspect_model("model.onnx").layers if layer.chosen))
print(fastcam_export.export_model("model.onnx", "unchecked.onnx", check=False).metadata.layer.value)
fastcam_export.vjp("model.onnx", wrt=["image"], of=["scores"])
try:
    fastcam_export.export_model("model.onnx", "checked.onnx")
except fastcam_export.exporter.FastcamError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    default, layer, line = result.stdout.splitlines()
    assert default == layer == "x"
    assert line.startswith("an export runs the model to check its own result, and ONNX Runtime is not installed; run: ")
    assert not (tmp_path / "checked.onnx").exists()
