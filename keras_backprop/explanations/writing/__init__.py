"""An explanation in text and in LaTeX."""
