"""csrc/: C++ that knows no Python, one version number, and libraries that C and C++ programs use alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fastcam
from fastcam import _native

pytestmark = pytest.mark.xdist_group("csrc")  # one worker makes what its fixtures hold, once
ROOT = Path(__file__).resolve().parents[2]
CSRC, CAPI = ROOT / "csrc", ROOT / "tests" / "capi"
HEADER = CSRC / "include" / "fastcam" / "cam.h"
# one corner of 2 in a map of zeros, enlarged twice: 0.5625, 0.75, 0.75 and 1 times 2 reach half of the peak
EXPECTED = f"{fastcam.__version__} status 0 maps 0 2 components 1 1 box 6 6 8 8 pixels 4 4\nrefused 1\n"
EXPECTED += "newer 0 with its field 1 without a size 1\n"


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def tool(*names: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")])
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return found
    pytest.skip(f"needs {' or '.join(names)} on PATH")


def configure(source: Path, build: Path, *settings: str) -> None:
    run(tool("cmake"), "-S", source, "-B", build, *settings)
    run(tool("cmake"), "--build", build, "--parallel", "2")


def build_programs(build: Path, *settings: str) -> Path:
    configure(ROOT, build, "-DFASTCAM_PYTHON=OFF", "-DFASTCAM_TESTS=ON", *settings)
    return build


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The libraries and test programs, built as a release."""
    tool("c++"), tool("cc")
    return build_programs(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def installed(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("prefix")
    run(tool("cmake"), "--install", plain, "--prefix", prefix)
    return prefix


# --- the sources ---------------------------------------------------------------------------------------------------


def code_of(path: Path) -> str:
    return re.sub(r"//.*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL if path.name == "cam.h" else 0)


def cxx_files() -> list[Path]:
    """The header, the kernels and the bindings; not the CUDA."""
    return [HEADER, *sorted((CSRC / "src").rglob("*.[ch]*")), *sorted((CSRC / "python").iterdir())]


def test_only_the_bindings_know_python() -> None:
    sources = sorted(path for path in CSRC.rglob("*") if path.is_file())
    knowing = [path.name for path in sources if re.search(rb"pybind11|Python\.h|PyObject", path.read_bytes())]
    assert HEADER in sources
    assert knowing == ["bindings.cpp"]


def test_only_the_workspace_allocates_and_nothing_throws_or_starts_threads() -> None:
    banned = r"\b(throw|new|malloc|realloc|std::vector|std::string|std::thread|thread_local)\b"
    using = {path.name for path in cxx_files() if re.search(banned, code_of(path))}
    assert using == {"bindings.cpp", "workspace.cpp", "memory.h"}


def test_no_kernel_keeps_global_state() -> None:
    for path in cxx_files():
        if path.suffix == ".cpp" and path.name != "bindings.cpp":
            assert not re.search(r"^\s*static (?!_cast|inline|const)", code_of(path), re.MULTILINE), path


def test_every_function_of_the_api_is_noexcept() -> None:
    code = code_of(HEADER)
    declarations = re.findall(r"^FASTCAM_API [^;]*;", code, re.MULTILINE)
    assert len(declarations) == 19
    assert all(" FASTCAM_NOEXCEPT;" in declaration for declaration in declarations)


def test_python_and_cpp_agree_on_the_version() -> None:
    assert _native.__version__ == fastcam.__version__


# --- C and C++ hosts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fastcam", "static"])
def test_a_c99_program_finds_the_installed_library_with_cmake(installed: Path, tmp_path: Path, kind: str) -> None:
    configure(CAPI / "consumer", tmp_path, f"-DCMAKE_PREFIX_PATH={installed}")
    assert run(tmp_path / f"boxes_{kind}") == EXPECTED


@pytest.mark.skipif(sys.platform == "win32", reason="pkg-config is not how Windows finds libraries")
@pytest.mark.parametrize("linking", ["shared", "static"])
def test_a_c99_program_finds_the_installed_library_with_pkg_config(
    installed: Path, tmp_path: Path, linking: str
) -> None:
    [description] = installed.rglob("fastcam.pc")
    [archive] = installed.rglob("libfastcam.a")
    path = {"PKG_CONFIG_PATH": str(description.parent)}
    asked = ["--static"] if linking == "static" else []
    pkg_config = tool("pkg-config", "pkgconf")
    flags = run(pkg_config, *asked, "--cflags", "--libs", "fastcam", env=path).split()
    if linking == "static":
        flags = [str(archive) if flag == "-lfastcam" else flag for flag in flags]
    program = tmp_path / "boxes"
    run(tool("cc"), "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", CAPI / "boxes.c", *flags, "-o", program)
    assert run(program, env={"LD_LIBRARY_PATH": str(archive.parent)}) == EXPECTED
    assert run(pkg_config, "--modversion", "fastcam", env=path).strip() == fastcam.__version__


def test_the_header_serves_cpp(installed: Path, tmp_path: Path) -> None:
    source = tmp_path / "host.cpp"
    source.write_text(
        "#include <fastcam/cam.h>\n#include <cstdio>\n#include <cstring>\nint main() {\n"
        '    static_assert(noexcept(fastcam_version()), "");\n    std::puts(fastcam_version());\n}\n'
    )
    [archive] = installed.rglob("libfastcam.a")
    run(tool("c++"), "-std=c++11", f"-I{installed / 'include'}", source, archive, "-o", tmp_path / "host")
    assert run(tmp_path / "host").strip() == fastcam.__version__


def test_the_shared_library_exports_the_api_and_nothing_else(installed: Path) -> None:
    libraries = sorted(installed.rglob("libfastcam.so"))
    if not libraries:
        pytest.skip("no ELF shared library on this system")
    symbols = run(tool("nm"), "-D", "--defined-only", libraries[0])
    own = {line.split()[2] for line in symbols.splitlines() if "fastcam" in line}
    declared = set(re.findall(r"\b(fastcam_\w+)\(", code_of(HEADER)))
    assert own == declared


def test_soname_and_cmake_package_promise_the_same(installed: Path, tmp_path: Path) -> None:
    libraries = sorted(installed.rglob("libfastcam.so"))
    if not libraries:
        pytest.skip("no ELF shared library on this system")
    [soname] = re.findall(r"soname: \[(.+)\]", run(tool("readelf"), "-d", libraries[0]))
    major, minor, *_ = fastcam.__version__.split(".")
    assert soname == ("libfastcam.so." + (f"0.{minor}" if major == "0" else major))
    [version_file] = installed.rglob("fastcam-config-version.cmake")

    def accepts(version: str) -> bool:
        parts = version.split(".")
        script = tmp_path / "ask.cmake"
        script.write_text(
            f"set(PACKAGE_FIND_VERSION {version})\nset(PACKAGE_FIND_VERSION_COUNT {len(parts)})\n"
            f"set(PACKAGE_FIND_VERSION_MAJOR {parts[0]})\nset(PACKAGE_FIND_VERSION_MINOR {parts[1]})\n"
            f'include("{version_file}")\nif(NOT PACKAGE_VERSION_COMPATIBLE)\n  message(FATAL_ERROR no)\nendif()\n'
        )
        return subprocess.run([tool("cmake"), "-P", script], capture_output=True).returncode == 0

    assert accepts(f"{major}.{minor}")
    assert not accepts(f"{major}.{int(minor) + 1}") and not accepts(f"{int(major) + 1}.0")
    if int(minor) > 0:
        assert accepts(f"{major}.{int(minor) - 1}") is (major != "0")  # what the soname says of an older program


# --- the same bits everywhere, and no undefined behaviour ------------------------------------------------------


def test_fused_and_separate_kernels_agree_in_cpp(plain: Path) -> None:
    assert run(plain / "stress", "300", "7") == "all equal\n"


def test_boxes_without_heatmaps_are_those_with(plain: Path) -> None:
    lines = run(plain / "digest").splitlines()
    assert lines[-3:] == lines[-6:-3]  # counts, largest and components


@pytest.mark.slow
def test_function_clones_change_nothing(plain: Path, tmp_path: Path) -> None:
    baseline = build_programs(tmp_path, "-DFASTCAM_CLONES=OFF")
    assert run(baseline / "digest") == run(plain / "digest")


@pytest.mark.slow
def test_aarch64_gives_the_same_bits(plain: Path, tmp_path: Path) -> None:
    qemu = tool("qemu-aarch64", "qemu-aarch64-static")
    settings = {"SYSTEM_NAME": "Linux", "SYSTEM_PROCESSOR": "aarch64"}
    settings |= {"C_COMPILER": tool("aarch64-linux-gnu-gcc"), "CXX_COMPILER": tool("aarch64-linux-gnu-g++")}
    build_programs(tmp_path, *(f"-DCMAKE_{key}={value}" for key, value in settings.items()))
    root = ["-L", "/usr/aarch64-linux-gnu"]
    assert run(qemu, *root, tmp_path / "digest") == run(plain / "digest")
    assert run(qemu, *root, tmp_path / "stress", "60") == "all equal\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "magic", "emulators"),
    [
        ("x86_64-linux-gnu.2.17", b"\x7fELF", ["qemu-x86_64", "qemu-x86_64-static"]),
        ("aarch64-linux-gnu.2.17", b"\x7fELF", ["qemu-aarch64", "qemu-aarch64-static"]),
        ("x86_64-macos.11.0", b"\xcf\xfa\xed\xfe", []),
        ("aarch64-macos.11.0", b"\xcf\xfa\xed\xfe", []),
        ("x86_64-windows-gnu", b"MZ", ["wine64", "wine", "/usr/lib/wine/wine64"]),
    ],
)
def test_zig_builds_for_every_system_and_what_can_run_here_gives_the_same_bits(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, magic: bytes, emulators: list[str]
) -> None:
    folder = str(Path(tool("zig", "python-zig")).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([folder, os.environ.get("PATH", os.defpath)]))
    monkeypatch.setenv("ZIG_TARGET", target)
    monkeypatch.setenv("WINEPREFIX", str(tmp_path / "wine"))
    tool("ninja")  # CMake's makefiles for Windows call ar in a way of their own
    build_programs(tmp_path / "build", "-G", "Ninja", f"-DCMAKE_TOOLCHAIN_FILE={CSRC / 'cmake' / 'zig.cmake'}")
    [digest] = [path for path in (tmp_path / "build").glob("digest*") if path.suffix in ("", ".exe")]
    assert digest.read_bytes().startswith(magic)
    emulator = next(filter(None, map(shutil.which, emulators)), None)
    if emulator:
        root = ["-L", "/usr/aarch64-linux-gnu"] if target.startswith("aarch64") else []
        assert run(emulator, *root, digest).replace("\r", "") == run(plain / "digest")


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_sanitizers_find_nothing(plain: Path, tmp_path: Path, sanitizer: str) -> None:
    flags = "-fsanitize=address,undefined" if sanitizer == "address" else "-fsanitize=thread"
    (tmp_path / "empty.cpp").write_text("int main() {}\n")
    trial = [tool("c++"), flags, str(tmp_path / "empty.cpp"), "-o", str(tmp_path / "empty")]
    if subprocess.run(trial, capture_output=True).returncode or subprocess.run([tmp_path / "empty"]).returncode:
        pytest.skip(f"this compiler or system cannot run programs with {flags}")
    build = build_programs(tmp_path / "build", f"-DFASTCAM_SANITIZE={sanitizer}")
    assert run(build / "stress", "400") == "all equal\n"
    assert run(build / "digest") == run(plain / "digest")
