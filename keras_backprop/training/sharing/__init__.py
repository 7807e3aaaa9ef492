"""One trace for models that are alike."""
