"""As moxing.file: a folder in a child process, a file in this one.

Links are refused: what moxing does with them is not documented.

The environment says how it behaves.

MOXING_CALLS: a file that gets a line "source -> target" for every copy that begins.
MOXING_FAILS: a copy whose source or target has this text in it fails, after its first file.
MOXING_SECONDS: how long a copy takes after its first file.
"""
import os
import shutil
import time


def exists(url):
    return os.path.exists(url)


def copy(src_url, dst_url):
    if os.path.isdir(src_url):
        raise OSError("a folder")
    _record(src_url, dst_url)
    _copy(src_url, dst_url)


def copy_parallel(src_url, dst_url):
    _record(src_url, dst_url)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _copy(src_url, dst_url)
            status = 0
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("some parts are failed\nand more lines")


def _record(source, target):
    if os.environ.get("MOXING_CALLS"):
        with open(os.environ["MOXING_CALLS"], "a", encoding="utf-8") as calls:
            calls.write(f"{source} -> {target}\n")


def _copy(source, target):
    if os.path.isdir(source):
        pairs = [(os.path.join(folder, name), os.path.join(target, os.path.relpath(folder, source), name))
                 for folder, _, names in sorted(os.walk(source)) for name in sorted(names)]
    else:
        pairs = [(source, target)]
    for number, (file, copy) in enumerate(pairs):
        if os.path.islink(file):
            raise OSError("a link")
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        shutil.copyfile(file, copy)
        if number == 0:
            time.sleep(float(os.environ.get("MOXING_SECONDS", "0")))
            fails = os.environ.get("MOXING_FAILS")
            if fails and (fails in source or fails in target):
                raise OSError("told to fail")
