"""Seconds of classifying image files on the CPU: predict.py's loop on an ONNX file against PyTorch, eager, with
torchvision's decoder.

The files are the test images of a data set as PNG, in a temporary folder. The network is the one in
models/cifar10_resnet18_cpu, and PyTorch's the same with random weights, channels_last. PyTorch decodes in its main
process (`--decoders 0`) or in a DataLoader's. Both give the three likely classes of every image, --images a turn. And
how long the whole of predict.py takes to its first answer, from the start of the process.
"""
import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

MODEL = common.ROOT / "models" / "cifar10_resnet18_cpu"
CLASSES, TOP = 10, 3


def serve(parent: common.Parent, classify, **facts) -> None:
    """Time one turn after the other."""
    def turn(folder):
        begin = time.perf_counter()
        count = classify(Path(folder))
        return {"seconds": time.perf_counter() - begin, "images": count}

    parent.answer(facts)
    parent.serve(turn)


def own(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker of this project."""
    from src.deploy import answers, predicting

    def classify(folder):
        model = predicting.open_model(str(folder / "model.onnx"), None)
        images = predicting.find_images(sorted(map(str, folder.glob("*.png"))))
        lines = [answers.as_text(answer, answers.interpret(answer, model.signature, None), 20, 10)
                 for answer in predicting.answers(model, images, print)]
        return len(lines)

    serve(parent, classify)


def pytorch(options: argparse.Namespace, parent: common.Parent) -> None:
    """The worker of PyTorch."""
    import torch
    import torch_reference
    from torch import nn
    from torchvision.io import ImageReadMode, decode_image, read_file

    torch.set_num_threads(common.cores())
    encoder = torch_reference.SimCLR("resnet18", 0.5, common.DIMENSION, stem="strided").encoder
    model = nn.Sequential(encoder, nn.Linear(256, CLASSES), nn.Softmax(1)).to(memory_format=torch.channels_last).eval()

    class Decoded(torch.utils.data.Dataset):
        def __init__(self, files):
            self.files = files

        def __len__(self):
            return len(self.files)

        def __getitem__(self, number):
            return decode_image(read_file(self.files[number]), ImageReadMode.RGB)

    @torch.inference_mode()
    def classify(folder):
        count, files = 0, Decoded(sorted(map(str, folder.glob("*.png"))))
        batches = torch.utils.data.DataLoader(files, options.batch_size, num_workers=options.decoders)
        for images in batches:
            shares, classes = model(images.contiguous(memory_format=torch.channels_last)).topk(TOP)
            count += len(list(zip(shares.tolist(), classes.tolist())))
        return count

    serve(parent, classify, threads=torch.get_num_threads())


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Write the images and the ONNX file in separate processes."""
    draw = f"""
from PIL import Image
from src import dataset
pixels = dataset.load({options.dataset_name!r}, {options.dataset_path!r}, "test").pixels
for number in range({options.images}):
    Image.fromarray(pixels[number % len(pixels)]).save(f"{folder}/{{number:06d}}.png")
"""
    subprocess.run([sys.executable, "-c", draw], check=True, cwd=common.ROOT)
    subprocess.run([sys.executable, "export.py", "--ckpt_simclr_encoder", MODEL / "encoder.safetensors",
                    "--ckpt_linear_classifier", MODEL / "linear_classifier.ckpt", "--file_format", "ONNX",
                    "--batch_size", str(options.batch_size), "--file_name", folder / "model"], check=True,
                   cwd=common.ROOT)


def first_answer(folder: Path) -> float:
    """Return the seconds from the start of predict.py to its first answer."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "predict.py", folder / "model.onnx", folder / "000000.png"], check=True,
                   cwd=common.ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def measure(options: argparse.Namespace) -> None:
    """Let the two take turns and save their times."""
    machine = common.machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(options, folder)
        starts = [first_answer(folder) for _ in range(options.rounds)]
        workers = common.Worker("own"), common.Worker("pytorch")
        for worker in workers:
            worker.ask(folder=name)
        turns = common.alternate(workers, options.rounds, folder=name)
        for worker in workers:
            worker.close()
    assert all(turn["images"] == options.images for side in turns for turn in side)
    seconds = [[turn["seconds"] for turn in side] for side in turns]
    common.save(options.save_as, {
        "machine": machine,
        "settings": {name: value for name, value in vars(options).items()
                     if name not in ("role", "dataset_path")},
        "seconds_to_first_answer": statistics.median(starts),
        **{worker.role: {**worker.facts, "images_per_second": options.images / statistics.median(side),
                         "seconds_by_round": side} for worker, side in zip(workers, seconds)},
        "speed_ratio": common.speed_ratio(*seconds),
    })


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--dataset_name", choices=("cifar10", "shapes"), default="cifar10", help="whose test images")
    flags.add_argument("--dataset_path", default=None, help="folder with its files")
    flags.add_argument("--images", type=int, default=10_000, help="of a turn")
    flags.add_argument("--batch_size", type=int, default=64, help="images that are computed at once")
    flags.add_argument("--decoders", type=int, default=0, help="processes that decode for PyTorch; 0: its main one")
    flags.add_argument("--rounds", type=int, default=6, help="turns of each")
    flags.add_argument("--save_as", default="prediction", help="name of the file in results/")
    common.run(flags, {"own": own, "pytorch": pytorch}, measure)
