"""Pictures, videos, volumes and signals: how each goes into the network, and how its maps are placed."""

from __future__ import annotations

from fastcam.explain.postprocess import View
from fastcam.explain.signal import SignalView
from fastcam.explain.texts import TextView
from fastcam.explain.video import VideoView
from fastcam.explain.volume import VolumeView
from fastcam.runtime.inputs.base import Inputs
from fastcam.runtime.inputs.clips import ClipInputs
from fastcam.runtime.inputs.sample_inputs import SampleInputs
from fastcam.runtime.inputs.stacked_frames import StackInputs
from fastcam.runtime.inputs.text_samples import TextSamples
from fastcam.schema import Kind, Metadata


def opened_by(metadata: Metadata) -> tuple[type[Inputs], type[View]]:
    """What turns sources into the network's input, and how its maps are placed."""
    inputs, view = KINDS[metadata.kind]
    stacked = metadata.kind == "picture" and metadata.preprocessing is not None and metadata.preprocessing.stack > 1
    return (StackInputs if stacked else inputs), view


KINDS: dict[Kind, tuple[type[Inputs], type[View]]] = {
    "picture": (Inputs, View),
    "video": (ClipInputs, VideoView),
    "volume": (SampleInputs, VolumeView),
    "spectrogram": (SampleInputs, View),
    "signal": (SampleInputs, SignalView),
    "text": (TextSamples, TextView),
}
