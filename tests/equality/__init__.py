"""Nobody can tell our `fit` from the stock one: a generated grid over everything `fit` and `compile` take."""
