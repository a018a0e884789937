"""What the site and the slides take from other packages: no page needs a CDN."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import files
from pathlib import Path

MATHJAX = "tex-svg-full.js"


def bring_mathjax(folder: Path) -> None:
    """Copy MathJax, which is one file, into a folder that exists."""
    packaged = [f for f in files("sphinx-mathjax-offline") if f.name == MATHJAX]
    shutil.copyfile(packaged[0].locate(), folder / MATHJAX)


def fetch_package(package: str, names: tuple[str, ...]) -> Path:
    """Return a folder with files of an npm package's `dist`; npm fetches them once.

    Raises RuntimeError if npm is missing or cannot fetch the package.
    """
    folder = Path(sys.prefix) / "share" / package
    if folder.exists():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is not installed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        done = subprocess.run(
            [npm, "pack", package, "--loglevel=error", "--ignore-scripts"],
            cwd=place,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"npm could not fetch {package}: {done.stderr.strip()}")
        part = Path(place) / "part"
        with tarfile.open(next(Path(place).glob("*.tgz"))) as archive:
            for name in names:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(f"package/dist/{name}").read()
                (part / name).write_bytes(content)
        part.rename(folder)
    return folder
