"""Explainers of the small network."""

from __future__ import annotations

import pytest

from support.explained_network import explainer


@pytest.fixture(scope="module")
def plain():
    return explainer()


@pytest.fixture(scope="module")
def backwards():
    return explainer(input_gradient="gradient")
