"""The gradient grid: every layer with every option, generated."""
