"""Captions and their maps against PyTorch: words, log-probabilities, and maps by autograd on the same weights."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from fastcam import FastcamError
from fastcam.captions import Captioner
from fastcam.cli import app
from fastcam.render import drawing
from fastcam_export import export_captioner, export_model

torch = pytest.importorskip("torch")
from fastcam_bench.paper.captions import network  # noqa: E402 - needs torch
from fastcam_bench.paper.captions.grammar import END, PAD, START, VOCABULARY  # noqa: E402
from fastcam_bench.paper.trunk import start_from_bundled  # noqa: E402

pytestmark = [pytest.mark.xdist_group("captions"), pytest.mark.filterwarnings("ignore::UserWarning")]
FORMS = ("one file", "sequence", "step")
HOW = {"start": START, "end": END, "pad": PAD, "vocabulary": list(VOCABULARY), "preprocess": "imagenet"}
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
PICTURE = np.random.default_rng(5).integers(0, 256, (96, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def net():
    """A captioner whose words are random, and so differ from each other: the decoder's weights are large."""
    torch.manual_seed(4)
    made = network.Captioner()
    start_from_bundled(made.encoder.trunk)
    with torch.no_grad():
        for weight in made.decoder.parameters():
            weight *= 4
    return made.eval()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    """An exported captioner of each form."""
    folder = tmp_path_factory.mktemp("captions")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter, about batches of an LSTM
        made = {
            "one file": (network.one_file(net), None),
            "sequence": network.features_files(net),
            "step": network.step_files(net),
        }
    paths = {}
    for name, (model, decoder) in made.items():
        paths[name] = folder / f"{name.replace(' ', '-')}.cam.onnx"
        export_captioner(model, paths[name], decoder=decoder, check=False, **HOW)
    return paths


@pytest.fixture(scope="module", params=FORMS)
def captioner(files, request):
    return Captioner(files[request.param])


def tensor():
    return torch.from_numpy(((PICTURE / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)[None])


def by_autograd(net, tokens):
    """Log-probabilities of tokens, and the Grad-CAM maps of the whole caption and of each word."""
    encoder = net.encoder
    layer = encoder.trunk(tensor()).detach().requires_grad_()
    features = encoder.vector(layer)
    ids = torch.tensor([[START, *tokens[:-1]]])
    logs = torch.log_softmax(net.decoder(features, ids)[0], -1)[range(len(tokens)), list(tokens)]
    maps = []
    for score in (logs.sum(), *logs):
        (gradient,) = torch.autograd.grad(score, layer, retain_graph=True)
        weights = gradient.mean((2, 3), keepdim=True)
        maps.append(torch.relu((weights * layer).sum(1))[0].detach().numpy())
    return logs.detach().numpy(), np.stack(maps)


def greedy(net, most):
    """The likeliest words, one after the other, by PyTorch."""
    features, ids = net.encoder(tensor()), [START]
    while len(ids) <= most:
        scores = net.decoder(features, torch.tensor([ids]))[0, -1].detach()
        scores[[PAD, START]] = -torch.inf
        ids.append(int(scores.argmax()))
        if ids[-1] == END:
            break
    return tuple(ids[1:])


def check(found, net, layer_word=None):
    logs, maps = by_autograd(net, found.tokens)
    assert np.allclose(found.log_probabilities, logs, atol=1e-4)
    count = found.explanation.asked(0)
    for t in range(count):
        most = maps[t].max()
        assert np.abs(found.explanation.maps[0, t] - maps[t]).max() <= 1e-4 * max(most, 1e-6), t
    return count


def test_words_and_maps_are_pytorchs(captioner, net):
    [found] = captioner(PICTURE, most=7)
    assert found.tokens == greedy(net, 7)
    assert check(found, net) == 1 + len(found.words)
    assert found.text == " ".join(VOCABULARY[token] for token in found.tokens if token != END)


def test_maps_of_a_caption_that_a_person_gives_are_pytorchs(captioner, net):
    [found] = captioner(PICTURE, captions="there is a striped red star on the left")
    assert found.ended and found.tokens[-1] == END and len(found.words) == 9
    assert check(found, net) == 10
    [alone] = captioner(PICTURE, captions="there is a striped red star on the left", words=False)
    assert check(alone, net) == 1
    assert [target.name for target in found.explanation.targets[0]][:3] == ["the whole caption", "1: there", "2: is"]


@pytest.mark.parametrize("beam", [2, 5])
def test_a_beam_finds_captions_at_least_as_likely(captioner, net, beam):
    [one], [more] = captioner(PICTURE, most=5), captioner(PICTURE, beam=beam, most=5)
    check(more, net)
    assert more.log_probability >= one.log_probability - 1e-6 or more.ended > one.ended


def test_several_pictures_have_captions_of_their_own(captioner):
    other = PICTURE[::-1].copy()
    found = captioner([PICTURE, other], most=4)
    alone = captioner(other, most=4)[0]
    assert found[1].tokens == alone.tokens
    assert np.array_equal(found[1].explanation.maps, alone.explanation.maps)


def test_strip_shows_the_picture_the_caption_and_each_word(captioner):
    [found] = captioner(PICTURE, captions="a red star and a blue ring")
    strip = found.strip(tile=96)
    said = found.to_dict()
    assert strip.dtype == np.uint8 and strip.shape[1] > 5 * 96
    assert [one["word"] for one in said["words"]] == ["a", "red", "star", "and", "a", "blue", "ring"]
    assert said["log_probability"] == pytest.approx(sum(found.log_probabilities))


def test_an_export_in_one_file_decodes_as_one_on_demand(net, files, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = network.one_file(net)
    export_captioner(model, tmp_path / "one.cam.onnx", on_demand=False, **HOW)
    one, two = (Captioner(file)(PICTURE, beam=2, most=5)[0] for file in (tmp_path / "one.cam.onnx", files["one file"]))
    assert one.tokens == two.tokens
    assert np.allclose(one.explanation.maps, two.explanation.maps, atol=1e-6)


def test_the_verb_writes_a_strip_and_the_words(files, tmp_path):
    picture, out = tmp_path / "noise.png", tmp_path / "out"
    picture.write_bytes(drawing.encode_png(PICTURE))
    decoder = files["step"].with_name("step.cam.decoder.onnx")
    ran = CliRunner().invoke(
        app, ["caption", str(files["step"]), str(decoder), str(picture), "--max-words", "3", "-o", str(out)]
    )
    assert ran.exit_code == 0, ran.output
    assert sorted(path.name for path in out.iterdir()) == ["captions.json", "noise-caption.png"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--beam", "0"], "beam is 0"),
        (["--max-words", "0"], "most is 0"),
        (["--text", "a red zebra"], "no word 'zebra'"),
        (["--text", " "], "the caption is empty"),
        (["--method", "nonsense"], "nonsense"),
    ],
)
def test_bad_input_is_one_line(files, tmp_path, arguments, says):
    picture = tmp_path / "noise.png"
    picture.write_bytes(drawing.encode_png(PICTURE))
    out = tmp_path / "out"
    ran = CliRunner().invoke(app, ["caption", str(files["sequence"]), str(picture), "-o", str(out), *arguments])
    assert ran.exit_code == 2 and not out.exists()
    assert says in ran.output and len(ran.output.strip().splitlines()) == 1


def test_files_that_are_no_captioner_are_refused(files, tmp_path):
    with pytest.raises(FastcamError, match="not the decoder that was exported with"):
        Captioner(files["step"], files["sequence"].with_name("sequence.cam.decoder.onnx"))
    with pytest.raises(FastcamError, match="holds its decoder"):
        Captioner(files["one file"], files["sequence"])
    with pytest.raises(FastcamError, match="is an encoder; give its decoder"):
        Captioner(files["step"].read_bytes())
    with pytest.raises(FastcamError, match="is no captioner"):
        Captioner(classifier(tmp_path))
    with pytest.raises(FastcamError, match="2 words, and the captions"):
        Captioner(files["step"], vocabulary=["a", "b"])


def classifier(folder):
    """An exported classifier."""
    nodes = [
        helper.make_node("Relu", ["x"], ["map"]),
        helper.make_node("ReduceMean", ["map"], ["y"], axes=[2, 3], keepdims=0),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    export_model(model, folder / "plain.cam.onnx", layer="map", check=False)
    return folder / "plain.cam.onnx"


def test_the_summary_of_an_export_says_what_a_captioner_is_asked(files, net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = export_captioner(network.one_file(net), check=False, **HOW).summary()
    assert "targets a caption: the whole of it, and each of its words" in lines
    assert "        ids takes the words so far" in lines


def test_exports_say_what_is_missing(net, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (encoder, decoder), model = network.features_files(net), network.one_file(net)
    with pytest.raises(FastcamError, match=r"end is word 99; words are numbers from 0 to"):
        export_captioner(model, **{**HOW, "end": 99})
    with pytest.raises(FastcamError, match="3 labels do not fit a text of"):
        export_captioner(model, **{**HOW, "vocabulary": ["a", "b", "c"]})
    with pytest.raises(FastcamError, match="takes the words so far as one input of whole numbers; this has none"):
        export_captioner(encoder, **HOW)
    with pytest.raises(FastcamError, match="nothing tells what the decoder's input 'features' takes"):
        export_captioner(network.step_files(net)[0], decoder=decoder, **HOW)
