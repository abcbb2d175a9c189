"""PIL images are read as their files would be: every mode, 16 bits, orientation; what is not understood is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from fastcam import FastcamError
from fastcam.image.decode import load, read

DEEP = np.random.default_rng(0).integers(0, 65536, (8, 9), np.uint16)
GREY = (DEEP >> 8).astype(np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (8, 9, 3), np.uint8)
SAME = {
    "L": (Image.fromarray(GREY), GREY),
    "1": (Image.fromarray(GREY > 127), np.where(GREY > 127, 255, 0)),
    "LA": (Image.fromarray(np.stack([GREY, GREY], -1), "LA"), GREY),
    "P": (Image.fromarray(GREY).convert("P"), GREY),
    "I;16": (Image.fromarray(DEEP), GREY),
    "I;16B": (Image.frombytes("I;16B", (9, 8), DEEP.astype(">u2").tobytes()), GREY),
    "I": (Image.fromarray(DEEP.astype(np.int32)), GREY),
    "RGB": (Image.fromarray(RGB), RGB),
    "RGBA": (Image.fromarray(np.dstack([RGB, GREY])), RGB),
    "CMYK": (Image.fromarray(RGB).convert("CMYK"), RGB),
}


@pytest.mark.parametrize("mode", SAME)
def test_every_mode_is_its_pixels(mode):
    image, pixels = SAME[mode]
    assert image.mode == mode
    wanted = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    np.testing.assert_array_equal(load(image), wanted)
    np.testing.assert_array_equal(read(image, "RGB")[0], wanted)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_the_lower_half_of_16_bits_reaches_the_model(mode):
    _, pixels = read(SAME[mode][0], "RGB")
    np.testing.assert_array_equal(pixels[..., 0], DEEP.astype(np.float32) / np.float32(257))


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREY.astype(np.float32)),
        Image.fromarray((GREY / 255).astype(np.float32)),
        Image.fromarray(np.full((4, 4), -3, np.int32)),
        Image.fromarray(np.full((4, 4), 70_000, np.int32)),
        Image.fromarray(RGB, "LAB"),
    ],
    ids=["F", "F in 0..1", "I below 0", "I above 65535", "LAB"],
)
@pytest.mark.parametrize("reader", [load, lambda image: read(image, "RGB"), lambda image: read(image, "BANDS")])
def test_numbers_of_unknown_range_are_refused(image, reader):
    with pytest.raises(FastcamError, match=rf"mode {image.mode} does not say what is black .* convert it"):
        reader(image)


@pytest.mark.parametrize("color", ["RGB", "BANDS"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_path_and_its_pil_image_are_turned_alike(tmp_path, orientation, color):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    smooth = np.indices((32, 48)).transpose(1, 2, 0) * 5
    Image.fromarray(np.dstack([smooth, smooth[..., :1]]).astype(np.uint8)).save(path, exif=exif, quality=95)
    with Image.open(path) as image:
        turned = read(image, color)[1]
    assert turned.shape[:2] == ((48, 32) if orientation > 4 else (32, 48))
    for pixels in (read(path, color)[1], read(path.read_bytes(), color)[1]):
        assert pixels.shape == turned.shape and np.abs(pixels.astype(int) - turned.astype(int)).max() <= 4


MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P"),
    "PPM": ("1", "L", "RGB", "I;16"),
}


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("color", ["RGB", "RGBA", "BANDS"])
@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes])
def test_a_pil_image_has_the_channels_of_its_file(form, mode, color, transparent):
    if transparent and form not in ("PNG", "GIF"):
        return
    options = {"transparency": (1, 2, 3) if mode == "RGB" else 3} if transparent and mode in ("P", "RGB") else {}
    image = Image.fromarray(DEEP) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(GREY))
    file = io.BytesIO()
    image.save(file, form, **options, **({"lossless": True} if form == "WEBP" else {}))
    of_file, of_image = read(file.getvalue(), color)[1], read(Image.open(file), color)[1]
    assert of_file.shape == of_image.shape
    assert np.abs(of_file.astype(float) - of_image).max() <= (2 if mode == "CMYK" else 0)


def test_a_truncated_pil_image_is_one_line(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(FastcamError, match=r"PIL image cannot be read .*truncated"):
        load(Image.open(path))
