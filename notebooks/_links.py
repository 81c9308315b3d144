"""Names of the package in code font are links to where they are described."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

import jaxmtl

# `mgda`, `jaxmtl.mgda`, `every(balancer, 10)`, `jaxmtl.solvers.min_norm`
NAME = re.compile(r"(?:jaxmtl\.)?(\w+(?:\.\w+)*)(?:\(.*\))?$", re.DOTALL)


class LinkNames(SphinxTransform):
    """Make a literal a link where it is a public name, or a call of one."""

    default_priority = 500

    def apply(self, **kwargs):
        """Wrap the literals of one page."""
        for literal in list(self.document.findall(nodes.literal)):
            match = NAME.fullmatch(literal.astext())
            if match is None or match[1].split(".")[0] not in jaxmtl.__all__:
                continue
            if _within(literal, (nodes.reference, nodes.title, addnodes.pending_xref)):
                continue
            link = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=f"jaxmtl.{match[1]}",
                refexplicit=True,
                refwarn=False,
                refdoc=self.env.docname,
            )
            literal.replace_self(link)
            link += literal


def _within(node, kinds):
    """Whether a node has a parent of one of these kinds."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False
