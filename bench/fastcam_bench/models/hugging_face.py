"""The vision models of transformers, built small from configurations with random weights; nothing is downloaded."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from fastcam_bench.oracles.torch_oracle import Array, pictures

MOST = 4
"""Layers, frames and blocks that are kept of each stack."""
SIDE, TOKENS, VOCABULARY, QUERIES, CLASSES = 96, 6, 300, 10, 10
STACKS = (
    "num_hidden_layers", "encoder_layers", "decoder_layers", "text_encoder_num_layers", "decoder_num_hidden_layers",
    "pred_num_hidden_layers", "num_blocks", "num_frames", "frames_per_clip", "num_pooler_layers", "mit_layers",
)  # fmt: skip
LEFT_OUT = ("stage_names", "out_features", "transformers_version", "id2label", "label2id", "architectures")
MASKS = ("class_queries_logits", "masks_queries_logits", "logits", "pred_masks")
SCORES = ("logits_per_image", "logits_per_video", "logits_per_text")
TASKS = {
    "classification": ("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES", ("logits", "last_hidden_state")),
    "video": ("MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES", ("logits",)),
    "text": ("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES", SCORES),
    "segmentation": ("MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES", ("logits",)),
    "masks": ("MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES", MASKS),
    "detection": ("MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES", ("logits", "pred_boxes", "last_hidden_state")),
    "named": ("MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES", ("logits", "pred_boxes")),
    "depth": ("MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES", ("predicted_depth",)),
    "points": ("MODEL_FOR_KEYPOINT_DETECTION_MAPPING_NAMES", ("scores",)),
    "picture": ("MODEL_FOR_IMAGE_TO_IMAGE_MAPPING_NAMES", ("reconstruction",)),
    "backbone": ("MODEL_FOR_BACKBONE_MAPPING_NAMES", ("feature_maps",)),
}
"""Task -> the table of transformers that lists its models, and the outputs that are explained."""
MORE = {
    "text": ("groupvit:GroupViTModel", "xclip:XCLIPModel"),
    "captions": (
        "git:GitForCausalLM", "blip:BlipForConditionalGeneration", "trocr:VisionEncoderDecoderModel",
        "donut:VisionEncoderDecoderModel",
    ),
    "pose": ("vitpose:VitPoseForPoseEstimation",),
}  # fmt: skip
"""Models that stand in none of these tables."""
FURTHER = {"captions": ("logits",), "pose": ("heatmaps",)}
SETTINGS: dict[str, dict[str, Any]] = {
    "beit": {"out_indices": [1, 2, 3, 4]},
    "blip-2": {"qformer_config.use_qformer_text_input": True},
    "depth_pro": {
        "intermediate_hook_ids": [3, 1],
        "patch_size": 112, "image_model_config.image_size": 112, "patch_model_config.image_size": 112,
        "fov_model_config.image_size": 112,
    },
    "lw_detr": {"projector_scale_factors": [1.0], "backbone_config.image_size": 256, "num_feature_levels": 1},
    "pp_doclayout_v2": {"class_thresholds": [0.5] * CLASSES, "class_order": list(range(CLASSES))},
    "sapiens2": {"head_config.upsample_out_channels": [64], "head_config.conv_out_channels": [64]},
}  # fmt: skip
"""What some models need that their configuration leaves empty, by the place in it."""
TAKES_NO_PICTURE = {"imagegpt": "it takes the numbers of colours, one a pixel, and no picture"}
SIZED = {"depth_pro": 448, "lw_detr": 256, "omdet-turbo": 640}
"""Pixels of a side, where the configuration does not say them."""
ALONE = frozenset({"videomt"})
"""Models whose outputs have no axis of samples: they are exported with one."""
ELSEWHERE = frozenset({"timm_wrapper", "timm_backbone", "shieldgemma2"})
"""Wrappers around models of other libraries, and a language model."""


def names() -> Iterator[str]:
    """``task/model`` of all models."""
    try:
        from transformers.models.auto import modeling_auto
    except ImportError:
        return
    for task, (table, _) in TASKS.items():
        listed: Mapping[str, Any] = getattr(modeling_auto, table, {})
        yield from sorted(f"{task}/{kind}" for kind in listed if kind not in ELSEWHERE)
    for task, more in MORE.items():
        yield from (f"{task}/{one.split(':')[0]}" for one in more)


def build(task: str, kind: str) -> tuple[torch.nn.Module, Array, tuple[str, ...]]:
    """A model, the images that it takes [2, ...], and the names of its outputs.

    Raises:
        Exception: of many kinds; transformers cannot build it at any of the sizes tried.
    """
    if kind in TAKES_NO_PICTURE:
        raise ValueError(TAKES_NO_PICTURE[kind])
    errors = []
    for most, side in ((MOST, SIDE), (MOST, None), (None, None)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.manual_seed(0)
                return _built(task, kind, most, side)
        except Exception as error:  # whatever a configuration that does not fit raises
            errors.append(error)
    raise errors[-1]


def _built(task: str, kind: str, most: int | None, side: int | None) -> tuple[torch.nn.Module, Array, tuple[str, ...]]:
    config = _config(kind, most, side)
    config._attn_implementation = "eager"  # the older exporter writes no other
    module = _class(task, kind)(config).eval()
    outputs = TASKS[task][1] if task in TASKS else FURTHER[task]
    wrapped = _Wrapped(module, task, outputs)
    for images in _images(config, SIZED.get(kind, side), _takes(module, "pixel_values_videos")):
        try:
            with torch.no_grad():
                made = wrapped(torch.from_numpy(images))
            break
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
            last = error
    else:
        raise last
    return wrapped.eval(), images, wrapped.found[: len(made)]


def _class(task: str, kind: str) -> Any:
    import transformers
    from transformers.models.auto import modeling_auto

    for one in MORE.get(task, ()):
        if one.split(":")[0] == kind:
            return getattr(transformers, one.split(":")[1])
    named = getattr(modeling_auto, TASKS[task][0])[kind]
    return getattr(transformers, named if isinstance(named, str) else named[0])


def _config(kind: str, most: int | None, side: int | None) -> Any:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if kind in ("trocr", "donut"):
        eyes = _config("vit" if kind == "trocr" else "donut-swin", most, side)
        words = _config("bert" if kind == "trocr" else "mbart", most, side)
        return transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(eyes, words)
    plain = CONFIG_MAPPING[kind]()
    if most is None:
        plain.num_labels = CLASSES
        return plain
    wanted = _smaller(plain.to_dict(), most, side)
    for place, value in SETTINGS.get(kind, {}).items():
        *folders, name = place.split(".")
        inner = wanted
        for folder in folders:
            inner = inner[folder]
        inner[name] = value
    return type(plain).from_dict({**wanted, "num_labels": CLASSES})


def _smaller(given: dict[str, Any], most: int, side: int | None) -> dict[str, Any]:
    """A configuration with fewer layers, words and queries, and smaller pictures."""
    made = {name: value for name, value in given.items() if name not in LEFT_OUT}
    for name, value in made.items():
        if isinstance(value, dict):
            made[name] = _smaller(value, most, side)
        elif name in STACKS and isinstance(value, int):
            made[name] = min(value, most)
        elif name == "depths" and isinstance(value, list | tuple):
            made[name] = [min(depth, 2) for depth in value]
        elif name in ("out_indices", "backbone_out_indices", "_out_indices") and isinstance(value, list | tuple):
            deep = max(value) > most
            first = most - len(value) + (name != "backbone_out_indices")
            made[name] = [first + i for i in range(len(value))] if deep else value
        elif name in ("image_size", "crop_size") and side is not None and isinstance(value, int | list | tuple):
            patch = int(said) if isinstance(said := given.get("patch_size"), int) else 16
            small = side if side % patch == 0 else 6 * patch
            made[name] = small if isinstance(value, int) else [small] * len(value)
        elif name.endswith("vocab_size") and isinstance(value, int):
            made[name] = min(value, VOCABULARY)
        elif name == "initializer_range" and isinstance(value, float):
            made[name] = max(value, 0.02)
        elif name == "num_queries":
            made[name] = min(value, QUERIES)
        elif name == "num_denoising":
            made[name] = 0
        elif name.endswith("token_id") and isinstance(value, int) and value >= VOCABULARY:
            made[name] = VOCABULARY - 1
    return made


def _takes(module: torch.nn.Module, name: str) -> bool:
    return name in inspect.signature(module.forward).parameters


def _images(config: Any, side: int | None, clips: bool) -> Iterator[Array]:
    """What a model may take: pictures of its own size and of others, or clips."""
    inner = [config, *(getattr(config, name, None) for name in ("vision_config", "backbone_config", "encoder"))]
    said = [getattr(one, name, None) for one in inner for name in ("image_size", "crop_size")]
    sides = dict.fromkeys([_side(one) for one in said if one is not None] + [side or SIDE, 128, 224, 256, 384])
    counts = [getattr(one, name, None) for one in inner for name in ("num_frames", "frames_per_clip")]
    frames = next((count for count in counts if isinstance(count, int)), 2 if clips else None)
    for one in sides:
        if frames is not None:
            clip = pictures(2 * frames, one)
            yield np.ascontiguousarray(clip.reshape(2, frames, 3, one, one))
        yield pictures(2, one)


def _side(value: Any) -> int:
    return int(value[-1] if isinstance(value, list | tuple) else value)


def _asked_for(module: torch.nn.Module, taken: Mapping[str, Any], images: torch.Tensor) -> dict[str, Any]:
    """The task of a model that does several, in words."""
    if "task_inputs" not in taken:
        return {}
    length: Any = module.config.task_seq_len  # type: ignore[union-attr]
    return {"task_inputs": torch.arange(3, 3 + length).expand(images.shape[0], -1)}


def _names(module: torch.nn.Module, words: torch.Tensor, number: int) -> dict[str, Any]:
    """What a detector is asked for, the same of each picture: two names, or a line of names."""
    taken = inspect.signature(module.forward).parameters
    if "classes_input_ids" in taken:
        given = {"classes_input_ids": words[:2].repeat(number, 1), "tasks_input_ids": words[2:].repeat(number, 1)}
        masks = {name.replace("input_ids", "attention_mask"): torch.ones_like(ids) for name, ids in given.items()}
        return {**given, **masks, "classes_structure": torch.full((number,), 2)}
    ids = words[:1].repeat(number, 1) if "token_type_ids" in taken else words[:2].repeat(number, 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _in_patches(module: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Pictures as SigLIP 2 takes them: [N, patches, numbers of a patch], a mask of the patches, and their grid."""
    config: Any = module.config
    side = getattr(config, "vision_config", config).patch_size
    n, channels, height, width = images.shape
    grid = height // side, width // side
    apart = images.reshape(n, channels, grid[0], side, grid[1], side).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": apart.reshape(n, grid[0] * grid[1], side * side * channels),
        "pixel_attention_mask": torch.ones(n, grid[0] * grid[1], dtype=torch.int64),
        "spatial_shapes": torch.tensor([grid]).expand(n, -1),
    }


class _Wrapped(torch.nn.Module):
    """pixel_values -> the named outputs; text is two fixed sentences, of captions a fixed beginning."""

    def __init__(self, module: torch.nn.Module, task: str, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.task, self.wanted = module, task, outputs
        self.found: tuple[str, ...] = ()
        words = torch.arange(3, 3 + 3 * TOKENS).reshape(3, TOKENS)
        words[:, -1] = VOCABULARY - 1
        self.words = words

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        taken = inspect.signature(self.module.forward).parameters
        name = "pixel_values" if "pixel_values" in taken else "pixel_values_videos"
        seen = _in_patches(self.module, images) if "spatial_shapes" in taken else {name: images}
        made = self.module(**seen, **self._further(images), **_asked_for(self.module, taken, images))
        flat: dict[str, torch.Tensor] = {}
        for name in self.wanted:
            value = getattr(made, name, None)
            several = value if isinstance(value, list | tuple) else [value]
            for i, one in enumerate(several):
                if isinstance(one, torch.Tensor):
                    flat[f"{name}_{i}" if len(several) > 1 else name] = one
        if not flat:
            raise ValueError(f"the model gives none of {', '.join(self.wanted)}")
        if len(flat) > 1:
            flat.pop("last_hidden_state", None)
        elif "last_hidden_state" in flat:  # of models that have no other name for what they answer
            flat["logits"] = flat.pop("last_hidden_state")
        self.found = tuple(flat)
        return tuple(flat.values())

    def _further(self, images: torch.Tensor) -> dict[str, Any]:
        if self.task == "text":
            return {"input_ids": self.words, "attention_mask": torch.ones_like(self.words)}
        if self.task == "named":
            return _names(self.module, self.words, images.shape[0])
        if self.task == "captions":
            words = self.words[:1].expand(images.shape[0], -1)
            return {"decoder_input_ids" if hasattr(self.module, "decoder") else "input_ids": words}
        return {}
