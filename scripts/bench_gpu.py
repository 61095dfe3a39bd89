#!/usr/bin/env python3
"""Compares training and inference on a GPU with PyTorch, eager and compiled, in limited time.

    python scripts/bench_gpu.py --mbconv target/release/mbconv [--device cuda] [--batch-size 256]
        [--input-size 224] [--minutes 9]

Compilation and tuning run first, in parallel, with one cache each; --cache keeps mbconv's caches for
later runs. Measurements then run one after the other. Each mbconv measurement is a process, each
peer one process for all its measurements; images and labels are already on the device. A training
step is forward, cross-entropy, backward and SGD with Nesterov momentum, with a wait for the GPU
after every eighth step. Inference computes logits and waits each time. mbconv replays a recorded
training step (a CUDA graph), as in training; PyTorch queues each step. mbconv runs in f32 and in
bf16 over f32 weights. PyTorch runs torchvision's networks eagerly in f32 (NCHW), and in bf16
(channels-last, autocast over f32 weights) eagerly and with torch.compile. Measurements that do not
fit the time limit are listed and skipped. Peers are skipped without torch; without CUDA they run on
the CPU (--peers-on).

The last table is the roofline from `mbconv info --layers`: floating-point operations and minimum
memory traffic of a step. Each layer is convolution, statistics, normalization with activation and
their gradients; each of these reads its operands and writes its results once (forward: the input
once, the output four times; backward: twice and seven times). Prints Markdown.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

NETWORKS = ["mobilenet_v2", "efficientnet_b0"]
MODES = ["train", "infer"]
STEPS = [(network, mode) for mode in MODES for network in NETWORKS]
OURS = {"mbconv f32": "f32", "mbconv bf16": "bf16"}
# Name, channels-last and bf16?, compiled?
PEERS = {
    "PyTorch eager f32": (False, False),
    "PyTorch eager bf16, channels-last": (True, False),
    "PyTorch compiled bf16, channels-last": (True, True),
}
# Training steps between waits for the GPU, as in `mbconv bench`.
UNWAITED = 8
# Passes over a layer's input and output, forward only and with backward.
PASSES = {"infer": (1, 1), "train": (3, 11)}
BYTES = {"f32": 4, "bf16": 2}
FLOPS_PER_MAC = {"infer": 2, "train": 6}


def median_time(body, together, seconds, wait):
    """Returns the median seconds of `body`, waiting after every `together` calls."""
    for _ in range(3):
        body()
    wait()
    times, started = [], time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        began = time.perf_counter()
        for _ in range(together):
            body()
        wait()
        times.append((time.perf_counter() - began) / together)
    return statistics.median(times)


def pytorch(peer, network, mode, size, batch, seconds, where):
    import contextlib

    import torch
    import torchvision

    fast, compiled = PEERS[peer]
    device = torch.device(where)
    # cuDNN benchmarks its algorithms for every shape and keeps the fastest.
    torch.backends.cudnn.benchmark = True
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    layout = torch.channels_last if fast else torch.contiguous_format
    model = getattr(torchvision.models, network)().to(device, memory_format=layout)
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=layout)
    labels = torch.arange(batch, device=device) % 1000
    precision = lambda: torch.autocast(device.type, torch.bfloat16) if fast else contextlib.nullcontext()
    model.train(mode == "train")
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def train():
        optimizer.zero_grad(set_to_none=True)
        with precision():
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def infer():
        with precision():
            forward(images)

    body, together = (train, UNWAITED) if mode == "train" else (infer, 1)
    return batch / median_time(body, together, seconds, wait)


def run(command, limit, cache=None):
    """Returns a command's standard output, and the reason if it failed or timed out."""
    environment = os.environ | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=max(limit, 1), env=environment)
    except subprocess.TimeoutExpired as stopped:
        return (stopped.stdout or b"").decode(), f"not done in {limit:.0f} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return done.stdout, next((line for line in lines if line.startswith("error: ")), lines[-1])
    return done.stdout, None


def ours(program, step, args, limit, seconds):
    network, mode = step
    command = [args.mbconv, "bench", network, "--mode", mode, "--dtype", OURS[program], "--input-size", args.input_size]
    command += ["--batch-size", args.batch_size, "--seconds", seconds, "--device", args.device, "--json"]
    # Networks that tune at the same time would block each other in one cache.
    out, trouble = run(command, limit, args.cache / f"{network}-{OURS[program]}")
    if trouble:
        return {}, trouble
    report = json.loads(out)
    return {step: (report["images_per_second"], report["device"])}, None


def peers(peer, args, limit, seconds):
    """Runs all steps in one process, because start-up takes longer than measuring."""
    command = [sys.executable, "-u", __file__, "--worker", peer, "--seconds", seconds]
    command += ["--input-size", args.input_size, "--batch-size", args.batch_size, "--peers-on", args.peers_on]
    out, trouble = run(command, limit)
    lines = [json.loads(line) for line in out.splitlines()]
    return {tuple(line["step"]): (line["images_per_second"], line["device"]) for line in lines}, trouble


def prepare(rivals, args, limit):
    """Compiles and tunes everything to be measured within the limit; prints the times."""
    started = time.monotonic()

    def ours_once(program, network):
        for mode in MODES:
            _, trouble = ours(program, (network, mode), args, started + limit - time.monotonic(), 0)
            say = f"failed: {trouble}" if trouble else "ready"
            print(f"{program}, {mode} {network}: {say} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    def peer_once(peer):
        _, trouble = peers(peer, args, limit, 0)
        say = f"failed: {trouble}" if trouble else "ready"
        print(f"{peer}: {say} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        jobs = [pool.submit(ours_once, program, network) for program in OURS for network in NETWORKS]
        jobs += [pool.submit(peer_once, peer) for peer in rivals if PEERS[peer][1]]
    for job in jobs:
        job.result()


def work(args):
    """Runs in a peer's process and prints one line per step."""
    for step in STEPS:
        speed = pytorch(args.worker, *step, args.input_size, args.batch_size, args.seconds, args.peers_on)
        print(json.dumps({"step": step, "images_per_second": speed, "device": device_name(args.peers_on)}))


def device_name(where):
    import torch

    return torch.cuda.get_device_name() if where == "cuda" else where


def peers_device():
    """Returns PyTorch's device, or None without PyTorch."""
    try:
        import torch
        import torchvision  # noqa: F401
    except ImportError:
        return None
    return "cuda" if torch.cuda.is_available() else "cpu"


def roofline(network, mode, precision, args):
    """Returns the floating-point operations and the minimum memory traffic of a step."""
    out, _ = run([args.mbconv, "info", network, "--input-size", args.input_size, "--layers", "--json"], 60)
    info = json.loads(out)
    reads, writes = PASSES[mode]
    size = lambda shape: shape[0] * shape[1] * shape[2]
    elements = sum(reads * size(layer["input"]) + writes * size(layer["output"]) for layer in info["layers"])
    flops = FLOPS_PER_MAC[mode] * info["macs"] * args.batch_size
    # Weights are read. Training also writes and reads gradients and updates moments and weights.
    weights = info["parameters"] * (8 if mode == "train" else 1)
    return flops, BYTES[precision] * elements * args.batch_size + BYTES["f32"] * weights


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbconv", default="target/release/mbconv")
    parser.add_argument("--device", default="cuda", help="device of mbconv")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=5, help="length of each measurement, after warm-up")
    parser.add_argument("--each", type=float, default=60, help="time limit of one mbconv measurement in seconds")
    parser.add_argument("--prepare", type=float, default=240, help="seconds for compiling and tuning everything in parallel (needs GPU memory); 0: done while measuring, so increase --each")
    parser.add_argument("--cache", type=pathlib.Path, help="folder for mbconv's compiled and tuned kernels (default: temporary)")
    parser.add_argument("--minutes", type=float, default=9, help="limit for all measurements in minutes")
    parser.add_argument("--bandwidth", type=float, default=4.8, help="memory bandwidth in TB/s, from the data sheet")
    parser.add_argument("--tflops", type=float, default=67, help="f32 TFLOP/s, from the data sheet")
    parser.add_argument("--tflops-bf16", type=float, default=989, help="bf16 matrix TFLOP/s, from the data sheet")
    parser.add_argument("--peers-on", help="device of PyTorch")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args)
    end = time.monotonic() + 60 * args.minutes
    temporary = tempfile.TemporaryDirectory()
    args.cache = args.cache or pathlib.Path(temporary.name)
    args.peers_on = args.peers_on or peers_device()
    rivals = list(PEERS) if args.peers_on and not args.no_peers else []
    if not rivals:
        print("PyTorch is skipped: not installed, or --no-peers\n")
    if args.prepare:
        prepare(rivals, args, args.prepare)
    speeds, troubles, places = {}, [], set()
    # mbconv first and compiled peers last: if time runs out, the slowest to start are skipped.
    jobs = [(program, step) for program in OURS for step in STEPS] + [(peer, None) for peer in rivals]
    for program, step in jobs:
        left = end - time.monotonic()
        found, trouble = {}, "no time left"
        if left > 5:
            found, trouble = ours(program, step, args, min(left, args.each), args.seconds) if step else peers(program, args, left, args.seconds)
        if trouble:
            troubles.append(f"{program}{', ' + ' '.join(step) if step else ''}: {trouble}")
        for step, (speed, place) in found.items():
            speeds[program, step] = speed
            places.add(place)
            print(f"{program}, {' '.join(step)}: {speed:.1f} images per second", file=sys.stderr, flush=True)

    print(f"Images per second, {args.input_size} px, batch {args.batch_size}; mbconv on `{args.device}`, PyTorch on `{args.peers_on}` "
          f"({', '.join(sorted(map(str, places)))}); ratios: mbconv / PyTorch in the same precision\n")
    rows = []
    for step in STEPS:
        row = [", ".join(step)]
        for program in [*OURS, *rivals]:
            speed = speeds.get((program, step))
            own = speeds.get(("mbconv bf16" if "bf16" in program else "mbconv f32", step))
            ratio = f" ({own / speed:.2f}×)" if program in rivals and own and speed else ""
            row.append(f"{speed:.1f}{ratio}" if speed else "–")
        rows.append(row)
    table(["", *OURS, *rivals], rows)

    arithmetic = {"f32": args.tflops, "bf16": args.tflops_bf16}
    print(f"Roofline at {args.bandwidth} TB/s, {args.tflops} TFLOP/s in f32 and {args.tflops_bf16} in bf16\n")
    rows = []
    for step in STEPS:
        for program, precision in OURS.items():
            flops, traffic = roofline(*step, precision, args)
            times = {"memory": traffic / (args.bandwidth * 1e12), "arithmetic": flops / (arithmetic[precision] * 1e12)}
            bound = max(times, key=times.get)
            best = args.batch_size / times[bound]
            own = speeds.get((program, step))
            share = f"{100 * own / best:.2g} %" if own else "–"
            name = f"{', '.join(step)}, {precision}"
            rows.append([name, f"{flops / 1e12:.3g}", f"{traffic / 1e9:.3g}", bound, f"{best:.0f}", share])
    table(["", "TFLOP per step", "GB per step", "limited by", "images per second at most", "mbconv reaches"], rows)
    for trouble in troubles:
        print(f"- {trouble}")


if __name__ == "__main__":
    main()
