"""`keras.ops` of `keras/ops/nn.py` that are no activation functions."""
