"""Preprocessor of mdBook: links to files outside docs/ lead to the repository on the web.

`mdbook build docs` runs it (docs/book.toml). It replaces `](../configs/digits.toml)` by the address
of that file below `git-repository-url`.
"""

import json
import os
import re
import sys

LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def rewrite(text, page, repository):
    """Returns the Markdown of `page` (relative to docs/) with the links replaced."""

    def replace(match):
        target = os.path.normpath(os.path.join("docs", os.path.dirname(page), match[2]))
        if "://" in match[2] or target.startswith("docs"):
            return match[0]
        return f"{match[1]}{repository}/blob/main/{target}{match[3]}"

    return LINK.sub(replace, text)


def rewrite_all(items, repository):
    for item in items:
        chapter = isinstance(item, dict) and item.get("Chapter")
        if chapter:
            if chapter.get("path"):
                chapter["content"] = rewrite(chapter["content"], chapter["path"], repository)
            rewrite_all(chapter["sub_items"], repository)


if __name__ == "__main__":
    if sys.argv[1:2] == ["supports"]:
        sys.exit(sys.argv[2] != "html")
    context, book = json.load(sys.stdin)
    url = context["config"]["output"]["html"]["git-repository-url"]
    rewrite_all(book.get("items") or book["sections"], url)
    json.dump(book, sys.stdout)
