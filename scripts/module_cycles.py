#!/usr/bin/env python3
"""Lists import cycles between the files of each crate and between the crates; exits with 1 if there are any.

    python scripts/module_cycles.py [--edges CRATE]

A file imports another if its code, without tests, comments and strings, contains a path to that
file's module. `mod` lines are not imports, re-exports are.
"""
import argparse
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent / "crates"


def modules(source):
    """{module path as a tuple: file} of a crate."""
    found = {}
    for file in sorted(source.rglob("*.rs")):
        parts = list(file.relative_to(source).with_suffix("").parts)
        if parts[-1] in ("mod", "lib", "main"):
            parts.pop()
        if "tests" not in parts:
            found[tuple(parts)] = file
    return found


def code(file):
    """The text of a file without comments, strings and its test module."""
    text = re.split(r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub\([^)]*\) )?mod tests", file.read_text())[0]
    text = re.sub(r'//[^\n]*|"(?:\\.|[^"\\])*"', "", text)
    return text


def use_trees(text, prefix=()):
    """Expands `a::{b, c::d}` into paths."""
    depth, start, items = 0, 0, []
    for i, c in enumerate(text + ","):
        depth += (c == "{") - (c == "}")
        if c == "," and depth == 0:
            items.append(text[start:i].strip())
            start = i + 1
    for item in filter(None, items):
        head, brace, rest = item.partition("{")
        path = prefix + tuple(p.strip() for p in head.split(" as ")[0].split("::") if p.strip())
        if brace:
            yield from use_trees(rest.rsplit("}", 1)[0], path)
        else:
            yield path


def paths(text, children):
    """Paths in the code that start with `crate`, `self`, `super` or a child module."""
    start = "|".join(["crate", "self", "super", *map(re.escape, children)])
    for tree in re.findall(rf"\buse\s+((?:{start})\b[^;]*);", text):
        yield from use_trees(tree)
    body = re.sub(r"\buse\s+[^;]*;", "", text)
    for path in re.findall(rf"(?<![\w:])((?:{start})(?:::\w+)+)", body):
        yield tuple(path.split("::"))


def imports(source):
    """{module: modules that it imports}."""
    known = modules(source)
    edges = {module: set() for module in known}
    for module, file in known.items():
        children = {other[-1] for other in known if other and other[:-1] == module}
        for path in paths(code(file), children):
            ups = sum(part == "super" for part in path)
            if path[0] == "crate":
                target = path[1:]
            elif path[0] == "self":
                target = module + path[1:]
            elif ups:
                target = module[: len(module) - ups] + path[ups:]
            else:
                target = module + path
            while target not in known:
                target = target[:-1]
            if target != module:
                edges[module].add(target)
    return edges


def cycles(edges):
    """Strongly connected components of more than one node (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges[node]:
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            component = []
            while not component or component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for node in edges:
        if node not in index:
            visit(node)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", metavar="CRATE")
    options = parser.parse_args()
    sys.setrecursionlimit(10_000)
    bad = 0
    crates = {}
    for manifest in sorted(ROOT.glob("*/Cargo.toml")):
        name = manifest.parent.name
        dependencies = tomllib.loads(manifest.read_text()).get("dependencies", {})
        crates[name] = {d.removeprefix("mbconv-") for d in dependencies if d.startswith("mbconv-")}
        edges = imports(manifest.parent / "src")
        found = cycles(edges)
        lines = sum(len(f.read_text().splitlines()) for f in (manifest.parent / "src").rglob("*.rs"))
        print(f"{name}: {lines} lines, {len(edges)} files, {len(found)} cycles")
        for component in found:
            bad = 1
            print("  cycle: " + ", ".join("::".join(m) or "lib" for m in component))
            if options.edges == name:
                for m in component:
                    for t in sorted(edges[m] & set(component)):
                        print(f"    {'::'.join(m) or 'lib'} -> {'::'.join(t) or 'lib'}")
    for component in cycles(crates):
        bad = 1
        print("cycle of crates: " + ", ".join(component))
    return bad


if __name__ == "__main__":
    sys.exit(main())
