"""Handwritten digits with a multilayer perceptron. Every gradient comes from a written-out rule; `fit` is Keras's."""

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_backprop

keras.utils.set_random_seed(1)
digits = load_digits()
x_train, x_test, y_train, y_test = train_test_split(
    digits.data / 16, digits.target, test_size=0.2, stratify=digits.target, random_state=1
)

model = keras_backprop.BackpropSequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(256, activation="relu"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=32, epochs=50, validation_split=0.1, verbose=2)

_, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"Accuracy on the held-out fifth: {accuracy:.2%}")
