"""Several layers, their fusion, eigen smoothing and deep feature factorisation beside pytorch-grad-cam and torch-cam.

    python -m fastcam_bench.speed.several_layers [--out FILE] [MODEL ...]

In an environment that has the peers (``python -m fastcam_bench.speed`` makes it). torchvision models with seeded
random weights, three layers each, two pictures, the predicted class. Figures are largest differences of maps whose
maximum is 1. Each fusion is compared from picture to fused map, the same with maps scaled as the peer does, and on the
peer's own maps. The first differs by that scaling: the peers stretch a map from its minimum to its maximum, FastCAM
divides by its maximum; with random weights minima are far from zero. In float32 a layer in the middle can differ by
what lies at a kink (``python -m fastcam_bench.accuracy.agreement``). pytorch-grad-cam's mean is taken at the input's
size, FastCAM's at the largest map's. The sign of a principal component is left to chance by pytorch-grad-cam, so that
the nearer sign is compared.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastcam import Explainer, schema
from fastcam.concepts import nmf
from fastcam.methods import eigen_smoothed, gradcam_weights, layer_fusion
from fastcam.render import peer_styles
from fastcam_bench.oracles import torch_oracle as oracle
from fastcam_bench.oracles.machine import machine, versions, write_report
from fastcam_bench.oracles.torch_oracle import Array
from fastcam_bench.paths import RESULTS
from fastcam_export import from_torch

OUTPUT = RESULTS / "speed" / "several_layers.json"
LAYERS = {
    "resnet50": ("layer2", "layer3", "layer4"),
    "squeezenet1_1": ("features.4", "features.7", "features.12"),
    "mobilenet_v2": ("features.6", "features.13", "features.18"),
}
SIZE = (224, 224)
CONCEPTS = 5


def apart(one: Array, other: Array) -> float:
    """Largest difference of maps [N, h, w]."""
    return float(f"{np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).max():.2g}")


def stretched(maps: Array) -> Array:
    """Each map [N, h, w] from its minimum to its maximum, as the peers scale it."""
    low = maps - maps.min((1, 2), keepdims=True)
    return np.asarray(low / np.maximum(low.max((1, 2), keepdims=True), 1e-30))


def torch_cam(module: nn.Module, layers: tuple[str, ...], explainer: Explainer, images: Array) -> dict[str, Any]:
    """Each layer's map and the fused ones: GradCAM with max, LayerCAM with tanh and max."""
    from torchcam.methods import GradCAM, LayerCAM

    found: dict[str, Any] = {}
    for method, fuse, peer in (("gradcam", "max", GradCAM), ("layercam", "layercam", LayerCAM)):
        with peer(copy.deepcopy(module), list(layers)) as extractor:
            scores = extractor.model(torch.tensor(images))
            classes = scores.argmax(1).tolist()
            cams = extractor(classes, scores)
            fused = extractor.fuse_cams([cam.clone() for cam in cams]).detach().numpy()
            theirs = [cam.detach().numpy() for cam in cams]
        ours = explainer(images, method=method, fuse=fuse)
        assert ours.classes[:, 0].tolist() == classes
        same = layer_fusion.fuse(fuse, [cam[:, None] for cam in theirs], SIZE)[:, 0]
        scaled = layer_fusion.fuse(fuse, [stretched(one.maps[:, 0])[:, None] for one in ours.layers], SIZE)[:, 0]
        found[method] = {
            "layers": [apart(stretched(one.maps[:, 0]), cam) for one, cam in zip(ours.layers, theirs)],
            f"fused ({fuse})": apart(ours.maps[:, 0], fused),
            f"fused ({fuse}), maps scaled as there": apart(scaled, fused),
            f"fused ({fuse}) of its own maps": apart(same, fused),
        }
    return found


def pytorch_grad_cam(module: nn.Module, layers: tuple[str, ...], explainer: Explainer, images: Array) -> dict[str, Any]:
    """Grad-CAM of several layers (their mean), eigen smoothing, and RefineCAM."""
    from pytorch_grad_cam import GradCAM, RefineCAM

    module = copy.deepcopy(module)
    modules = [module.get_submodule(name) for name in layers]
    tensor = torch.tensor(images)
    each = [np.asarray(GradCAM(module, [one])(tensor, None)) for one in modules]
    mean = np.asarray(GradCAM(module, modules)(tensor, None))
    refined = np.asarray(RefineCAM(module, modules, base_method=GradCAM)(tensor, None))
    own = [one[:, None] for one in each]
    product = layer_fusion.fuse("refinecam", own, SIZE)[:, 0]
    found = explainer(images, fuse="refinecam")
    smooth = np.asarray(GradCAM(module, modules[-1:])(tensor, None, eigen_smooth=True))
    component = eigen_component(explainer.at(layers[-1]), images)
    ways = [peer_styles.heatmaps("pytorch-grad-cam", sign * component, SIZE) for sign in (1, -1)]
    nearest = [min((apart(way[i], smooth[i]), k) for k, way in enumerate(ways)) for i in range(len(images))]
    of_each = [peer_styles.heatmaps("pytorch-grad-cam", one.maps[:, 0], SIZE) for one in found.layers]
    scaled = {
        name: layer_fusion.fuse(name, [one[:, None] for one in of_each], SIZE)[:, 0] for name in ("mean", "refinecam")
    }
    return {
        "layers": [apart(ours, theirs) for ours, theirs in zip(of_each, each)],
        "mean": apart(stretched(explainer(images, fuse="mean").heatmaps[:, 0]), mean),
        "mean, maps scaled as there": apart(stretched(scaled["mean"]), mean),
        "mean of its own maps": apart(stretched(layer_fusion.fuse("mean", own, SIZE)[:, 0]), mean),
        "refinecam": apart(stretched(found.heatmaps[:, 0]), refined),
        "refinecam, maps scaled as there": apart(stretched(scaled["refinecam"]), refined),
        "refinecam of its own maps": apart(stretched(product), refined),
        "eigen smoothing": max(difference for difference, _ in nearest),
        "eigen smoothing, pictures with the other sign there": sum(k for _, k in nearest),
    }


def added(explainer: Explainer, images: Array) -> dict[str, Array]:
    """Activations and gradients of the predicted class."""
    run = explainer.predict(images).runs[0]
    return explainer._network.explain(run.forward, np.array([[-1]]))


def eigen_component(explainer: Explainer, images: Array) -> Array:
    """The signed map of Grad-CAM with eigen smoothing, [N, h, w]."""
    found = added(explainer, images)
    weights = gradcam_weights(found[schema.GRADIENTS])
    return np.asarray(eigen_smoothed(found[schema.ACTIVATIONS], weights)[:, 0])


def scikit_learn(explainer: Explainer, layer: str, images: Array) -> dict[str, Any]:
    """The factorisation of the deepest layer's activations, from one start and from each one's own."""
    from sklearn.decomposition import NMF

    activations = added(explainer.at(layer), images)[schema.ACTIVATIONS].astype(np.float64)
    rows = np.maximum(activations, 0).transpose(0, 2, 3, 1).reshape(-1, activations.shape[1])
    w, h = nmf.start(rows, CONCEPTS)
    same = NMF(CONCEPTS, init="custom", solver="mu", max_iter=100, tol=0)
    theirs = same.fit_transform(rows, W=w.copy(), H=h.copy())
    ours = nmf.updated(rows, w, h, 100, 0)
    random = NMF(CONCEPTS, init="random", random_state=0, max_iter=500)  # as pytorch-grad-cam calls it
    random.fit(rows)
    error = nmf.error(rows, *nmf.nmf(rows, CONCEPTS))
    return {
        "factors from one start": max(
            apart(a, b) / float(np.abs(b).max()) for a, b in zip(ours, (theirs, same.components_))
        ),
        "error, ours by theirs": float(f"{error / random.reconstruction_err_:.4f}"),
    }


def measure(name: str) -> dict[str, Any]:
    """One network beside all."""
    module, layers = oracle.build(name), LAYERS[name]
    made = from_torch(module, torch.zeros(2, 3, *SIZE), layer=[layers[-1], *layers[:-1]], emit="gradients")
    explainer = Explainer(made.model.SerializeToString())
    images = oracle.pictures(2)
    return {
        "layers": [f"{one.scope}: {one.value}" for one in made.metadata.layers],
        "check": made.check,
        "torch-cam": torch_cam(module, layers, explainer, images),
        "pytorch-grad-cam": pytorch_grad_cam(module, layers, explainer, images),
        "scikit-learn": scikit_learn(explainer, layers[-1], images),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(LAYERS), metavar="MODEL", help=", ".join(LAYERS))
    parser.add_argument("--out", type=Path, default=OUTPUT)
    given = parser.parse_args()
    report: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("torch", "torchvision", "onnxruntime", "grad-cam", "torchcam", "scikit-learn"),
        "models": {},
    }
    for name in given.models:
        report["models"][name] = measure(name)
        print(name, report["models"][name])
    write_report(report, given.out)


if __name__ == "__main__":
    main()
