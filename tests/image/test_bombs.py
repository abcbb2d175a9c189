"""Files that promise more than they hold, arrays, volumes, chunks, texts: one line, at once, without the memory."""

import gzip
import io
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from fastcam import FastcamError
from fastcam.image import nifti
from fastcam.image.decode import load, read
from fastcam.image.reading import Reading
from fastcam.input_files import NUMBERS, TEXT, read_array, read_text
from fastcam.labels import names_in, read_labels
from fastcam.runtime.inputs.further_inputs import read_array as read_numbers


@pytest.fixture(autouse=True)
def little_memory():
    """No more than a gigabyte beyond what the process has."""
    pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def refused(call, words):
    with pytest.raises(FastcamError, match=words) as error:
        call()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


# ---- arrays


def npy(header, data=b"", version=b"\x01\x00"):
    text = header.encode().ljust(120) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(text)) + text + data


def described(descr="'|u1'", shape="(4, 5, 3)", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


BAD_ARRAYS = {
    "more than there is": npy(described(shape="(100000, 100000, 100)"), bytes(60)),
    "beyond any memory": npy(described(shape="(2**62, 4)".replace("2**62", str(2**62)))),
    "a negative size": npy(described(shape="(-1, 4)"), bytes(60)),
    "a size that is no number": npy(described(shape="(4.5, 4)"), bytes(60)),
    "objects": npy(described("'|O'", "(1,)"), b"cos\nsystem\n(S'true'\ntR."),
    "texts": npy(described("'<U3'", "(2,)"), bytes(24)),
    "complex numbers": npy(described("'<c8'", "(2,)"), bytes(16)),
    "records": npy(described("[('a', '<f4')]", "(2,)"), bytes(8)),
    "a type of a gigabyte": npy(described("'|V1000000000'", "(1,)"), bytes(8)),
    "no type": npy(described("'?!'", "(2,)"), bytes(8)),
    "nested without end": npy("(" * 110),
    "no header": npy("hello"),
    "too many axes": npy(described(shape=str((1,) * 100)), bytes(1)),
    "a later version": npy(described(), bytes(60), b"\x09\x00"),
    "cut short": npy(described())[:20],
    "packed arrays": b"PK\x03\x04" + bytes(50),
    "a pickle": b"\x80\x04\x95" + bytes(20),
    "nothing": b"",
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_an_array_that_is_none_is_one_line(tmp_path, name):
    path = tmp_path / "a.npy"
    path.write_bytes(BAD_ARRAYS[name])
    for call in (lambda: read_array(path, "give an array"), lambda: read(path, "BANDS"), lambda: read_numbers(path)):
        refused(call, r"a\.npy: (no array can be read from it|the picture has)")


@pytest.mark.parametrize("dtype", ["u1", ">u2", "<f4", ">f8", "i8", "?"])
@pytest.mark.parametrize("fortran", [False, True])
def test_arrays_are_what_numpy_saved(tmp_path, dtype, fortran):
    array = np.arange(60).reshape(4, 5, 3).astype(dtype)
    np.save(tmp_path / "a.npy", np.asfortranarray(array) if fortran else array)
    found = read_array(tmp_path / "a.npy", "give an array")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=") and found.flags.writeable
    with pytest.raises(FastcamError, match="5 x 4 pixels"):
        read(tmp_path / "a.npy", "BANDS", Reading(max_pixels=19))


# ---- texts


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 50 + "1" + "]" * 50 + "]", '{"a": 1}', "[[1, 2], [3]]", "NaN x", ""]
)
def test_numbers_that_are_none_are_one_line(tmp_path, text):
    (tmp_path / "n.json").write_text(text)
    refused(lambda: read_numbers(tmp_path / "n.json"), "no array can be read")


def test_texts_that_are_too_long_are_not_read(tmp_path):
    for name, most, call in (
        ("n.csv", NUMBERS, read_numbers),
        ("n.json", NUMBERS, read_numbers),
        ("names.txt", TEXT, lambda path: read_labels(path, None)),
        ("t.txt", TEXT, lambda path: read_text(path, "give text")),
    ):
        with (tmp_path / name).open("wb") as file:
            file.truncate(most + 1)
        refused(lambda path=tmp_path / name, call=call: call(path), rf"{name}: longer than the {most >> 20} MiB")


@pytest.mark.parametrize("element", ["1,", "{},", "1+", "'' ", "[", "("])
def test_a_text_of_python_of_a_million_parts_is_no_list_of_names(tmp_path, element):
    """Half a kilobyte for each number: eight gigabytes for a file of 16 megabytes."""
    text = "[" + element * 1_500_000 + "'a']"
    assert len(names_in(text) or ()) != 2
    (tmp_path / "names.txt").write_text(text)
    try:
        read_labels(tmp_path / "names.txt", 5)
    except FastcamError as error:
        assert len(str(error)) < 500


def test_names_of_many_classes_are_still_read_from_python():
    names = [f"class {i} of 'many'" for i in range(21_843)]
    assert names_in(str(names)) == names_in(str(dict(enumerate(names)))) == tuple(names)


SPACES = "0 a" + " " * 50_000 + "b"


@pytest.mark.parametrize("text", [SPACES, f"{SPACES}\n1 b\n", "0" + " " * 50_000, "0:" * 50_000, " " * 100_000 + "x"])
def test_names_between_many_blanks_are_read_at_once(tmp_path, text):
    (tmp_path / "names.txt").write_text(text)
    assert len(read_labels(tmp_path / "names.txt", None)) == len(text.rstrip().splitlines())
    names_in(text)


def test_aliases_that_explode_and_yaml_of_many_megabytes_are_one_line(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (tmp_path / "names.yaml").write_text("\n".join([*lines, "names: *a11"]))
    refused(lambda: read_labels(tmp_path / "names.yaml", None), "class name")
    (tmp_path / "names.yaml").write_text("- cat\n" * 400_000)
    refused(lambda: read_labels(tmp_path / "names.yaml", None), "names.yaml: YAML longer than")


# ---- volumes


def volume(shape=(3, 4, 5), voxels=120, code=4, offset=float(nifti.DATA), scale=(0.0, 0.0)):
    head = bytearray(nifti.DATA)
    struct.pack_into("<i", head, 0, nifti.HEADER)
    struct.pack_into(f"<{len(shape) + 1}h", head, nifti.DIM, len(shape), *shape)
    struct.pack_into("<h", head, nifti.DATATYPE, code)
    struct.pack_into("<3f", head, nifti.OFFSET, offset, *scale)
    head[nifti.MAGIC : nifti.MAGIC + 4] = b"n+1\0"
    return bytes(head) + bytes(voxels)


def test_a_packed_volume_is_unpacked_no_further_than_it_says(tmp_path):
    packer = zlib.compressobj(9, wbits=31)
    start = packer.compress(volume()) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    (tmp_path / "v.nii.gz").write_bytes(start + zeros * 128)  # 2 GiB in 2 MB
    assert nifti.read(tmp_path / "v.nii.gz").shape == (3, 4, 5)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": (32767, 32767, 32767)}, "32767 x 32767 x 32767 voxels are not read"),
        ({"shape": (32767,) * 7}, "voxels are not read"),
        ({"shape": (500, 500, 500)}, "ends before its 500 x 500 x 500 voxels"),
        ({"shape": (0, 4, 5)}, "voxels are not read"),
        ({"shape": (-3, 4, 5)}, "voxels are not read"),
        ({"code": 99}, "type 99 is not read"),
        ({"offset": 1e9}, "ends before"),
    ],
)
def test_a_volume_that_promises_more_is_refused(tmp_path, options, words, packed):
    path = tmp_path / ("v.nii.gz" if packed else "v.nii")
    path.write_bytes(gzip.compress(volume(**options)) if packed else volume(**options))
    refused(lambda: nifti.read(path), words)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1e30])
def test_numbers_of_a_volumes_header_that_say_nothing_are_passed_over(tmp_path, number):
    (tmp_path / "v.nii").write_bytes(volume(offset=number, scale=(number if number != -1e30 else 0.0, number)))
    assert not nifti.read(tmp_path / "v.nii").any()


# ---- pictures


def test_a_chunk_that_is_longer_than_its_file_has_no_memory_made_for_it():
    data = cv2.imencode(".png", np.zeros((9, 11, 3), np.uint8))[1].tobytes()
    long = data[:33] + b"\xff\0\0\x02" + data[37:]
    refused(lambda: load(long), "cut short")
    refused(lambda: load(data.replace(b"IEND", b"IENX")), "cut short")


@pytest.mark.parametrize("animated", [False, True])
def test_a_png_that_was_altered_shows_no_memory(animated):
    file, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    more = {"save_all": True, "append_images": [Image.new("RGB", (40, 30))]} if animated else {}
    Image.fromarray(noise).save(file, "PNG", **more)
    data = file.getvalue()
    np.testing.assert_array_equal(load(data), noise)
    at = data.index(b"IDAT") + 2000
    refused(
        lambda: load(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]), "the picture is damaged; copy it again"
    )
    text = data[:33] + b"\0\0\0\4tEXt" + b"a\0bc" + b"\0\0\0\0" + data[33:]  # a remark, with no right checksum
    np.testing.assert_array_equal(load(text), noise)


def test_whatever_pillow_raises_is_one_line():
    class Broken(Image.Image):
        def load(self):
            raise RuntimeError("of\na plugin")

    image = Broken()
    image._mode, image._size = "RGB", (4, 4)
    refused(lambda: load(image), "PIL image cannot be read .*of a plugin")
