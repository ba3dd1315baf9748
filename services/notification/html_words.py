"""The words of an HTML mail, by lexbor (https://lexbor.com), which reads HTML as browsers do.

What a browser has to do for some texts grows with the square of their tags, or worse: a paragraph
opens anew every format that was left open. So both are bounded here: the tags that lexbor is given,
and the steps that are taken through what it has made of them. The beginning is what counts; behind
it stands what the writer answers.
"""

from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

CHARACTERS_AT_MOST = 200_000
# A reply has some hundred in front of what it quotes; this many take lexbor a tenth of a second.
TAGS_AT_MOST = 2000
STEPS_AT_MOST = 20_000
# From one "<" to the next: lexbor compares each attribute of a tag with all others of it.
PIECE_AT_MOST = 4000

# What holds no words of the writer, and around what a new line begins.
_SILENT = {"head", "style", "script", "title", "template", "blockquote"}
_LINES = {
    "p", "div", "tr", "li", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "pre",
}  # fmt: skip


def words_of(html: str) -> str:
    """The words of a mail in HTML, without what it quotes."""
    text = beginning(html)
    root = LexborHTMLParser(text).root
    if root is None:
        return ""
    return "".join(_pieces(root))


def beginning(html: str) -> str:
    """As much of a mail as has no more tags, or what looks like one, than lexbor is given, and none
    with more attributes than fit into a piece."""
    parts = html[:CHARACTERS_AT_MOST].split("<", TAGS_AT_MOST)
    kept = parts if len(parts) <= TAGS_AT_MOST else parts[:-1]
    return "<".join(piece[:PIECE_AT_MOST] for piece in kept)


def _pieces(root: LexborNode) -> Iterator[str]:
    """What stands in the tree, in order: into each node, through it, and out of it again."""
    node: LexborNode | None = root
    steps = 0
    while node is not None and (steps := steps + 1) < STEPS_AT_MOST:
        name = node.tag or ""
        if name == "-text":
            yield _spaced(node.text_content or "")
        elif name == "br" or name in _LINES:
            yield "\n"
        inside = node.child if name not in _SILENT else None
        if inside is not None:
            node = inside
            continue
        while node is not None and (steps := steps + 1) < STEPS_AT_MOST:
            if node.tag in _LINES:
                yield "\n"
            if node.next is not None:
                node = node.next
                break
            node = node.parent


def _spaced(text: str) -> str:
    """White space as a browser shows it: one space, also at the ends."""
    words = " ".join(text.split())
    if not words:
        return " " if text else ""
    return f"{' ' if text[0].isspace() else ''}{words}{' ' if text[-1].isspace() else ''}"
