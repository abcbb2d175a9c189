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
                "Relu", self.conv(previous, 3 if step == 8 else 8, 8, step), name=f"p{stride}"
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


def yolo_v8():
    """[1, 4 + C, B] of current Ultralytics exports."""
    n = Network()
    boxes, scores = n.split(n.flat(4 + 3), 4, 3)
    n.give(n.node("Concat", n.centres(boxes), n.node("Sigmoid", scores), axis=1), "output0", 7, BOXES)
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
