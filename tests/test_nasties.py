"""Awkward image files, one a row: what is kept when one is refined, or why it is refused.

Every row that is kept is decoded, changed by one level, encoded in its own format, and read again,
by us and by Pillow.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from simgan_aug.errors import ImageError
from simgan_aug.imagefile import decode_image, encode_image, read_image

RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (20, 30, 4), dtype=np.uint8)
SMOOTH = np.array(Image.fromarray(NOISE[:2, :3]).resize((30, 20), Image.Resampling.BICUBIC))
RGBA, RGB, GREY, GREY_ALPHA = SMOOTH, SMOOTH[..., :3], SMOOTH[..., 0], SMOOTH[..., 2:]
DEEP = RANDOM.integers(0, 65536, (20, 30, 4), dtype=np.uint16)
DEEP[0, :6, 0] = [0, 1, 255, 256, 257, 65535]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PALETTE = Image.fromarray(RGB).quantize(16)
BLACK_WHITE = Image.fromarray(np.where(GREY > 99, 255, 0).astype(np.uint8)).convert("1")
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def exif(orientation, extra=b""):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes() + extra


def saved(image, format_, **options):
    """The file that Pillow writes of a picture or an array."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    target = io.BytesIO()
    best = {"quality": 95, "subsampling": 0} if format_ == "JPEG" else {}
    image.save(target, format=format_, **best | options)
    return target.getvalue()


def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(pixels, *before, after=b"", interlaced=False):
    """A PNG by hand: kinds that Pillow does not write, with chunks around the pixels."""
    height, width, channels = pixels.shape
    depth, colour = 8 * pixels.itemsize, {2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    passes = [pixels]
    if interlaced:  # Adam7
        steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2)]
        passes = [pixels[y::dy, x::dx] for y, x, dy, dx in [*steps, (0, 1, 2, 2), (1, 0, 2, 1)]]
    big = pixels.dtype.newbyteorder(">")
    rows = b"".join(b"\0" + row.astype(big).tobytes() for part in passes for row in part)
    data = chunk(b"IDAT", zlib.compress(rows))
    return SIGNATURE + chunk(b"IHDR", head) + b"".join(before) + data + after + chunk(b"IEND", b"")


def claiming(width, height):
    """A PNG that claims this size and has no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    empty = chunk(b"IDAT", zlib.compress(b""))
    return SIGNATURE + chunk(b"IHDR", head) + empty + chunk(b"IEND", b"")


def texts():
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a hand")
    info.add_text("Comment", "a long one " * 9, zip=True)
    info.add_itxt("Titel", "手", lang="de", tkey="Überschrift")
    return info


SAID = {"Title": "a hand", "Comment": "a long one " * 9, "Titel": "手"}


def damaged(content, kind):
    """The file with one wrong bit in the checksum of its first chunk of this kind."""
    at = content.index(kind)
    (length,) = struct.unpack(">I", content[at - 4 : at])
    last = at + 4 + length + 3
    return content[:last] + bytes([content[last] ^ 1]) + content[last + 1 :]


def tiff(values, *tags):
    """A big-endian, uncompressed TIFF of one strip, by hand; `tags` replace those of grey."""
    height, width = values.shape[:2]
    depth, start = 8 * values.itemsize, 8 + 2 + 8 * 12 + 4
    found = {256: (3, 1, width), 257: (3, 1, height), 258: (3, 1, depth), 259: (3, 1, 1)}
    found |= {262: (3, 1, 1), 273: (4, 1, start + 8), 277: (3, 1, 1), 279: (4, 1, values.nbytes)}
    found |= {tag: entry for tag, *entry in tags}
    entries = b"".join(
        struct.pack(">HHI", tag, kind, count)
        + (struct.pack(">HH", value, 0) if kind == 3 and count == 1 else struct.pack(">I", value))
        for tag, (kind, count, value) in sorted(found.items())
    )
    head = b"MM\0*" + struct.pack(">IH", 8, len(found)) + entries + bytes(4)
    deep = struct.pack(">4H", *[depth] * 4)
    return head + deep + values.astype(values.dtype.newbyteorder(">")).tobytes()


def rle_bmp():
    """Two rows of a run-length encoded BMP: 3 pixels of colour 1, then 1 of 0 and 2 of 1."""
    palette = bytes([30, 20, 10, 0, 60, 50, 40, 0])  # blue, green, red, nothing
    runs = bytes([3, 1, 0, 0, 1, 0, 2, 1, 0, 0, 0, 1])
    head = struct.pack("<IiiHHIIiiII", 40, 3, 2, 1, 8, 1, len(runs), 3780, 3780, 2, 2)
    start = 14 + len(head) + len(palette)
    size = struct.pack("<IHHI", start + len(runs), 0, 0, start)
    return b"BM" + size + head + palette + runs


RLE = np.array([[[10, 20, 30]] + [[40, 50, 60]] * 2, [[40, 50, 60]] * 3], np.uint8)


def ycck():
    """A CMYK JPEG as Photoshop writes it: inverted, its colours as YCbCr."""
    inks = np.array(Image.fromarray(RGB).convert("CMYK"))
    stored = np.array(Image.fromarray(inks[..., :3], "RGB").convert("YCbCr"))
    image = Image.fromarray(np.dstack([255 - stored, inks[..., 3]]), "CMYK")
    content = saved(image, "JPEG", quality=100, subsampling=0)
    at = content.index(b"Adobe") + 11
    assert content[at] == 0
    return content[:at] + b"\2" + content[at + 1 :]


def claims_4_gib_of_exif():
    """EXIF whose one text claims to be 4 GiB long."""
    entry = struct.pack("<HHII", 0x010F, 2, 2**32 - 1, 26)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


def two_exif_segments():
    """A JPEG with more EXIF than one segment holds."""
    content = saved(RGB, "JPEG", exif=exif(6, bytes(60_000)))
    length = struct.unpack(">H", content[content.index(b"Exif") - 2 :][:2])[0]
    at = content.index(b"Exif") - 4
    return content[:at] + content[at : at + 2 + length] + content[at:]


def two_of(format_, **options):
    other = [Image.fromarray(255 - RGB)]
    return saved(RGB, format_, save_all=True, append_images=other, **options)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What decoding gives, and what is found in the file that the changed image is encoded to."""

    format: str
    pixels: Any
    """As decoded: to the bit, or nearly so if the format is lossy."""
    said: dict[str, Any] = field(default_factory=dict)
    """All that Pillow finds in the new file beside its pixels, of what `facts` looks for."""
    notes: tuple[str, ...] = ()
    mode: str | None = None
    """Pillow's mode of the new file, where it is not that of the pixels."""


@dataclass(frozen=True)
class Refused:
    """Words of the error."""

    words: str


def jpeg(pixels=RGB, **said):
    return Kept(format="JPEG", pixels=pixels, said=said)


def kept(pixels=RGB, notes=(), mode=None, **said):
    return Kept(format="PNG", pixels=pixels, said=said, notes=notes, mode=mode)


DENSE = {"dpi": (300, 150)}
CMYK = Kept(
    format="JPEG", pixels=RGB, notes=("CMYK became RGB; its colour profile was dropped",), said={}
)
NO_IMAGE = Refused("not a readable image")
TWO = Refused("expected one image, the file holds 2 frames")
GAMMA = chunk(b"gAMA", struct.pack(">I", 45_455))
WHITE = chunk(b"cHRM", struct.pack(">8I", *range(10_000, 90_000, 10_000)))
SHOWN = tuple(round(0.1 * step, 1) for step in range(1, 9))
BOMB = zlib.compress(bytes(80 * 2**20))
KEY_CLEAR = tuple(RGB[4, 5].tolist())
WITH_KEY = np.dstack([RGB, np.where((RGB == KEY_CLEAR).all(-1), 0, 255)]).astype(np.uint8)
GREY_CLEAR = int(GREY[4, 5])
GREY_KEY = np.dstack([GREY, np.where(GREY_CLEAR == GREY, 0, 255)]).astype(np.uint8)

ROWS = [
    # JPEG
    *[
        # 72 dpi is what EXIF means where it says nothing
        (f"orientation{turn}.jpg", lambda turn=turn: saved(RGB, "JPEG", exif=exif(turn)),
         jpeg(orientation=turn, dpi=(72, 72)))
        for turn in range(1, 9)
    ],
    ("profile.jpg", lambda: saved(RGB, "JPEG", icc_profile=SRGB), jpeg(icc=SRGB)),
    ("dense.jpg", lambda: saved(RGB, "JPEG", dpi=(300, 150)), jpeg(**DENSE)),
    ("grey.jpg", lambda: saved(GREY, "JPEG"), jpeg(GREY)),
    ("progressive.jpg", lambda: saved(RGB, "JPEG", progressive=True), jpeg()),
    ("cmyk.jpg", lambda: saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", icc_profile=b"cmyk"),
     CMYK),
    ("ycck.jpg", ycck, replace(CMYK, notes=("CMYK became RGB",))),
    ("garbage after its end.jpg", lambda: saved(RGB, "JPEG") + b"<html>" * 99, jpeg()),
    ("60 KB of exif.jpg", lambda: saved(RGB, "JPEG", exif=exif(6, bytes(60_000))),
     jpeg(orientation=6, dpi=(72, 72))),
    ("claims 4 GiB of exif.jpg", lambda: saved(RGB, "JPEG", exif=claims_4_gib_of_exif()),
     jpeg(dpi=(72, 72))),
    ("120 KB of exif.jpg", two_exif_segments, Refused("at most 65,533 bytes of EXIF")),
    ("truncated.jpg", lambda: saved(RGB, "JPEG")[:-99], NO_IMAGE),
    ("stereo.jpg", lambda: two_of("MPO"), TWO),
    ("really a png.jpg", lambda: saved(RGB, "PNG"),
     kept(notes=("is a PNG by its content, whatever its name says",))),
    # PNG
    ("really a jpeg.png", lambda: saved(RGB, "JPEG"),
     replace(jpeg(), notes=("is a JPEG by its content, whatever its name says",))),
    ("profile.png", lambda: saved(RGB, "PNG", icc_profile=SRGB), kept(icc=SRGB)),
    ("dense.png", lambda: saved(RGB, "PNG", dpi=(300, 150)), kept(**DENSE)),
    ("exif.png", lambda: saved(RGB, "PNG", exif=exif(6)), kept(orientation=6)),
    ("texts.png", lambda: saved(RGB, "PNG", pnginfo=texts()), kept(text=SAID)),
    ("text and exif after the pixels.png",
     lambda: png(RGB, after=chunk(b"tEXt", b"Title\0a hand") + chunk(b"eXIf", exif(6)[6:])),
     kept(text={"Title": "a hand"}, orientation=6)),
    ("text named transparency.png",
     lambda: png(RGB, chunk(b"tEXt", b"transparency\0none"), chunk(b"tEXt", b"dpi\0ab")),
     kept(text={"transparency": "none", "dpi": "ab"})),
    ("gamma and white.png", lambda: png(RGB, GAMMA, WHITE), kept(gamma=0.45455, white=SHOWN)),
    ("srgb.png", lambda: png(RGB, chunk(b"sRGB", b"\1")), kept(srgb=1)),
    ("srgb and profile.png",  # a PNG may say one of them; the profile says more
     lambda: png(RGB, chunk(b"sRGB", b"\1"), chunk(b"iCCP", b"a\0\0" + zlib.compress(SRGB))),
     kept(icc=SRGB)),
    ("alpha.png", lambda: saved(RGBA, "PNG"), kept(RGBA)),
    ("grey with alpha.png", lambda: saved(GREY_ALPHA, "PNG"), kept(GREY_ALPHA)),
    ("palette.png", lambda: saved(PALETTE, "PNG"),
     kept(np.array(PALETTE.convert("RGB")), ("palette became RGB",))),
    ("palette with alpha.png", lambda: saved(PALETTE, "PNG", transparency=bytes([0, 128])),
     kept(
         np.dstack([
             np.array(PALETTE.convert("RGB")),
             np.array([0, 128] + [255] * 14, np.uint8)[np.array(PALETTE)],
         ]),
         ("palette became RGBA",),
     )),
    ("clear colour.png", lambda: saved(RGB, "PNG", transparency=KEY_CLEAR),
     kept(WITH_KEY, ("a colour declared clear became alpha",))),
    ("clear grey.png", lambda: saved(GREY, "PNG", transparency=GREY_CLEAR),
     kept(GREY_KEY, ("a colour declared clear became alpha",))),
    ("1 bit.png", lambda: saved(BLACK_WHITE, "PNG"),
     kept(np.array(BLACK_WHITE.convert("L")), ("1 bit became 8-bit grey",))),
    ("4 bits.png", lambda: saved(GREY // 17 * 17, "PNG", bits=4), kept(GREY // 17 * 17)),
    ("interlaced.png", lambda: png(RGB, interlaced=True), kept()),
    ("16-bit grey.png", lambda: saved(DEEP[..., 0].copy(), "PNG"), kept(DEEP[..., 0], mode="I;16")),
    ("16-bit grey with alpha.png", lambda: png(DEEP[..., :2]), kept(DEEP[..., :2], mode="RGBA")),
    ("16-bit.png", lambda: png(DEEP[..., :3]), kept(DEEP[..., :3])),
    ("16-bit with alpha.png", lambda: png(DEEP), kept(DEEP)),
    ("16-bit interlaced.png", lambda: png(DEEP[..., :3], interlaced=True), kept(DEEP[..., :3])),
    ("16-bit grey with alpha, interlaced.png", lambda: png(DEEP[..., :2], interlaced=True),
     kept(DEEP[..., :2], mode="RGBA")),
    ("16-bit that says all.png",
     lambda: png(
         DEEP, GAMMA, chunk(b"iCCP", b"a\0\0" + zlib.compress(SRGB)),
         chunk(b"pHYs", struct.pack(">IIB", 11811, 5906, 1)), chunk(b"tEXt", b"Title\0a hand"),
         after=chunk(b"eXIf", exif(6)[6:]),
     ),
     kept(DEEP, gamma=0.45455, icc=SRGB, text={"Title": "a hand"}, orientation=6, **DENSE)),
    ("16-bit with clear colour.png", lambda: png(DEEP[..., :3], chunk(b"tRNS", bytes(6))),
     Refused("declared clear is not supported in 16 bits")),
    ("16-bit truncated.png", lambda: png(DEEP)[:-999], NO_IMAGE),
    ("garbage after its end.png", lambda: saved(RGB, "PNG") + b"<html>" * 99, kept()),
    ("truncated.png", lambda: saved(RGB, "PNG")[:-99], NO_IMAGE),
    ("without its end.png", lambda: saved(RGB, "PNG")[:-12], Refused("cut off before its end")),
    ("too few rows.png", lambda: claiming(30, 20), NO_IMAGE),
    ("wrong checksum of pixels.png", lambda: damaged(saved(RGB, "PNG"), b"IDAT"),
     Refused("its chunk b'IDAT' has a wrong checksum")),
    ("wrong checksum of a text.png",
     lambda: damaged(png(RGB, after=chunk(b"tEXt", b"Title\0a hand")), b"tEXt"),
     Refused("its chunk b'tEXt' has a wrong checksum")),
    ("no width.png", lambda: claiming(0, 20), NO_IMAGE),
    ("bomb.png", lambda: claiming(20_000, 20_000), Refused("pixels")),
    ("bomb of a text.png", lambda: png(RGB, chunk(b"zTXt", b"Title\0\0" + BOMB)),
     Refused("a text in the PNG inflates to more than 1,048,576 bytes")),
    ("bomb of a text after its pixels.png",
     lambda: png(RGB, after=chunk(b"iTXt", b"Title\0\1\0en\0Title\0" + BOMB)),
     Refused("a text in the PNG inflates to more than 1,048,576 bytes")),
    ("bomb of a profile.png", lambda: png(RGB, chunk(b"iCCP", b"a\0\0" + BOMB)), NO_IMAGE),
    ("animated.png", lambda: two_of("PNG"), TWO),
    ("1 pixel.png", lambda: saved(RGB[:1, :1], "PNG"), kept(RGB[:1, :1])),
    ("wide.png", lambda: saved(np.tile(RGB[:1], (1, 167, 1))[:, :5000], "PNG"),
     kept(np.tile(RGB[:1], (1, 167, 1))[:, :5000])),
    ("high.png", lambda: saved(np.tile(RGB[:, :1], (250, 1, 1)), "PNG"),
     kept(np.tile(RGB[:, :1], (250, 1, 1)))),
    ("odd.png", lambda: saved(RGB[:13, :17], "PNG"), kept(RGB[:13, :17])),
    ("odd.jpg", lambda: saved(RGB[:13, :17], "JPEG"), jpeg(RGB[:13, :17])),
    # WebP
    ("lossy.webp", lambda: saved(RGB, "WEBP"), Kept(format="WEBP", pixels=RGB)),
    ("lossless with alpha.webp", lambda: saved(RGBA, "WEBP", lossless=True, exact=True),
     Kept(format="WEBP", pixels=RGBA)),
    ("says all.webp", lambda: saved(RGB, "WEBP", exif=exif(6), icc_profile=SRGB),
     Kept(format="WEBP", pixels=RGB, said={"orientation": 6, "icc": SRGB})),
    ("animated.webp", lambda: two_of("WEBP"), TWO),
    ("truncated.webp", lambda: saved(RGB, "WEBP")[:-99], NO_IMAGE),
    # BMP
    ("24 bits.bmp", lambda: saved(RGB, "BMP", dpi=(300, 150)),
     Kept(format="BMP", pixels=RGB, said=DENSE)),
    ("run-length.bmp", rle_bmp,
     Kept(format="BMP", pixels=RLE, notes=("palette became RGB",), said={"dpi": (96, 96)})),
    # TIFF
    ("lzw.tiff", lambda: saved(RGB, "TIFF", compression="tiff_lzw"),
     Kept(format="TIFF", pixels=RGB)),
    ("turned.tiff", lambda: saved(RGB, "TIFF", tiffinfo={274: 3}, dpi=(300, 150)),
     Kept(format="TIFF", pixels=RGB, said={"orientation": 3, **DENSE})),
    ("16-bit grey, big end first.tiff", lambda: tiff(DEEP[..., 0]),
     Kept(format="TIFF", pixels=DEEP[..., 0], mode="I;16")),
    ("16-bit.tiff",
     lambda: tiff(DEEP[..., :3], (258, 3, 3, 8 + 2 + 8 * 12 + 4), (262, 3, 1, 2), (277, 3, 1, 3)),
     Refused("16-bit colour would lose its lower 8 bits; convert it to 8 bits or to a 16-bit PNG")),
    ("float.tiff", lambda: saved(Image.new("F", (4, 4)), "TIFF"), Refused("mode F are not")),
    ("32 bits.tiff", lambda: saved(Image.new("I", (4, 4)), "TIFF"), Refused("mode I are not")),
    ("lab.tiff", lambda: saved(Image.new("LAB", (4, 4)), "TIFF"), Refused("mode LAB are not")),
    ("pages.tiff", lambda: two_of("TIFF"), TWO),
    # no image, or none of ours
    ("nothing.png", lambda: b"", NO_IMAGE),
    ("zeros.jpg", lambda: bytes(5000), NO_IMAGE),
    ("html.jpg", lambda: b"<!doctype html><title>404</title>", NO_IMAGE),
    ("svg.png", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', NO_IMAGE),
    ("eps.jpg", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NO_IMAGE),
    ("still.gif", lambda: saved(PALETTE, "GIF"), NO_IMAGE),
    ("animated.gif", lambda: two_of("GIF"), NO_IMAGE),
    ("phone.heic", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), NO_IMAGE),
    ("jpeg2000.jpg", lambda: bytes.fromhex("0000000c6a5020200d0a870a") + bytes(99), NO_IMAGE),
]  # fmt: skip


def facts(image):
    """What Pillow finds in a file beside the pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of damaged EXIF
        orientation = image.getexif().get(274)  # of a TIFF, Pillow forgets it when it loads
    image.load()
    info = image.info
    found = {
        "orientation": orientation,
        "icc": info.get("icc_profile"),
        "dpi": tuple(round(float(value)) for value in info.get("dpi", ()))
        if isinstance(info.get("dpi"), tuple)
        else None,
        "text": getattr(image, "text", None),
        "gamma": info.get("gamma"),
        "white": info.get("chromaticity"),
        "srgb": info.get("srgb"),
    }
    if image.format == "TIFF" and 282 not in image.tag_v2:
        del found["dpi"]  # Pillow's invention: 1 dpi
    return {key: value for key, value in found.items() if value not in (None, (), {})}


def mode_of(pixels):
    return "L" if pixels.ndim == 2 else {2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]


def changed(pixels):
    """The pixels, one level up or down, and alpha as it was."""
    result = pixels.copy()
    alpha = mode_of(pixels).endswith("A")
    result[..., : -1 if alpha else None] ^= 1
    return result


def assert_like(pixels, expected, format_):
    """Equal; of a lossy format the colours only nearly, but alpha too."""
    assert (pixels.shape, pixels.dtype) == (expected.shape, expected.dtype)
    if format_ not in ("JPEG", "WEBP"):
        assert np.array_equal(pixels, expected)
        return
    assert abs(pixels.astype(int) - expected).mean() < 8  # an unlike image: 60
    if mode_of(pixels).endswith("A"):
        assert np.array_equal(pixels[..., -1], expected[..., -1])


def rows(kind):
    return [
        pytest.param(name, make, outcome, id=name)
        for name, make, outcome in ROWS
        if isinstance(outcome, kind)
    ]


@pytest.mark.parametrize(("name", "make", "outcome"), rows(Kept))
def test_an_awkward_image_is_refined_and_kept(name, make, outcome):
    read = decode_image(make(), name)
    refined = changed(read.pixels)

    encoded = encode_image(replace(read, pixels=refined))

    assert (read.format, read.notes) == (outcome.format, outcome.notes)
    assert_like(read.pixels, outcome.pixels, read.format)
    assert_like(decode_image(encoded, name).pixels, refined, read.format)
    found = Image.open(io.BytesIO(encoded))
    assert found.format == outcome.format
    assert found.mode == (outcome.mode or mode_of(outcome.pixels))
    assert found.size == outcome.pixels.shape[1::-1]
    assert facts(found) == outcome.said


@pytest.mark.parametrize(("name", "make", "outcome"), rows(Refused))
def test_an_awkward_image_is_refused_by_name(name, make, outcome):
    with pytest.raises(ImageError) as caught:
        encode_image(decode_image(make(), name))

    assert outcome.words in str(caught.value)
    assert str(caught.value).startswith(f"{name}: ") or "EXIF" in outcome.words


def test_the_exif_of_a_jpeg_is_kept_byte_for_byte():
    for said in (exif(6, bytes(60_000)), claims_4_gib_of_exif()):
        again = encode_image(decode_image(saved(RGB, "JPEG", exif=said), "a.jpg"))

        assert Image.open(io.BytesIO(again)).info["exif"] == said


def test_a_symlink_to_an_image_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(RGB, "PNG"))
    (tmp_path / "link.png").symlink_to("a.png")

    assert np.array_equal(read_image(tmp_path / "link.png").pixels, RGB)


@pytest.mark.parametrize("target", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("name", "make", "outcome"), rows(Kept))
def test_an_awkward_image_is_written_in_any_format_that_can_hold_it(name, make, outcome, target):
    image = decode_image(make(), name)
    alpha, deep = mode_of(image.pixels).endswith("A"), image.pixels.dtype == np.uint16
    if target != "PNG" and (deep or (alpha and target == "JPEG")):
        with pytest.raises(ImageError, match="take png"):
            encode_image(image, format=target)
        return

    found = Image.open(io.BytesIO(encode_image(image, format=target)))

    said = facts(found)
    held = {"JPEG": ("orientation", "icc", "dpi"), "WEBP": ("orientation", "icc")}
    expected = {k: v for k, v in outcome.said.items() if k in held.get(target, outcome.said)}
    if target == "JPEG" and "orientation" in expected:
        expected.setdefault("dpi", (72, 72))
    assert (found.format, found.size) == (target, image.pixels.shape[1::-1])
    assert said == expected
