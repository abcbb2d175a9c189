"""What a run cannot measure is tried again when it is mended, and is said, with its reason, in everything it writes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fastcam import Explainer, FastcamError
from fastcam.cli import app
from fastcam.evaluation.class_map import class_map
from fastcam.evaluation.data import open_data
from fastcam.evaluation.protocols import PROTOCOLS
from fastcam.evaluation.protocols.base import Protocol
from fastcam.evaluation.runner import Contestant, evaluate
from fastcam.evaluation.samples import Annotation, Sample
from fastcam_export import export_model
from support.given_samples import Given

DATA = Path(__file__).resolve().parents[2] / "fastcam" / "data"
pytestmark = pytest.mark.xdist_group("evaluation")


def measured(file, data, out=None, protocols=("gt-known",), **how):
    explainer = Explainer(file, exif=data.exif)
    contestant = Contestant("scenes", explainer, class_map(data.labels, explainer.metadata))
    return evaluate(contestant, data, [PROTOCOLS[name]() for name in protocols], out, **how)


def folder_of(tmp_path, count, broken):
    """A folder of pictures, some of which cannot be read."""
    place = tmp_path / "data" / "ring"
    place.mkdir(parents=True)
    for n, sample in enumerate(open_data(f"scenes:{count}").samples()):
        cv2.imwrite(str(place / f"{n}.png"), sample.picture[..., ::-1])
        if n in broken:
            (place / f"{n}.png").write_bytes(b"no picture")
    lines = [f"ring/{n}.png,ring,3,4,40,50" for n in range(count)]
    (tmp_path / "data" / "boxes.csv").write_text("\n".join(["file,class,x0,y0,x1,y1", *lines]))
    return tmp_path / "data"


def mend(folder, *numbers):
    for n in numbers:
        picture = next(s for i, s in enumerate(open_data(f"scenes:{n + 1}").samples()) if i == n).picture
        cv2.imwrite(str(folder / "ring" / f"{n}.png"), picture[..., ::-1])


@pytest.mark.parametrize("limit", [None, 5])
def test_a_picture_that_failed_and_is_mended_is_measured_when_a_run_goes_on(file, tmp_path, limit):
    folder = folder_of(tmp_path, 8, (1, 3, 6))

    def run(out, limit=limit, restart=False):
        return measured(file, open_data(f"folder:{folder}"), out, limit=limit, restart=restart)

    within = [n for n in (1, 3, 6) if limit is None or n < limit]
    first = run(tmp_path / "out")
    journal = tmp_path / "out" / "rows" / "scenes-gradcam.jsonl"
    before = journal.read_bytes()
    assert first.left_out.counts == {"could not be explained": len(within)}
    assert run(tmp_path / "out").to_dict() == first.to_dict() and journal.read_bytes() == before  # nothing has changed
    mend(folder, 1)
    again = run(tmp_path / "out")
    assert again.pictures == first.pictures + 1
    assert again.to_dict() == run(tmp_path / "whole").to_dict() == run(tmp_path / "out").to_dict()
    mend(folder, 3, 6)
    assert run(tmp_path / "out").to_dict() == run(tmp_path / "whole", restart=True).to_dict()
    for some in (4, 2, None):  # pictures that were mended keep their places among the first
        assert run(tmp_path / "out", some).to_dict() == run(None, some).to_dict()


class Refusing(Protocol):
    """Measures no picture whose name it does not like."""

    name = title = "refusing"

    def measure(self, case):
        if case.sample.name in ("b", "c"):
            raise FastcamError(f"{case.sample.name}: not this one")
        return {"iou": {"any": 1.0}}

    def tally(self):
        return PROTOCOLS["gt-known"]().tally()


def test_a_protocol_that_refuses_a_picture_is_counted_and_the_others_go_on(file, tmp_path):
    picture = np.zeros((64, 64, 3), np.uint8)
    data = Given([Sample(name, picture, (Annotation("ring", (0, 0, 9, 9)),)) for name in "abcd"], ("ring",))
    explainer = Explainer(file, exif=False)
    contestant = Contestant("scenes", explainer, class_map(data.labels, explainer.metadata))
    asked = [Refusing(), PROTOCOLS["gt-known"]()]
    with pytest.raises(FastcamError, match="b: not this one"):
        evaluate(contestant, data, asked)
    for _ in range(2):  # the second is read from the journal
        found = evaluate(contestant, data, asked, tmp_path, lenient=True)
        assert found.refused["refusing"].pictures == 2 and found.refused["refusing"].why == "b: not this one"
        assert found.figures["refusing"]["mean IoU of boxes"].n == 2
        assert found.figures["gt-known"]["mean IoU of boxes"].n == found.pictures == 4


def test_all_protocols_measure_what_file_and_data_allow_and_say_what_they_do_not(tmp_path, monkeypatch):
    """Ablation-CAM asks a file of its own, whose weights stay, so that no sanity check can be made of it."""
    monkeypatch.chdir(tmp_path)
    some = {name: PROTOCOLS[name] for name in ("gt-known", "average-drop", "randomisation")}  # all take half a minute
    monkeypatch.setattr("fastcam.evaluation.protocols.PROTOCOLS", some)
    how = {"labels": DATA / "scenes.labels.txt", "preprocess": "imagenet", "check": False}
    export_model(DATA / "scenes.onnx", "scenes.cam.onnx", head="head.onnx", **how)
    given = ["evaluate", "scenes.cam.onnx", "--data", "scenes:2", "--set", "randomisation.depths=1"]
    result = CliRunner().invoke(app, [*given, "-p", "all", "-m", "gradcam,ablationcam"])
    assert result.exit_code == 0, result.output
    said = "randomisation: not measured of any picture by ablationcam: Ablation-CAM asks what lies behind the layer"
    assert said in result.stdout
    for name in ("md", "html"):
        assert said in Path(f"fastcam-evaluation/evaluation.{name}").read_text()
    gradcam, ablation = json.loads(Path("fastcam-evaluation/evaluation.json").read_text())["results"]
    assert not gradcam["not measured"] and gradcam["figures"]["randomisation"]
    assert ablation["not measured"]["randomisation"]["pictures"] == 2 and not ablation["figures"]["randomisation"]
    assert all(ablation["figures"][name] for name in some if name != "randomisation")
    by_name = CliRunner().invoke(app, ["evaluate", *given[1:4], "-p", "randomisation", "-m", "ablationcam", "-o", "b"])
    assert by_name.exit_code == 2 and by_name.stderr.count("\n") == 1 and not list(Path("b").glob("evaluation.*"))


def test_labels_that_the_model_does_not_know_are_counted_in_all_that_is_written(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    lines = ["file,class,x0,y0,x1,y1"]
    for n, label in enumerate(["ring", "dragon", "ring", "dragon", "unicorn"]):
        cv2.imwrite(f"data/{n}.png", np.zeros((64, 64, 3), np.uint8))
        lines.append(f"{n}.png,{label},3,4,40,50")
    lines += ["0.png,dragon,9,9,20,20", "0.png,dragon,1,1,5,5"]  # one picture shows two of them
    Path("data/boxes.csv").write_text("\n".join(lines))
    for _ in range(2):
        result = CliRunner().invoke(app, ["evaluate", str(file), "--data", "folder:data", "-p", "gt-known"])
        assert result.exit_code == 0, result.output
        said = "labels that the model does not know: 2 (dragon in 3 pictures, unicorn in 1 picture)"
        assert said in result.stdout
        assert all(said in Path(f"fastcam-evaluation/evaluation.{name}").read_text() for name in ("md", "html"))
        report = json.loads(Path("fastcam-evaluation/evaluation.json").read_text())["results"][0]
        assert report["unknown labels"] == {"dragon": 3, "unicorn": 1}


def test_tables_name_the_method_and_say_n(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["evaluate", str(file), "--data", "scenes:4", "-p", "gt-known,localization"])
    assert result.exit_code == 0 and "default" not in result.stdout
    first, row = result.stdout.splitlines()[1:3]
    assert first.split()[0] == "gt-known" and first.split()[-1] == "n"
    report = json.loads(Path("fastcam-evaluation/evaluation.json").read_text())["results"][0]
    n = report["figures"]["gt-known"]["mean IoU of boxes"]["n"]
    assert row.split()[0] == report["method"] == "gradcam" and row.split()[-1] == str(n)
