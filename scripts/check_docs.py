"""Checks the Markdown pages: links, anchors, names of files, and the book's table of contents.

    python scripts/check_docs.py

Prints each problem as `page:line: problem` and exits with 1 if there is one. Links to the web are
not followed. The commands are checked by `cargo test --test documentation`.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ["docs", "models", "datasets", "scripts", "fuzz", "crates"]
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)")
SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(
    r"(?:crates|scripts|configs|docs|models|datasets|fuzz|src|tests)/[\w./-]+"
    r"\.(?:rs|py|sh|toml|md|slurm|svg|safetensors|txt)"
)


def lines(text):
    """Yields number, text and language of each line: that of its fenced block, or None outside."""
    language = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            language = line.strip().strip("`") or "text" if language is None else None
        else:
            yield number, line, language


def anchors(page):
    """Returns the anchors that GitHub and mdBook give the headings of a page."""
    found = {}
    for _, line, language in lines(page.read_text()):
        if language is None and (heading := re.match(r"#+\s+(.*)", line)):
            title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
            anchor = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
            count = found[anchor] = found.get(anchor, -1) + 1
            if count:
                found[f"{anchor}-{count}"] = 0
    return found


def link_problem(page, target):
    if re.match(r"[a-z]+:", target):
        return None
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        return f"no file {path}"
    if anchor and file.suffix == ".md" and anchor not in anchors(file):
        return f"no heading #{anchor} in {file.relative_to(ROOT)}"
    return None


def file_problems(page, code):
    """Yields the files of the repository that the code names and that do not exist."""
    for name in code.split():
        name = re.sub(r":\d+$", "", name)
        folders = [ROOT, page.parent, ROOT / "crates", *ROOT.glob("crates/*")]
        if FILE.fullmatch(name) and not any((folder / name).exists() for folder in folders):
            yield f"no file {name}"


def page_problems(page):
    for number, line, language in lines(page.read_text()):
        code = [line] if language == "sh" else SPAN.findall(line) if language is None else []
        problems = []
        if language is None:
            problems = [link_problem(page, target) for target in LINK.findall(SPAN.sub("``", line))]
        # History names files of its time.
        if page.name != "CHANGELOG.md":
            problems += [problem for text in code for problem in file_problems(page, text)]
        yield from (f"{number}: {problem}" for problem in problems if problem)


def main():
    nested = [page for folder in FOLDERS for page in ROOT.glob(f"{folder}/**/*.md")]
    pages = sorted(ROOT.glob("*.md")) + sorted(nested)
    problems = [
        f"{page.relative_to(ROOT)}:{problem}" for page in pages for problem in page_problems(page)
    ]
    summary = (ROOT / "docs/SUMMARY.md").read_text()
    for page in sorted(ROOT.glob("docs/**/*.md")):
        name = str(page.relative_to(ROOT / "docs"))
        if name != "SUMMARY.md" and f"({name})" not in summary:
            problems.append(f"docs/SUMMARY.md: {name} is missing")
    print("\n".join(problems) or f"{len(pages)} pages, no problems")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
