"""Annotation files for the result: no byte changes but those of the file names that must."""

import codecs
import json
import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from simgan_aug.dataset.splice import renamed, spliced
from simgan_aug.errors import DataError
from simgan_aug.imagefile import suffixed

INFO = '"info": {"year": 2017, "url": "http:\\/\\/cocodataset.org", "file_name": "info.jpg"}'
IMAGES = """"images": [
  {"license": 3, "file_name": "000000000009.jpg", "coco_url": "http://x/000000000009.jpg",
   "height": 480, "width": 640, "date_captured": "2013-11-14 16:28:13", "id": 9%s},
  {"id": 25, "width": 640.0, "height": 4.26e2, "file_name": "train\\/000000000025.JPEG"%s}]"""
PLAIN = IMAGES % ("", "")
CATEGORIES = '"categories": [{"supercategory": "person", "id": 1, "name": "person"%s}]'
POLYGON = '{"segmentation": [[1.50,2,3.0,2,3e0,4.25]], "area": 702.1057499999998, "iscrowd": 0, '
POLYGON += '"image_id": 9, "bbox": [473.07, 395.93, 38.65, 28.67], "category_id": 18, "id": 1768}'
COUNTS = '{"segmentation": {"counts": [272, 2, 4, 4], "size": [240, 320]}, "iscrowd": 1, '
COUNTS += '"image_id": 25, "bbox": [0,0,1,1], "category_id": 1, "id": 900100448263}'
PACKED = '{"segmentation": {"size": [480, 640], "counts": "\\\\`i5\\"\\u003c\\\\2N2;/\\\\\\\\"}, '
PACKED += '"iscrowd": 1, "image_id": 9, "id": 2}'
KEYPOINTS = '{"num_keypoints": 2, "keypoints": [229,256,2,0,0,0,223,369,2], "image_id": 9, "id": 3}'
LVIS = ', "neg_category_ids": [66, 105], "not_exhaustive_category_ids": [], "frequency": "c"'
PANOPTIC = '{"segments_info": [{"id": 3226956, "category_id": 1, "iscrowd": 0}], '
PANOPTIC += '"file_name": "000000000009.png", "image_id": 9}'


def coco(*members):
    return "{" + ",\n".join(members) + "}"


KINDS = {
    "instances": coco(
        INFO, PLAIN, f'"annotations": [{POLYGON}, {COUNTS},\n{PACKED}]', CATEGORIES % ""
    ),
    "keypoints": coco(
        CATEGORIES % ', "keypoints": ["nose"], "skeleton": [[16, 14]]',
        f'"annotations": [{KEYPOINTS}]',
        PLAIN,
    ),
    "captions": coco(
        INFO,
        PLAIN,
        '"annotations": [{"image_id": 9, "id": 1, "caption": "A \\"caf\\u00e9\\" — ☕.jpg"}]',
    ),
    "LVIS": coco(
        CATEGORIES % ', "synset": "aerosol.n.02", "def": "a spray", "image_count": 28',
        f'"annotations": [{POLYGON}]',
        IMAGES % (LVIS, LVIS),
    ),
    "panoptic": coco(INFO, PLAIN, f'"annotations": [{PANOPTIC}]', CATEGORIES % ', "isthing": 1'),
    "stuff": coco(INFO, PLAIN, f'"annotations": [{PACKED}]', CATEGORIES % ', "color": [0, 1, 2]'),
    "without labels": coco(INFO, PLAIN),
}


def to_png(name):
    return suffixed(name, "PNG")


@pytest.fixture
def splice(tmp_path):
    """The bytes that come out for a file of these bytes."""

    def run(content, rename=to_png):
        (tmp_path / "ann.json").write_bytes(content)
        return b"".join(spliced(tmp_path / "ann.json", rename))

    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["", "\r\n"])
def test_without_a_new_format_every_byte_comes_out_as_it_was(splice, kind, end):
    content = KINDS[kind].replace("\n", end or "\n").encode() + end.encode()

    assert splice(content, None) == content


@pytest.mark.parametrize("content", [b"", b"no JSON", b"\xff\xfe{\0}\0", b"[1, 2]", b"\0" * 9])
def test_without_a_new_format_a_file_need_not_even_be_read(splice, content):
    assert splice(content, None) == content


@pytest.mark.parametrize("kind", KINDS)
def test_of_every_kind_of_file_only_the_names_of_images_change(splice, kind):
    expected = KINDS[kind].replace('"000000000009.jpg"', '"000000000009.png"')
    expected = expected.replace("25.JPEG", "25.png")

    assert splice(KINDS[kind].encode()) == expected.encode()


def test_a_file_longer_than_the_parts_it_is_written_in_comes_out_whole(splice):
    entries = [{"id": n, "file_name": f"{n}.jpg", "x": "x" * 3000} for n in range(1000)]
    content = json.dumps({"images": entries, "pad": "y" * 2**21}).encode()

    assert splice(content, None) == content
    assert splice(content) == content.replace(b".jpg", b".png")


def test_a_file_in_utf_16_cannot_have_its_names_changed(splice):
    content = KINDS["instances"].encode("utf-16")

    assert splice(content, None) == content
    with pytest.raises(DataError, match=r"ann\.json: .*expected UTF-8, got utf-16.*keep the form"):
        splice(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"3", b"{", b'{"images":3}', b'{"images":[3]}', b'{"images":[]} 1', b'{"a":\xff}'],
)
def test_what_is_no_coco_file_cannot_have_its_names_changed(splice, content):
    with pytest.raises(DataError, match="cannot change its file_name endings"):
        splice(content)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (r'"a.jpg"', r'"a.png"'),
        (r'"a.png"', r'"a.png"'),
        (r'"\u0061.\u0070ng"', r'"\u0061.\u0070ng"'),
        (r'"a\/\u00fc \ud83d\ude00.JPG"', r'"a\/\u00fc \ud83d\ude00.png"'),
        (r'"a.0001"', r'"a.0001.png"'),
        (r'"a.b\/c"', r'"a.b\/c.png"'),
        (r'"a\u002ejpg"', r'"a.png"'),
        (r'"\u00fc.\u006apg"', r'"\u00fc.png"'),
        ('"ü\\u002ejpg"', r'"\u00fc.png"'),
        (r'".jpg"', r'".jpg.png"'),
        (r'"."', r'"..png"'),
        (r'"x\".jpg"', r'"x\".png"'),
        (r'"x\\.jpg"', r'"x\\.png"'),
        (r'"\udcff.jpg"', r'"\udcff.png"'),
    ],
)
def test_a_name_keeps_its_escapes_where_it_can(token, expected):
    assert renamed(token.encode(), to_png) == expected.encode()


NAMES = st.one_of(
    st.from_regex(r"(a/|ü |\.\./|b\.)?[a-c\\\"]{1,3}\.(jpg|JPG|png|bmp|0001|)", fullmatch=True),
    st.text(st.characters(exclude_categories=()), max_size=6),  # with lone surrogates
)
DECOYS = [
    {"file_name": "x.jpg"},
    {"images": [{"file_name": "y.jpg"}]},
    [[[[{"images": [{"file_name": "z.jpg"}], "file_name": "z.jpg"}]]]],
    {"file_name": {"file_name": "x.jpg"}},
    {"a": '"file_name": "x.jpg"'},
]
NUMBERS = ["NaN", "-Infinity", "Infinity", "-0", "1.50", "1E+2", "9" * 30, "9" * 4000, "1e999"]
SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\n": "\\n", "\t": "\\t", "\b": "\\b"}


class Writing:
    """A JSON text in parts; every second one is a name that is to change."""

    def __init__(self, random, surrogates):
        self.random, self.surrogates = random, surrogates
        self.parts = [""]

    def put(self, text):
        self.parts[-1] += self.gap() + text + self.gap()

    def name(self, token):
        self.put("")
        self.parts += [token, self.gap()]

    def gap(self):
        return "".join(self.random.choices(" \t\r\n", k=self.random.choice((0, 0, 0, 1, 3))))

    def token(self, text):
        """A string, written in one of many ways."""
        escaped = self.random.choice((0, 0, 0.3, 1))
        return '"' + "".join(self.character(c, escaped) for c in text) + '"'

    def character(self, c, escaped):
        surrogate = 0xD800 <= ord(c) < 0xE000 and not self.surrogates
        if c in SHORT and (c != "/" or self.random.random() < 0.5):
            return SHORT[c]
        if ord(c) > 0xFFFF:
            return c if self.random.random() >= escaped else json.dumps(c)[1:-1]
        if c < " " or surrogate or self.random.random() < escaped:
            digits = f"{ord(c):04x}"
            return "\\u" + self.random.choice((digits, digits.upper()))
        return c

    def value(self, value):
        if isinstance(value, dict):
            self.members(value.items(), self.value)
        elif isinstance(value, list):
            self.items(value, self.value)
        elif isinstance(value, str):
            self.put(value if value in NUMBERS else self.token(value))
        else:
            self.put(json.dumps(value))

    def members(self, pairs, write):
        self.put("{")
        for number, (key, value) in enumerate(pairs):
            self.put(("," if number else "") + self.gap() + self.token(key))
            self.put(":")
            write(value)
        self.put("}")

    def items(self, values, write):
        self.put("[")
        for number, value in enumerate(values):
            self.put("," if number else "")
            write(value)
        self.put("]")


@st.composite
def files(draw, surrogates=True):
    """A COCO file in parts: fixed, a name, fixed, a name, ..., fixed."""
    writing = Writing(draw(st.randoms(use_true_random=False)), surrogates)
    extras = st.sampled_from([*DECOYS, *NUMBERS, "x.jpg", None, True, [], {}, 1.25])
    pairs = st.tuples(st.sampled_from(["id", "width", "x", "ü", "file_nam", "File_Name"]), extras)

    def image(entry):
        def write(value):
            if isinstance(value, tuple):
                writing.name(writing.token(value[0]))
            else:
                writing.value(value)

        writing.members(entry, write)

    names = st.tuples(st.just("file_name"), st.tuples(NAMES))
    odd = st.tuples(st.just("file_name"), st.sampled_from([3, None, DECOYS[0], ["x.jpg"]]))
    entries = st.lists(st.one_of(pairs, names, odd), max_size=4)
    images = st.tuples(st.just("images"), st.lists(entries, max_size=4))
    others = st.tuples(st.sampled_from(["info", "annotations", "image", "file_name", "x"]), extras)
    top = draw(st.lists(st.one_of(images, images, others), max_size=5))

    def member(value):
        if isinstance(value, list) and value and isinstance(value[0], list) and value not in DECOYS:
            writing.items(value, image)
        else:
            writing.value(value)

    writing.parts[0] = draw(st.sampled_from(["", "\ufeff"]))
    writing.members(top, member)
    return writing.parts


def raw(text):
    return text.encode("utf-8", "surrogatepass")


def pairs_of(content):
    """All of a text, doubled keys and the spelling of numbers included."""
    text = content.decode("utf-8", "surrogatepass").removeprefix("\ufeff")
    spelled = dict.fromkeys(("parse_int", "parse_float", "parse_constant"), lambda word: [word])
    return json.loads(text, object_pairs_hook=tuple, **spelled)


def renamed_pairs(top):
    """What `pairs_of` gives, as it should be in the result."""

    def image(entry):
        pairs = ((k, to_png(v) if k == "file_name" and type(v) is str else v) for k, v in entry)
        return tuple(pairs)

    return tuple((k, [image(entry) for entry in v] if k == "images" else v) for k, v in top)


many = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@many
@given(files())
def test_exactly_the_names_of_images_change_and_every_other_byte_stays(splice, parts):
    content = raw("".join(parts))

    out = splice(content)

    assert pairs_of(out) == renamed_pairs(pairs_of(content))
    fixed = [re.escape(raw(part)) for part in parts[::2]]
    assert re.fullmatch(rb'("(?:[^"\\]|\\.)*")'.join(fixed), out, re.DOTALL)


@many
@given(files())
def test_any_file_comes_out_as_it_was_without_a_new_format(splice, parts):
    content = raw("".join(parts))

    assert splice(content, None) == content


@many
@given(files())
def test_names_that_need_no_change_keep_every_byte(splice, parts):
    content = raw("".join(parts))

    assert splice(content, lambda name: name) == content


@many
@given(files(surrogates=False))
@example(['{"images":[{"file_name":', '"ü\\udcff"', "}]}"])
def test_a_file_in_strict_utf_8_stays_so(splice, parts):
    content = "".join(parts).encode()

    splice(content).decode()


def test_a_byte_order_mark_stays(splice):
    content = codecs.BOM_UTF8 + b'{"images": [{"file_name": "a.jpg"}]}'

    assert splice(content) == codecs.BOM_UTF8 + b'{"images": [{"file_name": "a.png"}]}'


def test_an_escaped_key_is_a_key(splice):
    content = rb'{"im\u0061ges":[{"file\u005fname":"a.jpg","Name":"a.jpg"}],"file_name":"a.jpg"}'

    assert splice(content) == content.replace(b'e":"a.jpg', b'e":"a.png', 1)
