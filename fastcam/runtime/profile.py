"""Profiles: what ``fastcam tune`` has found fastest for a file on a machine, and whether that holds here and now."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from fastcam import cache
from fastcam.errors import FastcamError, listed, shown, typed
from fastcam.input_files import read_text
from fastcam.runtime.providers import CPU, DEFAULT, Precision, Providers, Settings, resolve_providers
from fastcam.runtime.session import MOST_THREADS, Model, available_providers, warn_once
from fastcam.schema import __version__
from fastcam.typed_fields import Unfit, at_least, at_most, built, check_fields, parse_json

Goal: TypeAlias = Literal["latency", "throughput"]
GOALS: tuple[Goal, ...] = ("latency", "throughput")
VERSION = 1
"""Of a profile's form."""
SUFFIX = ".profile.json"
BATCH = 16
"""Pictures of a run where nothing says more."""
MOST_SESSIONS = 8
"""Runs that go on at the same time where nothing was measured; more would take more memory than one expects."""
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "openvino")


@dataclass(frozen=True)
class Choice:
    """A way to run a file.

    Attributes:
        providers, threads: see :func:`fastcam.runtime.session.create_session`.
        batch: pictures of a run.
        sessions, spinning, optimization, precision, fp16: see :class:`fastcam.runtime.providers.Settings`.
    """

    providers: str
    threads: Annotated[int, at_least(1), at_most(MOST_THREADS)]
    batch: Annotated[int, at_least(1)]
    sessions: Annotated[int, at_least(1), at_most(MOST_THREADS)] = 1
    spinning: bool = True
    optimization: Literal["all", "extended", "basic"] = "all"
    precision: Precision | None = None
    fp16: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def settings(self, given: Settings = DEFAULT) -> Settings:
        """``given``, with this choice's where it says nothing."""
        own = {one.name for one in fields(self)} & {one.name for one in fields(Settings)}
        unsaid = {name: getattr(self, name) for name in own if getattr(given, name) == getattr(DEFAULT, name)}
        return replace(given, **unsaid)

    @property
    def title(self) -> str:
        """As "openvino-runtime bf16, 2 threads, batch 8"."""
        how: list[str] = [self.precision or "", "fp16" if self.fp16 else ""]
        how += [f"optimization {self.optimization}"] if self.optimization != "all" else []
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        parts = [" ".join([self.providers, *filter(None, how)])]
        parts.append(f"{self.sessions} runs of {threads}" if self.sessions > 1 else threads)
        return ", ".join([*parts, *([] if self.spinning else ["no spinning"]), f"batch {self.batch}"])


@dataclass(frozen=True)
class Machine:
    """What a profile holds for: the processor's name, the cores that a process may use, and a digest of all flags."""

    cpu: str
    cores: int
    digest: str


@dataclass(frozen=True)
class Profile:
    """A profile, without what was measured for it.

    Attributes:
        fastcam_profile: version of this form.
        model: SHA-256 of the exported file.
        machine: where it was made.
        packages: versions of what ran, by the name of the distribution.
        latency, throughput: what to run with.
    """

    fastcam_profile: int
    model: str
    machine: Machine
    packages: dict[str, str]
    latency: Choice
    throughput: Choice

    def stale(self, model: Model, folder: Path) -> str:
        """Why it does not hold for a file here; empty where it does.

        Args:
            folder: the cache's.
        """
        here = this_machine()
        if self.model != cache.digest(model, folder)[0]:
            return "the model has changed since"
        if self.machine != here:
            return f"it was made on {self.machine.cpu} with {self.machine.cores} cores, not on this machine"
        have = packages()
        changed = [name for name, version in self.packages.items() if have.get(name) != version]
        said = (f"{name} {self.packages[name]}, not {have.get(name) or 'there now'}" for name in changed)
        return f"it was made with {listed(said)}" if changed else ""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_machine() -> Machine:
    """The machine that this process runs on."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return Machine(name, cores(), cache.machine())


def packages() -> dict[str, str]:
    """Versions of FastCAM and of the engines that are installed."""
    from importlib import metadata  # which takes longer to import than all of this folder

    found = {"fastcam": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def profile_path(model: str | Path) -> Path:
    """Where the profile of a file lies: ``MODEL.cam.profile.json``."""
    path = Path(model)
    return path.with_name(path.name.removesuffix(".onnx") + SUFFIX)


def read_profile(path: str | Path) -> Profile:
    """A profile's file.

    Raises:
        FastcamError: it cannot be read, or is none.
    """
    text = read_text(path, "give a profile that fastcam tune has written")
    try:
        raw = parse_json(text)
        version = raw.get("fastcam_profile") if isinstance(raw, dict) else None
        if version != VERSION:
            raise ValueError("of another version" if isinstance(version, int) else "not what fastcam tune writes")
        made: Profile = built(Profile, raw)
    except (json.JSONDecodeError, Unfit, ValueError) as error:
        raise FastcamError(f"{shown(path)}: no profile ({error}); run fastcam tune again") from error
    return made


def chosen(
    profile: str | Path | Choice | None,
    model: Model,
    goal: Goal,
    providers: Providers = "auto",
    cache_folder: Any = None,
) -> Choice | None:
    """What a profile says for a file; None where there is none, or where other ``providers`` are asked for.

    Args:
        profile: "auto" is the one beside the file: one that does not hold is passed over with a warning. A path must
            hold. "none" and None are none.
        goal: one picture as soon as can be, or many.
        cache_folder: see :class:`fastcam.runtime.providers.Settings`.

    Raises:
        FastcamError: a path to none, or to one that does not hold here.
    """
    typed("goal", goal, str, "latency or throughput")
    if goal not in GOALS:
        raise FastcamError(f"goal is {shown(repr(goal))}; give latency or throughput")
    typed("profile", profile, str | os.PathLike | Choice | type(None), '"auto", a path or None')
    if profile is None or profile == "none":
        return None
    found = profile if isinstance(profile, Choice) else _read(profile, model, goal, cache_folder)
    return found if found is not None and providers in ("auto", found.providers) else None


def _read(profile: str | Path, model: Model, goal: Goal, cache_folder: Any) -> Choice | None:
    auto = profile == "auto"
    if auto and isinstance(model, bytes):
        return None
    path = profile_path(str(model)) if auto else Path(profile)
    if auto and not (os.path.isfile(path) and os.path.isfile(str(model))):
        return None
    try:
        made = read_profile(path)
        found: Choice = getattr(made, goal)
        why = made.stale(model, cache.root(cache_folder)) or _missing(found)
        if why:
            raise FastcamError(f"{shown(path)} does not hold: {why}; run fastcam tune again")
    except FastcamError as error:
        if not auto:
            raise
        warn_once(f"{error}; going on without it")
        return None
    return found


def _missing(choice: Choice) -> str:
    """What a choice needs that is not installed; empty where all is."""
    try:
        resolve_providers(choice.providers, available_providers())
    except FastcamError:
        return f"it is for {choice.providers}, which is not in this ONNX Runtime"
    return ""


Opening: TypeAlias = "tuple[Providers, int | None, int, Settings]"
"""Providers, threads, pictures of a run, and settings."""


def opening(
    choice: Choice | None,
    goal: Goal,
    providers: Providers,
    threads: int | None,
    batch: int | None,
    settings: Settings,
) -> Opening:
    """How a file is opened. What the caller has said stays; who says threads says those of all runs, and has one.

    Without a profile throughput on the CPU is runs of one thread, one for each core: two callers of one thread explain
    more pictures than one caller of two (``fastcam_bench.speed.layouts`` measures how many more).
    """
    if choice is not None:
        own = choice.settings(settings)
        if threads is not None and settings.sessions == 1:
            own = replace(own, sessions=1)
        threads = choice.threads if threads is None else threads
        return choice.providers, threads, choice.batch if batch is None else batch, own
    batch = BATCH if batch is None else batch
    free = threads is None and settings.sessions == 1 and settings.cores is None and settings.inter_threads is None
    if goal == "throughput" and free and 1 < cores() <= MOST_SESSIONS and _on_cpu(providers):
        return providers, 1, batch, replace(settings, sessions=cores())
    return providers, threads, batch, settings


def _on_cpu(providers: Providers) -> bool:
    return resolve_providers(providers, available_providers()) == [CPU]
