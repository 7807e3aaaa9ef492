"""How far two computations of one gradient may differ: one table, by dtype."""

RELATIVE_TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 5e-2, "bfloat16": 2e-1}
"""Between two analytic gradients, relative to the largest entry of the reference."""

DIFFERENCE_TOLERANCE = {"float64": 1e-5, "float32": 1e-1, "float16": 1.0, "bfloat16": 1.0}
"""Between an analytic directional derivative and a central difference, relative to the derivative's natural scale."""

STEPS = (1e-5, 1e-6, 1e-4, 1e-7)
"""Step widths of the central differences, in the order in which they are tried, relative to the tensor's scale."""
