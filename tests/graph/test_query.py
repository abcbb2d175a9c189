"""What modules ask of a graph, answered in one place: bodies, absent inputs, free dimensions, names with the prefix."""

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import fastcam_export
from fastcam import schema
from fastcam_export.graph import query

FLOAT = TensorProto.FLOAT
ADDED = f"{schema.PREFIX}two"


def body(name, *nodes, output):
    return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(output, FLOAT, None)])


def graph():
    """x -> a -> b -> If (its bodies read a, outer and, two bodies deep, b) -> y; ``aside`` hangs on nothing but w."""
    deep = helper.make_node(
        "If",
        ["flag"],
        ["chosen"],
        then_branch=body("deep", helper.make_node("Neg", ["b"], ["n"]), output="n"),
        else_branch=body("same", helper.make_node("Identity", ["a"], ["s"]), output="s"),
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "one"),
        helper.make_node("Clip", ["a", "", "w"], ["b"], ADDED),
        helper.make_node("Neg", ["w"], ["aside"], "three"),
        helper.make_node(
            "If",
            ["flag"],
            ["y"],
            "four",
            then_branch=body("then", helper.make_node("Add", ["a", "outer"], ["sum"]), output="sum"),
            else_branch=body("else", deep, helper.make_node("Neg", ["chosen"], ["m"]), output="m"),
        ),
    ]
    inputs = [
        helper.make_tensor_value_info("x", FLOAT, ["N", 3, None]),
        helper.make_tensor_value_info("outer", FLOAT, None),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        inputs,
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [helper.make_tensor("w", FLOAT, [], [2.0])],
    )
    return ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)).graph


@pytest.fixture
def known():
    """(nodes by name, values by name)"""
    whole = graph()
    return {node.name: node for node in whole}, ir.convenience.create_value_mapping(whole, include_subgraphs=False)


def names(values):
    return [value.name for value in values]


def test_bodies_read_from_outside_but_not_what_they_compute(known):
    nodes, _ = known
    assert names(query.captured(nodes["four"])) == ["flag", "a", "b", "a", "outer"]
    assert names(query.captured(nodes["one"])) == []
    assert [inner.name for inner in query.subgraphs(nodes["four"])] == ["else", "then"]


def test_a_node_reads_its_given_inputs_and_then_its_bodies(known):
    nodes, _ = known
    assert names(query.reads(nodes[ADDED])) == ["a", "w"]
    assert names(query.reads(nodes["four"])) == ["flag", "flag", "a", "b", "a", "outer"]


def test_inputs_that_are_left_out_are_none(known):
    nodes, values = known
    assert [query.input_at(nodes[ADDED], i) for i in range(4)] == [values["a"], None, values["w"], None]


def test_dependents_are_reached_through_bodies_too(known):
    nodes, values = known
    assert query.dependents(nodes.values(), [values["b"]]) == {values["b"], values["y"]}
    assert query.dependents(nodes.values(), [values["w"]]) == {values[name] for name in ("w", "b", "aside", "y")}


def test_consumers_by_input_and_by_body(known):
    nodes, values = known
    readers = query.consumers(nodes.values())
    found = [(node.name, index) for node, index in readers[values["a"]]]
    assert found == [(ADDED, 0), ("four", -1), ("four", -1)]


def test_the_only_consumer_is_one_of_the_model_and_no_output(known):
    nodes, values = known
    assert query.only_consumer(values["x"]) is nodes["one"]
    assert query.only_consumer(values["w"]) is nodes["three"]  # the Clip is FastCAM's
    assert query.only_consumer(values["y"]) is None
    values["x"].graph.outputs.append(values["x"])
    assert query.only_consumer(values["x"]) is None


def test_what_is_added_is_told_by_its_name(known):
    nodes, values = known
    assert query.is_added(nodes[ADDED]) and not query.is_added(nodes["one"])
    assert query.is_added(onnx.NodeProto(name=f"{schema.PREFIX}x")) and not query.is_added(onnx.NodeProto())
    assert query.is_added(onnx.ValueInfoProto(name=schema.TARGETS)) and not query.is_added(ir.Value())
    assert not query.is_added(values["x"])


def test_names_are_asked_for_the_prefix_in_one_place():
    asking = [p.name for p in Path(fastcam_export.__file__).parent.rglob("*.py") if "PREFIX)" in p.read_text("utf-8")]
    assert [name for name in asking if name != "cam.py"] == ["query.py"]  # cam.py takes the prefix off


@pytest.mark.parametrize(
    ("domain", "own", "name"),
    [("", True, "Relu"), ("ai.onnx", True, "Relu"), ("com.microsoft", False, "com.microsoft.Relu")],
)
def test_operators_of_other_domains_go_by_both_names(domain, own, name):
    node = ir.Node(domain, "Relu", [])
    assert query.in_default_domain(node) is own
    assert query.qualified_op_type(node) == name


def test_shapes_in_three_forms(known):
    _, values = known
    x, unknown = values["x"], values["outer"]
    assert (query.dims_of(x), query.dims_of(unknown), query.dims_of(None)) == (("N", 3, None), (), ())
    assert (query.known_dims(x), query.known_dims(unknown)) == ([None, 3, None], None)
    assert (query.readable_dims(x), query.readable_dims(unknown)) == (("N", 3, "?"), ())
