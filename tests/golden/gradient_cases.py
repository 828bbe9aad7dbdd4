"""Objectives whose exact derivatives are compared with those of JAX: plain functions, which tests compile.

They are written as users write them: loops, branches, buffers that are filled, array expressions. Each is listed in
`CASES` with a point and its further arguments.
"""

from __future__ import annotations

import gradient_models
import gradient_operations
from gradient_listing import CASES

PARTS = (gradient_models, gradient_operations)
"""Modules that are imported for the objectives that they list."""

__all__ = ["CASES"]
