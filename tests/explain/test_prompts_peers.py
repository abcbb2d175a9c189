"""Prompts of Hugging Face's CLIP and SigLIP and of open_clip's CLIP, small and with random weights: autograd's maps."""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastcam import Explainer
from fastcam.language.tokenizer import read_tokenizer
from fastcam.language.word_level import write_word_level
from fastcam_bench.oracles.torch_oracle import difference, grad_cam, gradients_of
from fastcam_export import export_model

pytest.importorskip("tokenizers", reason="texts need the library tokenizers")
WORDS = ["<pad>", "<unk>", *(f"word{i}" for i in range(37)), "</s>"]
LENGTH, SIZE = 8, 32
PROMPTS = ["word3 word5 word7", "word8 word2"]


@pytest.fixture(autouse=True, scope="module")
def without_compiled_torchvision():
    """These libraries import torchvision, whose compiled operators need not load."""
    for name in ("torchvision._meta_registrations", "torchvision._autograd_registrations"):
        sys.modules.setdefault(name, types.ModuleType(name))


class Part(nn.Module):
    """A function of a model and of tensors, as a module."""

    def __init__(self, model: nn.Module, function: Any) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(self.model, *inputs)


def clip() -> tuple[nn.Module, Any, Any, float, str]:
    """Hugging Face's CLIP: the model, its picture and text side, the bias of its logits, and the layer."""
    transformers = pytest.importorskip("transformers", reason="CLIP is transformers'")
    both = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**both, "vocab_size": len(WORDS), "max_position_embeddings": LENGTH, "eos_token_id": len(WORDS) - 1}
    vision = {**both, "image_size": SIZE, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    config._attn_implementation = "eager"
    model = transformers.CLIPModel(config)
    return (
        model,
        lambda m, x: m.visual_projection(m.vision_model(pixel_values=x).pooler_output),
        lambda m, i: m.text_projection(m.text_model(input_ids=i).pooler_output),
        0.0,
        "auto",
    )


def siglip() -> tuple[nn.Module, Any, Any, float, str]:
    """Hugging Face's SigLIP; its last layer lies inside a function of torch, which shows autograd nothing of it."""
    transformers = pytest.importorskip("transformers", reason="SigLIP is transformers'")
    both = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**both, "vocab_size": len(WORDS), "max_position_embeddings": LENGTH, "projection_size": 16}
    config = transformers.SiglipConfig(text_config=text, vision_config={**both, "image_size": SIZE, "patch_size": 8})
    config._attn_implementation = "eager"
    model = transformers.SiglipModel(config)
    with torch.no_grad():
        model.logit_bias.fill_(-3.0)
    return (
        model,
        lambda m, x: m.vision_model(pixel_values=x).pooler_output,
        lambda m, i: m.text_model(input_ids=i).pooler_output,
        -3.0,
        "vision_model.post_layernorm",
    )


def open_clip() -> tuple[nn.Module, Any, Any, float, str]:
    """open_clip's CLIP."""
    library = pytest.importorskip("open_clip", reason="this CLIP is open_clip's")
    vision = {"image_size": SIZE, "patch_size": 8, "layers": 2, "width": 64, "head_width": 32}
    text = {"context_length": LENGTH, "vocab_size": len(WORDS), "width": 16, "heads": 2, "layers": 2}
    model = library.model.CLIP(12, vision, text)
    return model, lambda m, x: m.encode_image(x), lambda m, i: m.encode_text(i), 0.0, "auto"


def write(part: nn.Module, path: Any, inputs: dict[str, torch.Tensor], output: str, axes: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            part, tuple(inputs.values()), str(path), input_names=list(inputs), output_names=[output],
            dynamic_axes=axes, dynamo=False, opset_version=17,
        )  # fmt: skip


@pytest.mark.parametrize("build", [clip, siglip, open_clip], ids=lambda one: one.__name__)
def test_prompts_as_autograd_has_them(build, tmp_path):
    torch.manual_seed(3)
    model, picture, text, bias, layer = build()
    model.eval()
    with torch.no_grad():  # so that no map is nearly flat
        for weights in model.parameters():
            weights.mul_(1.5 if weights.dim() > 1 else 1.0)
        model.logit_scale.fill_(float(np.log(20)))

    def pair(m: nn.Module, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        pictures, texts = (nn.functional.normalize(y, dim=-1) for y in (picture(m, x), text(m, ids)))
        return m.logit_scale.exp() * pictures @ texts.T + bias

    x, ids = 3 * torch.rand(2, 3, SIZE, SIZE) - 1.5, torch.full((2, LENGTH), len(WORDS) - 1)
    write_word_level(tmp_path / "tokenizer.json", WORDS, length=LENGTH, end="</s>")
    write(Part(model, picture), tmp_path / "p.onnx", {"image": x}, "image_embeds", {"image": {0: "N"}})
    write(Part(model, text), tmp_path / "text.onnx", {"input_ids": ids}, "text_embeds", {"input_ids": {0: "T"}})
    both = {"image": {0: "N"}, "input_ids": {0: "T"}, "logits_per_image": {0: "N", 1: "T"}}
    write(Part(model, pair), tmp_path / "both.onnx", {"image": x, "input_ids": ids}, "logits_per_image", both)
    named = {"targets": "cotangent", "output_name": "image_embeds", "text_encoder": tmp_path / "text.onnx"}
    how = {"tokenizer": tmp_path / "tokenizer.json", "preprocess": "clip", "emit": "weights", "layer": layer}
    scaled = {"logit_scale": 20.0, "logit_bias": bias}
    export_model(tmp_path / "p.onnx", tmp_path / "p.cam.onnx", **named, **scaled, **how)
    export_model(tmp_path / "both.onnx", tmp_path / "both.cam.onnx", **how)
    encoded = torch.from_numpy(read_tokenizer(tmp_path / "tokenizer.json").encode(PROMPTS, LENGTH).ids)
    targets = [f"text: {PROMPTS[0]}", f"text: {PROMPTS[0]} - {PROMPTS[1]}"]
    with torch.no_grad():
        logits = pair(model, x, encoded).numpy()
    for file in ("p.cam.onnx", "both.cam.onnx"):
        explainer = Explainer(tmp_path / file)
        found = explainer(x.numpy(), targets)
        seen = np.stack([probe.activations for probe in explainer.probes(x.numpy(), targets)])
        for t, factors in enumerate(([1.0, 0.0], [1.0, -1.0])):

            def score(y: torch.Tensor, factors: list[float] = factors) -> torch.Tensor:
                return (y * torch.tensor(factors)).sum()

            part = Part(model, lambda m, pictures: pair(m, pictures, encoded))
            prefix = explainer.metadata.layer.prefix_tokens
            gradients = gradients_of(part, x.numpy(), seen, score, prefix)[0]
            wanted = grad_cam(seen, gradients[:, None])[:, 0]
            assert wanted.max() > 0
            assert difference(np.maximum(found.maps[:, t], 0), wanted) <= 1e-4, (file, targets[t])
        said = [one["targets"][0]["score"] for one in found.to_dict()["images"]]
        np.testing.assert_allclose(said, logits[:, 0], rtol=1e-3, atol=1e-3)
