#!/usr/bin/env python3
"""Compares CPU training and inference with PyTorch, ONNX Runtime and OpenVINO.

    python scripts/bench_peers.py --mbconv target/release/mbconv [--threads 2] [--rounds 3]
        [--seconds 5] [--only train|infer|int8] [--load 1]

Training and inference run in f32; inference also in bf16, compared with OpenVINO, and in 8 bits,
compared with ONNX Runtime (static QDQ) and OpenVINO (NNCF). Every measurement
is a separate process with the same number of threads; the programs alternate, and the result is the
median of the rounds, with the slowest and the fastest in parentheses. `--load N` keeps N
single-threaded processes busy beside each measurement. A training step is forward, cross-entropy,
backward and SGD with Nesterov momentum on a batch in memory; inference computes logits of images in
memory. PyTorch runs torchvision's networks channels-last; ONNX Runtime and OpenVINO run their ONNX
export with a fixed batch size. Peak memory is that of the process; the part added by training is in
parentheses. Prints Markdown tables. Requires torch, torchvision, onnx, onnxruntime and openvino; for
8 bits also timm and nncf.
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

NETWORKS = {mode: ["mobilenet_v2", "efficientnet_b0"] for mode in ("train", "infer")}
NETWORKS["int8"] = ["mobilenet_v2", "tf_efficientnet_lite0"]
TRAINING = [(32, 128), (224, 16)]
INFERENCE = [(224, 1), (224, 16)]
PEERS = {"train": ["pytorch"], "infer": ["pytorch", "onnxruntime", "openvino"],
         "int8": ["onnxruntime, int8", "openvino, int8"]}
OURS = {"train": ["mbconv", "mbconv, checkpointing"], "infer": ["mbconv"],
        "int8": ["mbconv, int8", "mbconv"]}
# Not part of the ratio.
IN_BF16 = {"train": [], "infer": ["openvino, bf16", "mbconv, bf16"], "int8": []}


def resident(name):
    """Returns VmRSS or VmHWM of this process in bytes."""
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024


def repeat(body, seconds):
    for _ in range(2):
        body()
    times, started = [], time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        began = time.perf_counter()
        body()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def pytorch(mode, network, size, batch, threads, seconds):
    import torch
    import torchvision

    torch.set_num_threads(threads)
    before = resident("VmRSS")
    model = getattr(torchvision.models, network)().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    if mode == "infer":
        model.eval()
        with torch.inference_mode():
            return {"seconds": repeat(lambda: model(images), seconds)}
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4)
    labels = torch.arange(batch) % 1000

    def step():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    took = repeat(step, seconds)
    return {"seconds": took, "peak": resident("VmHWM"), "added": resident("VmHWM") - before}


def new_model(network):
    """Returns a network of torchvision, or of timm, with random weights."""
    import torchvision

    if hasattr(torchvision.models, network):
        return getattr(torchvision.models, network)().eval()
    import timm

    return timm.create_model(network).eval()


def onnx_file(network, batch, folder):
    """Returns the ONNX file of a network with a fixed batch size."""
    import torch

    path = pathlib.Path(folder) / f"{network}-{batch}.onnx"
    if not path.exists():
        model = new_model(network)
        torch.onnx.export(model, (torch.randn(batch, 3, 224, 224),), str(path), input_names=["input"], dynamo=False)
    return path


def noise(batch, size=224):
    import numpy

    return numpy.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=numpy.float32)


def quantize(network, batch, folder, mbconv):
    """Writes the network in 8 bits for each program."""
    import nncf
    import onnxruntime.quantization as quantization
    import openvino
    import torch

    class Images(quantization.CalibrationDataReader):
        def __init__(self):
            self.images = iter([{"input": noise(batch)}])

        def get_next(self):
            return next(self.images, None)

    single = onnx_file(network, batch, folder)
    quantization.quantize_static(str(single), str(single.with_suffix(".int8.onnx")), Images(), per_channel=True)
    model = nncf.quantize(openvino.Core().read_model(str(single)), nncf.Dataset([noise(batch)]))
    openvino.save_model(model, str(single.with_suffix(".int8.xml")))
    weights = pathlib.Path(folder) / f"{network}.pth"
    torch.save(new_model(network).state_dict(), weights)
    command = [mbconv, "quantize", weights, "--data", "digits", "--images", "16", "--out", int8_file(network, folder)]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def int8_file(network, folder):
    """Returns mbconv's 8-bit model file."""
    return pathlib.Path(folder) / f"{network}.int8.safetensors"


def onnxruntime(network, size, batch, threads, seconds, folder, precision="f32"):
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    path = onnx_file(network, batch, folder)
    path = path.with_suffix(".int8.onnx") if precision == "int8" else path
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    images = noise(batch, size)
    return {"seconds": repeat(lambda: session.run(None, {"input": images}), seconds)}


def openvino(network, size, batch, threads, seconds, folder, precision="f32"):
    import openvino as runtime

    path = onnx_file(network, batch, folder)
    path, precision = (path.with_suffix(".int8.xml"), "f32") if precision == "int8" else (path, precision)
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    model = runtime.Core().compile_model(str(path), "CPU", settings)
    request = model.create_infer_request()
    images = noise(batch, size)
    return {"seconds": repeat(lambda: request.infer({0: images}), seconds)}


def work(args):
    program, mode, network, size, batch = args.worker.split(":")
    size, batch = int(size), int(batch)
    if program == "pytorch":
        result = pytorch(mode, network, size, batch, args.threads, args.seconds)
    else:
        name, _, precision = program.partition(", ")
        options = {"precision": precision} if precision else {}
        result = globals()[name](network, size, batch, args.threads, args.seconds, args.folder, **options)
    print(json.dumps(result))


@contextlib.contextmanager
def load(processes):
    """Runs single-threaded busy loops."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(program, mode, network, size, batch, args):
    if program.startswith("mbconv"):
        subject = int8_file(network, args.folder) if program == "mbconv, int8" else network
        command = [args.mbconv, "bench", subject, "--mode", "train" if mode == "train" else "infer", "--input-size", size, "--batch-size", batch]
        command += ["--threads", args.threads, "--seconds", args.seconds, "--device", "cpu", "--json"]
        command += {"checkpointing": ["--gradient-checkpointing"], "bf16": ["--dtype", "bf16"]}.get(program.partition(", ")[2], [])
    else:
        command = [sys.executable, __file__, "--worker", f"{program}:{mode}:{network}:{size}:{batch}"]
        command += ["--threads", args.threads, "--seconds", args.seconds, "--folder", args.folder]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    with load(args.load):
        output = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE,
                                stderr=None if args.verbose else subprocess.DEVNULL, env=environment)
    result = json.loads(output.stdout.decode().strip().splitlines()[-1] if not program.startswith("mbconv") else output.stdout)
    if "images_per_second" in result:
        result = {"seconds": result["median_ms"] / 1e3, "peak": result["peak_memory_bytes"]}
    return result


def table(mode, sizes, args):
    programs = PEERS[mode] + OURS[mode] + IN_BF16[mode]
    what = {"train": "training", "infer": "inference", "int8": "inference in 8 bits"}[mode]
    print(f"| {what}, images per second | " + " | ".join(programs) + f" | {OURS[mode][0]} / fastest peer |")
    print("|---|" + "---:|" * (len(programs) + 1), flush=True)
    memory = []
    for network in NETWORKS[mode]:
        for size, batch in sizes:
            if mode == "int8":
                quantize(network, batch, args.folder, args.mbconv)
            results = {program: [] for program in programs}
            for _ in range(args.rounds):
                for program in programs:
                    results[program].append(measure(program, mode, network, size, batch, args))
            speeds = {p: sorted(batch / r["seconds"] for r in results[p]) for p in programs}
            speed = {p: statistics.median(speeds[p]) for p in programs}
            best = max(speed[p] for p in PEERS[mode])
            case = f"{network} {size} px, batch {batch}"
            cells = [f"{speed[p]:.1f} ({speeds[p][0]:.1f} to {speeds[p][-1]:.1f})" for p in programs]
            print(f"| {case} | " + " | ".join(cells) + f" | {speed[OURS[mode][0]] / best:.2f} |", flush=True)
            memory.append((case, {p: results[p][0] for p in programs}))
    if mode == "train":
        print("\n| training, peak memory in MB | " + " | ".join(programs) + " |")
        print("|---|" + "---:|" * len(programs))
        for case, row in memory:
            cells = []
            for program in programs:
                added = row[program].get("added")
                cells.append(f"{row[program]['peak'] / 1e6:.0f}" + (f" ({added / 1e6:.0f})" if added else ""))
            print(f"| {case} | " + " | ".join(cells) + " |")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbconv", default="target/release/mbconv")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--load", type=int, default=0, help="number of busy processes beside each measurement")
    parser.add_argument("--only", choices=["train", "infer", "int8"])
    parser.add_argument("--verbose", action="store_true", help="show the programs' standard error")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args)
    with tempfile.TemporaryDirectory() as args.folder:
        for mode, sizes in [("train", TRAINING), ("infer", INFERENCE), ("int8", INFERENCE)]:
            if args.only in (None, mode):
                table(mode, sizes, args)


if __name__ == "__main__":
    main()
