"""A Sphinx extension: numbers of equations, terms and citations become links.

The notebooks hold plain text, which reads well in Jupyter and Colab: (5.1) for an
equation, italics for a term. On the site each leads to what it names.
"""

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

EQUATION = re.compile(r"\\tag\{(\d+\.\d+)\}")
MENTION = re.compile(r"\((\d+\.\d+)\)")


def setup(app):
    """Connect the handlers; called by Sphinx."""
    app.connect("doctree-read", name_equations)
    app.connect("env-updated", know_citations, priority=900)  # when all are known
    app.add_post_transform(LinkEquations)
    app.add_post_transform(LinkTerms)


def name_equations(app, doctree):
    """Give each numbered equation an anchor, and note where it stands."""
    if not hasattr(app.env, "equations"):
        app.env.equations = {}  # from numbers to pages and anchors
    for formula in doctree.findall(nodes.math_block):
        for number in EQUATION.findall(formula.astext()):
            formula["ids"].append(f"eq-{number}")
            app.env.equations[number] = app.env.docname, f"eq-{number}"


def know_citations(app, env):
    """Let links such as references.md#he2016 find the entry."""
    for citation in env.get_domain("cite").citations:
        slugs = env.metadata[citation.bibliography_key.docname].setdefault(
            "myst_slugs", {}
        )
        slugs[citation.key] = (0, citation.citation_id, citation.key)


class LinkEquations(SphinxPostTransform):
    """Make links of numbers of equations in the text."""

    default_priority = 5

    def run(self, **options):
        """Replace each mention of an equation that stands somewhere."""
        for text in list(self.document.findall(nodes.Text)):
            if isinstance(text.parent, (nodes.paragraph, nodes.entry)):
                parts = MENTION.split(str(text))  # text, number, text, number, …
                known = [number in self.env.equations for number in parts[1::2]]
                if any(known):
                    text.parent.replace(text, [*self.link(parts)])

    def link(self, parts):
        """Yield the nodes of a text that was split at numbers of equations."""
        for place, part in enumerate(parts):
            shown = nodes.Text(f"({part})" if place % 2 else part)
            if place % 2 and part in self.env.equations:
                yield link(self, *self.env.equations[part], shown)
            else:
                yield shown


class LinkTerms(SphinxPostTransform):
    """Make links to the glossary of the terms that a chapter puts in italics."""

    default_priority = 5

    def run(self, **options):
        """Wrap each emphasised term of the glossary."""
        objects = self.env.get_domain("std").objects
        terms = {n.lower(): at for (kind, n), at in objects.items() if kind == "term"}
        for italics in list(self.document.findall(nodes.emphasis)):
            name = italics.astext().lower()
            place = terms.get(name) or terms.get(name.removesuffix("s"))
            if place and not isinstance(italics.parent, nodes.reference):
                italics.replace_self(link(self, *place, italics.deepcopy()))


def link(transform, docname, anchor, shown):
    """Return a link from the page of a transform to an anchor of another page."""
    here = transform.env.docname
    return make_refnode(transform.app.builder, here, docname, anchor, shown)
