"""``fastcam serve``: explanations behind an endpoint."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from fastcam.cli.shared.options import ProfileName, Providers, Threads
from fastcam.errors import FastcamError, shown

if TYPE_CHECKING:
    from fastcam.serving.grpc.server import Tls

Told: TypeAlias = Callable[[str], None]

EXAMPLES = (
    "fastcam serve resnet50.cam.onnx",
    "fastcam serve models/ --host 0.0.0.0 --port 80 --key-file keys.txt",
    "fastcam serve resnet50.cam.onnx --threads 4 --batch-size 16",
)


def serve(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="Exported files, or folders with NAME.cam.onnx or NAME/VERSION/*.cam.onnx, which are watched.",
        ),
    ],
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0: all of the machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    grpc_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Where gRPC is spoken too; 0 takes a free one.", show_default=False),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes; one that ends is replaced. Each has the models, and --max-waiting.")
    ] = 1,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pictures of a run at most.", show_default="the profile's, or 8")
    ] = None,
    delay: Annotated[
        float, typer.Option(min=0, help="Milliseconds that a run waits for pictures that are being decoded.")
    ] = 2.0,
    threads: Threads = None,
    providers: Providers = "auto",
    profile: ProfileName = "auto",
    goal: Annotated[
        Literal["latency", "throughput"], typer.Option("--tuned-for", help="Which choice of a profile is taken.")
    ] = "throughput",
    max_body: Annotated[float, typer.Option(min=0.001, help="MiB of a request.")] = 16.0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of a picture; larger ones are refused unread.")] = 50_000_000,
    max_pictures: Annotated[int, typer.Option(min=1, help="Of a request.")] = 32,
    max_targets: Annotated[int, typer.Option(min=1, help="Of a picture.")] = 32,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests at once; one more gets 429.")] = 64,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Open at once, of HTTP and gRPC so many each; one more gets 503, or is closed.")
    ] = 400,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds of a request.")] = 30.0,
    max_kept: Annotated[
        float, typer.Option(min=0, help="MiB of predictions that may be explained later, for five minutes; 0: none.")
    ] = 256.0,
    log: Annotated[
        str, typer.Option(help="text: what is loaded, and defects. json: a line of JSON for each, and each request.")
    ] = "text",
    trace: Annotated[
        bool, typer.Option("--trace", help="Send spans by OpenTelemetry, as its variables OTEL_... say.")
    ] = False,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TABLE",
            help="A table of fastcam batch, with which the last maps of a model are compared in /metrics; repeatable.",
            show_default=False,
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help="A file with a key on each line, one of which clients must send.", show_default=False),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, PEM.", show_default=False)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.", show_default=False)] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="Whose certificates clients must have, PEM.", show_default=False)
    ] = None,
) -> None:
    """Serve exported models: the Open Inference Protocol (HTTP, gRPC), KServe's v1 protocol, and a page to try it."""
    from fastcam.serving.limits import Limits
    from fastcam.serving.processes.process import GrpcAddress, Process

    mib = 1 << 20
    kept = int(max_kept * mib)
    limits = Limits(
        int(max_body * mib),
        max_pixels,
        max_pictures,
        max_targets,
        max_waiting,
        timeout,
        kept,
        connections=max_connections,
    )
    told, keys, tls = _line_printer(log), _keys(key_file), _tls(tls_cert, tls_key, client_ca)
    if workers > 1 and threads is None:
        threads = max(1, (os.cpu_count() or 1) // workers)
    with ExitStack() as stack:
        grpc, where = None, []
        if grpc_port is not None:
            at = stack.enter_context(_grpc_port(host, grpc_port, workers > 1))
            grpc = GrpcAddress(host, at, _grpc_tls(tls_cert, tls_key, client_ca), workers > 1)
            where.append(f"listening for gRPC at {_shown(host)}:{at}")
        listening = stack.enter_context(_listening(host, port, "--port"))
        where.append(f"listening at {'https' if tls else 'http'}://{_shown(host)}:{listening.getsockname()[1]}/")

        def loaded() -> None:
            for line in where:
                told(line)

        of_runs = providers, threads, batch_size, delay / 1000
        references = _references(reference or ())
        process = Process(
            tuple(sources), limits, keys, *of_runs, tls, grpc, log == "json", trace, references, profile, goal
        )
        if workers > 1:
            from fastcam.serving.processes.workers import Workers

            Workers(workers, process, listening, told, loaded).run()
        else:
            process.serve([listening], told, loaded)


def _line_printer(log: str) -> Told:
    """What tells a line, in the form that was asked for."""
    if log not in ("text", "json"):
        raise FastcamError(f"--log is {shown(repr(log))}; give text or json")
    if log == "text":
        return partial(typer.echo, err=True)
    from fastcam.serving.service import LOG
    from fastcam.serving.watching import logs

    logs.to_stderr()
    return LOG.info


def _listening(host: str, port: int, option: str, shared: bool = False) -> socket.socket:
    """A socket at an address; one that is shared only holds it for those that listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if shared and not hasattr(socket, "SO_REUSEPORT"):
        raise FastcamError(
            "several processes cannot share gRPC's port on this system; leave out --grpc-port or --workers"
        )
    try:
        if not shared:
            return socket.create_server((host, port), family=family, backlog=1024)
        held = socket.socket(family)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
        return held
    except OSError as error:
        raise FastcamError(f"cannot listen at {host}:{port} ({error}); choose another --host or {option}") from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@contextmanager
def _grpc_port(host: str, port: int, shared: bool) -> Iterator[int]:
    """A port for gRPC, which itself listens when the server starts; one that is shared is held until the end."""
    from fastcam.serving.grpc.server import refuse_missing

    refuse_missing()
    with _listening(host, port, "--grpc-port", shared) as held:
        number: int = held.getsockname()[1]
        if not shared:
            held.close()
        yield number


def _grpc_tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    from fastcam.serving.grpc.server import Tls

    if certificate is None or key is None:
        return None
    return Tls(key.read_bytes(), certificate.read_bytes(), client_ca.read_bytes() if client_ca else None)


def _references(given: Sequence[str]) -> dict[str, Path]:
    """Tables by the models whose maps are compared with them; what is wrong is said before anything is served."""
    from fastcam.serving.watching.drift import Reference

    found = {}
    for one in given:
        name, _, table = one.partition("=")
        if not name or not table:
            raise FastcamError(f"--reference is {shown(repr(one))}; give NAME=TABLE, a model's name and a table")
        Reference(Path(table))
        found[name] = Path(table)
    return found


def _keys(path: Path | None) -> tuple[str, ...]:
    """The keys of a file, one a line."""
    if path is None:
        return ()
    from fastcam.input_files import read_text

    keys = tuple(line.strip() for line in read_text(path, "give a text file with a key on each line").splitlines())
    keys = tuple(key for key in keys if key)
    if not keys:
        raise FastcamError(f"{shown(path)}: no key in it; give one on each line")
    return keys


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> dict[str, Any]:
    if (certificate is None) != (key is None) or (client_ca is not None and certificate is None):
        raise FastcamError("TLS needs --tls-cert and --tls-key, and --client-ca both of them; give them together")
    if certificate is None or key is None:
        return {}
    import ssl

    for path in (certificate, key, *([client_ca] if client_ca else [])):
        if not path.is_file():
            raise FastcamError(f"{shown(path)}: no such file; give one in PEM")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
    except (ssl.SSLError, OSError) as error:
        raise FastcamError(f"the certificate or key cannot be read ({error}); give PEM files that fit") from error
    of_clients = {"ssl_ca_certs": str(client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED} if client_ca else {}
    return {"ssl_certfile": str(certificate), "ssl_keyfile": str(key), **of_clients}
