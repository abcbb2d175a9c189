"""Small networks with the heads of detectors, as their exporters write them: stem, three levels, an output form.

Features are random; what counts is which numbers lie where, and how they were put together.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

H, W = 64, 96
CLASSES = ("cat", "dog", "bird")
STRIDES = (8, 16, 32)


class Network:
    """A graph under construction; every method gives names of values."""

    def __init__(self, seed=0, side=(H, W), batch=1):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.arrays, self.outputs = [], {}, []
        self.side, self.batch = side, batch
        self.levels, previous = {}, "image"
        for stride, step in zip(STRIDES, (8, 2, 2)):
            previous = self.levels[stride] = self.node(
                "Relu", self.conv(previous, 3 if step == 8 else 8, 8, step), name=f"feat{stride}"
            )

    def node(self, kind, *inputs, name=None, count=1, **attributes):
        names = [name or f"{kind.lower()}_{len(self.nodes)}", *(f"more_{len(self.nodes)}_{i}" for i in range(1, count))]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0] if count == 1 else names

    def constant(self, array, kind=np.int64):
        name = f"k{len(self.arrays)}"
        self.arrays[name] = np.asarray(array, kind)
        return name

    def conv(self, x, k_in, k_out, step=1):
        w = self.rng.standard_normal((k_out, k_in, step, step)) * 1.5 / (k_in * step**2) ** 0.5
        bias = self.rng.standard_normal(k_out) * 0.3
        return self.node("Conv", x, self.constant(w, np.float32), self.constant(bias, np.float32), strides=[step, step])

    def reshape(self, x, *shape, name=None):
        return self.node("Reshape", x, self.constant(shape), name=name)

    def head(self, stride, columns):
        """A head of its own: [N, columns, h, w]."""
        return self.conv(self.node("Relu", self.conv(self.levels[stride], 8, 8)), 8, columns)

    def flat(self, columns, anchors=1, strides=STRIDES):
        """[N, columns, B]: heads of all levels, joined."""
        each = []
        for stride in strides:
            rows = self.reshape(self.head(stride, anchors * columns), 0, anchors, columns, -1)
            each.append(self.reshape(self.node("Transpose", rows, perm=[0, 2, 1, 3]), 0, columns, -1))
        return self.node("Concat", *each, axis=2) if len(each) > 1 else each[0]

    def split(self, x, *sizes, axis=1):
        return self.node("Split", x, self.constant(sizes), count=len(sizes), axis=axis)

    def cells(self, anchors=1, middle=0.5):
        """Points [1, 2, B] and strides [1, 1, B]."""
        points, strides = [], []
        for stride in STRIDES:
            y, x = np.mgrid[: self.side[0] // stride, : self.side[1] // stride] + middle
            points += [np.stack([x.ravel(), y.ravel()])] * anchors
            strides += [np.full(x.size, stride)] * anchors
        return self.constant(np.concatenate(points, 1)[None], np.float32), self.constant(
            np.concatenate(strides)[None, None], np.float32
        )

    def centres(self, numbers, anchors=1):
        """Centre and size in pixels of four numbers [N, 4, B], as a YOLO has them."""
        points, strides = self.cells(anchors)
        middle, size = self.split(numbers, 2, 2)
        middle = self.node("Mul", self.node("Add", middle, points), strides)
        size = self.node("Mul", self.node("Exp", size), strides)
        return self.node("Concat", middle, size, axis=1)

    def give(self, x, name, *shape, kind=TensorProto.FLOAT):
        """An output; ``shape`` behind the images, or the whole where it begins with None."""
        self.node("Identity", x, name=name)
        whole = list(shape[1:]) if shape and shape[0] is None else [self.batch, *shape]
        self.outputs.append(helper.make_tensor_value_info(name, kind, whole))

    def model(self):
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [self.batch, 3, *self.side])
        arrays = [numpy_helper.from_array(array, name) for name, array in self.arrays.items()]
        graph = helper.make_graph(self.nodes, "detector", [image], self.outputs, arrays)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


BOXES = sum((H // s) * (W // s) for s in STRIDES)


def rows(n, x, columns):
    """[1, B, columns] of a map."""
    return n.reshape(n.node("Transpose", x, perm=[0, 2, 3, 1]), 1, -1, columns)


def probabilities(n, x, columns, kind="Sigmoid"):
    """[1, B, columns] of [1, columns, B], behind an activation."""
    turned = n.node("Transpose", x, perm=[0, 2, 1])
    return n.node(kind, turned, **({"axis": 2} if kind == "Softmax" else {}))


def ultralytics(*behind):
    """[1, 4 + C + more, B]: (count, activation) of what lies behind the scores."""
    n = Network()
    counts = [3, *(count for count, _ in behind)]
    boxes, *others = n.split(n.flat(4 + sum(counts)), 4, *counts)
    kinds = ["Sigmoid", *(kind for _, kind in behind)]
    parts = [n.centres(boxes), *(n.node(kind, x) for kind, x in zip(kinds, others))]
    n.give(n.node("Concat", *parts, axis=1), "output0", 4 + sum(counts), BOXES)
    return n


def yolo_v8():
    """[1, 4 + C, B] of current Ultralytics exports."""
    return ultralytics().model()


def yolo_obb():
    return ultralytics((1, "Sigmoid")).model()


def yolo_segments():
    """[1, 4 + C + 32, B] and the masks' prototypes [1, 32, h, w]."""
    n = ultralytics((32, "Identity"))
    n.give(n.head(8, 32), "output1", 32, H // 8, W // 8)
    return n.model()


def yolo_pose():
    """[1, 4 + 1 + 17 * 3, B]."""
    n = Network()
    boxes, scores, points = n.split(n.flat(4 + 1 + 51), 4, 1, 51)
    parts = n.centres(boxes), n.node("Sigmoid", scores), n.node("Abs", points)
    n.give(n.node("Concat", *parts, axis=1), "output0", 56, BOXES)
    return n.model()


def yolo_v5():
    """[1, B, 5 + C], three anchors a cell, decoded."""
    n = Network()
    boxes, scores = n.split(n.flat(8, anchors=3), 4, 4)
    joined = n.node("Concat", n.centres(boxes, 3), n.node("Sigmoid", scores), axis=1)
    n.give(n.node("Transpose", joined, perm=[0, 2, 1]), "output0", 3 * BOXES, 8)
    return n.model()


def yolox():
    """[1, B, 5 + C]: offset and logarithm of the size."""
    n = Network()
    boxes, scores = n.split(n.flat(8), 4, 4)
    joined = n.node("Concat", boxes, n.node("Sigmoid", scores), axis=1)
    n.give(n.node("Transpose", joined, perm=[0, 2, 1]), "output", BOXES, 8)
    return n.model()


def yolo_v3(axes=4):
    """Maps [1, 3 (5 + C), h, w] of three levels, or [1, 3, h, w, 5 + C]."""
    n = Network()
    for s in STRIDES:
        x, h, w = n.head(s, 24), H // s, W // s
        if axes == 5:
            x = n.node("Transpose", n.reshape(x, 1, 3, 8, h, w), perm=[0, 1, 3, 4, 2])
        n.give(x, f"p{s}", *((3, h, w, 8) if axes == 5 else (24, h, w)))
    return n.model()


def yolo_v10():
    """[1, 300, 6], the best: corners, score, label."""
    n = Network()
    boxes, scores = n.split(n.flat(7), 4, 3)
    points, strides = n.cells()
    first, last = n.split(n.node("Abs", boxes), 2, 2)
    corners = n.node("Concat", n.node("Sub", points, first), n.node("Add", points, last), axis=1)
    corners = n.node("Transpose", n.node("Mul", corners, strides), perm=[0, 2, 1])
    chances = n.node("Sigmoid", n.node("Transpose", scores, perm=[0, 2, 1]))
    best = n.node("ReduceMax", chances, axes=[2], keepdims=0)
    values, at = n.node("TopK", best, n.constant([20]), count=2, axis=1)
    labels = n.node("Cast", n.node("ArgMax", chances, axis=2, keepdims=0), to=TensorProto.FLOAT)
    labels = n.node("GatherElements", labels, at, axis=1)
    wide = n.node("Expand", n.node("Unsqueeze", at, n.constant([2])), n.constant([1, 20, 4]))
    parts = n.node("GatherElements", corners, wide, axis=1), values, labels
    columns = [parts[0], *(n.node("Unsqueeze", x, n.constant([2])) for x in parts[1:])]
    n.give(n.node("Concat", *columns, axis=2), "output0", 20, 6)
    return n.model()


def detr(kind="Softmax"):
    """logits [1, Q, C (+ 1)] and pred_boxes [1, Q, 4]: queries that attend to the positions of a map."""
    n, classes = Network(), 4 if kind == "Softmax" else 3
    keys = rows(n, n.levels[8], 8)
    queries = n.constant(n.rng.standard_normal((1, 20, 8)), np.float32)
    weights = n.node("Softmax", n.node("MatMul", queries, n.node("Transpose", keys, perm=[0, 2, 1])), axis=2)
    found = n.node("Add", n.node("MatMul", weights, keys), queries)
    for name, columns in (("logits", classes), ("pred_boxes", 4)):
        matrix = n.constant(n.rng.standard_normal((8, columns)), np.float32)
        made = n.node("MatMul", found, matrix)
        n.give(n.node("Sigmoid", made) if name == "pred_boxes" else made, name, 20, columns)
    return n.model()


def rt_detr():
    return detr("Sigmoid")


def ssd(names=("loc", "conf")):
    """Deltas from anchors [1, B, 4], and scores behind a softmax [1, B, C + 1], the background first."""
    n = Network()
    boxes, scores = n.split(n.flat(8), 4, 4)
    n.give(n.node("Transpose", boxes, perm=[0, 2, 1]), names[0], BOXES, 4)
    n.give(probabilities(n, scores, 4, "Softmax"), names[1], BOXES, 4)
    return n.model()


def shares(n, numbers):
    """Corners [1, B, 4] as shares of the sides, of four numbers [1, 4, B]."""
    first, size = n.split(n.node("Sigmoid", numbers), 2, 2)
    return n.node("Transpose", n.node("Concat", first, n.node("Add", first, size), axis=1), perm=[0, 2, 1])


def yolo_v4():
    """Corners as shares [1, B, 1, 4], and scores [1, B, C]."""
    n = Network()
    boxes, scores = n.split(n.flat(7), 4, 3)
    n.give(n.reshape(shares(n, boxes), 1, -1, 1, 4), "boxes", BOXES, 1, 4)
    n.give(probabilities(n, scores, 3), "confs", BOXES, 3)
    return n.model()


def tensorflow():
    """detection_boxes [1, k, 4] (y first), detection_scores and detection_classes [1, k], num_detections."""
    n = Network()
    boxes, scores = n.split(n.flat(7), 4, 3)
    chances = probabilities(n, scores, 3)
    values, at = n.node("TopK", n.node("ReduceMax", chances, axes=[2], keepdims=0), n.constant([20]), count=2, axis=1)
    labels = n.node("Cast", n.node("ArgMax", chances, axis=2, keepdims=0), to=TensorProto.FLOAT)
    wide = n.node("Expand", n.node("Unsqueeze", at, n.constant([2])), n.constant([1, 20, 4]))
    n.give(n.node("GatherElements", shares(n, boxes), wide, axis=1), "detection_boxes", 20, 4)
    n.give(n.node("GatherElements", labels, at, axis=1), "detection_classes", 20)
    n.give(values, "detection_scores", 20)
    n.give(n.constant([20.0], np.float32), "num_detections")
    return n.model()


def ultraface():
    """scores [1, B, 2] behind a softmax, and boxes [1, B, 4]: corners as shares."""
    n = Network()
    boxes, scores = n.split(n.flat(6), 4, 2)
    n.give(probabilities(n, scores, 2, "Softmax"), "scores", BOXES, 2)
    n.give(shares(n, boxes), "boxes", BOXES, 4)
    return n.model()


def fcos():
    """Maps of each level: classes, positive distances, centerness."""
    n = Network()
    for s in STRIDES:
        h, w = H // s, W // s
        n.give(n.head(s, 3), f"cls_logits_{s}", 3, h, w)
        n.give(n.node("Relu", n.head(s, 4)), f"bbox_reg_{s}", 4, h, w)
        n.give(n.head(s, 1), f"centerness_{s}", 1, h, w)
    return n.model()


def retinanet():
    """Maps [9 C, h, w] behind a sigmoid and [9 * 4, h, w] of two levels."""
    n = Network()
    for s in (8, 16):
        scores = n.node("Mul", n.head(s, 27), n.constant(0.3, np.float32))
        n.give(n.node("Sigmoid", scores), f"score_{s}", 27, H // s, W // s)
        n.give(n.head(s, 36), f"box_{s}", 36, H // s, W // s)
    return n.model()


def picodet():
    """Classes [1, h w, C] and distributions [1, h w, 4 bins] of each level."""
    n = Network()
    for i, s in enumerate(STRIDES):
        n.give(n.node("Sigmoid", rows(n, n.head(s, 3), 3)), f"transpose_{i}.tmp_0", H * W // s**2, 3)
    for i, s in enumerate(STRIDES):
        n.give(rows(n, n.head(s, 32), 32), f"transpose_{i + 3}.tmp_0", H * W // s**2, 32)
    return n.model()


def yunet(side=(H, W)):
    """cls, obj, bbox and kps [1, h w, k] of each level."""
    n = Network(side=side)
    for name, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for s in STRIDES:
            x = rows(n, n.head(s, columns), columns)
            n.give(n.node("Sigmoid", x) if columns == 1 else x, f"{name}_{s}", "dim", columns)
    return n.model()


def scrfd():
    """score, bbox, kps of each level without an axis of images, two anchors a cell."""
    n = Network()
    for name, columns in (("score", 1), ("bbox", 4), ("kps", 10)):
        for s in STRIDES:
            x = n.reshape(n.node("Transpose", n.head(s, 2 * columns), perm=[0, 2, 3, 1]), -1, columns)
            x = n.node("Sigmoid", x) if columns == 1 else n.node("Relu", x) if columns == 4 else x
            n.give(x, f"{name}_{s}", None, 2 * H * W // s**2, columns)
    return n.model()


def fastestdet():
    """One map [1, 5 + C, h, w]: objectness, box, classes behind a softmax."""
    n = Network()
    objectness, box, classes = n.split(n.head(16, 8), 1, 4, 3)
    joined = n.node("Concat", n.node("Sigmoid", objectness), box, n.node("Softmax", classes, axis=1), axis=1)
    n.give(joined, "758", 8, H // 16, W // 16)
    return n.model()


def channels_last():
    """Maps [1, h, w, C] behind a sigmoid and [1, h, w, 4] of distances in pixels."""
    n = Network()
    for name, columns in (("class", 3), ("box", 4)):
        for s in (8, 16):
            x = n.node("Transpose", n.head(s, columns), perm=[0, 2, 3, 1])
            x = n.node("Sigmoid", x) if columns == 3 else n.node("Exp", x)
            n.give(x, f"{name}_{s}", H // s, W // s, columns)
    return n.model()


def selected(bias=0.0, threshold=0.3):
    """Boxes [n, 4], scores [n] and labels [n] behind a NonMaxSuppression."""
    n = Network()
    boxes, scores = n.split(n.flat(7), 4, 3)
    boxes = n.node("Transpose", n.centres(n.node("Tanh", boxes)), perm=[0, 2, 1])
    chances = n.node("Sigmoid", n.node("Add", scores, n.constant([bias], np.float32)))
    limits = n.constant([8]), n.constant([0.5], np.float32), n.constant([threshold], np.float32)
    found = n.node("NonMaxSuppression", boxes, chances, *limits, center_point_box=1)
    label, at = (n.node("Gather", found, n.constant(i), axis=1) for i in (1, 2))
    both = n.node("Concat", *(n.node("Unsqueeze", x, n.constant([1])) for x in (label, at)), axis=1)
    first, size = n.split(n.node("Gather", n.node("Squeeze", boxes, n.constant([0])), at), 2, 2)
    half = n.node("Mul", size, n.constant([0.5], np.float32))
    corners = n.node("Concat", n.node("Sub", first, half), n.node("Add", first, half), axis=1)
    n.give(corners, "boxes", None, "n", 4)
    n.give(n.node("GatherND", n.node("Squeeze", chances, n.constant([0])), both), "scores", None, "n")
    n.give(label, "labels", None, "n", kind=TensorProto.INT64)
    return n.model()


def faint(bias=-14.0):
    """Scores [1, B, 1] that are near 1e-6 wherever nothing is found, as a trained detector has them, and boxes."""
    n = Network()
    scores, boxes = n.split(n.flat(5), 1, 4)
    low = n.node("Add", n.node("Mul", scores, n.constant(0.3, np.float32)), n.constant([bias], np.float32))
    n.give(probabilities(n, low, 1), "scores", BOXES, 1)
    n.give(n.node("Transpose", n.centres(boxes), perm=[0, 2, 1]), "boxes", BOXES, 4)
    return n.model()


def stepped():
    """A saliency map of any size that is a multiple of 16: a coarse map is enlarged and added to a finer one."""
    n = Network(side=("height", "width"))
    coarse = n.node("Resize", n.levels[16], "", n.constant([1, 1, 2, 2], np.float32), mode="nearest")
    n.give(n.node("Sigmoid", n.conv(n.node("Add", coarse, n.levels[8]), 8, 1)), "y", 1, "h", "w")
    return n.model()


def segmenter(classes=3):
    """Class maps [1, C, 64, 96]."""
    n = Network()
    scales = n.constant([1, 1, 8, 8], np.float32)
    n.give(n.node("Resize", n.head(8, classes), "", scales, mode="linear"), "masks", classes, H, W)
    return n.model()


def texts(words=5):
    """[1, steps, words], behind a softmax."""
    n = Network()
    row = n.node("Squeeze", n.node("ReduceMean", n.head(8, words), axes=[2], keepdims=0))
    steps = n.reshape(n.node("Transpose", row, perm=[1, 0]), 1, -1, words)
    n.give(n.node("Softmax", steps, axis=2), "text", W // 8, words)
    return n.model()


def picture(seed=0):
    return np.random.default_rng(seed).standard_normal((1, 3, H, W)).astype(np.float32)
