"""Backbones of `keras_hub`, tiny and with random weights, train without a line written for them.

They need the optional extra `hub`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import BackpropModel
from keras_backprop.check.gradients import explicit_gradients, tape_gradients
from keras_backprop.check.problem import LayerProblem
from keras_backprop.check.tolerances import RELATIVE_TOLERANCE

hub = pytest.importorskip("keras_hub")
models = hub.models
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

random = np.random.default_rng(0)
IDS, PADDING = random.integers(1, 10, (2, 5)).astype("int32"), np.array([[1] * 5, [1, 1, 1, 0, 0]], "int32")
TEXT = {"token_ids": IDS, "padding_mask": PADDING}
SEGMENTS = {**TEXT, "segment_ids": np.zeros((2, 5), "int32")}
PAIR = {
    f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in zip(TEXT, TEXT.values(), strict=True)
}
SOUND = {
    "encoder_features": random.normal(size=(2, 8, 4)).astype("float32"),
    "decoder_token_ids": IDS,
    "decoder_padding_mask": PADDING,
}
IMAGES = random.normal(size=(2, 32, 32, 3)).astype("float32")

plain = {"vocabulary_size": 10, "num_layers": 2, "hidden_dim": 8, "intermediate_dim": 16}
heads = {**plain, "num_heads": 2}
short = {**heads, "max_sequence_length": 8}
grouped = {**plain, "hidden_dim": 16, "num_query_heads": 4, "num_key_value_heads": 2}
gemma = {**plain, "num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 4}
square = {"image_shape": (32, 32, 3)}
patches = {**square, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 8}
vit_det = {
    **square, "hidden_size": 8, "num_layers": 2, "intermediate_dim": 16, "num_heads": 2, "patch_size": 8,
    "global_attention_layer_indices": [1], "num_output_channels": 8, "window_size": 2,
}  # fmt: skip

BACKBONES = {
    "Albert": ({**short, "embedding_dim": 4}, SEGMENTS),
    "Bart": (short, PAIR),
    "Bert": (short, SEGMENTS),
    "Bloom": (short, TEXT),
    "DINOV2": ({**patches, "intermediate_dim": 16}, IMAGES),
    "DeiT": ({**patches, "intermediate_dim": 16}, IMAGES),
    "DebertaV3": ({**short, "bucket_size": 4}, TEXT),
    "DenseNet": ({**square, "stackwise_num_repeats": [1, 2]}, IMAGES),
    "DistilBert": (short, TEXT),
    "ESM2": (heads, {"token_ids": IDS}),
    "FNet": ({**plain, "max_sequence_length": 8}, {k: SEGMENTS[k] for k in ("token_ids", "segment_ids")}),
    "Falcon": ({**plain, "num_attention_heads": 2}, TEXT),
    "GPT2": (short, TEXT),
    "GPTNeoX": ({**heads, "hidden_dim": 16}, TEXT),
    "Gemma": (gemma, TEXT),
    "Llama": (grouped, TEXT),
    "Llama3": (grouped, TEXT),
    "Mistral": ({**grouped, "sliding_window": 4}, TEXT),
    "Mixtral": ({**grouped, "sliding_window": 4, "num_experts": 2, "top_k": 1}, TEXT),
    "OPT": (short, TEXT),
    "Phi3": ({**grouped, "max_sequence_length": 8, "pretraining_sequence_length": 8}, TEXT),
    "Qwen": (grouped, TEXT),
    "Roberta": (short, TEXT),
    "SwinTransformer": (
        {**square, "patch_size": 4, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 2), "window_size": 4}, IMAGES,
    ),
    "T5": (heads, PAIR),
    "VGG": ({**square, "stackwise_num_repeats": [1, 1], "stackwise_num_filters": [4, 8]}, IMAGES),
    "ViT": ({**patches, "mlp_dim": 16}, IMAGES),
    "ViTDet": (vit_det, IMAGES),
    "Whisper": (
        {**heads, "num_layers": 1, "num_mels": 4, "max_encoder_sequence_length": 8, "max_decoder_sequence_length": 8}, SOUND,
    ),
    "XLMRoberta": (short, TEXT),
    "XLNet": (heads, SEGMENTS),
    "Xception": (
        {**square, "stackwise_conv_filters": [[4, 4], [8, 8]], "stackwise_pooling": [True, False]}, IMAGES,
    ),
}  # fmt: skip


def make(name, config):
    keras.utils.set_random_seed(0)
    model = getattr(models, f"{name}Backbone")(**config)
    noise = np.random.default_rng(1)
    for variable in model.trainable_variables:  # no gradient is to be zero by accident
        variable.assign(variable + 0.1 * noise.normal(size=variable.shape))
    return model


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_equal_the_tapes(name):
    config, x = BACKBONES[name]
    problem = LayerProblem(make(name, config), (keras.tree.map_structure(tf.constant, x),), {})
    (ours, dtypes), theirs = explicit_gradients(problem), tape_gradients(problem)
    tolerance = max(RELATIVE_TOLERANCE[dtype] for dtype in dtypes)  # some cast to single precision in between
    largest = max(float(tf.reduce_max(tf.abs(g))) for g in theirs if g is not None)
    for variable, a, b in zip(problem.weights, ours, theirs, strict=False):
        assert (a is None) == (b is None), variable.path
        if a is not None:
            scale = max(float(tf.reduce_max(tf.abs(b))), 1e-4 * largest)
            assert float(tf.reduce_max(tf.abs(a - b))) <= tolerance * scale, variable.path


@pytest.mark.parametrize("name", ["Bert", "GPT2", "ViT", "Llama", "T5", "Whisper"])
def test_training_equals_stock(name):
    config, x = BACKBONES[name]
    ends = []
    for cls in (keras.Model, BackpropModel):
        backbone = make(name, config)
        features = keras.tree.flatten(backbone.output)[0]
        outputs = keras.layers.Dense(2)(features)
        model = cls(backbone.input, outputs)
        model.compile(keras.optimizers.SGD(1e-2), "mse")
        target = np.ones(model(x).shape)
        keras.utils.set_random_seed(3)
        ends.append(([model.train_on_batch(x, target) for _ in range(3)], model.get_weights()))
    (stock_losses, stock), (losses, ours) = ends
    np.testing.assert_allclose(losses, stock_losses, rtol=1e-4)
    for a, b in zip(ours, stock, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def _sam():
    encoder = models.ViTDetBackbone(**vit_det)
    prompts = hub.layers.SAMPromptEncoder(
        hidden_size=8, image_embedding_size=(4, 4), input_image_size=(32, 32), mask_in_channels=4
    )
    decoder = hub.layers.SAMMaskDecoder(
        num_layers=2, hidden_size=8, intermediate_dim=16, num_heads=2, embedding_dim=8, num_multimask_outputs=2,
        iou_head_depth=2, iou_head_hidden_dim=8,
    )  # fmt: skip
    return models.SAMBackbone(image_encoder=encoder, prompt_encoder=prompts, mask_decoder=decoder)


def test_segment_anything():
    x = {
        "images": IMAGES, "points": np.ones((2, 1, 2), "float32"), "labels": np.ones((2, 1), "float32"),
        "boxes": np.ones((2, 1, 2, 2), "float32"), "masks": np.zeros((2, 0, 8, 8, 1), "float32"),
    }  # fmt: skip
    problem = LayerProblem(_sam(), (keras.tree.map_structure(tf.constant, x),), {})
    for variable, a, b in zip(problem.weights, explicit_gradients(problem)[0], tape_gradients(problem), strict=False):
        assert (a is None) == (b is None), variable.path
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9, err_msg=variable.path)
