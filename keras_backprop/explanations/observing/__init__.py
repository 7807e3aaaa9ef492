"""Observe one step of a model, and say what was seen: links, weights, their letters, the error."""
