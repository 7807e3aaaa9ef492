"""A learner's numbers: which one is meant, whether it is right, and which usual mistake gives it."""
