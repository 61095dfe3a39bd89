#!/usr/bin/env python3
"""Compiles CubeCL's CUDA C++ for the CPU.

`compile.py SOURCE FOLDER` prints the path of a library. For each kernel the library contains
`NAME__call(void **arguments)`, `NAME__sizes(size_t *to)` for the sizes of its parameters, and
`NAME__waits`, which is true if its threads synchronize. FOLDER contains `libcuda.so` and `device.h`.
`compile.py --header FOLDER` precompiles the header.
"""
import hashlib
import os
import pathlib
import re
import subprocess
import sys

COMPILER = "g++ -std=c++20 -O1 -w -fPIC -ffp-contract=off -fno-strict-aliasing".split()
NUMBERS = {"f32": "float", "u32": "uint32_t", "s32": "int32_t", "u64": "uint64_t"}


def sections(text):
    """Returns the parts of an `asm` statement between colons."""
    parts, depth, quoted = [""], 0, False
    for char in text:
        quoted ^= char == '"'
        depth += 0 if quoted else (char == "(") - (char == ")")
        if char == ":" and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def operands(text):
    """Returns the expressions of `"r"(first), "f"(second)`."""
    found, start = [], 0
    while match := re.compile(r'"[^"]*"\s*\(').search(text, start):
        depth, end = 1, match.end()
        while depth:
            depth += (text[end] == "(") - (text[end] == ")")
            end += 1
        found.append(text[match.end() : end - 1])
        start = end
    return found


def emulated(match):
    """Returns the function call that replaces an `asm` statement."""
    template, (_, *rest) = match[1], sections(match[2])
    outputs, inputs = (operands(part) for part in (rest + ["", ""])[:2])
    if kind := re.match(r"(ld|st)matrix\S*\.x(\d)(\.trans)?", template):
        arguments = ", ".join(inputs + outputs)
        return f"emulated_{kind[1]}matrix<{kind[2]}, {'true' if kind[3] else 'false'}>({arguments});"
    if kind := re.match(r"mma\.sync\.aligned\.(m16n8k16|m16n8k8)\.row\.col\.f32\.(bf16|f16|tf32)\.\w+\.f32", template):
        element = {"m16n8k16bf16": "__nv_bfloat16", "m16n8k16f16": "__half", "m16n8k8tf32": "float"}.get(kind[1] + kind[2])
        if element:
            registers = [f"emulated_register({value})" for value in inputs[:6]]
            a, b, c = (", ".join(values) for values in (registers[:4], registers[4:], inputs[6:]))
            return f"emulated_mma<{element}>({', '.join(outputs)}, {{{a}}}, {{{b}}}, {{{c}}});"
    if kind := re.match(r"(max|min)\.NaN\.f32", template):
        return f"{outputs[0]} = emulated_{kind[1]}_nan({', '.join(inputs)});"
    if kind := re.match(r"(?:atom|red)\S*\.add\.(f32|u32|s32|u64)", template):
        number = NUMBERS[kind[1]]
        call = f"atomicAdd(({number} *)({inputs[0]}), ({number})({inputs[1]}));"
        return f"{outputs[0]} = {call}" if outputs else call
    print("not emulated:", template)
    return match[0]


def translate(source):
    source = re.sub(r'asm(?:\s+volatile)?\s*\(\s*"([^"]*)"\s*(:.*?)\);', emulated, source, flags=re.S)
    source = re.sub(r"#include <[^>]*>", "", source)
    source = re.sub(r"typedef (?:un)?signed (?:[a-z ]*int|char|short) \w+_t;\n", "", source)
    source = re.sub(r"extern __shared__ __align__\(\d+\) char (\w+)\[\];", r"char *\1 = emulated_shared;", source)
    waits = int(bool(re.search(r"__sync|_sync\(|emulated_(ld|st)matrix|emulated_mma|wmma", source)))
    for name in re.findall(r'extern "C"\s+__global__[^(]*(?:\(\d+\))?\s+(\w+)\s*\(', source):
        source += f'\nextern "C" void {name}__call(void **arguments) {{ emulated_call({name}, arguments); }}'
        source += f'\nextern "C" size_t {name}__sizes(size_t *to) {{ return emulated_sizes({name}, to); }}'
        source += f'\nextern "C" const int {name}__waits = {waits};'
    return source


def main():
    folder = pathlib.Path(sys.argv[2])
    header = folder / "device.h"
    if sys.argv[1] == "--header":
        return subprocess.run([*COMPILER, "-x", "c++-header", header, "-o", f"{header}.gch"]).returncode
    source = translate(pathlib.Path(sys.argv[1]).read_text())
    known = hashlib.sha256((source + header.read_text()).encode()).hexdigest()[:24]
    library = folder / f"{known}.so"
    if not library.exists():
        own, written = folder / f"{known}.{os.getpid()}.so", folder / f"{known}.cpp"
        written.write_text(source + "\n")
        command = [*COMPILER, "-shared", "-include", header, "-o", own, written, f"-L{folder}", "-lcuda"]
        result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if result.returncode:
            print(result.stderr[:3000])
            return 1
        own.rename(library)
    print(library)
    return 0


if __name__ == "__main__":
    sys.exit(main())
