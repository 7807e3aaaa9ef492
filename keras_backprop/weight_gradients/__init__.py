"""A weight gradient is a product that has not been summed over the batch yet.

A rule returns its weight gradients as one of these products. Training asks for `total()`. Because the product is still whole
after the backward pass, whoever needs the gradient of every single example, its norm, or a weighted sum over examples
asks for that instead, and no second backward pass is run.

    total()            Σₙ dWₙ            shape of W
    per_example()      dWₙ for every n   (n, *shape of W)
    squared_norms()    ‖dWₙ‖² for every n, shape (n,); without building the dWₙ where mathematics allows
    weighted_total(c)  Σₙ cₙ·dWₙ         shape of W, for c of shape (n,)
    squared_total(c)   Σₙ (cₙ·dWₙ)²      entry by entry, shape of W
    inner_products(V)  ⟨dWₙ, V⟩          shape (n,), for V of the shape of W
    only(kept)         the same product with dWₙ = 0 where keptₙ = 0, also if there were infinities
    as_type(dtype)     the same product, of factors of another precision

The squared norm of a sum of outer products is Goodfellow's ("Efficient Per-Example Gradient Computations", 2015) for one
position and the Gram-matrix form of Rochette et al. (2019) for several.
"""

from keras_backprop.weight_gradients.base import SUMMED, Combination, Total, WeightGradient
from keras_backprop.weight_gradients.combined import Joined, Repeated
from keras_backprop.weight_gradients.contraction import Contraction
from keras_backprop.weight_gradients.lookup import Lookup
from keras_backprop.weight_gradients.steps import sum_of_steps
from keras_backprop.weight_gradients.sums import add, cast

__all__ = [
    "SUMMED", "Combination", "Contraction", "Joined", "Lookup", "Repeated", "Total", "WeightGradient", "add", "cast",
    "sum_of_steps",
]  # fmt: skip
