"""A data set of samples that a test makes itself."""

from __future__ import annotations

from fastcam.evaluation.samples import LeftOut


class Samples:
    """What is given, as a data set; see :class:`fastcam.evaluation.samples.Dataset`."""

    def __init__(self, samples, labels=(), name="made for a test", exif=False):
        self.given, self.labels, self.name, self.exif, self.left_out = (
            list(samples),
            tuple(labels),
            name,
            exif,
            LeftOut(),
        )

    def __len__(self):
        return len(self.given)

    def samples(self, skip=()):
        return (sample for sample in self.given if sample.name not in skip)
