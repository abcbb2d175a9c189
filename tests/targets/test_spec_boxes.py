"""Boxes in words, on small detectors whose heads have the layouts of real ones, against PyTorch autograd."""

import io
import warnings

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

import torch
from torch import nn

from fastcam import Explainer, FastcamError
from fastcam.targets.spec_kinds import kinds_for
from fastcam_bench.oracles import kinks, torch_oracle
from fastcam_bench.oracles.torch_oracle import torchvision
from fastcam_export import export_model

SIDE, CLASSES, STRIDES = 32, 3, (8, 16)
LABELS = ("cat", "dog", "bird")
LAYER = "/features/features.3/Relu_output_0"
CORNERS = [[1, 0, -0.5, 0], [0, 1, 0, -0.5], [1, 0, 0.5, 0], [0, 1, 0, 0.5]]


class Detector(nn.Module):
    """Features, and boxes at two scales: centre, size and class logits (and one more number) of each cell."""

    def __init__(self, more=0):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()
        )  # [N, 12, 4, 4]
        self.down = nn.Conv2d(12, 12, 3, 2, 1)
        self.heads = nn.ModuleList(nn.Conv2d(12, 4 + more + CLASSES, 1) for _ in STRIDES)

    def forward(self, image):
        return self.head(self.features(image))

    def cells(self, f):
        """[N, B, 4 + more + classes], and the cells' centres and strides."""
        rows, where = [], []
        for head, stride, x in zip(self.heads, STRIDES, (f, self.down(f).relu())):
            y = head(x)
            size = SIDE // stride
            rows.append(y.flatten(2).transpose(1, 2))
            grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy"), -1).reshape(-1, 2)
            where.append(torch.cat([(grid + 0.5) * stride, torch.full((size * size, 1), float(stride))], 1))
        return torch.cat(rows, 1), torch.cat(where)

    def boxes(self, f):
        """Centre and size in pixels, scores and whatever is between them."""
        y, where = self.cells(f)
        centre = where[:, :2] + (torch.sigmoid(y[..., :2]) - 0.5) * 2 * where[:, 2:]
        size = (torch.sigmoid(y[..., 2:4]) * 2) ** 2 * where[:, 2:]
        return centre, size, torch.sigmoid(y[..., 4:])


class V5(Detector):
    def __init__(self):
        super().__init__(more=1)

    def head(self, f):
        return torch.cat(self.boxes(f), 2)

    @staticmethod
    def parts(out):
        return out[..., :4] @ torch.tensor(CORNERS).T, out[..., 4:5] * out[..., 5:]


class Detr(Detector):
    def head(self, f):
        return torch.cat(self.boxes(f), 2)

    @staticmethod
    def parts(out):
        return out[..., :4] @ torch.tensor(CORNERS).T, out[..., 4:]


class V8(Detector):
    def head(self, f):
        return torch.cat(self.boxes(f), 2).transpose(1, 2)

    @staticmethod
    def parts(out):
        return Detr.parts(out.transpose(1, 2))


class V8Masks(V8):
    """As of a segmenter: mask coefficients behind the classes."""

    def __init__(self):
        super().__init__(more=2)

    def head(self, f):
        y, _ = self.cells(f)
        centre, size, scores = self.boxes(f)
        return torch.cat([centre, size, scores[..., 2:], y[..., 4:6] * 9], 2).transpose(1, 2)

    @staticmethod
    def parts(out):
        return Detr.parts(out[:, : 4 + CLASSES].transpose(1, 2))


def corners(centre, size):
    return torch.cat([centre - size / 2, centre + size / 2], 2)


class V10(Detector):
    """The best boxes, each with its label, end to end."""

    def head(self, f):
        centre, size, scores = self.boxes(f)
        best, label = scores.max(2)
        values, index = best.topk(14, 1)
        boxes = corners(centre, size).gather(1, index[..., None].expand(-1, -1, 4))
        return torch.cat([boxes, values[..., None], label.gather(1, index)[..., None].float()], 2)

    @staticmethod
    def parts(out):
        labels = torch.arange(CLASSES)
        return out[..., :4], torch.where(out[..., 5:] == labels, out[..., 4:5], -torch.inf)


class PerClass(Detector):
    """Boxes beside scores of all classes, boxes first."""

    def head(self, f):
        centre, size, scores = self.boxes(f)
        return corners(centre, size), scores

    @staticmethod
    def parts(out):
        return out


class Turned(PerClass):
    """As of exports with NonMaxSuppression outside: classes first."""

    def head(self, f):
        boxes, scores = super().head(f)
        return boxes, scores.transpose(1, 2)

    @staticmethod
    def parts(out):
        return out[0], out[1].transpose(1, 2)


class Suppressed(Detector):
    """NonMaxSuppression in the graph: boxes, scores and labels of one image, as many as are left."""

    def head(self, f):
        centre, size, scores = self.boxes(f)
        best, label = scores[0].max(1)
        boxes = corners(centre, size)[0]
        kept = torch.ops.torchvision.nms(boxes, best, 0.3)
        return boxes[kept], best[kept], label[kept]

    @staticmethod
    def parts(out):
        boxes, scores, label = out
        each = torch.where(label[:, None] == torch.arange(CLASSES), scores[:, None], -torch.inf)
        return boxes[None], each[None]


class TwoStages(Suppressed):
    """As R-CNNs: the best boxes are proposals, from which regions of the features are pooled, scored and moved.

    What is pooled does not follow the proposals; the box does.
    """

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(12 * 4, CLASSES + 4)

    def head(self, f):
        centre, size, scores = self.boxes(f)
        best, _ = scores[0].max(1)
        proposals = corners(centre, size)[0][best.topk(6).indices].clamp(0, SIDE)
        rois = torch.cat([torch.zeros(6, 1), proposals.detach()], 1)
        y = self.second(torchvision.ops.roi_align(f, rois, (2, 2), 1 / 8, 2).flatten(1))
        values, label = torch.sigmoid(y[:, :CLASSES] * 3).max(1)
        return proposals + y[:, CLASSES:], values, label


class FloatLabels(Suppressed):
    """As of converters that know one type of number."""

    def head(self, f):
        boxes, scores, label = super().head(f)
        return boxes, scores, label.float()


class NoLabels(Suppressed):
    def head(self, f):
        return super().head(f)[:2]


KINDS = {"v5": V5, "v8": V8, "v8 with masks": V8Masks, "detr": Detr, "v10": V10, "per class": PerClass,
         "turned": Turned, "suppressed": Suppressed, "two stages": TwoStages,
         "float labels": FloatLabels}  # fmt: skip
ONE = ("suppressed", "two stages", "float labels", "no labels")
"""Those of one image."""
NAMES = {
    "per class": ["boxes", "scores"],
    "turned": ["boxes", "scores"],
    **{kind: ["boxes", "scores", "labels"] for kind in ONE},
    "no labels": ["boxes", "scores"],
}


def images(n):
    return torch_oracle.pictures(n, SIDE)


@pytest.fixture(scope="module")
def made():
    """Kind -> the module, and an Explainer of its export (with class names, or without)."""
    found = {}

    def of(kind, labels=LABELS):
        if kind not in found:
            torch_oracle.compiled_operators()
            torch.manual_seed(5)
            module = {**KINDS, "no labels": NoLabels}[kind]().eval()
            for head in module.heads:
                head.weight.data *= 8
            found[kind] = module, to_onnx(module, NAMES.get(kind, ["output"]), 1 if kind in ONE else 2)
        if (kind, labels) not in found:
            module, proto = found[kind]
            names = [name for name in NAMES.get(kind, ["output"]) if name != "labels"]
            export = export_model(
                proto, targets="cotangent", output_name=names, labels=labels, emit="gradients", preprocess="unit",
                layer=LAYER, on_demand=kind not in ("v5", "v8", "v8 with masks", "detr"),
            )  # fmt: skip
            explanation = export.explanation.SerializeToString() if export.explanation is not None else None
            found[kind, labels] = Explainer(export.model.SerializeToString(), explanation=explanation)
        return found[kind][0], found[kind, labels]

    return of


def to_onnx(module, names, n):
    file = io.BytesIO()
    axes = {name: {0: "N"} for name in ("image", *names)} if n > 1 else {name: {0: "n"} for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.from_numpy(images(n)),), file, dynamo=False, opset_version=17, input_names=["image"],
            output_names=names, dynamic_axes=axes,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def expected(module, picture, scalar):
    """Grad-CAM [h, w] of a scalar of (boxes [B, 4], scores [B, classes]) of one picture, and its value."""
    f = module.features(torch.from_numpy(picture[None])).detach().requires_grad_()
    with kinks.away():
        boxes, scores = module.parts(module.head(f))
    value = scalar(boxes[0], scores[0])
    (gradient,) = torch.autograd.grad(value, f)
    return (gradient.mean((2, 3), keepdim=True) * f).sum(1).relu()[0].detach().numpy(), float(value.detach())


def best(scores, c=None, r=1):
    """The box with the r-th highest score (of a class)."""
    return (scores.max(1).values if c is None else scores[:, c]).argsort(descending=True, stable=True)[r - 1]


SPECS = {
    "box:dog": lambda boxes, scores: scores[best(scores, 1), 1],
    "box:cat,x0": lambda boxes, scores: boxes[best(scores, 0), 0],
    "box:dog,y1": lambda boxes, scores: boxes[best(scores, 1), 3],
    "box:dog,score,box=-2": lambda boxes, scores: scores[best(scores, 1, 2), 1],
    "box": lambda boxes, scores: scores.max(),
    "box:x1": lambda boxes, scores: boxes[best(scores), 2],
    "box:x0,box=3": lambda boxes, scores: boxes[3, 0],
    "box:score,box=-2": lambda boxes, scores: scores.max(1).values[best(scores, r=2)],
    "box:bird,y0,box=3": lambda boxes, scores: boxes[3, 1],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_equals_autograd(kind, made):
    """Score and sides of the best box, of the best of a class, of the second best, of a chosen one; all in one call."""
    module, explainer = made(kind)
    pictures = images(2)
    specs = list(SPECS)
    if kind == "two stages":  # few boxes, not of all classes
        specs = ["box", "box:x1", "box:x0,box=3", "box:score,box=-2"]
    e = explainer(pictures, cotangent=specs, method="gradcam")
    for n in range(2):
        for t, spec in enumerate(specs):
            cam, value = expected(module, pictures[n], SPECS[spec])
            assert e.score(n, t) == pytest.approx(value, rel=1e-4), spec
            np.testing.assert_allclose(e.maps[n, t], cam, atol=2e-5 * max(cam.max(), 1e-6), err_msg=spec)
    assert np.count_nonzero(e.maps.max((2, 3))) > len(specs)


def test_boxes_are_named(made):
    _, explainer = made("suppressed")
    e = explainer(images(1), cotangent=["box:dog", "box:x0,y0"])
    k = np.flatnonzero(e.outputs["labels"] == 1)[0]
    assert e.label(0, 0) == f"dog (box {k})"
    assert [e.label(0, t) for t in (1, 2)] == [
        f"{side} of {LABELS[e.outputs['labels'][0]]} (box 0)" for side in ("x0", "y0")
    ]


@pytest.mark.parametrize("kind", ["v8", "v10", "suppressed"])
def test_without_class_names_where_the_layout_is_plain(kind, made):
    e = made(kind, None)[1](images(1), cotangent="box:1")
    assert e.label().startswith("class 1 (box ")
    assert e.score() == pytest.approx(made(kind)[1](images(1), cotangent="box:dog").score())


@pytest.mark.parametrize("kind", ["v5", "detr"])
def test_a_layout_that_may_be_another_has_to_be_said(kind, made):
    explainer = made(kind, None)[1]
    with pytest.raises(FastcamError, match=r"may lie in several ways; say layout=v5 .*detr"):
        explainer(images(1), cotangent="box:1")
    e = explainer(images(1), cotangent=f"box:1,layout={kind}")
    assert e.score() == pytest.approx(made(kind)[1](images(1), cotangent="box:dog").score())


def test_coefficients_of_masks_are_no_scores(made):
    """They are no probabilities, so that names are not needed to know where the scores end."""
    e, named = (made("v8 with masks", *labels)[1] for labels in ((None,), ()))
    assert e(images(1), cotangent="box:1").score() == pytest.approx(named(images(1), cotangent="box:dog").score())


REFUSED = {
    "two classes": ("v8", "box:cat,dog", "one class at a time"),
    "a class": ("v8", "box:horse", "no class 'horse'"),
    "out of range": ("v8", "box:dog,box=99", r"there are 20 such boxes; box is a number from 0, or a rank -1 to -20"),
    "too deep a rank": ("suppressed", "box:dog,box=-20", "such boxes"),
    "corners that are none": ("v8", "box:dog,x0,form=corners", "negative size; add form=centre"),
    "a form": ("v8", "box:dog,x0,form=square", "form is one of corners, centre"),
    "no labels": ("no labels", "box:dog", "no output says labels of these boxes"),
    "no such boxes": ("per class", "box:dog,boxes=scores", "'scores' is no output of boxes"),
    "no such scores": ("per class", "box:dog,scores=none", "which output has the scores of boxes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line(case, made):
    kind, spec, words = REFUSED[case]
    with pytest.raises(FastcamError, match=words) as caught:
        made(kind)[1](images(1), cotangent=spec)
    assert "\n" not in str(caught.value)


def test_no_box_of_a_class_is_refused_with_those_there_are(made):
    module, explainer = made("v10")
    labels = set(module(torch.from_numpy(images(1)))[0, :, 5].int().tolist())
    explainer = made("v10", (*LABELS, "horse"))[1]
    with pytest.raises(FastcamError, match=r"no box of horse; there are boxes of") as caught:
        explainer(images(1), cotangent="box:horse")
    assert all(LABELS[c] in str(caught.value) for c in labels)


def test_what_the_file_does_not_explain_is_refused(made):
    proto = to_onnx(made("suppressed")[0], NAMES["suppressed"], 1)
    export = export_model(proto, targets="cotangent", output_name="scores", labels=LABELS, on_demand=True, check=False)
    explainer = Explainer(export.model.SerializeToString(), explanation=export.explanation.SerializeToString())
    assert explainer(images(1), cotangent="box:dog").label().startswith("dog")
    with pytest.raises(FastcamError, match="does not explain boxes; export again with --output-name boxes as well"):
        explainer(images(1), cotangent="box:dog,x0")


def test_what_a_detector_answers(made):
    """Told by the number of class names; a sequence of words by the same."""
    about = made("v8")[1].metadata.cotangents[0]
    assert (about.shape, kinds_for(about, 3)) == ((7, 20), ["element", "box"])
    assert kinds_for(about, 20) == ["element", "caption", "words"]
    assert kinds_for(about) == ["element", "box", "caption", "words"]
    assert kinds_for(made("suppressed")[1].metadata.cotangents[1]) == ["box", "element"]
