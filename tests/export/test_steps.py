"""The steps of an export: a plan changes nothing and may be attached again; the check never reads what was added."""

import dataclasses
import inspect

import numpy as np
import onnx_ir as ir
import pytest

from fastcam import schema
from fastcam.schema import Cotangent, FastcamError
from fastcam_export import export_model
from fastcam_export.graph.load import load
from fastcam_export.steps.attach import attach
from fastcam_export.steps.options import ExportOptions
from fastcam_export.steps.plan import plan
from fastcam_export.verify.finite_differences import LAYER
from fastcam_export.verify.sample import Sample, predicted_class
from fastcam_export.verify.tail import tail
from support.models.pyramid_model import pyramid
from support.models.small_vit import build, to_onnx

FORMS = {
    "plain": {},
    "several": {"layer": "all", "emit": "gradients"},
    "cotangent": {"targets": "cotangent", "emit": "cam"},
    "head and image": {"head": True, "input_gradient": "gradient"},
    "two files": {"on_demand": True, "targets": "required"},
    "frames": {"frames": (20, 30), "preprocess": "imagenet"},
}


def content(proto):
    return proto.SerializeToString(deterministic=True) if proto is not None else b""


@pytest.fixture(scope="module")
def vit():
    return to_onnx(build())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_plan_stays_as_it_is_and_gives_the_same_models_again(form):
    planned = plan(load(pyramid()[0]), ExportOptions(**form))
    before = content(ir.to_proto(planned.loaded.model))
    first, second = attach(planned), attach(planned)
    assert content(ir.to_proto(planned.loaded.model)) == before
    assert content(first.whole) == content(second.whole) and first.values == second.values
    assert content(first.framed) == content(second.framed)


def test_a_copy_reads_free_sides_of_its_own_graph(vit):
    """A token sequence whose grid is known at run time only is measured at values, which a copy has too."""
    planned = plan(load(vit), ExportOptions())
    copied = planned.copy()
    own = {value for node in copied.loaded.model.graph for value in node.outputs} | {*copied.loaded.model.graph.inputs}
    values = [copied.image, copied.target.value, *(layer.value for layer in copied.layers)]
    values += [side[0] for layer in copied.layers for side in layer.layout.measured if side is not None]
    assert own.issuperset(values)
    assert [value.name for value in values[:2]] == [planned.image.name, planned.target.value.name]


def test_the_whole_gradient_of_a_further_layer_is_what_an_export_of_it_alone_emits():
    model = pyramid()[0]
    planned = plan(load(model), ExportOptions(layer=["r3", "r1"], head=True, input_gradient="guided"))
    further = next(layer for layer in planned.layers if layer.number is not None)
    alone = export_model(model, layer="r1", emit="gradients", check=False).model
    del alone.metadata_props[:]
    assert content(attach(planned.of_whole_gradient(further)).whole) == content(alone)


def test_the_tail_of_a_layer_holds_nothing_that_an_export_added():
    planned = plan(load(pyramid()[0]), ExportOptions(layer="all", targets="required"))
    attach(planned)
    for layer in planned.layers:
        part = tail(planned.loaded.model, layer.value, *planned.target.differentiated)
        names = {name for node in part.graph.node for name in (node.name, *node.input, *node.output)}
        assert not any(name.startswith(schema.PREFIX) for name in names)
        assert {value.name for value in part.graph.input} == {"image", LAYER}


def test_the_options_are_the_arguments_of_export_model():
    arguments = list(inspect.signature(export_model).parameters.values())[2:]
    fields = dataclasses.fields(ExportOptions)
    assert [(one.name, one.default) for one in arguments] == [(field.name, field.default) for field in fields]


@pytest.mark.parametrize("option", ["emit", "targets", "score", "for_engine", "input_gradient", "input_gradient_at"])
def test_a_value_that_an_option_cannot_have_is_refused_when_the_options_are_made(option):
    with pytest.raises(FastcamError, match=f"{option} is 'x'; it must be one of: "):
        ExportOptions(**{option: "x"})


def test_a_sample_is_of_one_image_where_an_output_has_no_axis_of_images():
    graph = load(pyramid()[0]).model.graph
    image = graph.inputs[0]
    rows = Cotangent("fastcam.cotangent", "logits", (5,), True)
    whole = Cotangent("fastcam.cotangent", "logits", ("N", 5), False)
    assert Sample.of(graph, image).images == Sample.of(graph, image, [rows]).images == 2
    one = Sample.of(graph, image, [rows, whole])
    assert one.images == 1
    outputs = {"logits": np.array([[4.0, 0, 0, 0, 0]], np.float32)}
    shapes = [array.shape for array in Sample.of(graph, image, [whole]).targets(pyramid()[0], outputs).values()]
    assert shapes == [(1, 1, 1, 5)]
    with pytest.raises(FastcamError, match="its first axis does not count them"):
        Sample.of(graph, image, [rows]).targets(pyramid()[0], outputs)


@pytest.mark.parametrize(("targets", "told"), [("default", {}), ("required", {schema.TARGETS: [[-1]]})])
def test_a_file_is_told_its_targets_where_they_have_no_default(targets, told):
    exported = export_model(pyramid()[0], targets=targets, check=False).model
    assert {name: array.tolist() for name, array in predicted_class(exported).items()} == told
