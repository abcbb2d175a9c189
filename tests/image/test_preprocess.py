"""Decoding, preprocessing and the way back to original pixels, against formulas in NumPy and torch."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcam.image import preprocess as fi
from fastcam.schema import PRESETS, FastcamError, Preprocessing, preset
from support.examples import examples


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# --- preprocessing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "caffe"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_normalisation_is_the_documented_formula(name, layout):
    image, how = noise(12, 16), preset(name, size=(12, 16), layout=layout)
    tensor, _ = fi.prepare(image, how)
    expected = (image.astype(np.float64) * how.scale - np.array(how.mean)) / np.array(how.std)
    expected = (expected.transpose(2, 0, 1) if layout == "NCHW" else expected)[None]
    assert tensor.dtype == np.float32 and tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor, expected, rtol=1e-5, atol=2e-5)


def test_caffe_preset_is_bgr_minus_mean():
    image = noise(5, 7)
    tensor, _ = fi.prepare(image, preset("caffe", size=None))
    for channel, (source, mean) in enumerate([(2, 103.939), (1, 116.779), (0, 123.68)]):
        np.testing.assert_allclose(tensor[0, channel], image[..., source].astype(np.float64) - mean, atol=1e-4)


def test_grey_models_get_the_luma_in_one_channel():
    image = noise(9, 11)
    tensor, _ = fi.prepare(image, Preprocessing(size=None, color="GRAY"))
    assert tensor.shape == (1, 1, 9, 11)
    luma = image @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(tensor[0, 0], luma, atol=0.51)
    grey = np.repeat(image[..., :1], 3, axis=2)
    np.testing.assert_array_equal(fi.prepare(grey, Preprocessing(size=None, color="GRAY"))[0][0, 0], grey[..., 0])


def test_shrinking_averages_areas():
    image = noise(48, 60)
    tensor, _ = fi.prepare(image, Preprocessing(size=(12, 20)))
    blocks = image.reshape(12, 4, 20, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(tensor[0].transpose(1, 2, 0), blocks, atol=0.51)


def test_growing_is_bilinear_with_half_pixel_centres():
    image = noise(9, 7)
    tensor, _ = fi.prepare(image, Preprocessing(size=(31, 40)))
    source = torch.tensor(image).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(source, size=(31, 40), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(tensor, expected.numpy(), atol=1.0)  # OpenCV works in whole levels


def test_one_axis_may_shrink_while_the_other_grows():
    image = noise(40, 6)
    tensor, _ = fi.prepare(image, Preprocessing(size=(10, 15)))
    averaged = torch.tensor(image.reshape(10, 4, 6, 3).mean(axis=1)).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(averaged, size=(10, 15), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(tensor, expected.numpy(), atol=1.1)  # rounded twice


def test_letterbox_keeps_the_aspect_ratio_and_fills_bars():
    image = noise(50, 100)
    tensor, geometry = fi.prepare(image, Preprocessing(size=(64, 64), resize="letterbox", pad_value=7))
    assert geometry.target == (0, 16, 64, 48) and geometry.source == (0, 0, 100, 50)
    assert (tensor[0, :, :16] == 7).all() and (tensor[0, :, 48:] == 7).all()
    stretched, _ = fi.prepare(image, Preprocessing(size=(32, 64)))
    np.testing.assert_array_equal(tensor[0, :, 16:48], stretched[0])


def test_crop_is_the_centre_that_resize_256_crop_224_sees():
    image = noise(480, 640)
    tensor, geometry = fi.prepare(image, Preprocessing(size=(224, 224), resize="crop", crop_fraction=0.875))
    # 224 / 256 of the shorter side, 480: a square of 420 in the middle
    assert geometry.source == (110, 30, 530, 450) and geometry.target == (0, 0, 224, 224)
    cut, _ = fi.prepare(image[30:450, 110:530], Preprocessing(size=(224, 224)))
    np.testing.assert_array_equal(tensor, cut)


def test_crop_takes_the_aspect_ratio_of_the_input():
    geometry = fi.fit((300, 300), (100, 200), Preprocessing(resize="crop", crop_fraction=1.0))
    assert geometry.source == (0, 75, 300, 225)


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_restore_is_the_inverse_of_prepare(name, layout):
    image, how = noise(8, 10), preset(name, size=None, layout=layout)
    np.testing.assert_array_equal(fi.restore(fi.prepare(image, how)[0][0], how), image)


def test_restore_without_preprocessing_stretches_the_values():
    x = np.linspace(-2, 2, 48, dtype=np.float32).reshape(3, 4, 4)
    expected = np.rint((x + 2) / 4 * 255).transpose(1, 2, 0)
    np.testing.assert_allclose(fi.restore(x, None), expected, atol=1)
    np.testing.assert_array_equal(fi.restore(x.transpose(1, 2, 0).copy(), None), fi.restore(x, None))
    assert fi.restore(np.full((3, 2, 2), np.nan, np.float32), None).shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resize": "squash"}, "resize is 'squash'; give 'stretch' or 'crop' or 'letterbox'"),
        ({"color": "HSV"}, "color is 'HSV'; give 'RGB'"),
        ({"mean": (1.0, 2.0)}, "do not fit 3 channels"),
    ],
)
def test_impossible_preprocessing_is_refused(change, words):
    with pytest.raises(FastcamError, match=words):
        fi.prepare(noise(4, 4), Preprocessing(size=(4, 4), **change))


# --- geometry ---------------------------------------------------------------------------------------------------

sides = st.integers(1, 700)


@settings(max_examples=examples(100), deadline=None)
@given(oh=sides, ow=sides, nh=sides, nw=sides, resize=st.sampled_from(["stretch", "crop", "letterbox"]))
def test_geometry_is_the_affine_map_of_its_resize_rule(oh, ow, nh, nw, resize):
    geometry = fi.fit((oh, ow), (nh, nw), Preprocessing(resize=resize, crop_fraction=0.9))
    sx0, sy0, sx1, sy1 = geometry.source
    tx0, ty0, tx1, ty1 = geometry.target
    assert 0 <= sx0 < sx1 <= ow and 0 <= sy0 < sy1 <= oh and 0 <= tx0 < tx1 <= nw and 0 <= ty0 < ty1 <= nh
    # centred: what is left over on both sides differs by less than a pixel
    assert abs(sx0 - (ow - sx1)) <= 1 and abs(sy0 - (oh - sy1)) <= 1
    assert abs(tx0 - (nw - tx1)) <= 1 and abs(ty0 - (nh - ty1)) <= 1
    if resize == "letterbox":
        scale = min(nw / ow, nh / oh)
        assert abs(tx1 - tx0 - max(1, ow * scale)) <= 0.5 and abs(ty1 - ty0 - max(1, oh * scale)) <= 0.5
    if resize == "crop":
        scale = 0.9 * min(ow / nw, oh / nh)
        assert abs(sx1 - sx0 - max(1, nw * scale)) <= 0.5 and abs(sy1 - sy0 - max(1, nh * scale)) <= 0.5
    # the corners of the one rectangle go to the corners of the other, and the middle to the middle
    corners = geometry.to_original([tx0, ty0, tx1, ty1])
    np.testing.assert_allclose(corners, [sx0, sy0, sx1, sy1], rtol=1e-6)
    middle = geometry.to_original([(tx0 + tx1) / 2, (ty0 + ty1) / 2] * 2)
    np.testing.assert_allclose(middle, [(sx0 + sx1) / 2, (sy0 + sy1) / 2] * 2, rtol=1e-6)


def test_boxes_are_clipped_to_the_picture():
    geometry = fi.fit((50, 100), (64, 64), Preprocessing(resize="letterbox"))
    np.testing.assert_allclose(
        geometry.to_original([[0, 0, 64, 64], [32, 0, 64, 20]]), [[0, 0, 100, 50], [50, 0, 100, 6.25]]
    )
    assert geometry.to_original(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("original", [(300, 500), (410, 200), (64, 64), (40, 90)])
def test_a_bright_rectangle_comes_back_to_where_it_was(resize, original):
    height, width = original
    image = np.zeros((height, width, 3), np.uint8)
    # inside what every rule sees: the central 60 % of the shorter side
    side = min(original) * 0.5
    x0, y0 = round(width / 2 - side * 0.45), round(height / 2 - side * 0.3)
    x1, y1 = round(width / 2 + side * 0.35), round(height / 2 + side * 0.45)
    image[y0:y1, x0:x1] = 255
    how = Preprocessing(size=(128, 160), resize=resize, pad_value=0)
    tensor, geometry = fi.prepare(image, how)
    rows, columns = np.nonzero(tensor[0, 0] >= 127.5)
    box = geometry.to_original([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    # one network pixel, in original pixels, is the resolution there is
    tx0, ty0, tx1, ty1 = geometry.target
    cell = max(
        (geometry.source[2] - geometry.source[0]) / (tx1 - tx0), (geometry.source[3] - geometry.source[1]) / (ty1 - ty0)
    )
    np.testing.assert_allclose(box, [x0, y0, x1, y1], atol=max(1.0, cell))


@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
def test_a_heatmap_comes_back_to_where_it_was(resize):
    how = Preprocessing(size=(64, 64), resize=resize, crop_fraction=0.8)
    image = noise(90, 150)
    tensor, geometry = fi.prepare(image, how)
    heat = geometry.heatmap_to_original((tensor[0].mean(axis=0) / 255).astype(np.float32))
    assert heat.shape == (90, 150) and heat.dtype == np.float32
    left, top, right, bottom = geometry.source
    outside = np.ones((90, 150), bool)
    outside[top:bottom, left:right] = False
    assert (heat[outside] == 0).all() and (heat[~outside] > 0).all()
    ramp = np.broadcast_to((np.arange(64, dtype=np.float32) + 0.5) / 64, (64, 64))
    back = geometry.heatmap_to_original(np.ascontiguousarray(ramp))
    # where the network sees x, the picture has x * scale + offset; away from the clamped border cells
    x = (np.arange(150) + 0.5 - left) / (right - left)
    x0, _, x1, _ = geometry.target
    expected = (x0 + x * (x1 - x0)) / 64
    np.testing.assert_allclose(back[45, left + 5 : right - 5], expected[left + 5 : right - 5], atol=1e-5)


def test_inside_drops_only_what_lies_on_the_bars():
    geometry = fi.fit((50, 100), (64, 64), Preprocessing(resize="letterbox"))
    kept = geometry.inside(np.ones((2, 64, 64), np.uint8))
    assert kept[:, 16:48].all() and not kept[:, :16].any() and not kept[:, 48:].any()


# --- decoding ---------------------------------------------------------------------------------------------------


def test_decodes_rgb_from_a_path_in_any_script(tmp_path):
    image = noise(20, 30)
    path = tmp_path / "猫 – кошка.png"
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    for given_path in (path, str(path)):
        np.testing.assert_array_equal(fi.load(given_path), image)


def test_grey_files_become_three_channels_and_alpha_is_dropped(tmp_path):
    grey = noise(6, 8)[..., 0]
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    np.testing.assert_array_equal(fi.decode(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    rgba = np.random.default_rng(1).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "alpha.png"), rgba[..., [2, 1, 0, 3]])
    np.testing.assert_array_equal(fi.decode(tmp_path / "alpha.png"), rgba[..., :3])


def encoded(suffix):
    smooth = cv2.GaussianBlur(noise(64, 64), (0, 0), 3)
    return cv2.imencode(suffix, smooth)[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_pictures_that_are_cut_short_are_refused(tmp_path, suffix, share):
    data = encoded(suffix)
    path = tmp_path / f"short{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FastcamError, match="cut short"):
        fi.decode(path)


def test_bytes_after_a_jpeg_and_an_embedded_thumbnail_do_not_confuse():
    jpeg = encoded(".jpg")
    thumbnail = b"\xff\xe1" + (len(jpeg) + 2).to_bytes(2, "big") + jpeg
    assert not fi.cut_short(jpeg) and not fi.cut_short(jpeg + b"\xff\xda trailing video")
    assert not fi.cut_short(jpeg[:2] + thumbnail + jpeg[2:])
    assert fi.cut_short(jpeg[:2] + thumbnail + jpeg[2:-2])


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n IEND", b"\xff\xd8\xff\xff\xd9"])
def test_files_that_are_no_picture_are_named(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(FastcamError, match=r"notes\.txt: ") as caught:
        fi.decode(path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FastcamError, match=r"absent\.png: cannot be read"):
        fi.decode(tmp_path / "absent.png")
    with pytest.raises(FastcamError, match="cannot be read"):
        fi.decode(tmp_path)


# --- arrays -----------------------------------------------------------------------------------------------------


def test_arrays_in_every_accepted_form():
    image = noise(4, 5)
    np.testing.assert_array_equal(fi.load(image), image)
    np.testing.assert_array_equal(fi.load(image[..., 0]), image[..., :1].repeat(3, axis=2))
    np.testing.assert_array_equal(fi.load(image[..., :1]), image[..., :1].repeat(3, axis=2))
    np.testing.assert_array_equal(fi.load(np.dstack([image, image[..., 0]])), image)
    np.testing.assert_array_equal(fi.load(torch.tensor(image)), image)
    assert fi.load(image[:, ::-1]).flags.c_contiguous


def test_pil_images_are_converted_not_read_as_palette_indices():
    pil = pytest.importorskip("PIL.Image")
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2] = (10, 200, 30)
    palette = pil.fromarray(image).convert("P", palette=pil.Palette.ADAPTIVE)
    np.testing.assert_array_equal(fi.load(palette), image)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 5, 3), np.uint8), "no pixels: 5 x 0"),
        (np.zeros((5, 0), np.uint8), "no pixels"),
        (np.zeros((4, 4, 3), np.float32), "must be uint8"),
        (np.zeros((4, 4, 3), np.int64), "must be uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), "as a list"),
        (np.zeros((4, 4, 2), np.uint8), "uint8"),
        (np.zeros(7, np.uint8), "uint8"),
        (object(), "must be uint8"),
        ("absent.png", "cannot be read"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(array, words):
    with pytest.raises(FastcamError, match=words) as caught:
        fi.load(array)
    assert "\n" not in str(caught.value)


# ---- which files are pictures


ENDINGS = ("a.JPEG", "b.jpeg", "c.JPG", "d.Png", "e.webp", "f.TIFF")


def folder_of_pictures(folder):
    """A 4 x 6 picture under each of ENDINGS, and three entries that are no pictures; the pictures' paths, sorted."""
    for name in ENDINGS:
        suffix = name[name.index(".") :].lower()
        (folder / name).write_bytes(cv2.imencode(suffix, np.zeros((4, 6, 3), np.uint8))[1].tobytes())
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    (folder / "JPEG").write_text("no ending", encoding="utf-8")
    (folder / "folder.jpg").mkdir()
    return [folder / name for name in ENDINGS]


def test_endings_count_in_either_case(tmp_path):
    assert fi.pictures_in(tmp_path) == []
    files = folder_of_pictures(tmp_path)
    assert fi.pictures_in(tmp_path) == files
    assert all(fi.decode(path).shape == (4, 6, 3) for path in files)
    assert fi.pictures_in(tmp_path, fi.JPEG) == files[:3]


def test_all_that_list_pictures_list_the_same(tmp_path):
    from fastcam.cli.shared import options
    from fastcam.image.video_file import is_video
    from fastcam_bench.accuracy.photos import read_photos
    from fastcam_bench.speed.layouts import picture_files

    files = folder_of_pictures(tmp_path)
    header, row = "file,class_index,x0,y0,x1,y1", "a.JPEG,7,1,0,5,4"
    (tmp_path / "boxes_approx.csv").write_text(f"{header}\n{row}\n", encoding="utf-8")
    photos = read_photos(tmp_path)
    assert [photo.path for photo in photos] == files
    assert (photos[0].class_index, photos[0].box) == (7, (1, 0, 5, 4))
    assert all(photo.box is None for photo in photos[1:])
    assert options.picture_files([tmp_path]) == files
    samples = tmp_path / "samples"
    samples.mkdir()
    for name in ("b.csv", "a.npy", "c.nii.gz", "labels.txt"):
        (samples / name).touch()
    assert [path.name for path in options.picture_files([samples])] == ["a.npy", "b.csv", "c.nii.gz"]
    assert set(picture_files(tmp_path, tmp_path)) == set(files[:3])
    assert not any(is_video(path) for path in files)
