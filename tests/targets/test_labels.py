"""Class names: the exporter and the run time read them by the same rules and refuse them with the same messages."""

import pytest

from fastcam import Explainer, FastcamError
from fastcam.labels import read_labels
from fastcam.schema import Metadata
from fastcam_export import export_model
from support.models.small_models import classifier

FILES = {
    "plain": (b"a\nb\nc\nd\ne\n", ("a", "b", "c", "d", "e")),
    "no last newline": (b"a\nb\nc\nd\ne", ("a", "b", "c", "d", "e")),
    "windows": (b"\xef\xbb\xbfa\r\nb\r\nc\r\nd\r\ne\r\n\r\n", ("a", "b", "c", "d", "e")),
    "blank lines": (b" a \n\nc\t\nd\ne\n \n\n", ("a", "", "c", "d", "e")),
    "other alphabets": ("ä\nб\n猫\nd\ne".encode(), ("ä", "б", "猫", "d", "e")),
}
BAD = {
    "too few": (b"a\nb\n", r"2 labels do not fit a model with 5 classes"),
    "empty": (b"\n \n", r"0 labels do not fit a model with 5 classes"),
    "no text": (b"\xff\xfe\x00", r"names\.txt: not UTF-8 text"),
    "absent": (None, r"names\.txt: cannot be read"),
}


@pytest.fixture(scope="module")
def model():
    """A classifier, whose export knows how many classes there are."""
    return classifier()


def readers(model):
    """What reads labels: the function, an export, an Explainer."""
    file = export_model(model, check=False).model.SerializeToString()
    return (
        lambda labels: read_labels(labels, 5),
        lambda labels: Metadata.from_json(metadata(export_model(model, labels=labels, check=False))).labels,
        lambda labels: Explainer(file, labels=labels).metadata.labels,
    )


def metadata(export):
    return next(entry.value for entry in export.model.metadata_props if entry.key == "fastcam")


@pytest.mark.parametrize("name", FILES)
def test_labels_are_read_the_same_everywhere(model, tmp_path, name):
    content, labels = FILES[name]
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    for read in readers(model):
        for given in (path, str(path), list(labels)):
            assert read(given) == labels


@pytest.mark.parametrize("name", BAD)
def test_labels_are_refused_the_same_everywhere(model, tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    for read in readers(model):
        with pytest.raises(FastcamError, match=message):
            read(path)
