"""Attribution: where the knowledge lives, and what unlearning did there.

>>> from unlearnkit.attribution import VIEWS
>>> VIEWS["text"]["tokens"](method="gradient_x_activation").card.title
'Token attribution'
"""

from unlearnkit.attribution import image as _image  # noqa: F401  fills the registry
from unlearnkit.attribution import plane as _plane  # noqa: F401
from unlearnkit.attribution import sharpness as _sharpness  # noqa: F401
from unlearnkit.attribution import text as _text  # noqa: F401
from unlearnkit.attribution.base import VIEWS, View, ViewCard, random_change, register_view
from unlearnkit.attribution.verb import attribute

__all__ = ["VIEWS", "View", "ViewCard", "attribute", "random_change", "register_view"]
