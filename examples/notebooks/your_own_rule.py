# %% [markdown]
# # Write your own rule
# A rule is one factor of the chain rule: from ∂E/∂y to ∂E/∂x. Here for an activation that Keras does not have, x·tanh(x).

# %%
import keras
import numpy as np
import tensorflow as tf

import keras_backprop
from keras_backprop import Formula, Gradients, backward_rule, written

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")


def bell(x):
    return x * keras.ops.tanh(x)


@backward_rule(bell)
@written(Formula("x*tanh(x)", gradients={"x": "dy*(tanh(x) + x*(1 - tanh(x)**2))"}))
def bell_backward(call, dy):
    """y = x·tanh(x)        dx = dy·(tanh(x) + x·(1 − tanh²(x)))"""
    t = tf.tanh(call.input)
    return Gradients(dy * (t + call.input * (1 - t**2)))


model = keras.Sequential(
    [keras.Input((1,)), keras.layers.Dense(1, bell, name="hidden"), keras.layers.Dense(1, name="output")], name="own"
)
model.set_weights([np.array(w) for w in ([[0.5]], [0.1], [[0.8]], [0.0])])
model.compile(keras.optimizers.SGD(0.1), keras_backprop.losses.HalfSquaredError())
x, T = np.array([[0.7]]), np.array([[1.0]])
print(keras_backprop.explain(model, x, T))

# %% [markdown]
# Is it right? Against the tape and central differences:

# %%
print(keras_backprop.check_gradients(model, x, T))

# %% [markdown]
# ## A rule that is wrong
# In a scope, so that it is gone afterwards. The formula of the right rule does not stand beside the wrong one's number, and the
# check names the rule.


# %%
def forgotten(call, dy):
    """dx = dy·tanh(x): the second term of the product rule is missing"""
    return Gradients(dy * tf.tanh(call.input))


with keras_backprop.use_rules({bell: forgotten}):
    print(keras_backprop.check_gradients(model, x, T))
