"""``fastcam stream``: a video or many pictures, as fast as the machine goes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcam.atomic_files import replaced
from fastcam.cli.shared.console import counted, progress
from fastcam.cli.shared.opening import opened
from fastcam.cli.shared.options import (
    ColorName,
    ColorsName,
    Cotangents,
    Exif,
    ExportedFile,
    InputValues,
    Labels,
    MaxPixels,
    Mean,
    MethodName,
    MethodOptions,
    PreprocessName,
    ProfileName,
    PromptsPath,
    Providers,
    Scale,
    SizeOption,
    Std,
    StyleName,
    TargetNames,
    TextEncoderPath,
    Threads,
    Threshold,
    TokenizerPath,
    class_targets,
    picture_files,
)
from fastcam.errors import FastcamError
from fastcam.image.reading import MAX_PIXELS, Reading

if TYPE_CHECKING:
    from fastcam.explain.streaming import Frame

EXAMPLES = (
    "fastcam stream resnet50.cam.onnx video.mp4 -o boxes.jsonl",
    "fastcam stream resnet50.cam.onnx video.mp4 -o overlay.mp4",
    "fastcam stream resnet50.cam.onnx photos/ | jq .targets[0].box",
)
FPS = 25.0


def stream(
    model: ExportedFile,
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE", help="Videos, pictures, or folders of pictures.")],
    target: TargetNames = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .jsonl file (one line of JSON a frame), or a video (.mp4, .avi) with the overlays.",
            show_default="JSON lines to stdout",
        ),
    ] = None,
    threshold: Threshold = 0.15,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Frames per run where the model's batch is free.", show_default="the profile's, or 8"),
    ] = None,
    workers: Annotated[int, typer.Option(help="Threads that decode and prepare frames.")] = 2,
    threads: Threads = None,
    preprocess: PreprocessName = None,
    color: ColorName = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    size: SizeOption = None,
    labels: Labels = None,
    providers: Providers = "auto",
    profile: ProfileName = "auto",
    method: MethodName = None,
    cotangent: Cotangents = None,
    style: StyleName = "fastcam",
    colors: ColorsName = "jet",
    option: MethodOptions = None,
    input_value: InputValues = None,
    text: Annotated[
        str | None,
        typer.Option(help="What a model that takes a text is asked about each frame.", show_default=False),
    ] = None,
    tokenizer: TokenizerPath = None,
    text_encoder: TextEncoderPath = None,
    prompts: PromptsPath = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    exif: Exif = True,
) -> None:
    """Explain a video or many pictures: decoding, the model and what follows overlap."""
    from fastcam.image.video_file import VIDEOS
    from fastcam.methods.options import parsed
    from fastcam.runtime.inputs import further_inputs

    targets = class_targets(target, cotangent)
    suffix = output.suffix.lower() if output else ".jsonl"
    if suffix not in (".jsonl", ".json", *VIDEOS):
        raise FastcamError(f"{output}: give a .jsonl file for boxes, or a video ({', '.join(VIDEOS)}) for overlays")
    pixels = preprocess, color, mean, std, scale, size
    how: dict[str, Any] = {"threads": threads, "labels": labels, "max_pixels": max_pixels, "exif": exif}
    how |= {"tokenizer": tokenizer, "text_encoder": text_encoder, "prompts": prompts}
    explainer = opened(model, "throughput", pixels, profile, providers, batch_size, **how)
    how_prepared = explainer.metadata.preprocessing
    stack = how_prepared.stack if how_prepared is not None else 1
    frames, total, fps = _frames(sources, Reading(max_pixels, exif), explainer.clip_frames, stack)
    explained = explainer.stream(
        frames,
        targets,
        threshold,
        workers=workers,
        method=method,
        cotangent=cotangent or None,
        style=style,
        options=parsed(option or ()),
        inputs=further_inputs.parsed(input_value or (), explainer.text_inputs),
        text=text,
    )
    sink = _video(output, fps, colors) if output and suffix in VIDEOS else _lines(output)
    began, failed, done = time.perf_counter(), 0, 0
    broken: list[FastcamError] = []
    with sink as write, progress(total or None) as bar:
        for frame in chain.from_iterable(map(_rows, _until_broken(explained, broken))):
            failed += frame.error is not None
            write(replace(frame, index=done))
            done += 1
            bar.advance(bar.task_ids[0])
    rate = done / (time.perf_counter() - began)
    where = f", written to {output}" if output else ""
    print(f"{counted(done, 'frame')}, {rate:.1f} a second{where}", file=sys.stderr)
    if broken:
        raise broken[0]
    if failed:
        raise FastcamError(f"{failed} of {counted(done, 'frame')} could not be explained; their lines say why")


def _until_broken(frames: Iterable[Frame], broken: list[FastcamError]) -> Iterator[Frame]:
    """Frames up to the end, or to where the video is damaged: then ``broken`` holds why, and what was read is kept."""
    first = True
    try:
        for frame in frames:
            first = False
            yield frame
    except FastcamError as error:
        if first:
            raise
        broken.append(error)


def _rows(frame: Frame) -> Iterator[Frame]:
    """A frame of a stream; of a clip each of its frames that no clip before had."""
    from fastcam.runtime.inputs.clips import Clip
    from fastcam.runtime.inputs.stacked_frames import FrameStack

    if isinstance(frame.source, FrameStack):
        frame = replace(frame, source=frame.source.frames[-1])
    if not isinstance(frame.source, Clip) or frame.explanation is None:
        yield frame
        return
    for number, row in frame.source.rows(len(frame.explanation)):
        yield replace(
            frame, source=frame.source.frames[number - frame.source.start], explanation=frame.explanation[row]
        )


def _frames(sources: list[Path], reading: Reading, clip: int | None, stack: int) -> tuple[Iterable[Any], int, float]:
    """All frames, about how many they are (0: unknown), and how fast they play.

    Args:
        clip: of a video model, how many frames a clip has: then each source is read as its clips.
        stack: how many frames a model sees at once: each source is an episode of its own.
    """
    from fastcam.image.preprocess import opencv
    from fastcam.image.video_file import is_video, open_video, read_video
    from fastcam.runtime.inputs.clips import clips_of
    from fastcam.runtime.inputs.stacked_frames import stacks_of

    parts: list[Iterable[Any]] = []
    total, fps = 0, FPS
    for source in sources:
        if source.is_file() and is_video(source):
            cv2, video = opencv(), open_video(source)
            total += max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
            fps = video.get(cv2.CAP_PROP_FPS) or FPS
            video.release()
            next(read_video(source, reading))  # a file that is no video is refused before anything is written
            parts.append(read_video(source, reading))
        else:
            files = picture_files([source])
            total += len(files)
            parts.append(files)
    if clip is not None:
        parts = [clips_of(part, clip) for part in parts]
    if stack > 1:
        parts = [stacks_of(part, stack) for part in parts]
    return chain.from_iterable(parts), total, fps


@contextmanager
def _lines(output: Path | None) -> Iterator[Callable[[Frame], None]]:
    """One line of JSON a frame, to ``output`` or stdout."""

    def line(frame: Frame) -> str:
        about: dict[str, Any] = {"frame": frame.index}
        if frame.explanation is None:
            about |= {"file": str(frame.source) if isinstance(frame.source, Path) else None, "error": str(frame.error)}
        else:
            about |= frame.explanation.to_dict()["images"][0]
        return json.dumps(about, ensure_ascii=False)

    if output is None:
        yield lambda frame: typer.echo(line(frame))
        return
    with replaced(output) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        yield lambda frame: print(line(frame), file=file)


@contextmanager
def _video(output: Path, fps: float, colors: str = "jet") -> Iterator[Callable[[Frame], None]]:
    """The overlays as a video; a frame of another size than the first is resized to it, a failed one left out.

    OpenCV does not say what a full disk cost, so the frames are counted in the file afterwards.
    """
    from fastcam.image.preprocess import opencv

    cv2 = opencv()
    writers: list[Any] = []
    written = 0

    def write(frame: Frame) -> None:
        nonlocal written
        if frame.explanation is None:
            print(f"frame {frame.index}: {frame.error}", file=sys.stderr)
            return
        picture = frame.explanation.overlay(colors=colors)
        if not writers:
            code = cv2.VideoWriter_fourcc(*("MJPG" if output.suffix.lower() == ".avi" else "mp4v"))
            size = (picture.shape[1], picture.shape[0])
            writers.append((cv2.VideoWriter(str(partial), code, fps, size), size))
            if not writers[0][0].isOpened():
                raise FastcamError(f"{output}: OpenCV cannot write this kind of video; choose .avi or .mp4")
        writer, size = writers[0]
        if picture.shape[1::-1] != size:
            picture = cv2.resize(picture, size)
        writer.write(picture[:, :, ::-1])
        written += 1

    with replaced(output) as partial:
        try:
            yield write
        finally:
            for writer, _ in writers:
                writer.release()
        if not written:
            raise FastcamError(f"{output}: no frame could be explained, so there is no video")
        kept = _count(partial)
        if kept != written:
            raise FastcamError(f"{output}: only {kept} of {counted(written, 'frame')} reached the disk; is it full?")


def _count(video: Path) -> int:
    """How many frames a video file really holds."""
    from fastcam.image.preprocess import opencv

    reader = opencv().VideoCapture(str(video))
    frames = 0
    while reader.grab():
        frames += 1
    reader.release()
    return frames
