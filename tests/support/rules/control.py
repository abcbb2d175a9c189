"""Cases of If, Loop and Scan: bodies in ONNX's own notation, which take weights from outside."""

import numpy as np
import onnx
from onnx.reference.op_run import OpRun

from support.rules.case import Case, Free, N

S = Free("S", (3, 5))
X = {"x": (N, S), "w": (S,), "c": (N, 1)}
TRUE = np.array(True)


def body(text):
    """A graph whose results and inputs of type float[] have no declared type: it follows from what the body reads."""
    graph = onnx.parser.parse_graph(text)
    untype(graph)
    return graph


def untype(graph):
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.ClearField("type")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                untype(attribute.g)


def branches(then, otherwise):
    return {
        "then_branch": body(f"then () => (float t) {{ {then} }}"),
        "else_branch": body(f"other () => (float e) {{ {otherwise} }}"),
    }


BOTH = branches("p = Mul(a, w) t = Sin(p)", "q = Exp(a) e = Add(q, c)")
NESTED = branches(
    "p = Mul(a, w) t = If (small) <then_branch = i () => (float r) { r = Mul(p, a) }, "
    "else_branch = j () => (float s) { k = Cos(w) s = Add(p, k) }>",
    "e = Identity(a)",
)


def conditional(given, *conditions, wrt=("x", "w", "c")):
    """The condition, made from the sum of x, then the If."""
    made = [(op, list(inputs), [output], {}) for op, *inputs, output in conditions]
    total = ("ReduceSum", ["x"], ["sum"], {"keepdims": 0})
    nodes = (("Tanh", ["x"], ["a"], {}), total, *made, ("If", ["more"], ["y"], given))
    return Case(nodes, X, {"zero": np.zeros(())}, wrt)


MORE, LESS = (("Greater", "sum", "zero", "more"), ("LessOrEqual", "sum", "zero", "more"))
SAME, OTHER = ("Identity", "more", "small"), ("Not", "more", "small")


def conditionals():
    return [
        conditional(BOTH, MORE),
        conditional(BOTH, LESS),
        *(conditional(NESTED, more, small, wrt=("x", "w")) for more in (MORE, LESS) for small in (SAME, OTHER)),
        Case((("Tanh", ["x"], ["a"], {}), ("If", ["yes"], ["y"], BOTH)), X, {"yes": TRUE}, ("x", "w")),
    ]


STEP = """step (int64 i, bool c, float u) => (bool k, float v, float r)
    { k = Identity(c) p = Mul(u, w) v = Sin(p) n = CastLike(i, p) q = Add(p, n) r = Exp(q) }"""
PAIR = """step (int64 i, bool c, float u, float h) => (bool k, float v, float g)
    { last = Constant<value_int = 2>() k = Less(i, last) v = Mul(u, h) g = Sin(u) }"""
CHOICE = """step (int64 i, bool c, float u) => (bool k, float v) { k = Identity(c) v = If (more) <
    then_branch = a () => (float s) { s = Mul(u, w) }, else_branch = b () => (float t) { t = Tanh(u) }> }"""


def loops():
    def loop(nodes, inputs, outputs, text, **constants):
        node = ("Loop", inputs, outputs, {"body": body(text)})
        return Case((*nodes, node), X, {"count": np.array(3), "yes": TRUE, **constants}, ("x", "w"))

    condition = (
        ("ReduceSum", ["x"], ["sum"], {"keepdims": 0}),
        ("Greater", ["sum", "zero"], ["more"], {}),
    )
    return [
        loop((), ["count", "yes", "x"], ["y", "z"], STEP),
        loop((), ["many", "yes", "x", "w"], ["y", "z"], PAIR, many=np.array(100)),
        loop(condition, ["count", "yes", "x"], ["y"], CHOICE, zero=np.zeros(())),
    ]


def scans():
    text = "step (float h, float e) => (float g, float r) { p = Mul(h, e) g = Sin(p) q = Mul(e, w) r = Exp(q) }"
    pair = "step (float e, float f) => (float r) { p = Mul(e, f) r = Tanh(p) }"

    def scan(inputs, shapes, outputs, text, **given):
        given = {"num_scan_inputs": 1, "body": body(text), **given}
        return Case((("Scan", inputs, outputs, given),), shapes, {}, tuple(shapes), tuple(outputs))

    line = {"h": (N,), "x": (4, N), "w": (N,)}
    return [
        scan(["h", "x"], line, ["y", "z"], text),
        scan(["h", "x"], line, ["y", "z"], text, scan_input_directions=[1], scan_output_axes=[-1],
             scan_output_directions=[1]),
        scan(["h", "x"], {**line, "x": (N, 4)}, ["y", "z"], text, scan_input_axes=[-1]),
        scan(["x", "z"], {"x": (N, 5), "z": (5, N)}, ["y"], pair, num_scan_inputs=2, scan_input_axes=[1, 0],
             scan_input_directions=[0, 1], scan_output_axes=[1]),
    ]  # fmt: skip


CASES: dict = {"If": conditionals(), "Loop": loops(), "Scan": scans()}


class Scan(OpRun):
    """With axes and directions, of which the reference evaluator has none."""

    def need_context(self):
        return True

    def _run(self, *args, context=None, body=None, num_scan_inputs=None, scan_input_axes=None,
             scan_input_directions=None, scan_output_axes=None, scan_output_directions=None, **_):  # fmt: skip
        first = len(args) - num_scan_inputs
        state, stacks = list(args[:first]), []
        axes, flags = scan_input_axes or [0] * num_scan_inputs, scan_input_directions or [0] * num_scan_inputs
        sequences = [np.moveaxis(x, axis, 0)[:: -1 if flag else 1] for x, axis, flag in zip(args[first:], axes, flags)]
        for elements in zip(*sequences):
            made = self.body.run(None, {**context, **dict(zip(self.body.input_names, [*state, *elements]))})
            state = made[:first]
            stacks.append(made[first:])
        columns = [np.stack(column) for column in zip(*stacks)]
        axes, flags = scan_output_axes or [0] * len(columns), scan_output_directions or [0] * len(columns)
        results = [np.moveaxis(y[:: -1 if flag else 1], 0, axis) for y, axis, flag in zip(columns, axes, flags)]
        return (*state, *results)


MENDED = [Scan]
