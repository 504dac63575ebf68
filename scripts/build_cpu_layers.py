"""Build the CPU's own layers in advance. Otherwise the scripts build them at the first use.

    python scripts/build_cpu_layers.py
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from src.common.logs import log_to_console
from src.layers.cpu import library

if __name__ == "__main__":
    log_to_console()
    library.load()  # where that fails, it warns, and the scripts use MindSpore's layers
