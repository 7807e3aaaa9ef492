"""Run Keras's own tests of whatever trains, saves or wraps a model on our classes.

python -m tests.keras_own.run                                       all of them
python -m tests.keras_own.run trainers/trainer_test.py -k fit       some; further arguments are pytest's
python -m tests.keras_own.run --stock                               on the stock classes, to compare
"""

import os
import pathlib
import sys

import pytest

FOLDERS = ("trainers", "models", "callbacks", "optimizers", "saving", "legacy/saving", "distillation", "wrappers")
FILES = (  # of other folders, whose tests mostly train nothing
    "backend/common/remat_test.py",
    "backend/tensorflow/distribute_test.py",
    "backend/tensorflow/optimizer_distribute_test.py",
    "backend/tensorflow/saved_model_test.py",
    "dtype_policies/dtype_policy_map_test.py",
    "export/litert_test.py",
    "export/saved_model_test.py",
    "export/tfsm_layer_test.py",
    "layers/layer_test.py",
    "layers/core/dense_test.py",
    "layers/core/einsum_dense_test.py",
    "layers/core/embedding_test.py",
    "layers/normalization/spectral_normalization_test.py",
    "layers/preprocessing/feature_space_test.py",
    "layers/rnn/time_distributed_test.py",
    "metrics/metric_test.py",
    "quantizers/awq_test.py",
    "quantizers/gptq_core_test.py",
    "quantizers/gptq_test.py",
    "quantizers/quantization_config_test.py",
    "utils/summary_utils_test.py",
)


def main(arguments):
    """The exit status of pytest."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    source = pathlib.Path(keras.__file__).parent / "src"
    chosen = [a for a in arguments if a.split("::")[0].endswith(".py")]
    options = [a for a in arguments if a not in chosen]
    os.chdir(source)
    own = [
        *("-p", "tests.keras_own.substitute", "-p", "no:cacheprovider"),
        *("-c", os.devnull, f"--rootdir={source}", "--import-mode=importlib", "-o", "python_files=*_test.py"),
    ]
    return pytest.main([*own, *options, *(chosen or _all(source))])


def _all(source):
    in_folders = [path for folder in FOLDERS for path in sorted((source / folder).glob("*_test.py"))]
    return [*(str(path.relative_to(source)) for path in in_folders), *FILES]


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
    sys.exit(main(sys.argv[1:]))
