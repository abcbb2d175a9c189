"""A data set of samples that a test has made."""

from __future__ import annotations

from fastcam.evaluation.samples import LeftOut


class Given:
    """A data set of samples that are there."""

    name, exif = "given", False

    def __init__(self, samples, labels):
        self.given, self.labels, self.left_out = samples, labels, LeftOut()

    def __len__(self):
        return len(self.given)

    def samples(self, skip=()):
        return (sample for sample in self.given if sample.name not in skip)
