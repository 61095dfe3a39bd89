"""Kills mbconv at random moments and damages run folders, and checks that nothing is lost.

    python scripts/crash_campaign.py --mbconv target/release/mbconv --kills 200 --minutes 30

First part: `train`, `finetune`, `data pack`, `data verify --fix` and `fetch` (from a local server) are
killed with SIGKILL at random moments and started again until they finish. The result must be equal,
byte by byte, to that of an uninterrupted run, without left-over files.

Second part: each file of a run's folder is truncated, overwritten with zeros or removed. `--resume` must
continue, or end with exit status 1 and an `error:`.

Needs the Python standard library only. Exit status 1 if anything is wrong.
"""

import argparse
import hashlib
import http.server
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

RECIPE = """
epochs = 4
batch_size = 16
[model]
name = "mobilenet_v2_0.1"
strides = [1, 1, 2, 2, 1, 1, 1, 1]
dropout = 0.2
[data]
path = "DATA"
workers = 2
[input]
size = 8
crop = "pad"
padding = 1
[optimizer]
name = "sgd"
learning_rate = 0.05
[ema]
decay = 0.9
[checkpoint]
minutes = 0.002
keep_last = 2
"""


def png(path, color, size=24):
    """Writes an image of one color with a gradient."""
    rows = b"".join(
        b"\0" + bytes((c + x * 3 + y * 5) % 256 for x in range(size) for c in color) for y in range(size)
    )

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def image_folder(root, images=40, bad=False):
    """Writes three classes of images; with `bad`, also damaged files, duplicates and wrong extensions."""
    for number, name in enumerate(["ants", "bees", "cats"]):
        for image in range(images):
            png(root / name / f"{image}.png", (40 * number + image, 200 - 60 * number, 5 * image % 256))
    if bad:
        for name in ["ants", "bees", "cats"]:
            for image in range(0, images, 4):
                source = root / name / f"{image}.png"
                (root / name / f"cut{image}.png").write_bytes(source.read_bytes()[:60])
                shutil.copy(source, root / name / f"copy{image}.png")


def tree(root, skip=r"$^"):
    """Maps the files below `root` to their SHA-256, except those whose path matches `skip`."""
    files = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if (path.is_file() or path.is_symlink()) and not re.search(skip, name):
            content = path.read_bytes()
            if name.endswith("metrics.csv"):
                # Without the columns of speed.
                rows = [row.split(",") for row in content.decode().splitlines()]
                content = "\n".join(",".join(row[:8] + row[10:]) for row in rows).encode()
            files[name] = hashlib.sha256(content).hexdigest()
    return files


class Server:
    """A hub with one file, sent slowly."""

    def __init__(self):
        self.content = random.Random(1).randbytes(3_000_000)
        self.tag = hashlib.sha256(self.content).hexdigest()
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        # A client that is killed resets its connection.
        self.server.handle_error = lambda *_: None
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, with_body):
        if not self.path.endswith((".safetensors", ".pth")):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, start = self.hub.content, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and with_body:
            start = int(asked[1])
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{self.hub.tag}"')
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            try:
                for at in range(start, len(content), 100_000):
                    self.wfile.write(content[at : at + 100_000])
                    time.sleep(0.01)
            except OSError:
                pass


class Campaign:
    def __init__(self, options, work):
        self.mbconv = str(Path(options.mbconv).resolve())
        self.work = work
        self.random = random.Random(options.seed)
        self.deadline = time.monotonic() + 60 * options.minutes
        self.kills = {}
        self.problems = []
        self.server = Server()
        self.environment = dict(os.environ, HF_ENDPOINT=self.server.address, HF_HUB_OFFLINE="0")
        for name in ["HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "HF_TOKEN", "http_proxy", "HTTP_PROXY"]:
            self.environment.pop(name, None)
        self.recipe = work / "tiny.toml"
        self.recipe.write_text(RECIPE.replace("DATA", str(work / "data")))
        image_folder(work / "data")
        image_folder(work / "bad", bad=True)

    def problem(self, text):
        self.problems.append(text)
        print(f"PROBLEM: {text}", flush=True)

    def start(self, arguments, cache=None):
        environment = dict(self.environment)
        if cache:
            environment["XDG_CACHE_HOME"] = str(cache)
        return subprocess.Popen(
            [self.mbconv, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=self.work,
        )

    def run(self, arguments, cache=None, allowed=(0,)):
        """Runs the program to its end. Any panic or other exit status is a problem."""
        process = self.start(arguments, cache)
        output, errors = (text.decode(errors="replace") for text in process.communicate())
        if process.returncode not in allowed or "panicked" in errors:
            self.problem(f"exit status {process.returncode} of {' '.join(map(str, arguments))}\n{errors}")
        if process.returncode == 1 and "error:" not in errors and output == "":
            self.problem(f"exit status 1 without an error: {' '.join(map(str, arguments))}\n{errors}")
        return process.returncode, errors

    def is_over(self):
        return time.monotonic() > self.deadline

    def kill_until_done(self, name, arguments, seconds, budget, cache=None, allowed=(0,)):
        """Starts the command again and again, killing it at random moments, at most `budget` times."""
        for _ in range(budget):
            process = self.start(arguments(), cache)
            try:
                _, errors = process.communicate(timeout=self.random.uniform(0, 0.9 * seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                self.kills[name] = self.kills.get(name, 0) + 1
                continue
            if process.returncode not in allowed:
                self.problem(f"{name}: exit status {process.returncode} after a kill\n{errors.decode()}")
            return
        self.run(arguments(), cache, allowed)

    def cases(self):
        """Yields name, arguments for a folder, whether that is the cache, exit statuses, and weight."""
        train = ["train", self.recipe, "--device", "cpu", "--out"]
        finetune = ["finetune", "--weights", self.work / "model.safetensors", "--data", self.work / "data"]
        finetune += ["--epochs", "2", "--set", "checkpoint.minutes=0.001", "--device", "cpu", "--out"]

        def resumed(command, out):
            return command + [out] + (["--resume"] if (out / "recipe.toml").exists() else [])

        url = f"{self.server.address}/nets/net-{self.server.tag[:8]}.pth"
        yield "train", lambda out: resumed(train, out), False, (0,), 3
        yield "finetune", lambda out: resumed(finetune, out), False, (0,), 3
        for form in ["wds", "parquet"]:
            pack = ["data", "pack", self.work / "data", "--format", form, "--shard-size", "10"]
            yield f"pack {form}", lambda out, pack=pack: pack + [out], False, (0,), 1
        verify = lambda out: ["data", "verify", out / "data", f"--fix={out / 'aside'}", "--few", "0"]
        yield "verify --fix", verify, False, (0, 1), 1
        yield "fetch url", lambda out: ["fetch", url], True, (0,), 1
        yield "fetch hub", lambda out: ["fetch", "hf:someone/net"], True, (0,), 1

    def prepare(self, name, out):
        if out.exists():
            shutil.rmtree(out)
        if name.startswith("verify"):
            shutil.copytree(self.work / "bad", out / "data")

    def kill_all(self, kills):
        # These contain times, speeds, or a line for each start or move.
        skip = r"events\.out|log\.txt|report\.html|checkpoint|\.locks/|moved\.jsonl"
        cases = list(self.cases())
        weights = sum(case[4] for case in cases)
        for name, arguments, is_cache, allowed, weight in cases:
            whole, out = self.work / "whole", self.work / "killed"
            self.prepare(name, out)
            started = time.monotonic()
            cache = out if is_cache else None
            # In the same folder, whose path some files contain.
            self.run(arguments(out), cache, allowed)
            seconds = time.monotonic() - started
            if name == "train":
                shutil.copy(out / "best.safetensors", self.work / "model.safetensors")
                shutil.copytree(out, self.work / "finished", dirs_exist_ok=True)
            expected = tree(out, skip)
            target = max(1, round(kills * weight / weights))
            rounds = 0
            while self.kills.get(name, 0) < target and not self.is_over():
                self.prepare(name, out)
                budget = min(target - self.kills.get(name, 0), 12)
                self.kill_until_done(name, lambda: arguments(out), seconds, budget, cache, allowed)
                if name.startswith("verify"):
                    # What was moved by an earlier start is no longer found by the last.
                    self.run(arguments(out), cache, allowed)
                self.compare(name, expected, tree(out, skip))
                if name.startswith("verify"):
                    self.run(["data", "verify", out / "data", f"--undo={out / 'aside'}"])
                    self.compare("verify --undo", tree(self.work / "bad"), tree(out / "data"))
                rounds += 1
            print(f"{name}: {self.kills.get(name, 0)} kills in {rounds} results, {seconds:.1f} s each", flush=True)

    def compare(self, name, expected, found):
        for file in sorted(expected.keys() | found.keys()):
            if file not in found:
                self.problem(f"{name}: {file} is missing")
            elif file not in expected:
                self.problem(f"{name}: {file} is left over")
            elif expected[file] != found[file]:
                self.problem(f"{name}: {file} differs")

    def damage_all(self):
        """Damages each file of a finished run and of an unfinished one, and resumes."""
        train = ["train", self.recipe, "--device", "cpu", "--out"]
        finished, unfinished = self.work / "finished", self.work / "unfinished"
        self.run(["train", self.recipe, "--device", "cpu", "--set", "epochs=1", "--out", unfinished])
        count, continued = 0, 0
        for run, more in [(finished, []), (unfinished, ["--set", "epochs=2"])]:
            for file in sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file()):
                for damage in ["truncate", "zero", "remove"]:
                    if self.is_over():
                        print("damage: out of time", flush=True)
                        return
                    out = self.work / "damaged"
                    shutil.rmtree(out, ignore_errors=True)
                    shutil.copytree(run, out)
                    length = (out / file).stat().st_size
                    if damage == "truncate":
                        os.truncate(out / file, length // 2)
                    elif damage == "zero":
                        (out / file).write_bytes(bytes(length))
                    else:
                        (out / file).unlink()
                    status, _ = self.run(train + [out, "--resume"] + more, allowed=(0, 1))
                    count, continued = count + 1, continued + (status == 0)
                    if status == 1:
                        print(f"damage: {damage} {file}: exit status 1", flush=True)
        print(f"damage: {count} resumes, {continued} continued, the others were explained", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mbconv", default="target/release/mbconv", help="the program")
    parser.add_argument("--kills", type=int, default=200, help="kills in all [default: 200]")
    parser.add_argument("--minutes", type=float, default=30, help="time limit [default: 30]")
    parser.add_argument("--seed", type=int, default=1, help="seed of the moments [default: 1]")
    parser.add_argument("--work", type=Path, help="folder for all files [default: a temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crash-campaign-") as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        campaign = Campaign(options, work)
        campaign.kill_all(options.kills)
        campaign.damage_all()
    kills = sum(campaign.kills.values())
    print(f"{kills} kills, {len(campaign.problems)} problems")
    sys.exit(1 if campaign.problems or kills < options.kills * 0.9 else 0)


if __name__ == "__main__":
    main()
