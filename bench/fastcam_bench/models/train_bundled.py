"""Train the model that FastCAM ships: ``python -m fastcam_bench.models.train_bundled --out fastcam/data``.

A small multi-label classifier of generated scenes (which classes occur in the picture?). It sees the labels only,
never a box or a mask, so that where it looks is its own finding. Writes the ONNX file, the class names and the demo
picture to ``--out`` and a report to ``--report``. Needs torch, onnx and onnxruntime; minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fastcam.evaluation.scenes import CLASSES, scene, scene_seeds
from fastcam.schema import PRESETS
from fastcam_bench.models import bundled_net
from fastcam_bench.models.bundled_net import SIZE

TRAIN_SEED, TEST_SEED, MODEL_SEED = 1, 2, 3
TRAIN_SIZES = (SIZE, SIZE, SIZE, SIZE, 160, 224, 320)  # rendered at one of these, then resized: all sharpnesses occur
PICTURE_SEED, PICTURE_SIZE = 216, 512

Images = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Float = npt.NDArray[np.float32]


def _render(job: tuple[int, int]) -> tuple[Images, Bool]:
    seed, size = job
    example = scene(seed, size)
    how = cv2.INTER_AREA if seed % 2 else cv2.INTER_LINEAR
    image = example.image if size == SIZE else cv2.resize(example.image, (SIZE, SIZE), interpolation=how)
    return np.asarray(image, np.uint8), example.present


def dataset(n: int, seed: int, sizes: tuple[int, ...], workers: int) -> tuple[Images, Bool]:
    """``n`` pictures [n, 128, 128, 3] and which classes each shows [n, classes]; the same whatever ``workers`` is."""
    jobs = [(each, sizes[each % len(sizes)]) for each in scene_seeds(n, seed)]
    if workers > 1:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            done = list(pool.map(_render, jobs, chunksize=64))
    else:
        done = [_render(job) for job in jobs]
    return np.stack([image for image, _ in done]), np.stack([present for _, present in done])


def normalise(images: Images) -> Float:
    """Preset "imagenet" of the run time: uint8 [N, H, W, 3] to float32 [N, 3, H, W]."""
    mean, std = (np.asarray(PRESETS["imagenet"][key], np.float32) for key in ("mean", "std"))
    return np.ascontiguousarray(((images / np.float32(255) - mean) / std).transpose(0, 3, 1, 2), np.float32)


def average_precision(scores: npt.NDArray[np.floating[Any]], truth: Bool) -> float:
    """Mean, over the positives, of the precision among everything ranked at least as high; scores [n], truth [n]."""
    ranked = truth[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].mean())


def accuracy(probabilities: Float, truth: Bool) -> dict[str, Any]:
    """Quality of [n, classes] probabilities: average precision, decisions at one half, whole pictures right."""
    decided = probabilities >= 0.5
    precisions = {c: average_precision(probabilities[:, i], truth[:, i]) for i, c in enumerate(CLASSES)}
    return {
        "mean_average_precision": round(float(np.mean(list(precisions.values()))), 4),
        "label_accuracy": round(float((decided == truth).mean()), 4),
        "exact_match": round(float((decided == truth).all(axis=1).mean()), 4),
        "average_precision": {c: round(value, 4) for c, value in precisions.items()},
        "class_accuracy": {c: round(float((decided == truth)[:, i].mean()), 4) for i, c in enumerate(CLASSES)},
    }


def augment(batch: Any, generator: Any) -> Any:
    """Flips, quarter turns and swapped colour channels for a batch, brightness and contrast for each picture.

    ``batch`` is a uint8 tensor [N, 3, H, W]. Every class keeps its name under all of these.
    """
    import torch

    flip_x, flip_y, swap = (bool(v) for v in torch.randint(2, (3,), generator=generator))
    batch = batch[:, torch.randperm(3, generator=generator)].float()
    batch = batch.transpose(2, 3) if swap else batch
    batch = batch.flip([d for d, flip in ((2, flip_y), (3, flip_x)) if flip])
    gain, offset = torch.rand(2, len(batch), 3, 1, 1, generator=generator)
    return ((batch - 128) * (0.75 + 0.5 * gain) + 128 + 50 * (offset - 0.5)).clamp(0, 255)


def train(
    images: Images, truth: Bool, epochs: int, batch: int, rate: float, seconds: float, say: Callable[[str], None]
) -> bundled_net.Parameters:
    """AdamW on the binary cross-entropy of every class, one-cycle learning rate.

    The schedule is fixed by the arguments; ``seconds`` only ends a run that is too slow for the machine.
    """
    import torch
    from torch.nn import functional

    torch.manual_seed(MODEL_SEED)
    generator = torch.Generator().manual_seed(MODEL_SEED)
    start = bundled_net.initial_parameters(len(CLASSES), MODEL_SEED)
    parameters = {name: torch.from_numpy(value) for name, value in start.items()}
    parameters = {
        n: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for n, v in parameters.items()
    }
    learned = [v.requires_grad_() for n, v in parameters.items() if not n.endswith((".mean", ".var"))]
    decay = [v for v in learned if v.ndim > 1]
    groups: list[dict[str, Any]] = [
        {"params": decay, "weight_decay": 0.05},
        {"params": [v for v in learned if v.ndim == 1]},
    ]
    optimizer = torch.optim.AdamW(groups, rate, weight_decay=0.0)
    steps = len(images) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * steps, pct_start=0.2)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    labels = torch.from_numpy(truth).float()
    mean, std = (255 * torch.tensor(PRESETS["imagenet"][key]).view(3, 1, 1) for key in ("mean", "std"))
    begin = time.perf_counter()
    for epoch in range(epochs):
        total = 0.0
        for index in torch.randperm(len(images), generator=generator)[: steps * batch].view(steps, batch):
            x = ((augment(pixels[index], generator) - mean) / std).contiguous(memory_format=torch.channels_last)
            logits = bundled_net.network(bundled_net.TorchOps(parameters, training=True), x)
            loss: Any = functional.binary_cross_entropy_with_logits(logits, labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        spent = time.perf_counter() - begin
        say(f"epoch {epoch + 1:2d}/{epochs}  loss {total / steps:.4f}  {spent:.0f} s")
        if spent > seconds:
            raise SystemExit(f"training took more than {seconds:.0f} s; lower --epochs or --train")
    return {name: np.ascontiguousarray(value.detach().numpy()) for name, value in parameters.items()}


def torch_probabilities(parameters: bundled_net.Parameters, x: Float) -> Float:
    """What the network computes in PyTorch: [n, classes]."""
    import torch

    tensors = {name: torch.from_numpy(value) for name, value in parameters.items()}
    logits = bundled_net.network(bundled_net.TorchOps(tensors, training=False), torch.from_numpy(x))
    return np.asarray(logits.sigmoid().numpy(), np.float32)


def onnx_probabilities(model: bytes, x: Float) -> Float:
    """What the file computes in ONNX Runtime: [n, classes]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"image": x[i : i + 100]})[0] for i in range(0, len(x), 100)]
    return np.asarray(np.concatenate(parts), np.float32)


def write_picture(path: Path) -> list[str]:
    """The demo picture; returns the classes that it shows, from back to front."""
    example = scene(PICTURE_SEED, PICTURE_SIZE)
    cv2.imwrite(str(path), np.ascontiguousarray(example.image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return [item.class_name for item in example.objects]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fastcam_bench.models.train_bundled", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for scenes.onnx, scenes.labels.txt, scene.jpg")
    parser.add_argument("--report", type=Path, help="JSON report (default: bundled_model.json in --out)")
    parser.add_argument("--train", type=int, default=18_000, help="training scenes")
    parser.add_argument("--test", type=int, default=1_000, help="held-out scenes")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--seconds", type=float, default=1800, help="give up when training takes longer than this")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 2))
    return parser.parse_args()


def main() -> None:
    """Render, train, write, check, report."""
    import onnxruntime
    import torch

    options = _arguments()
    torch.set_num_threads(options.workers)
    clock = [time.perf_counter()]
    images, truth = dataset(options.train, TRAIN_SEED, TRAIN_SIZES, options.workers)
    test_images, test_truth = dataset(options.test, TEST_SEED, (SIZE,), options.workers)
    clock.append(time.perf_counter())
    print(f"rendered {len(images)} + {len(test_images)} scenes in {clock[1] - clock[0]:.0f} s", flush=True)
    epochs = [clock[-1]]

    def say(text: str) -> None:
        print(text, flush=True)
        epochs.append(time.perf_counter())

    parameters = train(images, truth, options.epochs, options.batch, options.rate, options.seconds, say)
    clock.append(time.perf_counter())
    model = bundled_net.to_onnx(parameters, len(CLASSES))
    x = normalise(test_images)
    probabilities = onnx_probabilities(model, x)
    difference = float(np.abs(probabilities - torch_probabilities(parameters, x)).max())
    if difference > 1e-4:
        raise SystemExit(f"ONNX Runtime and PyTorch differ by {difference:.2e} on the same pictures; nothing written")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scenes.onnx").write_bytes(model)
    (options.out / "scenes.labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    shown = write_picture(options.out / "scene.jpg")
    report = {
        "command": "python -m fastcam_bench.models.train_bundled --out fastcam/data "
        "--report bench/results/gradients/bundled_model.json",
        "train": {"scenes": options.train, "seed": TRAIN_SEED, "epochs": options.epochs, "batch": options.batch},
        "model": {"seed": MODEL_SEED, "parameters": sum(v.size for v in parameters.values()), "bytes": len(model)},
        "picture": {"seed": PICTURE_SEED, "size": PICTURE_SIZE, "classes": shown},
        "test": {"scenes": options.test, "seed": TEST_SEED, **accuracy(probabilities, test_truth)},
        "largest_difference_onnxruntime_torch": difference,
        "seconds": {
            "rendering": round(clock[1] - clock[0]),
            "training": round(clock[2] - clock[1]),
            "fastest_epoch": round(float(np.diff(epochs).min())),  # far below the mean: the machine was shared
        },
        "machine": {"cpu": platform.machine(), "cores": options.workers, "python": platform.python_version()},
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
    }
    target = options.report or options.out / "bundled_model.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["test"], indent=2))


if __name__ == "__main__":
    main()
