"""The package as a whole: what it exports, what it costs to import, and who may import whom."""

import ast
import importlib
import json
import pathlib
import subprocess
import sys

import pytest

import simgan_aug
from simgan_aug.errors import DependencyError

ROOT = pathlib.Path(simgan_aug.__file__).parent

LAYERS = [
    # faces
    {"__main__"},
    {"cli"},
    {"demo", "testing", "new_plugin", "bench", "study"},
    {"run"},
    {"oversight", "runfolder"},
    {"parts", "preview"},
    {"report", "dataset", "data", "transforms"},
    # use
    {"shared", "export"},
    {"cache", "leash"},
    {"inference", "training", "rollback", "alarms"},
    {"audit"},
    {"realism"},
    {"refining"},
    {"backends"},
    {"players"},
    {"descent"},
    {"state"},
    # wiring
    {"checkpoint"},
    {"configfile"},
    {"config"},
    {"plugins"},
    {"builtin", "observers"},
    # contract
    {"hookspecs"},
    # parts
    {"exported", "folders", "geometry", "labels", "sheet"},
    {"bank", "kernels", "rows"},
    {"networks", "losses", "history", "coco", "imagefile", "pixels", "tone", "progress"}
    | {"displacement", "ranks", "terms", "variety"},
    {"alike"},
    {"batch", "discovery", "factories", "files", "formats", "noise", "offers", "spans"}
    | {"tiles", "twice"},
    {"devices", "draws", "graphs"},
    {"errors"},
]
"""From top to bottom, as in the design; an import points to a lower line or into its own room."""

LEVEL = {room: level for level, rooms in enumerate(reversed(LAYERS)) for room in rooms}


def modules():
    """Every module of the package by its dotted name without "simgan_aug."; the package is ""."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        .removesuffix("__init__")
        .rstrip("."): path
        for path in sorted(ROOT.rglob("*.py"))
        if "plugin_template" not in path.parts  # of a wheel: no module of ours
    }


def imports(tree):
    """The modules of ours that a module imports at run time, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for item in node.names:
                within = f"{node.module}.{item.name}".removeprefix("simgan_aug.")
                yield f"simgan_aug.{within}" if within in modules() else node.module


def room(module):
    return module.removeprefix("simgan_aug").lstrip(".").partition(".")[0]


def test_the_public_names_are_these():
    assert sorted(simgan_aug.__all__) == [
        "Config",
        "ImageRefiner",
        "SimganAugError",
        "hookimpl",
        "refine",
        "train",
    ]


@pytest.mark.parametrize("name", simgan_aug.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(importlib.import_module("simgan_aug"), name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'simgan_aug' has no attribute 'refiner'"):
        simgan_aug.refiner  # noqa: B018


def test_the_version_is_that_of_the_distribution():
    assert simgan_aug.__version__ == importlib.metadata.version("simgan-aug")


def test_types_are_shipped():
    assert (ROOT / "py.typed").exists()


@pytest.mark.parametrize(
    "module", ["simgan_aug", "simgan_aug.errors", "simgan_aug.config", "simgan_aug.configfile"]
)
def test_importing_the_package_loads_nothing_heavy(module):
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"

    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    loaded = {name.partition(".")[0] for name in json.loads(ran.stdout)}
    assert "simgan_aug" in loaded
    assert loaded & {"torch", "kornia", "albumentations", "cv2", "pycocotools", "PIL"} == set()


def test_every_module_can_be_imported_unless_its_host_library_cannot():
    hosts, refused = {"kernels": "Triton", "transforms.torchvision": "torchvision"}, {}
    for name in modules():
        try:
            importlib.import_module(f"simgan_aug.{name}" if name else "simgan_aug")
        except DependencyError as error:
            refused[name] = str(error)

    assert refused.keys() <= hosts.keys()
    assert all(f"{hosts[name]} cannot be imported" in why for name, why in refused.items())


def test_every_module_has_a_place_in_the_layers():
    rooms = {room(name) for name in modules()} - {"", "presets", "__main__"}

    assert rooms - set(LEVEL) == set()


def test_imports_only_point_down():
    upward = [
        f"{name} imports {target}"
        for name, path in modules().items()
        if room(name) in LEVEL
        for target in imports(ast.parse(path.read_text(encoding="utf-8")))
        if target.partition(".")[0] == "simgan_aug"
        and room(target) != room(name)
        and LEVEL.get(room(target), len(LAYERS)) >= LEVEL[room(name)]
    ]

    assert upward == []


def test_the_package_itself_imports_only_the_hook_marker():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))

    ours = {name for name in imports(tree) if name.startswith("simgan_aug")}

    assert ours == {"simgan_aug.hookspecs"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import simgan_aug.run", ["simgan_aug.run"]),
        ("from simgan_aug import data, hookimpl", ["simgan_aug.data", "simgan_aug"]),
        ("from simgan_aug.config import Config", ["simgan_aug.config"]),
        ("def f():\n    from simgan_aug.cli import main", ["simgan_aug.cli"]),
        ("if TYPE_CHECKING:\n    from simgan_aug.cli import main", []),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import simgan_aug.cli", ["simgan_aug.cli"]),
    ],
)
def test_no_import_is_overlooked(source, expected):
    assert list(imports(ast.parse(source))) == expected
