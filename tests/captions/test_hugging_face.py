"""Hugging Face's captioners with random weights: ViT with GPT-2 in one file and in two, BLIP, GIT; maps by autograd."""

from __future__ import annotations

import io
import sys
import types
import warnings

import numpy as np
import pytest

from fastcam.captions import Captioner
from fastcam_export import export_captioner

torch = pytest.importorskip("torch")
for _module in ("torchvision._meta_registrations", "torchvision._autograd_registrations"):
    sys.modules.setdefault(_module, types.ModuleType(_module))  # of another build than torch, they fail
transformers = pytest.importorskip("transformers", reason="needs transformers")

WORDS, START, END, PAD = 40, 1, 2, 0
SPECIAL = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": PAD}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
EYES = {**SMALL, "image_size": 32, "patch_size": 8}
HOW = {"start": START, "end": END, "pad": PAD, "vocabulary": [f"w{i}" for i in range(WORDS)], "preprocess": "unit"}
PIXELS = np.random.default_rng(3).standard_normal((1, 3, 32, 32)).astype(np.float32)
pytestmark = [pytest.mark.xdist_group("captions"), pytest.mark.filterwarnings("ignore")]


def vit_and_gpt2():
    words = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=16, n_embd=16, n_layer=1, n_head=2, add_cross_attention=True, is_decoder=True,
        **SPECIAL,
    )  # fmt: skip
    both = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(transformers.ViTConfig(**EYES), words)
    both.decoder_start_token_id, both.pad_token_id = START, PAD
    return random(transformers.VisionEncoderDecoderModel, both, [both.encoder, both.decoder])


def blip():
    text = {**SMALL, **SPECIAL, "vocab_size": WORDS, "encoder_hidden_size": 16, "projection_dim": 16,
            "max_position_embeddings": 16, "sep_token_id": END}  # fmt: skip
    config = transformers.BlipConfig(text_config=text, vision_config={**EYES, "projection_dim": 16}, projection_dim=16)
    return random(transformers.BlipForConditionalGeneration, config, [config.text_config, config.vision_config])


def git():
    config = transformers.GitConfig(
        vision_config=EYES, vocab_size=WORDS, max_position_embeddings=32, **SMALL, **SPECIAL
    )
    return random(transformers.GitForCausalLM, config, [config.vision_config])


def random(kind, config, inner):
    """A model whose weights are large enough for words to differ."""
    for one in (config, *inner):
        one._attn_implementation = "eager"
    torch.manual_seed(1)
    made = kind(config)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.ndim > 1:
                table = any(part in name for part in ("embed", "wte", "lm_head"))
                weight.copy_(torch.randn_like(weight) * (0.3 if table else 0.6 / weight.shape[-1] ** 0.5))
    return made.eval()


class Whole(torch.nn.Module):
    """pixel_values and input_ids to logits."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixel_values, input_ids):
        if hasattr(self.module, "encoder"):
            given = {"decoder_input_ids": input_ids, "use_cache": False}
        else:
            given = {"input_ids": input_ids}
        return self.module(pixel_values=pixel_values, **given).logits


class Eyes(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixel_values):
        return self.module.encoder(pixel_values).last_hidden_state


class Tongue(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, input_ids, encoder_hidden_states):
        made = self.module.decoder(input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, use_cache=False)
        return made.logits


def exported(module, example, names, output, legacy=False):
    """An ONNX model with a free batch and a free number of words."""
    text = {0: "N", 1: "L"}
    axes = {"pixel_values": {0: "N"}, "input_ids": text, "encoder_hidden_states": {0: "N"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if legacy:
            file, dynamic = io.BytesIO(), {name: axes[name] for name in names} | {output: text}
            torch.onnx.export(
                module, example, file, dynamo=False, opset_version=17, input_names=names, output_names=[output],
                dynamic_axes=dynamic,
            )  # fmt: skip
            return file.getvalue()
        shapes = tuple(dict.fromkeys(axes[name], torch.export.Dim.AUTO) for name in names)
        program = torch.onnx.export(
            module, example, dynamo=True, input_names=names, output_names=[output], dynamic_shapes=shapes, verbose=False
        )
    return program.model_proto


def by_autograd(net, module, tokens):
    """Log-probabilities, and Grad-CAM of the whole caption and of each word at a module's tokens, behind the first."""
    kept = {}

    def keep(_, __, output):
        kept.setdefault("layer", output)  # BLIP's runs once more, on the class token alone

    handle = module.register_forward_hook(keep)
    ids = torch.tensor([[START, *tokens[:-1]]])
    logits = Whole(net)(torch.from_numpy(PIXELS).requires_grad_(), ids)[0, -ids.shape[1] :]
    handle.remove()
    logs = torch.log_softmax(logits, -1)[range(len(tokens)), list(tokens)]
    layer, maps = kept["layer"], []
    for score in (logs.sum(), *logs):
        (gradient,) = torch.autograd.grad(score, layer, retain_graph=True)
        weights = gradient[:, 1:].mean(1, keepdim=True)
        maps.append(torch.relu((weights * layer[:, 1:]).sum(2))[0].reshape(4, 4).detach().numpy())
    return logs.detach().numpy(), np.stack(maps)


def agrees(net, module, path):
    captioner = Captioner(path)
    for asked in ({"most": 5, "beam": 2}, {"captions": "w5 w7 w9 w11"}):
        [found] = captioner(PIXELS, **asked)
        logs, maps = by_autograd(net, module, found.tokens)
        assert np.allclose(found.log_probabilities, logs, atol=1e-4)
        for t in range(found.explanation.asked(0)):
            assert np.abs(found.explanation.maps[0, t] - maps[t]).max() <= 1e-4 * max(maps[t].max(), 1e-6), t
    assert maps.max() > 0 and len(found.words) == 4


EXAMPLE = torch.from_numpy(PIXELS).repeat(2, 1, 1, 1), torch.tensor([[START, 5, 7, 9], [START, 6, 8, 3]])
NAMES = ["pixel_values", "input_ids"]


def test_vit_and_gpt2_in_one_file(tmp_path):
    net = vit_and_gpt2()
    model = exported(Whole(net), EXAMPLE, NAMES, "logits")
    export_captioner(model, tmp_path / "one.cam.onnx", check=False, **HOW)
    agrees(net, net.encoder.layernorm, tmp_path / "one.cam.onnx")


def test_vit_and_gpt2_as_an_encoder_and_a_decoder(tmp_path):
    net = vit_and_gpt2()
    encoder = exported(Eyes(net), EXAMPLE[:1], NAMES[:1], "last_hidden_state")
    hidden = Eyes(net)(EXAMPLE[0]).detach()
    decoder = exported(Tongue(net), (EXAMPLE[1], hidden), ["input_ids", "encoder_hidden_states"], "logits")
    export = export_captioner(encoder, tmp_path / "two.cam.onnx", decoder=decoder, check=False, **HOW)
    assert export.metadata.captioning.form == "sequence"
    agrees(net, net.encoder.layers[-1], tmp_path / "two.cam.onnx")


def test_blip(tmp_path):
    net = blip()
    model = exported(Whole(net), EXAMPLE, NAMES, "logits", legacy=True)
    export_captioner(model, tmp_path / "blip.cam.onnx", check=False, **HOW)
    agrees(net, net.vision_model.post_layernorm, tmp_path / "blip.cam.onnx")


def test_git_whose_scores_begin_with_those_of_the_picture(tmp_path):
    net = git()
    model = exported(Whole(net), EXAMPLE, NAMES, "logits")
    eyes = "module.git.image_encoder.vision_model.post_layernorm"
    export_captioner(model, tmp_path / "git.cam.onnx", layer=eyes, check=False, **HOW)
    agrees(net, net.git.image_encoder.vision_model.post_layernorm, tmp_path / "git.cam.onnx")


def test_gits_layer_is_the_last_one_in_front_of_the_sequence_of_picture_and_words(tmp_path):
    net = git()
    model = exported(Whole(net), EXAMPLE, NAMES, "logits")
    export_captioner(model, tmp_path / "git.cam.onnx", check=False, **HOW)
    agrees(net, net.git.visual_projection, tmp_path / "git.cam.onnx")
