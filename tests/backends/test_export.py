"""A graph for another engine: held against torch, described, bound to its refiner."""

import importlib.util
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from simgan_aug import checkpoint, export
from simgan_aug.backends import openvino as openvino_module
from simgan_aug.backends import quantized
from simgan_aug.bench.material import untrained
from simgan_aug.checkpoint import save_checkpoint
from simgan_aug.cli import main
from simgan_aug.errors import CheckpointError, ConfigError, ExportError, OutputError
from simgan_aug.inference import ImageRefiner
from simgan_aug.shared import SharedRefiner

if importlib.util.find_spec("openvino") is None:  # an import would tell its makers of it
    pytest.skip("OpenVINO is not installed", allow_module_level=True)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(coarse, (48, 40)))
    return folder


def apart(one, other):
    return np.abs(one.astype(int) - other).max()


def test_an_exported_folder_is_a_backend_of_its_refiner(refiner_file, image, tmp_path):
    expected = ImageRefiner.load(refiner_file, "cpu", precision="fp32")(image, seed=3)

    told = export.export(refiner_file, "openvino", tmp_path / "out")

    refine = SharedRefiner(refiner_file, backend=tmp_path / "out")
    assert apart(refine(image, seed=3), expected) <= 1
    assert apart(expected, image) > 1
    assert told.parity.most <= 1


def test_a_graph_of_any_size_takes_any_size(refiner_file, tmp_path):
    told = export.export(refiner_file, "openvino", tmp_path / "out", size=(24, 16))
    refine = ImageRefiner.load(refiner_file, backend=tmp_path / "out")
    assert told.size is None
    plain = ImageRefiner.load(refiner_file, "cpu", precision="fp32")

    for size in [(1, 1), (33, 20), (64, 50)]:
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        assert apart(refine(image), plain(image)) <= 1


def test_what_a_graph_computes_is_told_beside_it(refiner_file, tmp_path):
    pytest.importorskip("onnxscript")
    out = tmp_path / "out"

    export.export(refiner_file, "onnx", out, size=(24, 16))

    told = json.loads((out / "simgan_aug.json").read_text())
    assert told["size"] == [24, 16]
    assert told["receptive_field"] == 16
    assert [*told["inputs"]] == ["images", "noise"]
    assert "[-1, 1]" in told["inputs"]["images"]
    assert any("tone step" in line for line in told["outside"])
    assert [*told["files"]] == ["refiner.onnx"]
    assert told["parity"]["images"] == 0  # noise


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_other_programs_get_from_a_graph_what_the_network_adds(refiner_file, tmp_path, to):
    pytest.importorskip("onnxscript") if to == "onnx" else None
    network = checkpoint.load(refiner_file).network
    images, noise = torch.rand(1, 3, 16, 24) * 2 - 1, torch.randn(1, 1, 16, 24)

    export.export(refiner_file, to, tmp_path / "out", size=(24, 16))

    if to == "onnx":
        import openvino

        compiled = openvino.Core().compile_model(tmp_path / "out/refiner.onnx", "CPU")
        added = torch.from_numpy(compiled([images.numpy(), noise.numpy()])[0])
    else:
        added = torch.export.load(tmp_path / "out/refiner.pt2").module()(images, noise)
    assert torch.allclose(images + added, network(images, noise), atol=0.02)  # bf16 with AMX
    assert added.abs().max() > 0.1


# Eight bits.


@pytest.mark.timeout(120)
def test_eight_bits_are_calibrated_on_the_images_and_stay_within_three_levels(
    refiner_file, tmp_path, images
):
    if importlib.util.find_spec("nncf") is None:
        pytest.skip("NNCF is not installed")

    told = export.export(
        refiner_file, "openvino", tmp_path / "out", precision="int8", images=images
    )

    assert told.parity.images == 4
    assert told.parity.most <= 3
    refine = ImageRefiner.load(refiner_file, backend=tmp_path / "out")
    assert refine.precision == "int8"
    image = cv2.imread(str(images / "1.png"))
    plain = ImageRefiner.load(refiner_file, "cpu", precision="fp32")
    assert 1 <= apart(refine(image), plain(image)) <= 3


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pixel_features", [0, 4])
def test_the_picture_is_not_rounded_to_eight_bits(tmp_path, images, pixel_features):
    if importlib.util.find_spec("nncf") is None:
        pytest.skip("NNCF is not installed")
    options = {"factor": 4, "features": 8, "blocks": 1, "pixel_features": pixel_features}
    loaded = checkpoint.load(untrained(tmp_path / "refiner.safetensors", [], options))
    shown = [cv2.imread(str(path)) for path in sorted(images.iterdir())]

    graph = export.openvino_graph(loaded, tmp_path, "int8", shown)

    ops = openvino_module.openvino().Core().read_model(graph).get_ordered_ops()
    rounded = [op for op in ops if op.get_type_name() == "FakeQuantize"]
    assert len(rounded) >= 3
    assert not [op for op in rounded if quantized._sees_picture(op)]


def test_eight_bits_without_images_are_refused(refiner_file, tmp_path):
    with pytest.raises(ConfigError, match="by your own images: give their folder"):
        export.export(refiner_file, "openvino", tmp_path / "out", precision="int8")


@pytest.mark.parametrize(
    ("precision", "way_out"), [("fp32", "another engine"), ("bf16", "take fp32")]
)
def test_a_graph_that_is_too_far_from_torch_is_refused_and_not_written(
    refiner_file, tmp_path, monkeypatch, precision, way_out
):
    monkeypatch.setitem(export.LIMITS, precision, (-1.0, 1.0))
    monkeypatch.setattr(openvino_module, "has_amx", lambda: True)

    said = rf"grey levels from torch's.*Nothing was written; {way_out}"
    with pytest.raises(ExportError, match=said):
        export.export(refiner_file, "openvino", tmp_path / "out", precision=precision)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "imported",
    [
        "from simgan_aug.backends.openvino import openvino; openvino()",
        "from simgan_aug.backends.quantized import _nncf; _nncf()",
    ],
)
def test_nothing_is_told_to_the_makers_of_openvino_and_of_the_quantizer(tmp_path, imported):
    if "nncf" in imported and importlib.util.find_spec("nncf") is None:
        pytest.skip("NNCF is not installed")

    ran = subprocess.run(
        [sys.executable, "-c", f"{imported}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )

    assert "openvino" in ran.stdout.split()
    assert "openvino_telemetry" not in ran.stdout.split()
    assert not (tmp_path / "intel").exists()


def test_images_of_sixteen_bits_are_compared_in_grey_levels_too(refiner_file, tmp_path, images):
    for path in images.iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) * 257)

    told = export.export(refiner_file, "openvino", tmp_path / "out", images=images)

    assert told.parity.images == 4
    assert told.parity.most <= 1


# Bound to its refiner.


@pytest.fixture
def exported(refiner_file, tmp_path):
    export.export(refiner_file, "openvino", tmp_path / "out")
    return tmp_path / "out"


def test_an_export_of_another_refiner_is_refused(refiner_file, exported, tmp_path):
    loaded = checkpoint.load(refiner_file)
    torch.nn.init.normal_(loaded.network.head.weight)
    save_checkpoint(tmp_path / "other.safetensors", loaded)

    with pytest.raises(CheckpointError, match=r"exported from another refiner than .*other"):
        SharedRefiner(tmp_path / "other.safetensors", backend=exported)


@pytest.mark.parametrize("name", ["refiner.xml", "refiner.bin"])
def test_a_graph_that_was_changed_is_refused(refiner_file, exported, name):
    content = (exported / name).read_bytes()
    (exported / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(CheckpointError, match=rf"{name}: missing or changed since the export"):
        ImageRefiner.load(refiner_file, backend=exported)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "openvino"}'])
def test_a_description_that_is_damaged_is_refused(refiner_file, exported, content):
    (exported / "simgan_aug.json").write_bytes(content)

    with pytest.raises(CheckpointError, match=r"simgan_aug.json: damaged: .*export it again"):
        ImageRefiner.load(refiner_file, backend=exported)


def test_an_export_in_a_form_of_an_earlier_version_is_refused(refiner_file, exported):
    told = json.loads((exported / "simgan_aug.json").read_text())
    del told["form"]  # it was not yet written
    (exported / "simgan_aug.json").write_text(json.dumps(told))

    with pytest.raises(CheckpointError, match="in form 1; this version runs form 2: export it"):
        ImageRefiner.load(refiner_file, backend=exported)


def test_a_folder_without_an_export_is_refused(refiner_file, tmp_path):
    with pytest.raises(CheckpointError, match="expected a folder that simgan-aug export"):
        ImageRefiner.load(refiner_file, backend=tmp_path)


def test_another_precision_than_the_exports_is_refused(refiner_file, exported):
    with pytest.raises(ConfigError, match="was exported in fp32, not bf16"):
        ImageRefiner.load(refiner_file, backend=exported, precision="bf16")


@pytest.mark.skipif(not openvino_module.has_amx(), reason="this CPU has no AMX")
def test_an_export_that_only_another_cpu_can_run_is_to_be_made_again(
    refiner_file, tmp_path, monkeypatch
):
    export.export(refiner_file, "openvino", tmp_path / "out", precision="bf16")
    monkeypatch.setattr(openvino_module, "has_amx", lambda: False)

    with pytest.raises(ConfigError, match=r"needs a CPU with AMX.*export the refiner again"):
        ImageRefiner.load(refiner_file, backend=tmp_path / "out")


def test_an_export_that_was_cut_short_is_no_backend_and_can_be_tried_again(
    refiner_file, small_disk
):
    for _ in "12":
        with pytest.raises(OutputError, match=r"cannot write .*refiner.xml: No space left"):
            export.export(refiner_file, "openvino", small_disk / "out")

    with pytest.raises(CheckpointError, match=r"missing or changed since the export; export it"):
        ImageRefiner.load(refiner_file, backend=small_disk / "out")


def test_an_export_for_other_programs_is_no_backend(refiner_file, tmp_path):
    export.export(refiner_file, "torch-export", tmp_path / "out", size=(24, 16))

    with pytest.raises(ConfigError, match="holds torch-export; a backend is an export --to openv"):
        ImageRefiner.load(refiner_file, backend=tmp_path / "out")


# Settings.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "tflite"}, "to must be one of onnx, openvino, torch-export, got 'tflite'"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, int8, got 'fp8'"),
        ({"to": "onnx", "precision": "bf16"}, "bf16 is for openvino"),
        ({"to": "torch-export", "size": (0, 10)}, "width and height must be 1 or more, got 0x10"),
        ({"size": (64, -3)}, "width and height must be 1 or more, got 64x-3"),
    ],
)
def test_an_impossible_setting_is_an_error_that_names_it(refiner_file, tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        export.export(refiner_file, **{"to": "openvino", "out": tmp_path / "out"} | options)


def test_a_folder_with_something_else_in_it_is_left_alone(refiner_file, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()

    with pytest.raises(ConfigError, match="is not empty and holds no export"):
        export.export(refiner_file, "openvino", tmp_path / "out")

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_the_command_says_how_far_apart_and_how_to_use_it(refiner_file, tmp_path, capsys):
    out = tmp_path / "out"

    code = main(["export", str(refiner_file), "--to", "openvino", "--out", str(out)])

    said = capsys.readouterr().out
    assert code == 0
    assert "apart from torch in fp32, on noise: " in said
    assert f"--backend {out}" in said
