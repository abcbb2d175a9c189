"""Heatmaps in other tools' styles against the very functions that these tools call: OpenCV's, Pillow's, torch's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fastcam import FastcamError, styles

SIZES = [((7, 7), (224, 224)), ((13, 9), (50, 61)), ((14, 14), (10, 5))]


def signed(h, w):
    """Positive and negative values, one map without a positive one."""
    maps = np.random.default_rng(0).standard_normal((2, 3, h, w)).astype(np.float32)
    maps[1, 2] = -np.abs(maps[1, 2])
    return maps


def each(maps, function):
    """A function of one map, for every map."""
    return np.array([[function(m) for m in row] for row in maps])


def scaled(image, epsilon):
    image = image - image.min()
    return image / (epsilon + image.max())


@pytest.mark.parametrize("low,size", SIZES)
def test_pytorch_grad_cam(low, size):
    def theirs(m):
        once = scaled(np.maximum(m, 0), 1e-7)
        return scaled(cv2.resize(np.float32(once), size[::-1]), 1e-7)

    found = styles.heatmaps("pytorch-grad-cam", signed(*low), size)
    np.testing.assert_allclose(found, each(signed(*low), theirs), atol=2e-6)


@pytest.mark.parametrize("low,size", SIZES)
def test_torch_cam(low, size):
    def theirs(m):
        image = Image.fromarray(scaled(np.maximum(m, 0), 1e-8).astype(np.float32), mode="F")
        return np.asarray(image.resize(size[::-1], resample=Image.Resampling.BICUBIC))

    found = styles.heatmaps("torch-cam", signed(*low), size)
    np.testing.assert_allclose(found, each(signed(*low), theirs), atol=2e-6)


@pytest.mark.parametrize("low,size", SIZES)
def test_captum(low, size):
    expected = torch.nn.functional.interpolate(torch.tensor(signed(*low)), size=size, mode="nearest")
    np.testing.assert_array_equal(styles.heatmaps("captum", signed(*low), size), expected)


@pytest.mark.parametrize("low,size", SIZES)
def test_fastcam(low, size):
    maps = torch.relu(torch.tensor(signed(*low)))
    peaks = maps.amax((2, 3), keepdim=True)
    low_resolution = maps / torch.where(peaks > 0, peaks, 1)
    expected = torch.nn.functional.interpolate(low_resolution, size=size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(styles.heatmaps("fastcam", signed(*low), size), expected, atol=1e-6)


def test_unknown_style_is_refused():
    with pytest.raises(FastcamError, match="no style 'keras'; use one of: fastcam, pytorch-grad-cam"):
        styles.heatmaps("keras", signed(3, 3), (6, 6))
