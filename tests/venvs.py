"""Environments of their own, for what a user installs."""

import os
import site
import subprocess
import sys


class Venv:
    """An environment of its own that sees the packages of this one.

    Args:
        folder: to be made.
    """

    def __init__(self, folder):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.bin = folder / "bin"
        (self.packages,) = folder.glob("lib/python*/site-packages")
        seen = "".join(f"import site; site.addsitedir({p!r})\n" for p in site.getsitepackages())
        (self.packages / "seen.pth").write_text(seen)

    def run(self, *words, code=0):
        """What a command prints; pip is that of this environment, told of the other one.

        Args:
            words: of the command.
            code: expected exit code, or those that are; of 0 what was printed is given, of others
                what was said of the error.
        """
        path = os.pathsep.join([str(self.bin), os.environ["PATH"]])
        own = {"simgan-aug": ["-m", "simgan_aug.cli"], "python": [], "pip": ["-m", "pip"]}
        first = [sys.executable if words[0] == "pip" else self.bin / "python", *own[words[0]]]
        if words[0] == "pip":
            first += ["--python", self.bin / "python"]
        ran = subprocess.run(
            [*first, *words[1:]],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode in (code if isinstance(code, tuple) else (code,)), (
            ran.stdout + ran.stderr
        )
        return ran.stderr if ran.returncode else ran.stdout

    def install(self, folder):
        """`pip install FOLDER`, from nothing but what is on this machine."""
        offline = ("--no-deps", "--no-index", "--no-build-isolation")
        self.run("pip", "install", "--quiet", *offline, folder.resolve())
