"""Fuzzing of the splice scanner against Python's own reader; not a test, run it by hand:

    pip install atheris
    python tests/fuzz/fuzz_splice.py -max_total_time=600 -max_len=4096 CORPUS_FOLDER

CORPUS_FOLDER may be new and empty: it is filled with small files of every COCO kind, and then with
what the fuzzer finds. Results are noted in examples/study/DATASET.md.
"""

import json
import pathlib
import sys

import atheris

with atheris.instrument_imports(include=["simgan_aug"]):
    from simgan_aug import spans
    from simgan_aug.dataset.splice import spliced_text

SEEDS = [
    '{"images": [{"id": 1, "file_name": "a/b.jpg", "width": 2}], "annotations": []}',
    '\ufeff{"info": {"file_name": "x.jpg"}, "images": [{"file_name": "\\u0061.jpg", "id": 1}]}',
    '{"images": [{"file\\u005fname": "a\\/b.jpg"}, {"file_name": "ü.bmp", "file_name": 1}]}',
    '{"annotations": [{"segmentation": {"size": [1, 2], "counts": "0a\\\\"}, "bbox": [1e5, -0.5]}],'
    '"images": [], "images": [{"file_name": "a.tiff"}]}',
    '{"images":[{"file_name":"a.jpg","deep":[[[[{"file_name":"b.jpg"}]]]]}],"n":[NaN,-Infinity]}\r\n',
    '{"annotations": [{"file_name": "1.png", "segments_info": [{"id": 7}]}], "images": [{}]}',
    '{"images": {"file_name": "a.jpg"}}',
    '[{"file_name": "a.jpg"}]',
    '{"images": [{"file_name": "\\ud800.jpg"}], "x": 123456789012345678901234567890}',
]


def rename(name: str) -> str:
    """Another ending, as `--format png` gives."""
    return name.rpartition(".")[0] + ".png" if name.endswith((".jpg", ".bmp")) else name + ".png"


def expected(pairs: list[tuple[str, object]]) -> object:
    """What a document should read as when its image names are renamed; as pairs, for doubles."""
    return [
        (key, [_image(item) for item in value] if key == "images" else value)
        for key, value in pairs
    ]


def _image(item: object) -> object:
    return _Pairs(
        (key, rename(value) if key == "file_name" and isinstance(value, str) else value)
        for key, value in item
    )


class _Pairs(list):
    """The members of an object, doubled keys and all; a list is a list."""


def read(text: bytes) -> object:
    """As Python reads it, in order."""
    return json.loads(text, object_pairs_hook=_Pairs)


def one_input(data: bytes) -> None:
    """One text: accepted exactly if Python reads it, and spliced as that reading says."""
    if b"\0" in data[:4]:  # which Python takes for UTF-16 or 32
        return
    try:
        document = read(data)
    except RecursionError:
        document = None
    except ValueError as error:
        if "integer string conversion" in str(error):  # we do not bound the length of a number
            return
        document = error
    try:
        spans.check_encoding(data)
        spans.whole(data)
        valid = True
    except spans.ScanError:
        valid = False
    if document is None:
        return
    assert valid == (not isinstance(document, ValueError)), (data, document)
    splice(data, document)


def splice(data: bytes, document: object) -> None:
    """Without a new name nothing changes; with one, what should, or it is refused."""
    assert b"".join(spliced_text(data, None)) == data
    try:
        written = b"".join(spliced_text(data, rename))
    except spans.ScanError:
        plain = isinstance(document, _Pairs) and all(
            isinstance(value, list)
            and not isinstance(value, _Pairs)
            and all(isinstance(item, _Pairs) for item in value)
            for key, value in document
            if key == "images"
        )
        assert not plain, data
        return
    assert repr(read(written)) == repr(_Pairs(expected(document))), (data, written)


def main() -> None:
    """Fill the corpus and fuzz."""
    folders = [word for word in sys.argv[1:] if not word.startswith("-")]
    for number, seed in enumerate(SEEDS if folders else ()):
        path = pathlib.Path(folders[0]) / f"seed-{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seed.encode("utf-8", "surrogatepass"))
        one_input(path.read_bytes())
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
