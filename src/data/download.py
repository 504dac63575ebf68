"""Fetching the archive of a data set from its home page."""
import hashlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from src.common.errors import UserError
from src.common.files import BLOCK, flush
from src.common.logs import logger


class Archive(NamedTuple):
    """A .tar.gz file on a home page, and the folder for its files."""

    url: str
    md5: str
    folder: str


def fetch(archive: Archive, path: Path) -> None:
    """Fetch an archive, check it and lay its files out under ``path``.

    All is prepared in a temporary folder inside ``path``, so that only whole files reach their place. Raises a
    UserError where the archive cannot be fetched or is not the official one.
    """
    path.mkdir(parents=True, exist_ok=True)
    logger.info("fetching %s into %s", archive.url, path)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=path) as temporary:
        fetched = Path(temporary) / "archive.tar.gz"
        digest = hashlib.md5(usedforsecurity=False)  # the home pages give no better digest
        try:
            # Every url comes from a data set's module in src/data/, never from a user.
            with urllib.request.urlopen(archive.url, timeout=60) as response, fetched.open("wb") as file:  # noqa: S310
                for block in iter(lambda: response.read(BLOCK), b""):
                    digest.update(block)
                    file.write(block)
        except (urllib.error.URLError, OSError) as error:
            raise UserError(f"--download: {archive.url} cannot be fetched ({error}); fetch it elsewhere, unpack it and "
                            "name its folder with --train_dataset_path") from None
        if digest.hexdigest() != archive.md5:
            raise UserError(f"--download: {archive.url} gave a file with MD5 {digest.hexdigest()}, expected "
                            f"{archive.md5}; it was cut short or changed on the way, so try again")
        _extract(fetched, Path(temporary) / archive.folder)
        (path / archive.folder).mkdir(exist_ok=True)
        for file in sorted((Path(temporary) / archive.folder).iterdir()):
            flush(file)
            file.replace(path / archive.folder / file.name)


def _extract(archive: Path, folder: Path) -> None:
    """Copy the data files of an archive by their bare names, so that no member can be written elsewhere."""
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isfile() and name.endswith((".bin", ".txt", ".html")):
                with tar.extractfile(member) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
