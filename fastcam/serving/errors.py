"""Why a request has no answer, beside a wrong one."""

from __future__ import annotations

from fastcam.errors import FastcamError


class NotServed(FastcamError):
    """No such model, or version of it."""


class WrongMethod(FastcamError):
    """A route that is asked by another method than its own."""


class Gone(FastcamError):
    """A version that was replaced while a request was on its way to it."""


class NotInTime(FastcamError):
    """A request whose time was over before its answer was there."""


class Left(FastcamError):
    """A request whose client did not wait for its answer."""


class TooLarge(FastcamError):
    """A body of more bytes than a request may have."""


class TooMany(FastcamError):
    """More requests at once than are taken."""


class NotAllowed(FastcamError):
    """A request without a key, or with a wrong one."""
