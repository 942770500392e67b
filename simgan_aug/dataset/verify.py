"""A result held against what its journals say of every file."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from simgan_aug.dataset.journal import Line, prefix_of, read_lines
from simgan_aug.dataset.plan import INFO, REPORT
from simgan_aug.dataset.storage import IMAGES, digest_of, folder_of, read_json
from simgan_aug.errors import DataError


@dataclass(frozen=True)
class Verdict:
    """What holding a result against its journals has found."""

    files: int
    """That were looked at."""
    wrong: dict[str, str]
    """By name: "missing", "changed"."""
    left: int
    """Images that are neither refined nor set aside."""
    failed: dict[str, str]
    """Images that were set aside, and why."""
    unknown: list[str]
    """Files among the images that the job did not write."""

    @property
    def complete(self) -> bool:
        """Whether all that should be there is, as it was written."""
        return not self.wrong and not self.left


class Verification:
    """Every file of a result, read and held against its hash.

    Args:
        out: the result.

    Raises:
        DataError: the folder holds no refine run.
    """

    def __init__(self, out: Path | str) -> None:
        self._folder = folder_of(out)
        info = read_json(self._folder, INFO)
        if not isinstance(info.get("images"), int) or not isinstance(info.get("annotations"), dict):
            raise DataError(f"{out} holds no refine run: there is no {INFO} to go by")
        self.count: int = info["images"]
        """Images of the job."""
        self.files = self.count + len(info["annotations"])
        """Files to look at, if none was set aside and there are no masks."""
        report = read_json(self._folder, REPORT)
        self._annotations: dict[str, str] = report.get("annotations", {})
        self._copied = set(report.get("copied", ()))
        self._missing = {name: "missing" for name in {*info["annotations"]} - {*self._annotations}}

    def run(self) -> Iterator[str]:
        """Look at each file; yields its name. Then `verdict` says what was found."""
        wrong, failed, settled = dict(self._missing), dict[int, Line](), bytearray(self.count)
        looked: set[str] = set()
        for name, digests in self._expected(failed, settled):
            if name in looked:
                continue
            looked.add(name)
            digest = digest_of(self._folder, name)
            if digest not in digests:
                wrong[name] = "changed" if digest else "missing"
            yield name
        left = self.count - sum(bool(settled[n]) or n in failed for n in range(self.count))
        unknown = [name for name in self._folder.names(IMAGES) if name not in looked]
        reasons = {line.name: line.error for n, line in sorted(failed.items()) if not settled[n]}
        self.verdict = Verdict(len(looked), wrong, left, reasons, unknown)

    def _expected(
        self, failed: dict[int, Line], settled: bytearray
    ) -> Iterator[tuple[str, Collection[str]]]:
        """Files and the hashes they may have; fills in which images are done, which failed."""
        several = self._several()
        copies: dict[str, set[str]] = {}
        for line in read_lines(self._folder):
            if line.done is not None and 0 <= line.done < self.count:
                settled[line.done] = 1
                yield line.output, several.get(line.output, (line.sha256,))
            elif line.failed is not None:
                failed[line.failed] = line
                if line.output and line.name in self._copied:
                    copies.setdefault(line.output, set()).add(line.sha256)
            elif line.mask is not None:
                yield line.mask, (line.sha256,)
        yield from copies.items()
        yield from ((name, (digest,)) for name, digest in self._annotations.items())

    def _several(self) -> dict[str, set[str]]:
        """Files that have been written more than once, to other bytes: as on a GPU they may be."""
        first = array("Q", bytes(8 * self.count))  # of each image, the hash first seen
        several: dict[str, set[str]] = {}
        for number, line in self._done():
            prefix = prefix_of(line.sha256)
            first[number] = first[number] or prefix
            if first[number] != prefix:
                several[line.output] = set()
        for _, line in self._done() if several else ():
            if line.output in several:
                several[line.output].add(line.sha256)
        return several

    def _done(self) -> Iterator[tuple[int, Line]]:
        """The lines that say of an image of this job that it is done."""
        for line in read_lines(self._folder):
            if line.done is not None and 0 <= line.done < self.count:
                yield line.done, line


def verify(out: Path | str) -> Verdict:
    """Read every file of a result and hold it against its hash; see `Verification`."""
    verification = Verification(out)
    for _ in verification.run():
        pass
    return verification.verdict
