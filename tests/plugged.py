"""Distributions of one module each, written to a folder and found as if they were installed."""

import contextlib
import os
import sys
import textwrap

import pytest

from simgan_aug import discovery, plugins


def write_distribution(folder, module, source, name=None, version="1.2"):
    """Write MODULE.py and what makes it the distribution MODULE-dist; gives where that lies."""
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    about = folder / f"{module}_dist-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Name: {module}-dist\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(f"[simgan_aug]\n{name or module} = {module}\n")
    return about


@contextlib.contextmanager
def plugged(folder, **sources):
    """While this lasts, these modules are the only plugins, here and in processes that start."""
    others = {entry.name for entry in discovery.installed()} - {*sources}
    folder.mkdir(exist_ok=True)
    for module, source in sources.items():
        write_distribution(folder, module, source)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        if others:
            patch.setenv("SIMGAN_AUG_DISABLE_PLUGINS", ",".join(sorted(others)), prepend=",")
        plugins.registry.cache_clear()
        try:
            yield
        finally:
            plugins.registry.cache_clear()
            for module in sources:
                sys.modules.pop(module, None)
