"""A stand-in for Huawei's moxing: the interface that is used here, with local folders as storage."""
from . import file  # noqa: F401
