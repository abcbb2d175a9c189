"""Sources of batches: the same pictures in the same order, wherever they lie and from wherever a run goes on."""

from __future__ import annotations

import os

import pytest

from fastcam import FastcamError
from fastcam.batch.sources import places, shards
from fastcam.batch.sources.opened import open_source
from fastcam.image.decode import decode
from support.batch_cases import encoded, pictures, read, shard

pa = pytest.importorskip("pyarrow", reason="the extra batch is not installed: no source was read")
parquet = pytest.importorskip("pyarrow.parquet")
fsspec = pytest.importorskip("fsspec")
COUNT = 7


@pytest.fixture
def memory():
    """A folder behind a URL; its files are gone afterwards."""
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/there", recursive=True) if system.exists("/there") else None


def table(place, count=COUNT, group=3, **columns):
    kept = columns or {"image": [encoded(n) for n in range(count)], "name": [f"{n}.png" for n in range(count)]}
    parquet.write_table(pa.table(kept), place, row_group_size=group)
    return place


def tar(path, numbers=range(COUNT), mode="w"):
    members = {f"{n:03}.png": encoded(n) for n in numbers} | {"000.json": b"{}"}
    path.write_bytes(shard(members, mode))
    return path


def sources(folder):
    """Each kind with seven pictures, and the names that these have."""
    (folder / "list.txt").write_text("\ufeff# pictures\n" + "\n".join(f"p/{n}.png" for n in range(COUNT)) + "\n")
    (folder / "list.csv").write_text("id,path\n" + "\n".join(f"{n},p/{n}.png" for n in range(COUNT)) + "\n")
    (folder / "p").mkdir()
    for n in range(COUNT):
        (folder / "p" / f"{n}.png").write_bytes(encoded(n))
    own = [f"p/{n}.png" for n in range(COUNT)]
    both = pa.array([{"bytes": encoded(n), "path": f"{n}.jpg"} for n in range(COUNT)])
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")):
        tar(folder / name, mode=mode)
    inside = [f"{n:03}.png" for n in range(COUNT)]
    return {
        folder / "p": [f"{n}.png" for n in range(COUNT)],
        folder / "list.txt": own,
        folder / "list.csv": own,
        table(folder / "bytes.parquet"): [f"{n}.png" for n in range(COUNT)],
        table(folder / "paths.parquet", path=own): own,
        table(folder / "both.parquet", image=both): [f"{n}.jpg" for n in range(COUNT)],
        **{folder / name: [f"{name}/{one}" for one in inside] for name in ("a.tar", "a.tar.gz", "a.tar.xz")},
    }


@pytest.mark.parametrize("remote", [False, True])
def test_each_kind_gives_its_pictures_in_parts_whichever_are_asked_for(tmp_path, memory, remote):
    for place, names in sources(tmp_path).items():
        spec = str(place)
        if remote:
            if not memory.exists("/there"):
                memory.put(str(tmp_path), "/there", recursive=True)
            spec = f"memory://there/{place.name}"
        source = open_source(spec)
        found = read(source, 3)
        assert [(number, first) for number, first, _ in found] == [(0, 0), (1, 3), (2, 6)], spec
        flat = [one for _, _, inside in found for one in inside]
        assert [name for name, _ in flat] == names, spec
        assert [content for _, content in flat] == [encoded(n) for n in range(COUNT)], spec
        for kept in ({1}, {0, 2}, {2}):
            again = read(source, 3, only=lambda number, kept=kept: number in kept)
            assert again == [part for part in found if part[0] in kept], f"{spec}, parts {kept}"
        assert open_source(spec).about == source.about


def test_a_folder_is_walked_in_order_and_hidden_files_and_others_are_left_out(tmp_path):
    pictures(tmp_path / "p", 4)
    (tmp_path / "p" / ".hidden.png").write_bytes(encoded(9))
    (tmp_path / "p" / "notes.md").write_text("no picture")
    (tmp_path / "p" / "zz").mkdir()
    os.symlink(tmp_path / "p", tmp_path / "p" / "zz" / "round")  # a circle
    ((_, _, inside),) = read(open_source(str(tmp_path / "p")), 10)
    assert [name for name, _ in inside] == ["0000.png", "0002.png", "more/0001.png", "more/0003.png"]
    before = open_source(str(tmp_path / "p")).about
    (tmp_path / "p" / "0000.png").write_bytes(b"longer than it was" * 100)
    assert open_source(str(tmp_path / "p")).about != before


def test_hidden_members_of_a_shard_are_left_out_as_hidden_files_are(tmp_path):
    members = {"._000.png": b"of macOS", "000.png": encoded(0), "in/._001.png": b"", "in/001.png": encoded(1)}
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz")):
        (tmp_path / name).write_bytes(shard(members, mode))
        ((_, _, inside),) = read(open_source(str(tmp_path / name)), 10)
        assert inside == [(f"{name}/000.png", encoded(0)), (f"{name}/in/001.png", encoded(1))]


def test_pictures_of_telephones_are_told_of_and_not_left_out(tmp_path):
    heic = b"\0\0\0\x18ftypheic" + bytes(64)
    for name, content in {"a.HEIC": heic, "b.avif": heic, "c.png": encoded(0)}.items():
        (tmp_path / name).write_bytes(content)
    ((_, _, inside),) = read(open_source(str(tmp_path)), 10)
    assert [name for name, _ in inside] == ["a.HEIC", "b.avif", "c.png"]
    with pytest.raises(FastcamError, match=r"a.HEIC: a HEIC or AVIF picture .* convert it to JPEG"):
        decode(tmp_path / "a.HEIC")


def test_several_files_are_one_source_by_folder_pattern_and_counting(tmp_path):
    for number in (8, 9, 10):
        tar(tmp_path / f"s-{number:03}.tar", [number])
        table(tmp_path / f"t-{number:03}.parquet", image=[encoded(number)], name=[str(number)])
    for spec in ("s-*.tar", "s-{008..010}.tar"):
        found = read(open_source(f"{tmp_path}/{spec}"), 2)
        assert [[name for name, _ in inside] for _, _, inside in found] == [
            ["s-008.tar/008.png", "s-009.tar/009.png"],
            ["s-010.tar/010.png"],
        ]
    found = read(open_source(str(tmp_path), "parquet"), 2)
    assert [name for _, _, inside in found for name, _ in inside] == ["8", "9", "10"]


@pytest.mark.parametrize("way", ["large", "view", "dictionary", "fixed"])
@pytest.mark.parametrize("of_paths", [False, True])
def test_columns_of_bytes_and_paths_in_each_way_that_arrow_has(tmp_path, way, of_paths):
    values = ["a.png", "a.png"] if of_paths else [encoded(0), encoded(0)]
    kind = "string" if of_paths else "binary"
    if way == "fixed":
        if of_paths:
            pytest.skip("texts of one length are no type of Arrow's")
        column = pa.array(values, pa.binary(len(values[0])))
    elif way == "dictionary":
        column = pa.array(values).dictionary_encode()
    else:
        column = pa.array(values, getattr(pa, f"large_{kind}" if way == "large" else f"{kind}_view")())
    (tmp_path / "a.png").write_bytes(encoded(0))
    place = table(tmp_path / "t.parquet", image=column, id=[7, 8])
    ((_, _, inside),) = read(open_source(str(place)), 10)
    assert [found for _, found in inside] == [encoded(0)] * 2
    assert [name for name, _ in inside] == (["a.png"] * 2 if of_paths else ["7", "8"])


def test_what_is_missing_too_long_or_empty_is_an_error_of_its_own(tmp_path):
    (tmp_path / "long.png").write_bytes(bytes(3000))
    (tmp_path / "list.txt").write_text(f"long.png\nnot there.png\n{tmp_path}\nftp://somewhere/a.png\n")
    ((_, _, inside),) = read(open_source(str(tmp_path / "list.txt")), 9, most=2000)
    for (_, error), said in zip(inside, ("more than the", "No such file", "", "URLs of this kind"), strict=True):
        assert isinstance(error, str | bytes) and (not said or said in error)
    table(tmp_path / "t.parquet", image=[encoded(0), None, bytes(3000)], name=["a", "b", "c"])
    ((_, _, inside),) = read(open_source(str(tmp_path / "t.parquet")), 9, most=2000)
    assert inside[0] == ("a", encoded(0)) and "no picture in this row" in inside[1][1] and "more than" in inside[2][1]
    for mode in ("w", "w:gz"):
        (tmp_path / "s.tar").write_bytes(b"")
        path = tmp_path / ("s.tar" if mode == "w" else "s.tgz")
        path.write_bytes(shard({"a.png": encoded(0), "b.png": bytes(3000), "c.png": encoded(1)}, mode))
        ((_, _, inside),) = read(open_source(str(path)), 9, most=2000)
        assert inside[0][1] == encoded(0) and "more than" in inside[1][1] and inside[2][1] == encoded(1)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_behind_a_damaged_place_of_a_shard_its_end_is_one_error_and_the_next_shard_goes_on(tmp_path, mode):
    ending = "tar" if mode == "w" else "tar.gz"
    whole = tar(tmp_path / f"a.{ending}", mode=mode).read_bytes()
    (tmp_path / f"a.{ending}").write_bytes(whole[: 5000 if mode == "w" else len(whole) * 2 // 3])
    tar(tmp_path / f"b.{ending}", [3], mode)
    found = read(open_source(str(tmp_path), "shards"), 4)
    flat = [one for _, _, inside in found for one in inside]
    assert flat[-1] == (f"b.{ending}/003.png", encoded(3))
    assert [name for name, content in flat if isinstance(content, str)][-1:] == [f"a.{ending}"]
    assert sum(isinstance(content, bytes) for _, content in flat) >= 2
    assert read(open_source(str(tmp_path), "shards"), 4) == found


def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path):
    import tarfile

    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 4 << 30  # a header of this length follows, it says
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.USTAR_FORMAT) + bytes(10_000))
    ((_, _, ((name, error),)),) = read(open_source(str(tmp_path / "a.tar")), 9)
    assert name == "a.tar" and "a header of" in error
    with pytest.raises(tarfile.ReadError, match="header of"), open(tmp_path / "a.tar", "rb") as file:
        shards._Bounded(file).read(shards.HEADER + 1)


def test_a_damaged_page_of_parquet_is_an_error_in_each_row_behind_it(tmp_path):
    path = table(tmp_path / "t.parquet", 6, 2)
    column = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    begin = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[begin : begin + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    flat = [one for _, _, inside in read(open_source(str(path)), 4) for one in inside]
    assert len(flat) == 6 and [content for _, content in flat[:2]] == [encoded(0), encoded(1)]
    assert all(isinstance(content, str) for _, content in flat[2:4])
    assert [content for _, content in flat[4:]] == [encoded(4), encoded(5)], "a part of its own"
    assert flat[2][0] == "t.parquet:2"


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (lambda folder: folder / "none", {}, "no such file"),
        (lambda folder: folder, {}, "no pictures"),
        (lambda folder: folder, {"form": "parquet"}, "no .parquet files"),
        (lambda folder: folder, {"form": "shards"}, "no .tar files"),
        (lambda folder: f"{folder}/*.tar", {}, "nothing matches"),
        (lambda folder: "reference://a", {}, "URLs of this kind are not read"),
        (lambda folder: "simplecache::s3://a/b.tar", {}, "URLs of this kind are not read"),
        (lambda folder: "memory://nowhere/a.parquet", {}, "cannot be read"),
        (lambda folder: table(folder / "t.parquet", number=[1.5]), {}, "no column called"),
        (lambda folder: table(folder / "t.parquet", number=[1.5]), {"column": "number"}, "give one of bytes"),
        (lambda folder: table(folder / "t.parquet", 2), {"names": "title"}, "no column 'title'"),
        (lambda folder: table(folder / "t.parquet", image=pa.array([], pa.binary())), {}, "no rows"),
        (lambda folder: folder, {"form": "pictures", "column": "a"}, "have no columns"),
    ],
)
def test_what_cannot_be_a_source_is_refused_in_a_line(tmp_path, monkeypatch, make, options, said):
    monkeypatch.setattr(places, "WAIT", 0.0)
    with pytest.raises(FastcamError, match=said):
        list(open_source(str(make(tmp_path)), **options).parts(4))


def test_what_fails_for_a_moment_is_asked_for_again(monkeypatch):
    monkeypatch.setattr(places, "WAIT", 0.0)
    fails = [OSError("reset"), TimeoutError("slow")]

    def call():
        if fails:
            raise fails.pop()
        return b"there"

    assert places._retried("s3://a/b", call) == b"there"
    fails = [OSError("reset")] * 3
    with pytest.raises(FastcamError, match="reset"):
        places._retried("s3://a/b", call)
