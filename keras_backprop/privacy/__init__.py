"""Training with differential privacy: `compile(gradients=privacy.Plan(…))`, and `fit` as always. See docs/privacy.md."""

from keras_backprop.privacy.clipping import Adaptive
from keras_backprop.privacy.plan import Plan
from keras_backprop.privacy.randomness import SystemRandom
from keras_backprop.privacy.steps import BudgetExceededError

__all__ = ["Adaptive", "BudgetExceededError", "Plan", "SystemRandom"]
