"""How do I bring my own network?"""

from pellucid.models.model import Model, check_input, wrap
from pellucid.models.resolve import Source, load, sources

__all__ = ["Model", "Source", "check_input", "load", "sources", "wrap"]
