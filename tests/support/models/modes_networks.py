"""Small networks of the usual families, as a module in float64, its ONNX file, and images away from kinks."""

import copy
import functools

import pytest

pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
import torch
from torch import nn

from fastcam_bench.oracles import kinks, torch_oracle
from support.modes_oracle import Join, Layer, Sum

SIZE = 8


def conv(inputs, outputs, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def normed(inputs, outputs, **options):
    return Layer(conv(inputs, outputs, bias=False, **options), nn.BatchNorm2d(outputs))


def head(channels):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]


def vgg(bias=True):
    layers = [conv(3, 6, bias=bias), nn.ReLU(), nn.MaxPool2d(2), conv(6, 8, bias=bias), nn.ReLU(), nn.AvgPool2d(2)]
    dense = [nn.Flatten(), nn.Linear(32, 12, bias=bias), nn.ReLU(), nn.Linear(12, 5, bias=bias)]
    return nn.Sequential(*layers, *dense)


def resnet():
    block = nn.Sequential(normed(6, 6), nn.ReLU(), normed(6, 6))
    down = nn.Sequential(normed(6, 8, stride=2), nn.ReLU(), normed(8, 8))
    shortcut = Layer(nn.Conv2d(6, 8, 1, stride=2, bias=False), nn.BatchNorm2d(8))
    stem = [normed(3, 6), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, Sum(block, nn.Identity()), nn.ReLU(), Sum(down, shortcut), nn.ReLU(), *head(8))


def residual():
    """Without biases."""
    block = nn.Sequential(conv(6, 6, bias=False), nn.ReLU(), conv(6, 6, bias=False))
    down = nn.Sequential(conv(6, 8, bias=False, stride=2), nn.ReLU(), conv(8, 8, bias=False))
    shortcut = nn.Conv2d(6, 8, 1, stride=2, bias=False)
    stem = [conv(3, 6, bias=False), nn.ReLU(), nn.MaxPool2d(2)]
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5, bias=False)]
    return nn.Sequential(*stem, Sum(block, nn.Identity()), nn.ReLU(), Sum(down, shortcut), nn.ReLU(), *ends)


def mobilenet():
    wide = Layer(nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8))
    narrow = Layer(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4))
    block = nn.Sequential(wide, nn.ReLU6(), normed(8, 8, groups=8), nn.ReLU6(), narrow)
    stem = [normed(3, 4, stride=2), nn.ReLU6()]
    return nn.Sequential(*stem, Sum(nn.Identity(), block), nn.Conv2d(4, 8, 1), nn.ReLU6(), *head(8))


def googlenet():
    one = nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU())
    three = nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU(), conv(2, 5), nn.ReLU())
    pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 2, 1), nn.ReLU())
    return nn.Sequential(conv(3, 4), nn.ReLU(), Join(one, three, pooled), nn.AvgPool2d(2), *head(10))


def gated():
    return nn.Sequential(conv(3, 4), nn.SiLU(), conv(4, 6), nn.SiLU(), *head(6))


NETS = {"vgg": vgg, "resnet": resnet, "mobilenet": mobilenet, "googlenet": googlenet}


@functools.cache
def network(name):
    """(the module in float64, its ONNX file, images)"""
    torch.manual_seed(3)
    module = {**NETS, "plain": functools.partial(vgg, bias=False), "gated": gated, "residual": residual}[name]()
    torch_oracle.settle(module, torch_oracle.pictures(8, SIZE))
    normed = any(isinstance(each, nn.BatchNorm2d) for each in module.modules())
    proto = torch_oracle.to_onnx(module, SIZE, dynamo=normed)  # the older exporter is faster, and folds BatchNorm
    double = copy.deepcopy(module).double().eval()
    return double, proto, kinks.clear(double, torch_oracle.pictures(6, SIZE), 3)
