"""The rules: mathematics only. Importing this package imports every module in it, and so registers every rule."""

import importlib
import pkgutil

from keras_backprop.rules.formulas import hang

for _module in pkgutil.walk_packages(__path__, prefix=f"{__name__}."):
    importlib.import_module(_module.name)

hang()
