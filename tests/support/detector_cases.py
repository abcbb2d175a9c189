"""Detectors' outputs as their exporters lay them out, each with a decoder that is written down anew.

Outputs are random; ``decode`` gives boxes in pixels and probabilities of one image's.
"""

import numpy as np

H, W = 64, 96
RNG = np.random.default_rng(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cells(stride, middle=0.0):
    """[h w, 2]: the points of a level, row by row."""
    h, w = H // stride, W // stride
    return np.array([((x + middle) * stride, (y + middle) * stride) for y in range(h) for x in range(w)], float)


def around(centre, size):
    return np.concatenate([centre - size / 2, centre + size / 2], -1)


def sides(point, distance):
    return np.concatenate([point - distance[:, :2], point + distance[:, 2:]], -1)


def expected_bins(y, count):
    """The mean of four distributions over 0 .. count - 1."""
    return softmax(y.reshape(len(y), 4, count)) @ np.arange(count)


def rows(n, *shape):
    return RNG.random((n, *shape))


class Case:
    """outputs [N, ...] by name; ``decode(outputs of one image)`` -> boxes [B, 4] in pixels, probabilities [B, C]."""

    labels = ("cat", "dog", "bird")
    batched = True
    explained = None


class NanoDet(Case):
    """[N, B, C + 4 bins], classes behind a sigmoid; nanodet/model/head/nanodet_plus_head.py."""

    strides = (8, 16, 32, 64)
    count = sum((H // s if s < 64 else 1) * -(-W // s) for s in strides)

    def __init__(self):
        self.outputs = {"output": np.concatenate([rows(1, self.count, 3), 4 * rows(1, self.count, 32)], 2)}

    def decode(self, y):
        y = y["output"]
        points = np.concatenate([cells(s) for s in self.strides[:3]] + [np.array([[0.0, 0], [64, 0]])])
        strides = np.concatenate([np.full(len(cells(s)), s) for s in self.strides[:3]] + [np.full(2, 64)])
        return sides(points, expected_bins(y[:, 3:], 8) * strides[:, None]), y[:, :3]


class PicoDet(Case):
    """For each stride classes [N, h w, C] and distributions [N, h w, 4 bins]; PaddleDetection without postprocess."""

    strides = (8, 16, 32)

    def __init__(self):
        self.outputs = {f"transpose_{i}.tmp_0": rows(1, len(cells(s)), 3) for i, s in enumerate(self.strides)}
        self.outputs |= {f"transpose_{i + 3}.tmp_0": 4 * rows(1, len(cells(s)), 32) for i, s in enumerate(self.strides)}

    def decode(self, y):
        boxes = [
            sides(cells(s, 0.5), expected_bins(y[f"transpose_{i + 3}.tmp_0"], 8) * s)
            for i, s in enumerate(self.strides)
        ]
        return np.concatenate(boxes), np.concatenate([y[f"transpose_{i}.tmp_0"] for i in range(3)])


class YuNet(Case):
    """cls, obj, bbox, kps at strides 8, 16, 32; opencv's face_detect.cpp: score sqrt(cls obj), exp of the size."""

    labels = None
    strides = (8, 16, 32)

    def __init__(self):
        self.outputs = {}
        for name, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            for s in self.strides:
                shift = 0.5 if name in ("bbox", "kps") else 0
                self.outputs[f"{name}_{s}"] = rows(1, len(cells(s)), columns) - shift

    def decode(self, y):
        boxes = [around(cells(s) + y[f"bbox_{s}"][:, :2] * s, np.exp(y[f"bbox_{s}"][:, 2:]) * s) for s in self.strides]
        return np.concatenate(boxes), np.concatenate([np.sqrt(y[f"cls_{s}"] * y[f"obj_{s}"]) for s in self.strides])


class Scrfd(Case):
    """score, bbox, kps without an axis of images, two anchors a cell, distances in strides; insightface."""

    labels = None
    batched = False
    strides = (8, 16, 32)

    def __init__(self):
        self.outputs = {}
        for name, columns in (("score", 1), ("bbox", 4), ("kps", 10)):
            for s in self.strides:
                self.outputs[f"{name}_{s}"] = RNG.random((2 * len(cells(s)), columns)) * (1 if columns == 1 else 2)

    def decode(self, y):
        boxes = [sides(np.repeat(cells(s), 2, 0), y[f"bbox_{s}"] * s) for s in self.strides]
        return np.concatenate(boxes), np.concatenate([y[f"score_{s}"] for s in self.strides])


class Fcos(Case):
    """Maps for each level: classes, distances in strides, centerness, before their sigmoid."""

    strides = (8, 16, 32)

    def __init__(self):
        self.outputs = {}
        for s in self.strides:
            h, w = H // s, W // s
            self.outputs[f"cls_logits_{s}"] = RNG.standard_normal((1, 3, h, w)) * 3
            self.outputs[f"bbox_reg_{s}"] = RNG.random((1, 4, h, w)) * 3
            self.outputs[f"centerness_{s}"] = RNG.standard_normal((1, 1, h, w))

    def decode(self, y):
        flat = {name: a.reshape(len(a), -1).T for name, a in y.items()}
        boxes = [sides(cells(s, 0.5), flat[f"bbox_reg_{s}"] * s) for s in self.strides]
        scores = [sigmoid(flat[f"cls_logits_{s}"]) * sigmoid(flat[f"centerness_{s}"]) for s in self.strides]
        return np.concatenate(boxes), np.concatenate(scores)

    @staticmethod
    def logit(y, case):
        flat = {name: a.reshape(len(a), -1).T for name, a in y.items()}
        return np.concatenate([flat[f"cls_logits_{s}"] + flat[f"centerness_{s}"] for s in case.strides])


class RetinaNet(Case):
    """Maps [anchors C, h, w] and [anchors 4, h, w]; what the deltas count from is in no output."""

    strides = (8, 16)

    def __init__(self):
        self.outputs = {}
        for s in self.strides:
            self.outputs[f"score_{s}"] = RNG.random((1, 9 * 3, H // s, W // s))
            self.outputs[f"box_{s}"] = RNG.standard_normal((1, 36, H // s, W // s))

    def decode(self, y):
        scores = [y[f"score_{s}"].reshape(9, 3, -1).transpose(2, 0, 1).reshape(-1, 3) for s in self.strides]
        return None, np.concatenate(scores)


class FastestDet(Case):
    """[N, 5 + C, h, w]: objectness, box, classes behind a softmax; score obj^.6 cls^.4."""

    def __init__(self):
        y = RNG.standard_normal((1, 8, H // 16, W // 16))
        y[:, 0] = sigmoid(y[:, 0])
        y[:, 5:] = softmax(np.moveaxis(y[:, 5:], 1, -1)).transpose(0, 3, 1, 2)
        self.outputs = {"758": y}

    def decode(self, y):
        y = y["758"].reshape(8, -1).T
        boxes = around(cells(16) + np.tanh(y[:, 1:3]) * 16, sigmoid(y[:, 3:5]) * [W, H])
        return boxes, y[:, :1] ** 0.6 * y[:, 5:] ** 0.4


class ChannelsLast(Case):
    """Maps [N, h, w, C] and [N, h, w, 4] of distances in pixels."""

    strides = (8, 16)

    def __init__(self):
        self.outputs = {f"class_{s}": RNG.random((1, H // s, W // s, 3)) for s in self.strides}
        self.outputs |= {f"box_{s}": 90 * RNG.random((1, H // s, W // s, 4)) for s in self.strides}

    def decode(self, y):
        boxes = [sides(cells(s), y[f"box_{s}"].reshape(-1, 4)) for s in self.strides]
        return np.concatenate(boxes), np.concatenate([y[f"class_{s}"].reshape(-1, 3) for s in self.strides])


class YoloMaps(Case):
    """[N, 3, h, w, 5 + C] of three levels, before the sigmoid; the anchors are in no output."""

    strides = (8, 16, 32)

    def __init__(self):
        self.outputs = {f"p{s}": 3 * RNG.standard_normal((1, 3, H // s, W // s, 8)) for s in self.strides}

    def decode(self, y):
        rows = [np.moveaxis(y[f"p{s}"], 0, 2).reshape(-1, 8) for s in self.strides]
        return None, np.concatenate([sigmoid(r[:, 4:5]) * sigmoid(r[:, 5:]) for r in rows])

    @staticmethod
    def logit(y, case):
        rows = np.concatenate([np.moveaxis(y[f"p{s}"], 0, 2).reshape(-1, 8) for s in case.strides])
        return rows[:, 4:5] + rows[:, 5:]


class NanoDetMaps(Case):
    """[N, C + 4 bins, h, w] of three levels, classes behind a sigmoid: NanoDet before its rows are joined."""

    strides = (8, 16, 32)

    def __init__(self):
        self.outputs = {
            f"p{s}": np.concatenate([rows(1, 3, H // s, W // s), 4 * rows(1, 32, H // s, W // s)], 1)
            for s in self.strides
        }

    def decode(self, y):
        each = {s: y[f"p{s}"].reshape(35, -1).T for s in self.strides}
        boxes = [sides(cells(s, 0.5), expected_bins(r[:, 3:], 8) * s) for s, r in each.items()]
        return np.concatenate(boxes), np.concatenate([r[:, :3] for r in each.values()])


class YoloMapsWithoutNames(YoloMaps):
    """[N, 3 (5 + C), h, w]: how many classes there are follows from three anchors a position."""

    labels = None

    def __init__(self):
        self.outputs = {f"p{s}": 3 * RNG.standard_normal((1, 24, H // s, W // s)) for s in self.strides}

    @staticmethod
    def numbers(y):
        return np.concatenate([m.reshape(3, 8, -1).transpose(2, 0, 1).reshape(-1, 8) for m in y.values()])

    def decode(self, y):
        r = self.numbers(y)
        return None, sigmoid(r[:, 4:5]) * sigmoid(r[:, 5:])

    @staticmethod
    def logit(y, case):
        r = case.numbers(y)
        return r[:, 4:5] + r[:, 5:]


class Yolox(Case):
    """[N, B, 5 + C] as exported: offset and logarithm of the size; demo_utils.demo_postprocess decodes."""

    strides = (8, 16, 32)
    count = sum(len(cells(s)) for s in strides)

    def __init__(self):
        self.outputs = {"output": np.concatenate([RNG.standard_normal((1, self.count, 4)), rows(1, self.count, 4)], 2)}

    def decode(self, y):
        y = y["output"]
        points = np.concatenate([cells(s) for s in self.strides])
        strides = np.concatenate([np.full(len(cells(s)), s) for s in self.strides])[:, None]
        return around(points + y[:, :2] * strides, np.exp(y[:, 2:4]) * strides), y[:, 4:5] * y[:, 5:]


class Obb(Case):
    """[N, 4 + C + 1, B]: the angle of the box behind the classes (Ultralytics); the upright box around it."""

    def __init__(self):
        self.outputs = {"output0": np.concatenate([rows(1, 4, 30) * 50 + 5, rows(1, 3, 30), 3 * rows(1, 1, 30) - 1], 1)}

    def decode(self, y):
        y = y["output0"].T
        boxes = []
        for x, c, w, h, a in y[:, [0, 1, 2, 3, 7]]:
            corner = np.array([[dx * w / 2, dy * h / 2] for dx in (-1, 1) for dy in (-1, 1)])
            turned = corner @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + [x, c]
            boxes.append([*turned.min(0), *turned.max(0)])
        return np.array(boxes), y[:, 4:7]


class Pose(Case):
    """[N, 4 + 1 + 3 points, B] (Ultralytics)."""

    labels = ("person",)

    def __init__(self):
        self.outputs = {"output0": np.concatenate([rows(1, 4, 60) * 50 + 5, rows(1, 1, 60), 90 * rows(1, 51, 60)], 1)}

    def decode(self, y):
        y = y["output0"].T
        return around(y[:, :2], y[:, 2:4]), y[:, 4:5]


class PoseEndToEnd(Case):
    """[N, 300, 6 + 3 points]: corners, score, label (YOLO26, exports with nms)."""

    labels = ("person",)

    def __init__(self):
        centre, size = 50 * rows(1, 60, 2) + 5, 9 * rows(1, 60, 2)
        labels = np.zeros((1, 60, 1))
        points = 90 * rows(1, 60, 51)
        self.outputs = {"output0": np.concatenate([centre, centre + size, rows(1, 60, 1), labels, points], 2)}

    def decode(self, y):
        return y["output0"][:, :4], y["output0"][:, 4:5]


class Detr(Case):
    """logits [N, Q, C + 1], the last for no object, and boxes [N, Q, 4]: centre and size as shares (Hugging Face)."""

    def __init__(self):
        logits = 2 * RNG.standard_normal((1, 20, 4))
        logits[:, :, 3] += 3
        self.outputs = {"logits": logits, "pred_boxes": np.concatenate([rows(1, 20, 2), rows(1, 20, 2) / 2], 2)}

    def decode(self, y):
        scale = np.array([W, H])
        boxes = around(y["pred_boxes"][:, :2] * scale, y["pred_boxes"][:, 2:] * scale)
        return boxes, softmax(y["logits"])[:, :3]

    @staticmethod
    def logit(y, case):
        return y["logits"]


class RtDetr(Case):
    """logits [N, Q, C] for a sigmoid, and boxes as above."""

    def __init__(self):
        self.outputs = {
            "logits": 2 * RNG.standard_normal((1, 20, 3)),
            "pred_boxes": np.concatenate([rows(1, 20, 2), rows(1, 20, 2) / 2], 2),
        }

    def decode(self, y):
        return Detr.decode(self, y)[0], sigmoid(y["logits"])

    logit = staticmethod(lambda y, case: y["logits"])


class UltraFace(Case):
    """scores [N, B, 2], the background first, and boxes [N, B, 4] in corners as shares."""

    labels = None

    def __init__(self):
        logits = np.concatenate([rows(1, 40, 1) * 4 + 1, rows(1, 40, 1) * 4], 2)
        first = 0.8 * rows(1, 40, 2)
        self.outputs = {"scores": softmax(logits), "boxes": np.concatenate([first, first + 0.2 * rows(1, 40, 2)], 2)}

    def decode(self, y):
        return y["boxes"] * [W, H, W, H], y["scores"][:, 1:]


class TensorFlow(Case):
    """detection_boxes y0, x0, y1, x1 as shares, detection_scores, detection_classes, num_detections."""

    labels = None
    explained = ("detection_boxes", "detection_scores")

    def __init__(self):
        first = 0.8 * rows(1, 10, 2)
        self.outputs = {
            "detection_boxes": np.concatenate([first, first + 0.2 * rows(1, 10, 2)], 2),
            "detection_scores": np.sort(rows(1, 10))[:, ::-1].copy(),
            "detection_classes": np.arange(10.0)[None] + 1,
            "num_detections": np.array([10.0]),
        }

    def decode(self, y):
        return y["detection_boxes"][:, [1, 0, 3, 2]] * [W, H, W, H], y["detection_scores"][:, None]


class PaddleNms(Case):
    """[B, 6]: label, score, corners; PaddleDetection with its postprocess."""

    batched = False

    def __init__(self):
        first = 40 * RNG.random((9, 2))
        labels, corners = RNG.integers(0, 3, (9, 1)), np.concatenate([first, first + 20 * RNG.random((9, 2))], 1)
        self.outputs = {"multiclass_nms3_0.tmp_0": np.concatenate([labels, RNG.random((9, 1)), corners], 1)}

    def decode(self, y):
        y = y["multiclass_nms3_0.tmp_0"]
        return y[:, 2:], y[:, 1:2]


class Yolov7Nms(Case):
    """[B, 7]: image, corners, label, score; yolov7's --end2end --max-wh."""

    batched = False

    def __init__(self):
        first = 40 * RNG.random((9, 2))
        labels, corners = RNG.integers(0, 3, (9, 1)), np.concatenate([first, first + 20 * RNG.random((9, 2))], 1)
        image = np.zeros((9, 1))
        self.outputs = {"output": np.concatenate([image, corners, labels, RNG.random((9, 1))], 1)}

    def decode(self, y):
        return y["output"][:, 1:5], y["output"][:, 6:]


CASES = {one.__name__: one for one in (
    NanoDet, NanoDetMaps, PicoDet, YuNet, Scrfd, Fcos, RetinaNet, FastestDet, ChannelsLast, YoloMaps,
    YoloMapsWithoutNames, Yolox, Obb, Pose, PoseEndToEnd, Detr, RtDetr, UltraFace, TensorFlow, PaddleNms, Yolov7Nms,
)}  # fmt: skip
