"""Image files: read strictly, written whole, with all that they said beside their pixels."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, JpegImagePlugin, PngImagePlugin

from simgan_aug.errors import ImageError
from simgan_aug.imagefile import ImageFile, encode_image, read_image

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


def test_16_bit_grey_of_either_byte_order_is_read(write):
    values = np.array([[1, 256], [1000, 65535]], dtype=">u2")
    tags = [
        (256, 3, 1, 2),
        (257, 3, 1, 2),
        (258, 3, 1, 16),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 110),
        (277, 3, 1, 1),
        (279, 4, 1, 8),
    ]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, count)
        + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, count, value in tags
    )
    head = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4)

    read = read_image(write("a.tiff", head + values.tobytes()))

    assert len(head) == 110
    assert np.array_equal(read.pixels, [[1, 256], [1000, 65535]])
    assert read.pixels.dtype.isnative


@pytest.mark.parametrize(
    ("colour", "channels"), [(2, 3), (6, 4), (4, 2)], ids=["RGB", "RGBA", "LA"]
)
def test_16_bit_colour_is_refused_rather_than_halved(write, colour, channels):
    rows = (b"\0" + bytes(range(2 * channels)) * 2) * 2
    path = write("a.png", png(2, 2, 16, colour, rows))

    with pytest.raises(ImageError, match="16-bit colour would lose its lower 8 bits; convert it"):
        read_image(path)


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
    return found


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400
)
@given(data=st.data())
def test_a_damaged_file_is_an_image_or_an_image_error(tmp_path, samples, capfd, data):
    content = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(1, 4))):
        near = st.integers(0, min(len(content), 400) - 1)  # where the headers are
        content[data.draw(near | st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.bin"
    path.write_bytes(content)

    with warnings.catch_warnings():  # Pillow warns of damage that it can live with
        warnings.simplefilter("ignore")
        try:
            read = read_image(path, max_pixels=10**6)
        except ImageError:
            return

    assert read.pixels.dtype in (np.uint8, np.uint16)
    assert encode_image(read)


def test_an_image_is_encoded_with_what_its_metadata_says():
    image = ImageFile(RGB, "JPEG", {"icc_profile": SRGB, "exif": exif(3).tobytes()})

    again = written(image)

    assert again.info["icc_profile"] == SRGB
    assert again.getexif()[0x0112] == 3
