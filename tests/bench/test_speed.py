"""The measuring loop, its statistics, and the benchmark's verdicts, against formulas and other implementations."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from onnx import TensorProto, helper, numpy_helper

import fastcam
from fastcam.runtime.timing import Laps, cpu_session, interleaved, peak_memory, random_feeds, summary
from fastcam.schema import FastcamError
from fastcam_bench.models.networks import NETWORKS, check_activations, work_above
from fastcam_bench.speed import __main__ as command
from fastcam_bench.speed.networks import contestants, peers, plot, report
from support.models.small_models import classifier, save

# --- the loop and its statistics --------------------------------------------------------------------------------


def test_every_round_runs_each_contestant_once_in_a_new_order_after_one_that_does_not_count():
    ran = []
    runs = {name: lambda name=name: ran.append(name) for name in "abcd"}
    samples = interleaved(runs, seconds=0, least=40)
    assert {name: len(taken) for name, taken in samples.items()} == dict.fromkeys("abcd", 40)
    assert list(samples) == list("abcd")
    rounds = [tuple(ran[i : i + 4]) for i in range(0, len(ran), 4)]
    assert len(rounds) == 41 and all(sorted(order) == list("abcd") for order in rounds)
    assert len(set(rounds)) > 10
    again = []
    interleaved({name: lambda name=name: again.append(name) for name in "abcd"}, seconds=0, least=40)
    assert again == ran


@pytest.mark.parametrize(("uncounted", "calls"), [("round", 6), ("turn", 10), ("none", 5)])
def test_runs_that_do_not_count_are_a_round_or_one_of_each_turn(uncounted, calls):
    ran = []
    runs = {name: lambda name=name: ran.append(name) for name in "ab"}
    samples = interleaved(runs, seconds=0, least=5, uncounted=uncounted)
    assert [len(samples[name]) for name in "ab"] == [5, 5] and [ran.count(name) for name in "ab"] == [calls, calls]
    if uncounted == "turn":
        assert all(first == second for first, second in zip(ran[::2], ran[1::2]))


def test_parts_of_a_run_are_recorded_beside_the_whole():
    runs = {"plain": lambda: None, "tool": lambda: Laps({"map": 0.25})}
    samples = interleaved(runs, seconds=0, least=3)
    assert samples["tool, map"] == [0.25] * 3 and set(samples) == {"plain", "tool", "tool, map"}


def test_the_ratio_is_taken_round_by_round():
    drift = np.linspace(1, 3, 20)  # the machine becomes slower; a quotient of medians over other rounds would not be 2
    found = summary({"plain": drift, "twice": 2 * drift}, "plain")
    assert found["twice"]["ratio"] == 2 and found["twice"]["ratio_95"] == [2, 2]
    assert found["plain"]["median_ms"] == pytest.approx(2000) and found["plain"]["ratio"] == 1
    assert found["plain"]["p99_ms"] == pytest.approx(np.percentile(drift, 99) * 1e3, abs=1e-3)


def test_the_interval_is_scipys_percentile_bootstrap():
    rng = np.random.default_rng(3)
    plain, other = rng.uniform(0.9, 1.1, (2, 60))
    found = summary({"plain": plain, "other": other}, "plain")["other"]
    want = scipy.stats.bootstrap((other / plain,), np.median, method="percentile", n_resamples=20_000, rng=rng)
    assert found["ratio"] == pytest.approx(np.median(other / plain), abs=1e-4)
    np.testing.assert_allclose(found["ratio_95"], want.confidence_interval, atol=0.015)


def test_memory_of_a_fresh_process_grows_by_the_weights(tmp_path):
    def model(rows):
        weight = numpy_helper.from_array(np.ones((rows, 256), np.float32), "w")
        node = helper.make_node("Gather", ["w", "i"], ["y"])
        values = [
            helper.make_tensor_value_info("i", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 256]),
        ]
        graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

    used = []
    for rows in (100, 100 + 64 * 1024):  # 64 MB more
        found = peak_memory(save(model(rows), tmp_path / "model.onnx"), 1, 1)
        used.append(found["peak"] - found["imports"])
    assert 60 < used[1] - used[0] < 64 * 3  # the file's bytes may lie beside the tensor while it loads
    with pytest.raises(FastcamError, match=r"memory of none\.onnx failed"):
        peak_memory(tmp_path / "none.onnx", 1, 1)


def test_random_feeds_fill_free_dimensions_and_refuse_what_is_fixed(tmp_path):
    session = cpu_session(save(classifier(), tmp_path / "free.onnx"), 1)
    assert random_feeds(session, 3)["image"].shape == (3, 3, 8, 8)
    fixed = cpu_session(save(classifier(batch=2), tmp_path / "fixed.onnx"), 1)
    with pytest.raises(FastcamError, match="fixed to 2; give --batch 2"):
        random_feeds(fixed, 1)


# --- contestants ------------------------------------------------------------------------------------------------


def test_our_contestants_give_the_plain_outputs_and_the_explainers_boxes(tmp_path, monkeypatch):
    monkeypatch.setattr(contestants, "CACHE", tmp_path)
    network, source = NETWORKS["scenes"], NETWORKS_FILE
    exported, row = contestants.exported_file("scenes", network, source)
    assert row["file_bytes"]["exported"] == exported.stat().st_size and row["nodes_added"] > 0
    images = np.random.default_rng(0).standard_normal((2, 3, 128, 128)).astype(np.float32)
    runs, equal = contestants.forward(source, exported, network, images, 1)
    assert list(runs) == ["plain", "weights", report.TOP, "gradients", "cam"]
    assert max(equal.values()) <= 1e-6
    cam = contestants.maps(source, network, images, 1)
    _, activations, weights = runs["weights"]()[-3:]
    want = np.maximum(np.einsum("nk,nkhw->nhw", weights[:, 0], activations), 0)
    np.testing.assert_allclose(cam, want, atol=1e-5 * want.max())
    picture = np.random.default_rng(1).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    found = contestants.boxes(contestants.explainer(exported, 1), [picture])
    np.testing.assert_array_equal(found, fastcam.Explainer(exported)(picture).boxes[:, 0])


NETWORKS_FILE = contestants.Path(fastcam.__file__).parent / "data" / "scenes.onnx"


def test_a_peers_box_surrounds_the_largest_component():
    rng = np.random.default_rng(0)
    for _ in range(5):
        heatmap = scipy.ndimage.gaussian_filter(rng.standard_normal((224, 224)), 12).clip(0).astype(np.float32)
        labels, count = scipy.ndimage.label(heatmap >= 0.15 * heatmap.max(), np.ones((3, 3)))
        largest = 1 + np.argmax(np.bincount(labels.ravel())[1:])
        rows, columns = scipy.ndimage.find_objects((labels == largest).astype(int))[0]
        assert count > 1
        want = (columns.start * 2, rows.start * 3, columns.stop * 2, rows.stop * 3)
        assert peers.box(heatmap, 672, 448) == pytest.approx(want)


def test_work_above_a_layer_is_the_share_of_its_multiply_adds():
    from torch import nn

    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )
    parts = (111 * 111 * 8 * 27, 111 * 111 * 16 * 8, 160)
    assert work_above(net, "0") == pytest.approx(sum(parts[1:]) / sum(parts))
    assert work_above(net, "1") == pytest.approx(parts[2] / sum(parts))


@pytest.mark.parametrize("factor", [0.0, 1e-39, 1e9])
def test_weights_that_are_not_like_trained_ones_are_refused(factor):
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((2, 3, 9, 9)).astype(np.float32)
    check_activations(net, images)
    for parameter in net.parameters():
        parameter.data *= factor
    with pytest.raises(ValueError, match="not like trained weights"):
        check_activations(net, images)


def test_a_twin_shares_the_weights_and_not_the_hooks():
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    other, called = peers.twin(net), []
    other[2].register_forward_hook(lambda *_: called.append(1))
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    want = net(images)
    assert not called and torch.equal(other(images), want) and called == [1]
    assert other[0].weight is net[0].weight and other[1].running_var is net[1].running_var


# --- verdicts ---------------------------------------------------------------------------------------------------


def timed(ratio):
    return {
        "ratio": ratio,
        "ratio_95": [ratio, ratio],
        "median_ms": 10 * ratio,
        "p99_ms": 0,
        "samples_ms": [10 * ratio] * 3,
    }


def measured(weights=1.01, ours=1.2, memory=1.0):
    """The result of one network as job.py writes it, with figures chosen by hand."""
    names = {"plain": 1.0, "weights": weights, "weights, 5 targets": 1.02, "cam": 1.0, "gradients": 1.1}
    tools = {"ours": ours, "plain": 1.0, "grad-cam": 6.0, "torchcam": 3.0, "captum": 2.0}
    tools |= {f"{peer}, map alone": 1.5 for peer in report.PEERS}
    cell = {"forward": {name: timed(ratio) for name, ratio in names.items()}}
    cell["end_to_end"] = {name: timed(ratio) for name, ratio in tools.items()}
    files = {"source": 100, "exported": 101, "ratio": 1.01}
    return {
        "layer": "relu",
        "file_bytes": files,
        "export_seconds": 1.0,
        "nodes_added": 3,
        "memory": {"1": {"ratio": memory}, "8": {"ratio": 1.0}},
        "batches": {"1": cell, "8": cell},
        "versions": {"onnxruntime": "1"},
    }


def test_weights_are_counted_for_each_reader():
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "t"], ["b"]),
        helper.make_node("Gather", ["w", "row"], ["c"]),
        helper.make_node("Neg", ["w"], ["n"]),
        helper.make_node("Neg", ["n"], ["m"]),
        helper.make_node("MatMul", ["b", "m"], ["d"]),
        helper.make_node("MatMul", ["b", "a"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.zeros((4, 6), np.float32), "w"),
        numpy_helper.from_array(np.array([1]), "row"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    model = helper.make_model(helper.make_graph(nodes, "readers", values[:1], values[1:], constants))
    assert contestants.weights_read(model) == 3 * 4 * 6 * 4


def result_of(**networks):
    entries = {name: {"title": NETWORKS[name].title, "network": found} for name, found in networks.items()}
    return {"command": "c", "threads": 2, "machine": {"cpu": "x", "cores": 2}, "networks": entries}


def verdicts(result):
    return {what: [found.met for found in figures] for what, _, figures in report.targets(result)}


def test_targets_are_met_or_missed_by_their_figures():
    found = verdicts(result_of(alexnet=measured(weights=1.025), resnet50=measured(ours=1.6, memory=1.2)))
    assert found["default layer, T = 1, batch 8"] == [False, True]  # 1.025 > 1.02
    assert found["default layer, T = 1, batch 1"] == [True, True]  # 1.025 <= 1.03
    assert found["picture to boxes, beside pytorch-grad-cam"] == [True, True, False, False]  # 6 / 1.6 < 4
    assert found["picture to boxes, beside captum"] == [True, True, False, False]
    assert found["peak memory beside the plain session"] == [True, True, False, True]
    assert found["export of ResNet-50, check included, s"] == [True]
    assert found["OpenVINO on our file"] == []


def test_the_page_names_every_miss_and_what_was_not_measured():
    text = report.markdown(result_of(alexnet=measured(weights=1.025)))
    assert "missed: AlexNet, batch 8: 1.025" in text
    assert "| OpenVINO on our file | ≤ 1.03 | not measured |" in text
    assert report.verdict(result_of(alexnet=measured())) == "8 of 8 targets met"


def test_the_speed_up_is_taken_round_by_round():
    cell = {"end_to_end": {"ours": timed(1.0), "captum": timed(1.0)}}
    cell["end_to_end"]["ours"]["samples_ms"] = [1, 2, 10]
    cell["end_to_end"]["captum"]["samples_ms"] = [3, 4, 50]
    assert report.speedup(cell, "captum") == 3


def test_the_json_file_reads_back_with_a_list_of_numbers_on_one_line(tmp_path):
    result = result_of(alexnet=measured())
    report.write(result, tmp_path / "speed.json")
    text = (tmp_path / "speed.json").read_text(encoding="utf-8")
    assert json.loads(text) == result
    assert '"samples_ms": [10.0, 10.0, 10.0]' in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed.json", "speed.md"]


def test_measuring_one_network_anew_keeps_the_others(tmp_path, monkeypatch):
    out = tmp_path / "speed.json"
    report.write(result_of(alexnet=measured(), squeezenet1_1=measured()), out)
    monkeypatch.setattr(command, "measure", lambda kind, name, options: measured(weights=2.0))
    monkeypatch.setattr("sys.argv", ["speed", "--only", "alexnet", "--out", str(out)])
    command.main()
    found = json.loads(out.read_text(encoding="utf-8"))["networks"]
    assert list(found) == ["alexnet", "squeezenet1_1"]
    ratios = {name: entry["network"]["batches"]["1"]["forward"]["weights"]["ratio"] for name, entry in found.items()}
    assert ratios == {"alexnet": 2.0, "squeezenet1_1": 1.01}


def test_a_measurement_that_fails_is_recorded_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.environments, "python", lambda name: contestants.Path("python-that-is-not-there"))
    monkeypatch.setattr("sys.argv", ["speed", "--only", "alexnet", "googlenet", "--out", str(tmp_path / "speed.json")])
    command.main()
    found = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))["networks"]
    assert all("python-that-is-not-there" in entry["network"]["failed"] for entry in found.values())
    assert capsys.readouterr().out.count("python-that-is-not-there") == 2


def test_the_plot_places_a_dot_by_the_logarithm_of_its_ratio():
    result = result_of(alexnet=measured(ours=2.0), resnet50=measured())
    root = ElementTree.fromstring(plot.svg(result))
    space = "{http://www.w3.org/2000/svg}"
    dots = {dot.find(f"{space}title").text: float(dot.get("cx")) for dot in root.iter(f"{space}circle") if len(dot)}
    ticks = {text.text: float(text.get("x")) for text in root.iter(f"{space}text") if text.text.endswith("×")}
    assert set(ticks) == {"1×", "2×", "4×", "8×"}
    assert dots["FastCAM: 2.00"] == pytest.approx(ticks["2×"], abs=0.2)
    width = ticks["8×"] - ticks["1×"]
    assert dots["torch-cam: 3.00"] == pytest.approx(ticks["1×"] + width * np.log(3) / np.log(8), abs=0.2)
