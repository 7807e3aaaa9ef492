"""Operations that have no backward pass here, each with the reason: all in one place."""

from keras_backprop._keras import ops
from keras_backprop.registry import not_differentiable, refused

refused(
    "it runs Python code of its own, whose calls cannot be recorded one by one. Write the loop or the choice in Python, "
    "where it is static; or as a layer of `keras.layers.RNN`",
    ops.AssociativeScan, ops.Cond, ops.ForiLoop, ops.Map, ops.Scan, ops.Switch, ops.VectorizedMap, ops.WhileLoop, ops.JVP,
    runs_code=True,
)  # fmt: skip
refused(
    "it makes complex numbers, and a chain of complex numbers is not supported. `keras.ops.fft` and the like keep "
    "complex numbers as pairs of a real and an imaginary part, and have rules",
    ops.Eig, ops.Polar, ops.ViewAsComplex,
)  # fmt: skip
refused(
    "TensorFlow's own gradient of it is an approximation, the image transformed back. "
    "`keras.ops.image.map_coordinates` has an exact one",
    ops.AffineTransform, ops.PerspectiveTransform,
)  # fmt: skip
refused(
    "it draws random numbers. Use it on data, where no gradient is needed",
    ops.ElasticTransform,
)  # fmt: skip
refused(
    "how many numbers there are besides NaN is known only when the step runs. "
    "Replace NaN first (`keras.ops.nan_to_num`) and use the function without `nan`",
    ops.Nanmedian, ops.Nanpercentile, ops.Nanquantile,
)  # fmt: skip
not_differentiable(ops.CTCDecode, ops.SegmentReduction)
