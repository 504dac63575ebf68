"""Fetching CIFAR-10 from its home page."""
import hashlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from src.errors import UserError
from src.logs import logger

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FOLDER = "cifar-10-batches-bin"


def download_cifar10(path: Path, url: str = URL, md5: str = MD5) -> None:
    """Fetch the official archive, check it and lay its files out under ``path``.

    Everything happens in a temporary folder inside ``path``; only whole files leave it.

    Raises:
        UserError: the archive cannot be fetched or is not the official one.
    """
    path.mkdir(parents=True, exist_ok=True)
    logger.info("fetching %s into %s", url, path)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=path) as temporary:
        archive = Path(temporary) / "archive.tar.gz"
        try:
            with urllib.request.urlopen(url, timeout=60) as response, archive.open("wb") as file:
                shutil.copyfileobj(response, file, 1 << 20)
        except (urllib.error.URLError, OSError) as error:
            raise UserError(f"--download: {url} cannot be fetched ({error}); fetch it elsewhere, unpack it and name "
                            "its folder with --train_dataset_path") from None
        digest = hashlib.md5(archive.read_bytes()).hexdigest()
        if digest != md5:
            raise UserError(f"--download: {url} gave a file with MD5 {digest}, expected {md5}; it was cut short or "
                            "changed on the way, so try again")
        _extract(archive, Path(temporary) / FOLDER)
        (path / FOLDER).mkdir(exist_ok=True)
        for file in sorted((Path(temporary) / FOLDER).iterdir()):
            file.replace(path / FOLDER / file.name)


def _extract(archive: Path, folder: Path) -> None:
    """Copy the archive's data files, by their bare names, so that no member can land elsewhere."""
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isfile() and name.endswith((".bin", ".txt", ".html")):
                with tar.extractfile(member) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
