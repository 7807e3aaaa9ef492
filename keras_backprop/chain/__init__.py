"""The engine: record the forward pass, sweep the rules back over it. It knows no layer by name."""
