#!/usr/bin/env python3
"""Compares CPU training and inference with PyTorch, ONNX Runtime and OpenVINO.

    python scripts/bench_peers.py --mbconv target/release/mbconv [--threads 2] [--rounds 3]
        [--seconds 5] [--only train|infer] [--load 1]

Training and inference run in f32; inference also in bf16, compared with OpenVINO. Every measurement
is a separate process with the same number of threads; the programs alternate, and the result is the
median of the rounds, with the slowest and the fastest in parentheses. `--load N` keeps N
single-threaded processes busy beside each measurement. A training step is forward, cross-entropy, backward and SGD with Nesterov
momentum on a batch in memory; inference computes logits of images in memory. PyTorch runs
torchvision's networks channels-last; ONNX Runtime and OpenVINO run their ONNX export with a fixed
batch size. Peak memory is that of the process; the part added by training is in parentheses. Prints
Markdown tables. Requires torch, torchvision, onnx, onnxruntime and openvino.
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

NETWORKS = ["mobilenet_v2", "efficientnet_b0"]
TRAINING = [(32, 128), (224, 16)]
INFERENCE = [(224, 1), (224, 16)]
PEERS = {"train": ["pytorch"], "infer": ["pytorch", "onnxruntime", "openvino"]}
OURS = {"train": ["mbconv", "mbconv, checkpointing"], "infer": ["mbconv"]}
# Not part of the ratio.
IN_BF16 = {"train": [], "infer": ["openvino, bf16", "mbconv, bf16"]}


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


def onnx_file(network, batch, folder):
    """Returns the ONNX file of torchvision's network with a fixed batch size."""
    import torch
    import torchvision

    path = pathlib.Path(folder) / f"{network}-{batch}.onnx"
    if not path.exists():
        model = getattr(torchvision.models, network)().eval()
        torch.onnx.export(model, (torch.randn(batch, 3, 224, 224),), str(path), input_names=["input"], dynamo=False)
    return path


def onnxruntime(network, size, batch, threads, seconds, folder):
    import numpy
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(onnx_file(network, batch, folder)), options, providers=["CPUExecutionProvider"])
    images = numpy.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=numpy.float32)
    return {"seconds": repeat(lambda: session.run(None, {"input": images}), seconds)}


def openvino(network, size, batch, threads, seconds, folder, precision="f32"):
    import numpy
    import openvino as runtime

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    model = runtime.Core().compile_model(str(onnx_file(network, batch, folder)), "CPU", settings)
    request = model.create_infer_request()
    images = numpy.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=numpy.float32)
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
        command = [args.mbconv, "bench", network, "--mode", mode, "--input-size", size, "--batch-size", batch]
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
    what = {"train": "training", "infer": "inference"}[mode]
    print(f"| {what}, images per second | " + " | ".join(programs) + " | mbconv / fastest peer |")
    print("|---|" + "---:|" * (len(programs) + 1), flush=True)
    memory = []
    for network in NETWORKS:
        for size, batch in sizes:
            results = {program: [] for program in programs}
            for _ in range(args.rounds):
                for program in programs:
                    results[program].append(measure(program, mode, network, size, batch, args))
            speeds = {p: sorted(batch / r["seconds"] for r in results[p]) for p in programs}
            speed = {p: statistics.median(speeds[p]) for p in programs}
            best = max(speed[p] for p in PEERS[mode])
            case = f"{network} {size} px, batch {batch}"
            cells = [f"{speed[p]:.1f} ({speeds[p][0]:.1f} to {speeds[p][-1]:.1f})" for p in programs]
            print(f"| {case} | " + " | ".join(cells) + f" | {speed['mbconv'] / best:.2f} |", flush=True)
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
    parser.add_argument("--only", choices=["train", "infer"])
    parser.add_argument("--verbose", action="store_true", help="show the programs' standard error")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args)
    with tempfile.TemporaryDirectory() as args.folder:
        for mode, sizes in [("train", TRAINING), ("infer", INFERENCE)]:
            if args.only in (None, mode):
                table(mode, sizes, args)


if __name__ == "__main__":
    main()
