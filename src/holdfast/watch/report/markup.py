"""Elements of a page, escaped by construction: text never becomes markup."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, tostring

Child = Element | str | None


def el(tag: str, *children: Child, **attributes: str | float) -> Element:
    """An element with its children; None is left out.

    Attribute names are spelled as Python allows: ``class_``, ``stroke_width``.
    """
    made = Element(tag, {_name(key): _number(value) for key, value in attributes.items()})
    last: Element | None = None
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            words = child if tag == "style" else visible(child)
            if last is None:
                made.text = (made.text or "") + words
            else:
                last.tail = (last.tail or "") + words
        else:
            made.append(child)
            last = child
    return made


def add(parent: Element, tag: str, text: str = "", **attributes: str | float) -> Element:
    """A new last child of ``parent``."""
    made = SubElement(parent, tag, {_name(key): _number(value) for key, value in attributes.items()})
    made.text = visible(text) or None
    return made


def visible(text: str) -> str:
    """The text with what a browser would not show, or not accept, escaped as Python would."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def html(root: Element) -> str:
    """The whole document."""
    return "<!doctype html>\n" + tostring(root, encoding="unicode", method="html")


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-") if key not in _CAMEL else _CAMEL[key]


def _number(value: str | float) -> str:
    return visible(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


# The few attributes of SVG that are not written with hyphens.
_CAMEL = {
    "viewBox": "viewBox",
    "refX": "refX",
    "refY": "refY",
    "markerWidth": "markerWidth",
    "markerHeight": "markerHeight",
}
