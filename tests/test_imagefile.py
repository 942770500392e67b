"""Image files: read strictly, written whole, with all that they said beside their pixels."""

import contextlib
import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, JpegImagePlugin, PngImagePlugin

from simgan_aug.errors import ImageError
from simgan_aug.imagefile import ImageFile, decode_image, encode_image, read_image, suffixed

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY16 = np.random.default_rng(1).integers(0, 65536, (20, 30), dtype=np.uint16)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def write(tmp_path):
    """A file of these bytes, or of this array as Pillow writes it."""

    def write(name, content, **options):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            image = content if isinstance(content, Image.Image) else Image.fromarray(content)
            image.save(path, **options)
        return path

    return write


def written(image, **options):
    """What a reader finds in the file that an image is encoded to."""
    found = Image.open(io.BytesIO(encode_image(image, **options)))
    found.load()
    return found


def smooth():
    """A colour image without the fine grain that lossy formats drop."""
    return np.array(Image.fromarray(RGB[:4, :6]).resize((30, 20), Image.Resampling.BICUBIC))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "a camera"
    return tags


def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, depth, colour, rows=b""):
    """A PNG by hand: kinds that Pillow reads and does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
@pytest.mark.parametrize("pixels", [RGB, RGB[..., 0]], ids=["colour", "grey"])
def test_lossless_formats_come_back_bit_for_bit(write, suffix, pixels):
    read = read_image(write(f"a.{suffix}", pixels))

    again = written(read)

    assert np.array_equal(read.pixels, pixels)
    assert np.array_equal(np.array(again), pixels)
    assert again.format == read.format == suffix.upper()


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_stay_near(write, suffix):
    read = read_image(write(f"a.{suffix}", smooth(), quality=100))

    again = written(read, quality=95)

    assert abs(np.array(again).astype(int) - read.pixels).mean() < 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation_is_kept_and_not_applied(write, suffix):
    read = read_image(write(f"a.{suffix}", RGB, exif=exif(6)))

    again = written(read)

    assert read.pixels.shape == RGB.shape
    assert again.size == (30, 20)
    assert dict(again.getexif()) == dict(exif(6))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pixels", [RGB, RGB[..., 0], GREY16], ids=["colour", "grey", "16 bits"])
def test_a_tiffs_orientation_is_kept_and_not_applied(write, orientation, pixels):
    path = write("a.tiff", pixels, tiffinfo={274: orientation})

    read = read_image(path)
    again = read_image(write("again.tiff", encode_image(read)))

    assert np.array_equal(read.pixels, pixels)
    assert np.array_equal(again.pixels, pixels)
    assert min(read.pixels.strides) > 0  # torch takes no other
    with Image.open(io.BytesIO(encode_image(read))) as found:
        assert found.tag_v2.get(274, 1) == orientation


TEXTS = {270: "scene 7", 271: "a camera", 305: "a renderer", 306: "2020:01:02 03:04:05"}
ON_EARTH = {
    33550: (0.5, 0.5, 0.0),
    33922: (0.0, 0.0, 0.0, 5.5, 6.5, 0.0),
    34735: (1, 1, 0, 1, 1024, 0, 1, 1),
    34737: "WGS 84|",
}


def test_what_a_tiff_says_of_its_picture_is_kept(write):
    read = read_image(write("a.tiff", RGB, tiffinfo=TEXTS | ON_EARTH))

    tags = written(read).tag_v2

    assert {tag: tags.get(tag) for tag in TEXTS | ON_EARTH} == TEXTS | ON_EARTH


@pytest.mark.parametrize("target", ["PNG", "JPEG", "WEBP"])
def test_what_a_tiff_says_in_words_becomes_exif(write, target):
    read = read_image(write("a.tiff", RGB, tiffinfo=TEXTS | ON_EARTH | {274: 6}))

    with Image.open(io.BytesIO(encode_image(read, format=target))) as again:
        assert dict(again.getexif()) == TEXTS | {274: 6}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_the_colour_profile_is_kept(write, suffix):
    read = read_image(write(f"a.{suffix}", RGB, icc_profile=SRGB))

    again = written(read)

    assert again.info["icc_profile"] == SRGB


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tiff"])
def test_the_resolution_is_kept(write, suffix):
    read = read_image(write(f"a.{suffix}", RGB, dpi=(300, 150)))

    again = written(read)

    assert again.info["dpi"] == pytest.approx((300, 150), abs=0.02)


def test_the_text_of_a_png_is_kept_with_its_language(write):
    said = PngImagePlugin.PngInfo()
    said.add_text("Title", "a hand")
    said.add_itxt("Titel", "手とHände", lang="de", tkey="Überschrift")

    again = written(read_image(write("a.png", RGB, pnginfo=said)))

    assert again.text == {"Title": "a hand", "Titel": "手とHände"}
    assert (again.text["Titel"].lang, again.text["Titel"].tkey) == ("de", "Überschrift")


def test_what_a_png_says_after_its_pixels_is_kept_too(write):
    content = write("a.png", RGB).read_bytes()
    end = content[-12:]
    late = chunk(b"eXIf", exif(6).tobytes()[6:]) + chunk(b"tEXt", b"Title\0a hand")

    again = written(read_image(write("late.png", content[:-12] + late + end)))

    assert again.getexif()[0x0112] == 6
    assert again.text == {"Title": "a hand"}


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_comes_back_bit_for_bit(write, suffix):
    read = read_image(write(f"a.{suffix}", GREY16))

    again = read_image(write(f"again.{suffix}", encode_image(read)))

    assert read.pixels.dtype == np.uint16
    assert np.array_equal(read.pixels, GREY16)
    assert np.array_equal(again.pixels, GREY16)


def tiff16(photometric, channels, values):
    """A big-endian TIFF of 16-bit values, by hand: a kind that Pillow reads and does not write."""
    height, width = values.shape[:2]
    depths = 8 + 2 + 9 * 12 + 4  # where the channels' depths stand
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, 16 if channels == 1 else depths),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, depths + 8),
        (277, 3, 1, channels),
        (279, 4, 1, values.nbytes),
        (338, 3, 1, 2) if channels == 4 else (305, 3, 1, 0),
    ]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, count)
        + (struct.pack(">HH", value, 0) if kind == 3 and count == 1 else struct.pack(">I", value))
        for tag, kind, count, value in sorted(tags)
    )
    head = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4)
    return head + struct.pack(">4H", 16, 16, 16, 16) + values.tobytes()


def test_16_bit_grey_of_either_byte_order_is_read():
    values = np.array([[1, 256], [1000, 65535]], dtype=">u2")

    read = decode_image(tiff16(1, 1, values), "a.tiff")

    assert np.array_equal(read.pixels, [[1, 256], [1000, 65535]])
    assert read.pixels.dtype.isnative


def deep_png(pixels, *beside):
    """A PNG of (H, W, 2 to 4) uint16, by hand, with these chunks before its pixels."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    content = png(width, height, 16, {2: 4, 3: 2, 4: 6}[channels], rows)
    return content[:33] + b"".join(beside) + content[33:]


EDGES = np.array([0, 1, 255, 256, 257, 65534, 65535], np.uint16)


@pytest.mark.parametrize("channels", [2, 3, 4], ids=["LA", "RGB", "RGBA"])
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_16_bits_of_colour_come_back_bit_for_bit(channels, data):
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(channels)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 65536, shape, dtype=np.uint16)
    pixels[random.random(shape) < 0.5] = random.choice(EDGES)

    read = decode_image(deep_png(pixels), "a.png")
    again = decode_image(encode_image(read), "again.png")

    assert read.pixels.dtype == again.pixels.dtype == np.uint16
    assert np.array_equal(read.pixels, pixels)
    assert np.array_equal(again.pixels, pixels)


@pytest.mark.parametrize("channels", [2, 3, 4], ids=["LA", "RGB", "RGBA"])
def test_another_reader_finds_the_same_16_bits(channels):
    pixels = np.resize(EDGES, (5, 8, channels))

    encoded = encode_image(ImageFile(pixels, "PNG"))

    found = rows_of(encoded)
    assert np.array_equal(found, pixels)


def rows_of(content):
    """The pixels of a 16-bit PNG by the specification's own words, one byte after another."""
    chunks, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind = content[at + 4 : at + 8]
        chunks[kind] = chunks.get(kind, b"") + content[at + 8 : at + 8 + length]
        at += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 16
    step = 2 * {4: 2, 2: 3, 6: 4}[colour]
    data, above, rows = zlib.decompress(chunks[b"IDAT"]), bytearray(width * step), []
    for y in range(height):
        kind, *line = data[y * (width * step + 1) : (y + 1) * (width * step + 1)]
        for x in range(width * step):
            left, corner = (line[x - step], above[x - step]) if x >= step else (0, 0)
            near = min((left, above[x], corner), key=lambda v: abs(left + above[x] - corner - v))
            line[x] = (line[x] + [0, left, above[x], (left + above[x]) // 2, near][kind]) & 255
        rows.append(bytes(line))
        above = line
    return np.frombuffer(b"".join(rows), ">u2").reshape(height, width, step // 2)


@pytest.mark.parametrize("channels", [2, 3, 4], ids=["LA", "RGB", "RGBA"])
def test_a_16_bit_png_keeps_what_it_says(channels):
    said = PngImagePlugin.PngInfo()
    said.add_text("Title", "a hand")
    said.add_text("Long", "a hand " * 99, zip=True)
    said.add_itxt("Titel", "手", lang="de")
    metadata = {"exif": exif(6).tobytes(), "icc_profile": SRGB, "dpi": (300.0, 150.0)}
    image = ImageFile(np.resize(EDGES, (5, 8, channels)), "PNG", metadata | {"pnginfo": said})

    again = written(ImageFile(**vars(decode_image(encode_image(image), "a.png"))))

    assert again.getexif()[0x0112] == 6
    assert again.info["icc_profile"] == SRGB
    assert again.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    assert again.text == {"Title": "a hand", "Long": "a hand " * 99, "Titel": "手"}


def test_neither_gamma_nor_orientation_changes_16_bits():
    pixels = np.resize(EDGES, (5, 8, 3))
    beside = [
        chunk(b"gAMA", struct.pack(">I", 10_000)),
        chunk(b"cHRM", struct.pack(">8I", *range(30_000, 70_000, 5_000))),
        chunk(b"sBIT", bytes([3, 3, 3])),
        chunk(b"eXIf", exif(6).tobytes()[6:]),
    ]

    assert np.array_equal(decode_image(deep_png(pixels, *beside), "a.png").pixels, pixels)


@pytest.mark.parametrize("channels", [2, 3, 4], ids=["LA", "RGB", "RGBA"])
def test_a_truncated_16_bit_png_is_an_error(channels):
    content = deep_png(np.random.default_rng(4).integers(0, 2**16, (9, 9, channels), np.uint16))

    with pytest.raises(ImageError, match="cut off"):
        decode_image(content[: len(content) // 2], "a.png")
    with pytest.raises(ImageError, match="not a readable image"):  # well-formed, but rows lack
        decode_image(png(9, 9, 16, {2: 4, 3: 2, 4: 6}[channels], bytes(99)), "a.png")


def test_16_bits_in_another_order_than_pillows_are_an_error(monkeypatch):
    content = deep_png(np.resize(EDGES, (5, 8, 3)))
    read = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *args: read(*args)[..., ::-1])

    with pytest.raises(ImageError, match="two readers disagree about this 16-bit PNG"):
        decode_image(content, "a.png")


def test_a_second_header_cannot_pass_the_pixel_cap():
    content = deep_png(np.resize(EDGES, (5, 8, 3)))
    other = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 16, 2, 0, 0, 0))

    with pytest.raises(ImageError, match="one header"):
        decode_image(content[:8] + other + content[8:], "a.png")


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "RGB"])
def test_a_clear_colour_in_16_bits_is_refused(channels):
    clear = chunk(b"tRNS", bytes(2 * channels))
    content = png(1, 1, 16, {1: 0, 3: 2}[channels], bytes(1 + 2 * channels))

    with pytest.raises(ImageError, match="declared clear is not supported in 16 bits; convert it"):
        decode_image(content[:33] + clear + content[33:], "a.png")


@pytest.mark.parametrize(("photometric", "channels"), [(2, 3), (2, 4)], ids=["RGB", "RGBA"])
def test_16_bit_colour_in_a_tiff_is_refused_rather_than_halved(photometric, channels):
    content = tiff16(photometric, channels, np.zeros((2, 2, channels), ">u2"))

    with pytest.raises(ImageError, match="16-bit colour would lose its lower 8 bits; convert it"):
        decode_image(content, "a.tiff")


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_kept_bit_for_bit(write, suffix, channels):
    pixels = np.random.default_rng(2).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    read = read_image(write(f"a.{suffix}", pixels))

    again = written(read)

    assert np.array_equal(read.pixels[..., -1], pixels[..., -1])
    assert np.array_equal(np.array(again)[..., -1], pixels[..., -1])


def test_colour_under_full_transparency_is_kept_in_a_webp(write):
    pixels = np.dstack([smooth(), np.zeros((20, 30), np.uint8)])
    path = write("a.webp", pixels, lossless=True, exact=True)

    again = written(read_image(path))

    assert abs(np.array(again)[..., :3].astype(int) - pixels[..., :3]).mean() < 8


def test_a_palette_becomes_colour(write):
    palette = Image.fromarray(RGB).quantize(16)

    read = read_image(write("a.png", palette))

    assert np.array_equal(read.pixels, np.array(palette.convert("RGB")))


@pytest.mark.parametrize("clear", [3, bytes([0, 128, 255])], ids=["one", "table"])
def test_a_palette_with_transparency_becomes_colour_with_alpha(write, clear):
    palette = Image.fromarray(RGB).quantize(16)
    indices = np.array(palette)

    read = read_image(write("a.png", palette, transparency=clear))

    opacity = np.full(16, 255)
    opacity[range(3) if isinstance(clear, bytes) else [3]] = list(clear) if clear != 3 else 0
    assert read.pixels.shape == (20, 30, 4)
    assert np.array_equal(read.pixels[..., 3], opacity[indices])


@pytest.mark.parametrize("pixels", [RGB, RGB[..., 0]], ids=["colour", "grey"])
def test_a_clear_colour_becomes_alpha(write, pixels):
    value = tuple(pixels[4, 5].tolist()) if pixels.ndim == 3 else int(pixels[4, 5])

    read = read_image(write("a.png", pixels, transparency=value))

    clear = (pixels == value).all(-1) if pixels.ndim == 3 else pixels == value
    assert np.array_equal(read.pixels[..., -1] == 0, clear)
    assert clear.any()


def test_cmyk_becomes_colour_without_its_profile(write):
    read = read_image(write("a.jpg", Image.fromarray(RGB).convert("CMYK"), icc_profile=b"cmyk"))

    assert read.pixels.shape == (20, 30, 3)
    assert "icc_profile" not in read.metadata


def test_one_bit_becomes_black_and_white(write):
    black_or_white = np.where(RGB[..., 0] > 99, 255, 0).astype(np.uint8)

    read = read_image(write("a.png", Image.fromarray(black_or_white).convert("1")))

    assert np.array_equal(read.pixels, black_or_white)


def test_a_jpeg_is_written_without_losing_colour_resolution(write):
    read = read_image(write("a.jpg", RGB, subsampling=2))

    again = written(read)

    assert JpegImagePlugin.get_sampling(again) == 0  # 4:4:4


def test_a_jpegs_quality_is_that_asked_for(write):
    read = read_image(write("a.jpg", RGB))

    sizes = [len(encode_image(read, quality=quality)) for quality in (50, 95)]

    assert sizes[0] < sizes[1]


def test_a_png_named_jpg_stays_a_png(write):
    read = read_image(write("a.jpg", RGB, format="PNG"))

    assert read.format == "PNG"
    assert np.array_equal(np.array(written(read)), RGB)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff"])
def test_one_pixel_is_an_image(write, suffix):
    read = read_image(write(f"a.{suffix}", RGB[:1, :1]))

    assert read.pixels.shape == (1, 1, 3)
    assert np.array(written(read)).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a readable image"),
        (b"<!doctype html><title>404</title>", "not a readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable image"),
        (b"\x89PNG\r\n\x1a\n", "not a readable image"),
        (png(20_000, 20_000, 8, 2), "pixels"),
        (png(1, 0, 8, 2), "not a readable image"),
    ],
    ids=["empty", "html", "eps", "png head", "bomb", "no height"],
)
def test_what_is_no_image_is_an_error_that_names_it(write, content, said):
    path = write("a.jpg", content)

    with pytest.raises(ImageError) as caught:
        read_image(path)

    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_a_kind_that_would_be_reduced_is_refused(write, mode):
    path = write("a.tiff", Image.new(mode, (4, 4)))

    with pytest.raises(ImageError, match=f"mode {mode} are not supported; convert it"):
        read_image(path)


def test_channels_of_a_tiff_that_would_be_left_out_are_refused(write):
    path = write("a.tiff", Image.new("RGBX", (4, 4)))

    with pytest.raises(ImageError, match="of 4 channels only 3 would be read; save it as a PNG"):
        read_image(path)


def test_16_bit_grey_of_which_0_is_white_is_refused(write):
    target = io.BytesIO()
    Image.fromarray(GREY16).save(target, format="TIFF")
    black_is_0 = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert black_is_0 in target.getvalue()
    white_is_0 = struct.pack("<HHIHH", 262, 3, 1, 0, 0)
    path = write("a.tiff", target.getvalue().replace(black_is_0, white_is_0))

    with pytest.raises(ImageError, match="of which 0 is white"):
        read_image(path)


@pytest.mark.parametrize("more", [{}, {"exif": exif(6), "icc_profile": SRGB}])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_lossless_webp_stays_one_and_a_lossy_one_does_not_become_one(write, channels, more):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    exact, lossy = (
        read_image(write(f"{kind}.webp", pixels, lossless=kind, exact=True, **more))
        for kind in (True, False)
    )

    again = np.array(written(exact))

    assert np.array_equal(again, pixels)
    assert b"VP8L" in encode_image(exact)
    assert b"VP8L" not in encode_image(lossy)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_not_written_into_a_bmp(channels):
    pixels = np.zeros((4, 4, channels), np.uint8)

    with pytest.raises(ImageError, match="BMP has no alpha that every reader sees; take png"):
        encode_image(ImageFile(pixels, "BMP"))


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    with pytest.raises(ImageError, match="no such image file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="directory"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tiff"])
def test_a_truncated_image_is_an_error_and_not_half_an_image(write, suffix):
    content = write(f"whole.{suffix}", RGB).read_bytes()
    path = write(f"a.{suffix}", content[: len(content) * 2 // 3])

    with pytest.raises(ImageError, match="not a readable image"):
        read_image(path)


def test_too_many_pixels_are_refused_before_they_are_decoded(write):
    path = write("a.png", png(1001, 1000, 8, 2, rows=b"not a million pixels"))

    with pytest.raises(
        ImageError, match="1001x1000 is more than 1,000,000 pixels; raise the limit"
    ):
        read_image(path, max_pixels=1_000_000)


def test_as_many_pixels_as_allowed_are_read(write):
    path = write("a.png", RGB)

    assert read_image(path, max_pixels=600).pixels.shape == RGB.shape


@pytest.mark.parametrize(
    ("suffix", "format_"), [("png", "PNG"), ("webp", "WEBP"), ("tiff", "TIFF"), ("jpg", "MPO")]
)
def test_several_frames_are_refused(write, suffix, format_):
    other = [Image.fromarray(255 - RGB)]
    path = write(f"a.{suffix}", RGB, format=format_, save_all=True, append_images=other)

    with pytest.raises(ImageError, match="expected one image, the file holds 2 frames"):
        read_image(path)


@pytest.fixture(scope="module")
def samples():
    """Files of all formats and many kinds, as bytes."""
    clear = np.dstack([RGB, RGB[..., :1]])
    kinds = {
        "JPEG": [RGB, RGB[..., 0], Image.fromarray(RGB).convert("CMYK")],
        "PNG": [RGB, clear, GREY16, Image.fromarray(RGB).quantize(9)],
        "WEBP": [RGB, clear],
        "BMP": [RGB, RGB[..., 0]],
        "TIFF": [RGB, clear, GREY16, Image.fromarray(RGB).convert("CMYK")],
    }
    found = []
    for format_, images in kinds.items():
        for image in images:
            image = image if isinstance(image, Image.Image) else Image.fromarray(image)
            target = io.BytesIO()
            options = {} if format_ == "BMP" else {"exif": exif(6), "icc_profile": SRGB}
            image.save(target, format=format_, **options)
            found.append(target.getvalue())
    found += [deep_png(np.resize(EDGES, (9, 9, channels))) for channels in (2, 3, 4)]
    return found


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400
)
@given(data=st.data())
def test_a_damaged_file_is_an_image_or_an_image_error(samples, capfd, data):
    content = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(1, 4))):
        near = st.integers(0, min(len(content), 400) - 1)  # where the headers are
        content[data.draw(near | st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if content.startswith(b"\x89PNG\r\n\x1a\n") and data.draw(st.booleans()):
        content = with_right_checksums(content)  # to get further

    with warnings.catch_warnings():  # Pillow warns of damage that it can live with
        warnings.simplefilter("ignore")
        try:
            read = decode_image(bytes(content), "a.bin", max_pixels=10**6)
        except ImageError:
            return
        with contextlib.suppress(ImageError):
            assert encode_image(read, format=data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"])))

    assert read.pixels.dtype in (np.uint8, np.uint16)
    assert encode_image(read)


def with_right_checksums(content):
    fixed, at = content[:8], 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        fixed += chunk(bytes(content[at + 4 : at + 8]), bytes(content[at + 8 : at + 8 + length]))
        at += 12 + length
    return fixed


def test_an_image_is_encoded_with_what_its_metadata_says():
    image = ImageFile(RGB, "JPEG", {"icc_profile": SRGB, "exif": exif(3).tobytes()})

    again = written(image)

    assert again.info["icc_profile"] == SRGB
    assert again.getexif()[0x0112] == 3


def test_bytes_are_decoded_as_their_file_is(write):
    path = write("a.png", RGB, dpi=(300, 300))

    decoded, read = decode_image(path.read_bytes(), "a.png"), read_image(path)

    assert np.array_equal(decoded.pixels, read.pixels)
    assert (decoded.format, decoded.metadata) == (read.format, read.metadata)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "not a readable image"), (png(9, 9, 8, 2), "not a"), (png(20_000, 20_000, 8, 2), "400")],
    ids=["empty", "no pixels", "bomb"],
)
def test_an_error_begins_with_the_name_given(content, said):
    with pytest.raises(ImageError) as caught:
        decode_image(content, "folder/a.png")

    assert str(caught.value).startswith("folder/a.png: ")
    assert said in str(caught.value)


def test_a_file_of_more_than_2_gib_is_refused_unread(tmp_path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(2**31 + 1)  # sparse: no disk

    with pytest.raises(ImageError, match="at most 2,147,483,648 bytes, got 2,147,483,649"):
        read_image(path)


def test_an_impossible_name_is_an_error_of_ours():
    with pytest.raises(ImageError, match="not a readable image"):
        read_image("a\0.png")


PALETTE = Image.fromarray(RGB).quantize(16)


@pytest.mark.parametrize(
    ("name", "image", "options", "notes"),
    [
        ("a.png", RGB, {}, ()),
        ("a.PNG", RGB, {"format": "PNG", "exif": exif(6)}, ()),
        ("a.dat", RGB, {"format": "PNG"}, ()),
        ("a.jpeg", RGB, {"format": "JPEG"}, ()),
        ("a.tif", RGB, {"format": "TIFF"}, ()),
        ("a.jpg", RGB, {"format": "PNG"}, ("is a PNG by its content, whatever its name says",)),
        ("a.JPG", RGB, {"format": "PNG"}, ("is a PNG by its content, whatever its name says",)),
        ("a.png", RGB, {"format": "JPEG"}, ("is a JPEG by its content, whatever its name says",)),
        ("a.jpg", Image.new("CMYK", (4, 4)), {}, ("CMYK became RGB",)),
        (
            "a.jpg",
            Image.new("CMYK", (4, 4)),
            {"icc_profile": b"cmyk"},
            ("CMYK became RGB; its colour profile was dropped",),
        ),
        ("a.png", PALETTE, {}, ("palette became RGB",)),
        ("a.png", PALETTE, {"transparency": 3}, ("palette became RGBA",)),
        ("a.png", Image.new("1", (4, 4)), {}, ("1 bit became 8-bit grey",)),
        ("a.png", RGB, {"transparency": (1, 2, 3)}, ("a colour declared clear became alpha",)),
        (
            "a.png",
            Image.new("1", (4, 4)),
            {"transparency": 0},
            ("1 bit became 8-bit grey", "a colour declared clear became alpha"),
        ),
        (
            "a.bmp",
            PALETTE,
            {"format": "PNG"},
            ("is a PNG by its content, whatever its name says", "palette became RGB"),
        ),
    ],
)
def test_notes_tell_what_reading_changed_and_nothing_else(write, name, image, options, notes):
    assert read_image(write(name, image, **options)).notes == notes


def test_a_text_is_no_property_of_the_image(write):
    said = PngImagePlugin.PngInfo()
    texts = {"transparency": "(0, 0, 0)", "dpi": "ab", "icc_profile": "sRGB", "exif": "none"}
    for key, value in texts.items():
        said.add_text(key, value)

    read = read_image(write("a.png", RGB, pnginfo=said))

    assert read.pixels.shape == RGB.shape
    assert set(read.metadata) == {"pnginfo"}
    assert written(read).text == texts


@pytest.mark.parametrize("target", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_an_image_is_written_in_another_format_with_what_that_can_hold(write, source, target):
    options = {} if source == "BMP" else {"icc_profile": SRGB}
    if source in ("PNG", "JPEG", "WEBP"):
        options["exif"] = exif(6)
    if source == "TIFF":
        options["tiffinfo"] = {274: 6}
    said = PngImagePlugin.PngInfo()
    said.add_text("Title", "a hand")
    more = {} if source == "WEBP" else {"dpi": (300, 150)}
    more |= {"pnginfo": said} if source == "PNG" else {}
    read = read_image(write("a.bin", smooth(), format=source, **options, **more))

    again = written(read, format=target)

    assert again.format == target
    assert abs(np.array(again).astype(int) - read.pixels).mean() < 8  # an unlike image: 60
    assert again.info.get("icc_profile") == options.get("icc_profile")
    assert again.getexif().get(274) == (None if source == "BMP" else 6)
    assert again.getexif().get(271) == ("a camera" if "exif" in options else None)
    if "dpi" in more and target != "WEBP":
        assert again.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    assert bool(getattr(again, "text", {})) == (source == target == "PNG")


def test_a_tiffs_orientation_joins_the_exif_that_is_there():
    image = ImageFile(RGB, "TIFF", {"exif": exif(1).tobytes(), "tiffinfo": {274: 8}})

    tags = written(image, format="PNG").getexif()

    assert (tags[274], tags[271]) == (8, "a camera")


DEEP = GREY16[..., None].repeat(4, axis=2)
CLEAR = np.dstack([RGB, RGB[..., :1]])


@pytest.mark.parametrize(
    ("pixels", "target", "said"),
    [
        (CLEAR, "JPEG", "JPEG has no alpha; take png or webp"),
        (CLEAR[..., 2:], "JPEG", "JPEG has no alpha; take png or webp"),
        (GREY16, "JPEG", "JPEG cannot hold 16 bits; take png"),
        (GREY16, "WEBP", "WEBP cannot hold 16 bits; take png"),
        (DEEP[..., :3], "JPEG", "JPEG cannot hold 16 bits; take png"),
        (DEEP, "WEBP", "WEBP cannot hold 16 bits; take png"),
        (np.zeros((1, 65_501), np.uint8), "JPEG", "at most 65,500 pixels, the image is 65501x1;"),
        (np.zeros((16_384, 1), np.uint8), "WEBP", "at most 16,383 pixels, the image is 1x16384;"),
        (RGB, "GIF", "expected a format of PNG, JPEG, WEBP, or None; got 'GIF'"),
        (RGB, "png", "expected a format of PNG, JPEG, WEBP, or None; got 'png'"),
    ],
)
def test_what_a_format_cannot_hold_is_an_error_with_the_way_out(pixels, target, said):
    with pytest.raises(ImageError) as caught:
        encode_image(ImageFile(pixels, "PNG"), format=target)

    assert said in str(caught.value)


@pytest.mark.parametrize(("side", "target"), [(65_500, "JPEG"), (16_383, "WEBP")])
def test_the_longest_sides_are_written(side, target):
    image = ImageFile(np.zeros((1, side), np.uint8), "PNG")

    assert written(image, format=target).size == (side, 1)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (ImageFile(RGB, "JPEG", {"exif": b"Exif\0\0" + bytes(65_528)}), "65,533 bytes of EXIF"),
        (ImageFile(np.zeros((1, 16_384), np.uint8), "WEBP"), "at most 16,383 pixels"),
        (ImageFile(GREY16, "BMP"), "cannot be written as BMP"),
        (ImageFile(DEEP, "TIFF"), "cannot be written as TIFF"),
        (ImageFile(RGB.astype(np.float64), "PNG"), "float64 pixels of shape"),
    ],
    ids=["exif", "side", "bmp", "tiff", "float"],
)
def test_what_cannot_be_written_in_its_own_format_is_an_error_of_ours(image, said):
    with pytest.raises(ImageError, match=said):
        encode_image(image)


def test_the_longest_exif_is_written():
    image = ImageFile(RGB, "JPEG", {"exif": b"Exif\0\0" + bytes(65_527)})

    assert written(image).info["exif"] == b"Exif\0\0" + bytes(65_527)


def test_grey_with_alpha_becomes_equal_colours_in_a_webp():
    grey = np.full((20, 30), 99, np.uint8)

    again = np.array(written(ImageFile(np.dstack([grey, RGB[..., 0]]), "PNG"), format="WEBP"))

    assert np.array_equal(again[..., 3], RGB[..., 0])
    assert abs(again[..., :3].astype(int) - 99).max() <= 2


def test_16_bit_grey_of_a_tiff_becomes_a_png_bit_for_bit():
    again = decode_image(encode_image(ImageFile(GREY16, "TIFF"), format="PNG"), "a.png")

    assert (again.format, again.pixels.dtype) == ("PNG", np.uint16)
    assert np.array_equal(again.pixels, GREY16)


@pytest.mark.parametrize(
    ("name", "format_", "expected"),
    [
        ("a.jpg", "PNG", "a.png"),
        ("a.TIFF", "JPEG", "a.jpg"),
        ("a.bmp", "WEBP", "a.webp"),
        ("a.jpeg", "JPEG", "a.jpeg"),
        ("a.JPG", "JPEG", "a.JPG"),
        ("a.PNG", "PNG", "a.PNG"),
        ("a", "PNG", "a.png"),
        ("a.0001", "PNG", "a.0001.png"),
        ("a.jpg.png", "JPEG", "a.jpg.jpg"),
        ("a.b/c", "PNG", "a.b/c.png"),
        ("a.jpg/c.jpg", "PNG", "a.jpg/c.png"),
        (".png", "JPEG", ".png.jpg"),
        ("手.webp", "PNG", "手.png"),
    ],
)
def test_a_name_gets_the_ending_of_its_format(name, format_, expected):
    assert suffixed(name, format_) == expected
