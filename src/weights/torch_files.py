"""Files with weights of PyTorch: pickles (.pth, .pt, .ckpt, .tar), and .safetensors, which need no PyTorch."""
import json
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Tuple

import numpy as np

from src.common.errors import UserError, option
from src.common.files import reason_of, written_whole
from src.run.info import believed

Weights = Dict[str, np.ndarray]

PICKLES = (".pth", ".pt", ".ckpt", ".tar")
SAFE_TORCH = (2, 6)  # the first version whose `weights_only` runs no code from a pickle: CVE-2025-32434
DESCRIPTION = "simclr_settings"  # metadata of this project's .safetensors files, as JSON: what weights do not say
OTHER_TYPES = "has tensors of types that NumPy does not have, such as bfloat16; save the weights as float32 first"


def read(path: str, flag: str) -> Tuple[Weights, Dict[str, Any]]:
    """Read all tensors of a file, and the description of their network if ``write`` has written the file, else {}.

    In nested mappings the name of a tensor is a path, such as state_dict.conv1.weight. Raises a UserError, which names
    the ``flag`` that gave ``path``, where the file cannot be read or needs a package that is not installed.
    """
    source = f"{option(flag)}: {path}"
    if not path.endswith((".safetensors", *PICKLES)):
        raise UserError(f"{option(flag)}: got {path}, takes a file of PyTorch ({', '.join(PICKLES)}) or .safetensors")
    if not Path(path).is_file():
        raise UserError(f"{option(flag)}: no file {path}; name one with PyTorch's weights")
    return _read_safetensors(path, source) if path.endswith(".safetensors") else (_read_pickle(path, source), {})


def write(path: Path, weights: Weights, description: Dict[str, Any], flag: str) -> None:
    """Write weights to a .safetensors file, with the ``description`` of their network, or to a .pth or .pt file."""
    torch = None if path.suffix == ".safetensors" else _torch(f"{option(flag)}: {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        if torch:
            torch.save({name: torch.from_numpy(value.copy()) for name, value in weights.items()}, temporary)
        else:
            from safetensors.numpy import save_file
            save_file(weights, str(temporary), metadata={"format": "pt", DESCRIPTION: json.dumps(description)})
            temporary.chmod(0o644)  # safetensors lets only the owner read its files


def _torch(source: str) -> Any:
    try:
        import torch
    except ImportError:
        raise UserError(f"{source} needs PyTorch; pip install torch, or use a .safetensors file") from None
    if tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH:
        raise UserError(f"{source}: PyTorch {torch.__version__} may run code from a pickle; install PyTorch "
                        f"{'.'.join(map(str, SAFE_TORCH))} or later, or use a .safetensors file")
    return torch


def _read_safetensors(path: str, source: str) -> Tuple[Weights, Dict[str, Any]]:
    from safetensors import SafetensorError, safe_open  # MindSpore brings this package
    try:
        with safe_open(path, framework="numpy") as file:
            description = (file.metadata() or {}).get(DESCRIPTION, "{}")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
    except (TypeError, AttributeError, KeyError):
        raise UserError(f"{source} {OTHER_TYPES}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{source} is not a safetensors file ({reason_of(error)}); copy or download it again") from None
    with believed(source):
        return weights, dict(json.loads(description))


def _read_pickle(path: str, source: str) -> Weights:
    torch = _torch(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns about files that then end in an error anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = dict(_tensors(content, torch.is_tensor))
    except Exception as error:  # damaged files end in errors of many kinds
        raise UserError(f"{source} is not a file of tensors that PyTorch can read without running code from it "
                        f"({type(error).__name__}); save the state dict: torch.save(model.state_dict(), ...)") from None
    try:
        return {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    except (TypeError, RuntimeError):
        raise UserError(f"{source} {OTHER_TYPES}") from None


def _tensors(content: Any, is_tensor: Any, prefix: str = "") -> Iterator[Tuple[str, Any]]:
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if is_tensor(value):
            yield f"{prefix}{name}", value
        yield from _tensors(value, is_tensor, f"{prefix}{name}.")
