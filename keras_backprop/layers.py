"""The note's layer, as a Keras layer that carries its own chain rule."""

from typing import Any

import keras
import tensorflow as tf

from keras_backprop.formula import written
from keras_backprop.rule import Gradients
from keras_backprop.rules.layer_formulas import DENSE
from keras_backprop.weight_gradients import Contraction

__all__ = ["BackpropDense"]


@keras.saving.register_keras_serializable(package="keras_backprop", name="BackpropDense")
class BackpropDense(keras.layers.Dense):
    """A fully connected layer a = σ(z), z = x·W + b, with its chain rule written beside its forward pass.

    It takes the arguments of `keras.layers.Dense` and has the same weights under the same names, so that weights load either
    way, and it works in a plain `keras.Model` too. It is the reference for layers of your own: `call` computes, `backward`
    turns the gradient at z into the gradients at the input and the weights. The activation is a link of its own in the
    chain (`activation_is_a_link`), so that z and a are both visible and no layer needs to know σ′.

    Example:

        model = BackpropSequential([keras.Input((1,)), BackpropDense(1, "sigmoid"), BackpropDense(1, "sigmoid")])

    Input shape: `(n, …, i)`. Output shape: `(n, …, units)`.

    Raises:
        ValueError: from the constructor, as `keras.layers.Dense`.
    """

    activation_is_a_link = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """z = x·W + b, and a = σ(z)."""
        z = self.pre_activation(inputs)
        return z if self.activation is None else self.activation(z)

    def pre_activation(self, inputs: Any) -> Any:
        """z = x·W + b, what the activation is applied to. Shape `(n, …, units)`."""
        z = keras.ops.matmul(inputs, self.kernel)
        return z if self.bias is None else keras.ops.add(z, self.bias)

    @written(DENSE)
    def backward(self, call: Any, dz: Any) -> Any:
        """The chain rule of z = x·W + b.

            ∂E/∂x = ∂E/∂z · Wᵀ        ∂E/∂W = xᵀ · ∂E/∂z        ∂E/∂b = Σ ∂E/∂z

        Args:
            call: the recorded `Call`; `call.input` is x, shape `(n, …, i)`.
            dz: ∂E/∂z, shape `(n, …, units)`.

        Returns:
            `Gradients` with ∂E/∂x and, not yet summed over the batch, ∂E/∂W and ∂E/∂b.
        """
        x, W = call.input, self.kernel
        dW = self._low_rank(x, dz) if self.lora_enabled else {"kernel": Contraction("i,o->io", x, dz)}
        return Gradients(
            lambda: tf.einsum("...o,io->...i", dz, W) if len(dz.shape) > 2 else tf.matmul(dz, W, transpose_b=True),
            bias=None if self.bias is None else Contraction("o->o", dz),
            **dW,
        )

    def _low_rank(self, x, dz):
        """After `enable_lora` W = W₀ + s·A·B, and only A and B are trained: dA = s·xᵀ·dz·Bᵀ, dB = s·(x·A)ᵀ·dz."""
        A, B = self.lora_kernel_a, self.lora_kernel_b
        dz = dz * (self.lora_alpha / self.lora_rank)
        return {
            "lora_kernel_a": Contraction("i,o->io", x, keras.ops.matmul(dz, keras.ops.transpose(B))),
            "lora_kernel_b": Contraction("i,o->io", keras.ops.matmul(x, A), dz),
        }


# Keras files weights under the name of a layer's class. Under this one they load into a `keras.layers.Dense` and back.
BackpropDense.__name__ = "Dense"
